//! Sockets: the relay client over WebSocket and pinned TLS.
//!
//! In: frames for other nodes, as bytes that this crate does not read. Out: frames from other nodes and changes of the
//! connection, told to a [`RelaySink`]. Which peer is reached by which path is decided elsewhere.
//!
//! Invariants: no certificate is trusted but the pinned one, and its key really signed the TLS handshake; every queue
//! is bounded; a caller of [`RelaySender`] never waits.

mod backoff;
mod dial;
mod relay;
mod stream;
mod tls;

pub use relay::{
    QueueFull, RelayClient, RelayConfig, RelayError, RelayErrorKind, RelayEvent, RelaySender, RelaySink,
    SendError,
};
