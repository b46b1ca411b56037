//! Sockets: the relay client over WebSocket and pinned TLS, UDP, and QUIC inside sealed frames; this node's own addresses.
//!
//! In: frames for other nodes, as bytes that this crate does not read. Out: frames from other nodes and changes of the
//! connection, told to a [`RelaySink`]. Which peer is reached by which path is decided elsewhere. [`QuicEndpoint`] has
//! no socket: its datagrams are handed to a [`QuicSink`]. [`StunClient`], [`host_addresses`] and [`NetworkWatch`] find out
//! under which addresses this node can be reached, and when that may have changed; [`PortMapper`] has gateways open ports.
//! [`LanMachine`] and [`LanSockets`] find members on the same local network.
//!
//! Invariants: no certificate is trusted but the pinned one, and its key really signed the TLS handshake; every queue
//! is bounded; a caller of [`RelaySender`] never waits.

mod backoff;
mod dial;
mod hosts;
mod lan;
mod netlink;
mod portmap;
mod quic;
mod relay;
mod stream;
mod stun;
mod tls;
mod udp;
mod watch;

pub use hosts::{HostAddress, HostLifetime, HostLink, HostScope, MAX_HOST_ADDRESSES, host_addresses};
pub use lan::{
    LanCounts, LanDatagram, LanFound, LanLink, LanMachine, LanPorts, LanSay, LanSockets, LanTransmit,
    MAX_LINKS, lan_links,
};
pub use mesh_socket::{Lost, Room, Rooms};
pub use portmap::{MapProtocol, PortMapConfig, PortMapper, PortMapping, Transport};
pub use quic::{PeerInfo, QuicEndpoint, QuicError, QuicEvent, QuicSink};
pub use relay::{
    DoorAt, QueueFull, RelayClient, RelayConfig, RelayError, RelayErrorKind, RelayEvent, RelaySender,
    RelaySink, SendError,
};
pub use stun::{Family, MAX_STUN_SERVERS, Mapping, ServerReport, StunClient, StunEvent};
pub use udp::{MAX_BATCH, UdpBindError, UdpBound, UdpSendError, UdpSockets};
pub use watch::{NETWORK_CHANGE_WINDOW, NetworkChange, NetworkWatch};
