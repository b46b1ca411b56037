//! The door of a node: a relay inside the node itself, through which members of its network reach it, and nobody else.
//!
//! The node has a place in the hub as any client has, without a socket: [`DoorSender`] forwards for it, and a task hands
//! what its outbox holds to a [`DoorSink`].
//!
//! Invariants: one network; members only, and only those that the sink permits; nothing goes from one member to another; who
//! else is connected is told to nobody.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use mesh_wire::relay::{Data, NO_HANDLE, RelayMessage, Role};
use mesh_wire::{NetId, NodeId, Pin};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::certificate::Certificate;
use crate::config::{Config, Limits, UdpListen};
use crate::hub::{Member, Party};
use crate::outbox::Outbox;
use crate::queue::{Dropped, Next};
use crate::routes::Routes;
use crate::{STOP_TIMEOUT, Shared, StartError, admit, listen, udp};

/// Whose door, and where.
#[derive(Debug, Clone)]
pub struct DoorConfig {
    /// TCP addresses for members.
    pub listen: Vec<SocketAddr>,
    /// File of its certificate and key; made where it is missing.
    pub certificate: PathBuf,
    /// The network.
    pub net: NetId,
    /// The node whose door it is.
    pub own: NodeId,
}

/// Receives what comes in. It is called from tasks of the door and must not block.
pub trait DoorSink: Send + Sync + 'static {
    /// Tells whether a member, which has shown a proof of membership, may come in.
    fn permits(&self, node: &NodeId) -> bool;
    /// Takes frames of a member: one, or several of `segment` bytes each of which only the last may be shorter.
    fn frames(&self, from: NodeId, payload: BytesMut, segment: Option<u16>);
    /// Hears that a member is connected, and from where, or that it is not any more.
    fn guest(&self, node: NodeId, at: Option<SocketAddr>);
    /// Hears that a connected member leaves frames without a sign of life for longer than it usually does, or gives one.
    fn doubt(&self, node: NodeId, doubtful: bool);
}

/// Connections that came in and that did not, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DoorCounts {
    /// Members that were let in.
    pub admitted: u64,
    /// Connections that were refused or failed before they were a member's.
    pub refused: u64,
    /// Messages with frames that a member took too slowly, or that were for nobody.
    pub dropped: u64,
}

/// An open door. Dropping it ends all connections at once; [`Door::stop`] says goodbye first.
#[derive(Debug)]
pub struct Door {
    sender: DoorSender,
    addresses: Vec<SocketAddr>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Door {
    /// Binds the sockets and begins to serve. Has to be called within a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start(config: DoorConfig, sink: Arc<dyn DoorSink>) -> Result<Self, StartError> {
        let certificate = Certificate::own(&config.certificate)?;
        let tls = TlsAcceptor::from(Arc::new(certificate.server_config()?));
        let listeners = config.listen.iter().map(|address| listen::tcp(*address, "wss.listen"));
        let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
        let addresses = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let party = (config.net, config.own);
        let relay = as_relay(&config);
        let (_, udp) = udp::open(&relay)?;
        let mut shared = Shared::new(relay, tls, certificate.pin(), udp);
        let outbox = Arc::new(Outbox::default());
        let member = {
            let mut hub = shared.hub();
            hub.guard(config.own);
            // Only guests are ever refused a place.
            hub.join(party, Role::Member, 0, outbox.clone()).map_err(|_| StartError::Full)?
        };
        shared.door = Some(Rules { member, sink, from: Mutex::default(), dropped: AtomicU64::new(0) });
        let shared = Arc::new(shared);
        let sender = DoorSender { shared: shared.clone(), member, places: Arc::default() };
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for listener in listeners {
            tasks.spawn(admit::accept_loop(listener, shared.clone(), stop.clone()));
        }
        let inside = Inside { sender: sender.clone(), outbox };
        tasks.spawn(async move { poll_fn(|cx| inside.poll(cx)).await });
        Ok(Self { sender, addresses, stop, tasks })
    }

    /// Returns where it listens, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns SHA-256 of the certificate's public key.
    #[must_use]
    pub fn pin(&self) -> Pin {
        self.sender.shared.pin
    }

    /// Returns a handle for sending.
    #[must_use]
    pub fn sender(&self) -> DoorSender {
        self.sender.clone()
    }

    /// Ends the connections of members that are not permitted any more.
    pub fn review(&self) {
        let shared = &self.sender.shared;
        let Some(door) = &shared.door else { return };
        let own = door.member.party;
        shared.hub().end(|party| *party == own || door.sink.permits(&party.1));
    }

    /// Waits until a task ends, which is a failure.
    pub async fn failed(&mut self) {
        self.tasks.join_next().await;
    }

    /// Tells the members that it closes, closes their connections and ends; takes two seconds at most.
    pub async fn stop(mut self) {
        let limits = &self.sender.shared.config.limits;
        self.sender.shared.hub().restart(limits.restart_min_ms, limits.restart_max_ms);
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(STOP_TIMEOUT, all).await.is_err() {
            tracing::debug!("some connections did not close in time");
        }
    }
}

/// Sends to connected members, from any thread and without waiting.
#[derive(Clone)]
pub struct DoorSender {
    shared: Arc<Shared>,
    member: Member,
    places: Arc<Mutex<Places>>,
}

/// The node's handles.
#[derive(Debug, Default)]
struct Places {
    handles: BTreeMap<NodeId, u32>,
    nodes: BTreeMap<u32, NodeId>,
    /// Handles that ended, the latest last: PEER_GONE overtakes the last frames of the member.
    departed: VecDeque<u32>,
    routes: Routes,
}

impl Places {
    fn departed(&mut self, node: NodeId, handle: u32) {
        self.handles.remove(&node);
        self.departed.push_back(handle);
        if self.departed.len() > DEPARTED
            && let Some(oldest) = self.departed.pop_front()
        {
            self.nodes.remove(&oldest);
        }
    }
}

impl DoorSender {
    /// Tells whether a member is connected and gives signs of life.
    #[must_use]
    pub fn reaches(&self, node: &NodeId) -> bool {
        let mut places = self.places();
        let Some(handle) = places.handles.get(node).copied() else { return false };
        let route = places.routes.get(&self.shared, self.member, handle, Instant::now());
        route.is_ok_and(|(route, _)| !route.outbox.is_doubtful())
    }

    /// Queues frames for a connected member; one that takes them too slowly loses some. Without a connection they are
    /// dropped and counted.
    pub fn send(&self, to: &NodeId, payload: &[u8], segment: Option<u16>) {
        let mut places = self.places();
        let now = Instant::now();
        let handle = places.handles.get(to).copied().unwrap_or(NO_HANDLE);
        let dropped = match places.routes.get(&self.shared, self.member, handle, now) {
            Ok((route, _)) => {
                let Dropped { full, aged } = route.deliver(&Data { handle, segment, payload }, now);
                full + aged
            }
            Err(_) => 1,
        };
        if let Some(door) = self.shared.door.as_ref().filter(|_| dropped > 0) {
            door.dropped.fetch_add(dropped, Ordering::Relaxed);
        }
    }

    /// Returns what was counted.
    #[must_use]
    pub fn counts(&self) -> DoorCounts {
        let metrics = &self.shared.metrics;
        let door = self.shared.door.as_ref();
        DoorCounts {
            admitted: metrics.handshakes.get(),
            refused: metrics.refused(),
            dropped: door.map_or(0, |door| door.dropped.load(Ordering::Relaxed))
                + metrics.dropped_full.get()
                + metrics.dropped_aged.get(),
        }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for DoorSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DoorSender").field("member", &self.member.party.1).finish_non_exhaustive()
    }
}

/// Who comes in.
pub(crate) struct Rules {
    /// The node itself.
    member: Member,
    sink: Arc<dyn DoorSink>,
    /// From where those who came in did.
    from: Mutex<BTreeMap<NodeId, SocketAddr>>,
    /// Messages of the node that went nowhere.
    dropped: AtomicU64,
}

impl Rules {
    /// Returns whose door it is.
    pub(crate) const fn host(&self) -> NodeId {
        self.member.party.1
    }

    /// Tells whether somebody who has shown to be this party may come in. The node itself is inside.
    pub(crate) fn permits(&self, role: Role, party: Party) -> bool {
        role == Role::Member && party != self.member.party && self.sink.permits(&party.1)
    }

    /// Tells the node of a member that took a place in the hub. Returns whether the node has a handle for it.
    pub(crate) fn came(&self, node: NodeId, from: SocketAddr, shared: &Shared) -> bool {
        self.from().insert(node, from);
        let mut hub = shared.hub();
        hub.bind(self.member, node);
        hub.holds(self.member, node)
    }

    /// Tells the node that a member gives no sign of life, or one again.
    pub(crate) fn doubt(&self, node: NodeId, doubtful: bool) {
        self.sink.doubt(node, doubtful);
    }

    fn from(&self) -> MutexGuard<'_, BTreeMap<NodeId, SocketAddr>> {
        self.from.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands what the hub has for the node to its sink.
struct Inside {
    sender: DoorSender,
    outbox: Arc<Outbox>,
}

impl Inside {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.outbox.register(cx.waker());
        let (now, mut dropped) = (Instant::now(), Dropped::default());
        for _ in 0..TURN {
            match self.outbox.pop(now, &mut dropped) {
                Next::Message(message) => self.take(message),
                Next::Nothing => return Poll::Pending,
                Next::Close => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn take(&self, message: Bytes) {
        let Some(door) = &self.sender.shared.door else { return };
        match RelayMessage::parse(&message) {
            Ok(RelayMessage::Recv(data)) => {
                let Some(from) = self.sender.places().nodes.get(&data.handle).copied() else { return };
                let (segment, header) = (data.segment, data.header_len());
                let mut payload = BytesMut::from(message);
                let _ = payload.split_to(header);
                door.sink.frames(from, payload, segment);
            }
            Ok(RelayMessage::Bound(bound)) if bound.handle != NO_HANDLE => {
                let mut places = self.sender.places();
                places.handles.insert(bound.node, bound.handle);
                places.nodes.insert(bound.handle, bound.node);
                drop(places);
                self.tell(door, bound.node, bound.present);
            }
            Ok(RelayMessage::PeerPresent(handle)) => self.tell_handle(door, handle, true),
            Ok(RelayMessage::PeerGone(handle)) => self.gone(door, handle),
            // Nothing else concerns somebody without a socket.
            Ok(_) | Err(_) => {}
        }
    }

    /// Gives the handle of a member that left back, unless it has come again: there are only so many.
    fn gone(&self, door: &Rules, handle: u32) {
        let mut places = self.sender.places();
        let Some(node) = places.nodes.get(&handle).copied() else { return };
        {
            let mut hub = self.sender.shared.hub();
            if hub.unbind_absent(door.member, handle) {
                door.from().remove(&node);
                drop(hub);
                places.departed(node, handle);
            }
        }
        drop(places);
        self.tell(door, node, false);
    }

    fn tell_handle(&self, door: &Rules, handle: u32, present: bool) {
        let node = self.sender.places().nodes.get(&handle).copied();
        if let Some(node) = node {
            self.tell(door, node, present);
        }
    }

    fn tell(&self, door: &Rules, node: NodeId, present: bool) {
        let from = if present { door.from().get(&node).copied() } else { None };
        door.sink.guest(node, from);
    }
}

/// The relay that a door is.
fn as_relay(config: &DoorConfig) -> Config {
    let limits = Limits {
        clients: CLIENTS,
        handshakes: STRANGERS,
        clients_per_address: CLIENTS / 4,
        new_clients_per_second: 5,
        new_clients_burst: 32,
        guests_per_network: 0,
        rosters: 0,
        roster_bytes: 0,
        ..Limits::default()
    };
    Config {
        listen: config.listen.clone(),
        udp_listen: UdpListen::Off,
        stun_listen: Vec::new(),
        metrics_listen: None,
        networks: Some([config.net].into()),
        limits,
        ..Config::default()
    }
}

/// Members at a time: those whose UDP is blocked, of a network of a few thousand.
const CLIENTS: usize = 256;
/// Connections at a time that are nobody's yet.
const STRANGERS: usize = 64;
/// Members that left whose last frames may still come: as many as leave at once.
const DEPARTED: usize = CLIENTS;
/// Messages before other tasks of the runtime get their turn.
const TURN: usize = 64;
