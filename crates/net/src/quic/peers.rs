//! Which peers are expected, and how far the connection with each of them is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh_wire::channel::CloseCode;
use mesh_wire::{NodeId, Pin};
use quinn::{Connection, ServerConfig};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::socket::{TableFull, VirtualSocket};
use super::{PeerInfo, QuicError, QuicEvent, QuicSink, Shared, close_code};

/// The peers that are expected. Events go to the sink under the lock, so that they come in the order of the changes.
#[derive(Default)]
pub(super) struct Peers(Mutex<HashMap<NodeId, Peer>>);

struct Peer {
    pin: Pin,
    /// Ends every attempt and connection of this entry; cancelled under the lock only.
    stop: CancellationToken,
    ready: Option<Ready>,
    role: Role,
}

struct Ready {
    connection: Connection,
    id: [u8; 8],
}

enum Role {
    /// We connect; the notification ends a wait between two attempts.
    Client(Arc<Notify>),
    /// The peer connects.
    Server { config: Arc<ServerConfig>, handshake: CancellationToken, admitted: Admitted },
}

/// How many handshakes of a peer were begun lately.
struct Admitted {
    since: Instant,
    count: u32,
}

impl Shared {
    pub(super) fn expect(shared: &Arc<Self>, runtime: &Handle, peer: NodeId, pin: Pin, keep: bool) {
        let mut peers = shared.peers.lock();
        if peer == shared.own || shared.stop.is_cancelled() {
            return;
        }
        if let Some(known) = peers.get(&peer)
            && keep
            && known.pin == pin
        {
            if let Role::Client(hurry) = &known.role {
                hurry.notify_one();
            }
            return;
        }
        if let Some(old) = peers.remove(&peer) {
            old.end(CloseCode::Replaced);
        }
        if let Err(reason) = shared.admit(&mut peers, runtime, peer, pin) {
            shared.socket.remove(peer);
            shared.sink.event(QuicEvent::Lost { peer, reason });
        }
    }

    fn admit(
        self: &Arc<Self>,
        peers: &mut HashMap<NodeId, Peer>,
        runtime: &Handle,
        peer: NodeId,
        pin: Pin,
    ) -> Result<(), String> {
        let address = self.socket.add(peer).map_err(|TableFull| "too many peers".to_owned())?;
        let failed = |error: QuicError| error.to_string();
        let stop = self.stop.child_token();
        let role = if self.own < peer {
            let hurry = Arc::new(Notify::new());
            let config = self.identity.client(pin).map_err(failed)?;
            let dial = self.clone().dial(peer, address, config, stop.clone(), hurry.clone());
            self.tasks.spawn_on(dial, runtime);
            Role::Client(hurry)
        } else {
            let config = Arc::new(self.identity.server(Some(pin)).map_err(failed)?);
            let admitted = Admitted { since: Instant::now(), count: 0 };
            Role::Server { config, handshake: stop.child_token(), admitted }
        };
        peers.insert(peer, Peer { pin, stop, ready: None, role });
        Ok(())
    }
}

impl Peers {
    pub(super) fn forget(&self, peer: NodeId, socket: &VirtualSocket) {
        let mut peers = self.lock();
        if let Some(old) = peers.remove(&peer) {
            old.end(CloseCode::Done);
        }
        socket.remove(peer);
    }

    /// Forgets everybody and cancels `stop`, from which all attempts and connections hang.
    pub(super) fn end(&self, stop: &CancellationToken) {
        let mut peers = self.lock();
        stop.cancel();
        for (_, peer) in peers.drain() {
            peer.end(CloseCode::Done);
        }
    }

    /// Returns the connection if it is Ready and has that id.
    pub(super) fn ready(&self, peer: NodeId, id: [u8; 8]) -> Option<Connection> {
        let peers = self.lock();
        let ready = peers.get(&peer)?.ready.as_ref()?;
        (ready.id == id).then(|| ready.connection.clone())
    }

    /// Takes a connection attempt of a peer: returns how to answer it and what ends it; `None` when it is unwanted.
    ///
    /// It takes the place of a handshake that the peer began before; a connection that stands stays until the new one
    /// does.
    pub(super) fn incoming(&self, peer: NodeId) -> Option<(Arc<ServerConfig>, CancellationToken)> {
        let mut peers = self.lock();
        let entry = peers.get_mut(&peer)?;
        let Role::Server { config, handshake, admitted } = &mut entry.role else { return None };
        if !admitted.another(Instant::now()) {
            return None;
        }
        handshake.cancel();
        *handshake = entry.stop.child_token();
        Some((config.clone(), handshake.clone()))
    }

    /// Notes that a connection stands, unless its `stop` came before; reports what `info` the peer sent already.
    pub(super) fn establish(
        &self,
        sink: &dyn QuicSink,
        peer: NodeId,
        stop: &CancellationToken,
        (connection, id): (&Connection, [u8; 8]),
        info: Option<PeerInfo>,
    ) -> bool {
        let mut peers = self.lock();
        let Some(entry) = peers.get_mut(&peer).filter(|_| !stop.is_cancelled()) else { return false };
        if let Some(old) = entry.ready.replace(Ready { connection: connection.clone(), id }) {
            old.connection.close(close_code(CloseCode::Replaced), b"");
        }
        if let Role::Server { handshake, .. } = &mut entry.role {
            // The next attempt of the peer ends a handshake, and this one is over.
            *handshake = entry.stop.child_token();
        }
        sink.event(QuicEvent::Ready { peer, connection: id });
        if let Some(info) = info {
            sink.event(QuicEvent::Info { peer, info });
        }
        true
    }

    /// Reports what the peer said, if `connection` is still the one with it.
    pub(super) fn info(&self, sink: &dyn QuicSink, peer: NodeId, connection: &Connection, info: PeerInfo) {
        let peers = self.lock();
        if peers.get(&peer).is_some_and(|entry| entry.is_ready(connection)) {
            sink.event(QuicEvent::Info { peer, info });
        }
    }

    /// Notes the end of a connection, or with `None` of an attempt, unless that was told to stop.
    pub(super) fn lose(
        &self,
        sink: &dyn QuicSink,
        peer: NodeId,
        stop: &CancellationToken,
        connection: Option<&Connection>,
        reason: String,
    ) {
        let mut peers = self.lock();
        let Some(entry) = peers.get_mut(&peer).filter(|_| !stop.is_cancelled()) else { return };
        let of_ready = connection.is_some_and(|connection| entry.is_ready(connection));
        if of_ready {
            entry.ready = None;
        } else if entry.ready.is_some() {
            tracing::debug!(%peer, reason, "QUIC handshake failed beside a connection");
            return;
        }
        sink.event(QuicEvent::Lost { peer, reason });
    }

    #[cfg(test)]
    pub(super) fn connection(&self, peer: NodeId) -> Option<Connection> {
        self.lock().get(&peer)?.ready.as_ref().map(|ready| ready.connection.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Peer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    fn end(self, code: CloseCode) {
        self.stop.cancel();
        if let Some(ready) = self.ready {
            ready.connection.close(close_code(code), b"");
        }
    }

    fn is_ready(&self, connection: &Connection) -> bool {
        self.ready.as_ref().is_some_and(|ready| ready.connection.stable_id() == connection.stable_id())
    }
}

impl Admitted {
    fn another(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= ADMITTED_IN {
            *self = Self { since: now, count: 0 };
        }
        self.count += 1;
        self.count <= ADMITTED
    }
}

/// Handshakes that one peer can make us begin in [`ADMITTED_IN`]; an honest one begins four. Each costs a signature
/// and an encapsulation.
const ADMITTED: u32 = 8;
const ADMITTED_IN: Duration = Duration::from_secs(1);
