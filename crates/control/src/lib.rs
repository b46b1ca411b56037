//! What the daemon and its clients say to each other over the Unix socket.
//!
//! - `types/` holds the answers, requests and events as serde types; JSON is snake_case and stable.
//! - [`Document`] gives every top object its `"schema": "shadowmesh.<name>/1"` and reads it back.
//! - [`ErrorCode`] and [`ApiError`] are how a refusal crosses the socket; clients match on the code only.
//! - [`Client`] speaks HTTP/1 over the socket with bounded answers and deadlines.
//!
//! Invariants: nothing here knows how the daemon works inside; a field is only ever added; enumerations that a client
//! reads have an `unknown` value, so that a newer daemon does not break an older `meshctl`; text that is a secret is a
//! [`SecretText`], which never prints.

mod client;
mod document;
mod error;
mod secret;
mod time;
mod types;

pub use client::{Client, ClientError, EventStream};
pub use document::{Document, DocumentError};
pub use error::{ApiError, ErrorCode};
pub use secret::SecretText;
pub use time::{ParseTimestampError, Timestamp};
pub use types::{
    AddressKind, BirthdayStatus, Counters, CryptoStatus, DirectStatus, DownAnswer, Event, EventKind,
    FamilyCheck, Id, InviteAnswer, InviteRequest, IpFamily, Mode, NatFiltering, NatMapping, Netcheck,
    NetworkStatus, NodeState, NodeStatus, NoticeLevel, OwnAddress, PathChange, PathKind, PathReason,
    PeerState, PeerStatus, PeerWss, Peers, PingAnswer, PingRequest, PingVia, PortMappingCheck, Readiness,
    RelayRequest, RelaySource, RelayState, RelayStatus, Relays, RemoteAddress, Role, SessionStatus, Slowdown,
    Status, ThreadCounters, UpAnswer, UpRequest, Version, WssStatus,
};

/// Where `meshd` listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/shadowmesh/meshd.sock";

/// The environment variable that names another socket.
pub const SOCKET_ENV: &str = "SHADOWMESH_SOCKET";

/// The `host` of every request; a Unix socket has none, and a browser would send another one.
pub const HTTP_HOST: &str = "mesh";
