//! Requests, answers and events.

mod change;
mod direct;
mod event;
mod netcheck;
mod request;
mod status;
mod wss;

pub use change::{PathChange, PathReason};
pub use direct::{AddressKind, BirthdayStatus, DirectStatus, NatMapping, OwnAddress, RemoteAddress};
pub use event::{Event, EventKind, NoticeLevel};
pub use netcheck::{FamilyCheck, IpFamily, NatFiltering, Netcheck, PortMappingCheck};
pub use request::{
    DownAnswer, Id, InviteAnswer, InviteRequest, PingAnswer, PingRequest, PingVia, RelayRequest, Relays,
    UpAnswer, UpRequest, Version,
};
pub use status::{
    Counters, CryptoStatus, Mode, NetworkStatus, NodeState, NodeStatus, PathKind, PeerState, PeerStatus,
    Peers, Readiness, RelaySource, RelayState, RelayStatus, Role, SessionStatus, Slowdown, Status,
    ThreadCounters,
};
pub use wss::{PeerWss, WssStatus};
