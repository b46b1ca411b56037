//! Sockets: the relay client over WebSocket and pinned TLS, UDP, and QUIC inside sealed frames.
//!
//! In: frames for other nodes, as bytes that this crate does not read. Out: frames from other nodes and changes of the
//! connection, told to a [`RelaySink`]. Which peer is reached by which path is decided elsewhere. [`QuicEndpoint`] has
//! no socket: its datagrams are handed to a [`QuicSink`].
//!
//! Invariants: no certificate is trusted but the pinned one, and its key really signed the TLS handshake; every queue
//! is bounded; a caller of [`RelaySender`] never waits.

mod backoff;
mod dial;
mod portmap;
mod quic;
mod relay;
mod stream;
mod tls;
mod udp;

pub use portmap::{MapProtocol, PortMapping, PortMapConfig, PortMapper};
pub use quic::{PeerInfo, QuicEndpoint, QuicError, QuicEvent, QuicSink};
pub use relay::{
    QueueFull, RelayClient, RelayConfig, RelayError, RelayErrorKind, RelayEvent, RelaySender, RelaySink,
    SendError,
};
pub use udp::{MAX_BATCH, UdpBindError, UdpSendError, UdpSockets};
