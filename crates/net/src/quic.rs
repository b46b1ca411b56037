//! QUIC between nodes, inside sealed frames.
//!
//! In: which peers have a session and the key of their certificate, and the QUIC datagrams that came in their frames.
//! Out: QUIC datagrams for [`QuicSink::transmit`], and [`QuicEvent`]s. There is one connection per peer; the node with
//! the smaller id is the client. It is made as long as the peer is expected, and made again when it is lost.
//!
//! Invariants: a datagram of a peer that is not expected never reaches the QUIC stack; a connection is Ready only after
//! both certificates were checked against their pins; events of one peer come in order, and none about a connection
//! that [`QuicEndpoint::expect`] or [`QuicEndpoint::forget`] ended comes after they returned; every queue is bounded.

mod connect;
mod control;
mod peers;
mod socket;
mod sync;
#[cfg(test)]
mod tests;
mod tls;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use mesh_identity::erased;
use mesh_wire::channel::{self, CloseCode, Info};
use mesh_wire::{NodeId, Pin};
use quinn::{EndpointConfig, TokioRuntime, VarInt};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use peers::Peers;
use socket::{DATAGRAM, VirtualSocket};
use tls::Identity;

/// Where the endpoint's datagrams and events go. Called from tasks of the runtime; must neither wait nor call the
/// endpoint.
pub trait QuicSink: Send + Sync + 'static {
    /// Takes QUIC datagrams for `peer`: `payload` is one datagram, or with `segment` several of so many bytes each, of
    /// which the last may be shorter; at most ten of 1200 bytes.
    ///
    /// Returns false when the queue is full. The endpoint then keeps the datagrams until [`QuicEndpoint::room`] is
    /// called. Datagrams for a peer that cannot be reached are taken and dropped: QUIC repeats what matters.
    fn transmit(&self, peer: NodeId, payload: BytesMut, segment: Option<u16>) -> bool;

    /// Takes notice of a change.
    fn event(&self, event: QuicEvent);
}

/// A change of the connection with a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuicEvent {
    /// The connection stands: the peer's certificate was checked and, as far as this side can know, our own.
    Ready {
        /// The peer.
        peer: NodeId,
        /// The connection's id, equal at both ends.
        connection: [u8; 8],
    },
    /// The connection ended, or an attempt to make it failed. The client tries again by itself.
    Lost {
        /// The peer.
        peer: NodeId,
        /// Why, for people; holds no text of the peer.
        reason: String,
    },
    /// The peer said what it is; follows [`QuicEvent::Ready`].
    Info {
        /// The peer.
        peer: NodeId,
        /// What it said.
        info: PeerInfo,
    },
}

/// What a node says about itself: printable ASCII, at most 64 bytes each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// Version of its program.
    pub version: String,
    /// Its operating system.
    pub os: String,
}

impl PeerInfo {
    /// Makes both texts fit: other characters become `?`, and what is too long is cut.
    fn encode(&self) -> Vec<u8> {
        let fit = |text: &str| -> String {
            let fit = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
            text.chars().take(channel::INFO_TEXT).map(fit).collect()
        };
        Info { version: &fit(&self.version), os: &fit(&self.os) }.encode()
    }
}

/// Why there is no QUIC endpoint.
#[derive(Debug, thiserror::Error)]
pub enum QuicError {
    /// The random generator of the system failed.
    #[error("cannot make a key for QUIC: the system's random generator failed")]
    Random,
    /// The certificate could not be written.
    #[error("cannot make a certificate for QUIC")]
    Certificate(#[source] rcgen::Error),
    /// The TLS library refused the configuration.
    #[error("cannot configure TLS for QUIC")]
    Tls(#[from] rustls::Error),
    /// The endpoint was started outside a tokio runtime, or refused its virtual socket.
    #[error("cannot start the QUIC endpoint")]
    Start(#[source] io::Error),
}

/// The QUIC endpoint of a running node. Dropping it ends all connections, and no event comes after that;
/// [`QuicEndpoint::stop`] also waits until the peers were told.
pub struct QuicEndpoint {
    shared: Arc<Shared>,
    runtime: Handle,
}

/// What the endpoint's tasks know.
struct Shared {
    own: NodeId,
    sink: Arc<dyn QuicSink>,
    identity: Identity,
    socket: Arc<VirtualSocket>,
    endpoint: quinn::Endpoint,
    /// Our first block on every control channel after the preamble.
    info: Vec<u8>,
    /// How long a handshake may take, and the greeting after it.
    patience: Duration,
    peers: Peers,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl QuicEndpoint {
    /// Starts the endpoint on the current tokio runtime, with a key and certificate of its own that end with it, and
    /// returns the pin of the certificate: SHA-256 of its DER SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`QuicError`] without a runtime or when no certificate could be made.
    pub fn start(own: NodeId, sink: Arc<dyn QuicSink>, info: &PeerInfo) -> Result<(Self, Pin), QuicError> {
        Self::start_with(own, sink, info, PATIENCE)
    }

    fn start_with(
        own: NodeId,
        sink: Arc<dyn QuicSink>,
        info: &PeerInfo,
        patience: Duration,
    ) -> Result<(Self, Pin), QuicError> {
        let runtime = Handle::try_current().map_err(|error| QuicError::Start(io::Error::other(error)))?;
        let identity = Identity::generate()?;
        let pin = identity.pin();
        let socket = Arc::new(VirtualSocket::new(sink.clone()));
        let mut config = EndpointConfig::default();
        let datagram = u16::try_from(DATAGRAM).expect("1200 is below 65,536");
        config.max_udp_payload_size(datagram).expect("1200 is the least that QUIC allows");
        config.supported_versions(vec![QUIC_V1]);
        // Each connection is accepted with the pin of its peer; without one, none is.
        let server = identity.server(None)?;
        let endpoint = quinn::Endpoint::new_with_abstract_socket(
            config,
            Some(server),
            socket.clone(),
            Arc::new(TokioRuntime),
        )
        .map_err(QuicError::Start)?;
        let shared = Arc::new(Shared {
            own,
            sink,
            identity,
            socket,
            endpoint,
            info: info.encode(),
            patience,
            peers: Peers::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        shared.tasks.spawn_on(shared.clone().accept(), &runtime);
        Ok((Self { shared, runtime }, pin))
    }

    /// Takes one QUIC datagram that came from `peer` in a frame of a session. Never waits; the datagram is dropped and
    /// counted when the queue is full, or it is longer than 1200 bytes. While the peer is not expected, the newest few
    /// datagrams are kept for the moment when it is.
    pub fn datagram(&self, peer: NodeId, payload: &[u8]) {
        self.shared.socket.deliver(peer, payload);
    }

    /// Returns how many datagrams from peers were dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.socket.dropped()
    }

    /// Says that the sink takes datagrams again after [`QuicSink::transmit`] returned false.
    pub fn room(&self) {
        self.shared.socket.has_room();
    }

    /// Says that a session with `peer` was established in which it named `pin` as its certificate.
    ///
    /// With `keep` a connection with that pin, or the making of one, goes on. Otherwise an old connection is dropped; the
    /// node with the smaller id connects anew, the other waits for it. Nothing happens for the own id.
    pub fn expect(&self, peer: NodeId, pin: Pin, keep: bool) {
        Shared::expect(&self.shared, &self.runtime, peer, pin, keep);
    }

    /// Returns the TLS exporter that both ends mix into the session `session_id`, or `None` when the connection that is
    /// Ready is not `connection`.
    #[must_use]
    pub fn exporter(
        &self,
        peer: NodeId,
        connection: [u8; 8],
        session_id: &[u8; 16],
    ) -> Option<Box<Zeroizing<[u8; 64]>>> {
        let ready = self.shared.peers.ready(peer, connection)?;
        erased(|| {
            let mut out = Box::new(Zeroizing::new([0; 64]));
            ready.export_keying_material(&mut out[..], channel::MIX_LABEL, session_id).ok()?;
            Some(out)
        })
    }

    /// Says that `peer` has no session any more: its connection is closed and everything about it is freed.
    pub fn forget(&self, peer: NodeId) {
        self.shared.peers.forget(peer, &self.shared.socket);
    }

    /// Closes all connections and waits a moment for the farewells to be handed to the sink.
    pub async fn stop(self) {
        self.shared.close();
        self.shared.tasks.close();
        let farewell = async {
            self.shared.tasks.wait().await;
            self.shared.endpoint.wait_idle().await;
        };
        if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
            tracing::debug!("QUIC stopped before all peers knew");
        }
    }
}

impl Drop for QuicEndpoint {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for QuicEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicEndpoint").field("identity", &self.shared.identity).finish_non_exhaustive()
    }
}

impl Shared {
    fn close(&self) {
        self.peers.end(&self.stop);
        self.endpoint.close(close_code(CloseCode::Done), b"");
    }
}

fn close_code(code: CloseCode) -> VarInt {
    VarInt::from_u32(code.code())
}

/// A dozen repetitions of a lost datagram at a round trip of 100 ms.
const PATIENCE: Duration = Duration::from_secs(10);
/// RFC 9000.
const QUIC_V1: u32 = 1;
/// How long farewells may take at the end of the program.
const FAREWELL: Duration = Duration::from_millis(500);
