//! The client of a relay: one task that stays connected for as long as its [`RelayClient`] lives.
//!
//! In: frames and bindings by a [`RelaySender`], from any thread. Out: calls of a [`RelaySink`]. [`queue`] holds what
//! waits to be sent and who is bound, [`connect`] makes one authenticated connection, [`link`] runs it, [`answers`]
//! judges whether the relay still answers.
//!
//! Invariants: frames for a bound node wait until the relay has told its handle; control messages go before frames;
//! frames of an ended connection are dropped, bindings are made again on the next one.

mod answers;
mod connect;
mod error;
mod link;
mod outgoing;
mod queue;
mod rtt;
mod sync;
mod together;
mod udp;
mod way;

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use mesh_identity::Identity;
use mesh_wire::relay::Role;
use mesh_wire::{NetId, NodeId, Pin, RelayUrl};
use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::backoff::{Backoff, Demand, LONGEST, STOOD, Wait, between, clamped, random};
pub use error::{RelayError, RelayErrorKind};
use outgoing::Outgoing;
use queue::Queue;
pub use queue::{QueueFull, SendError};

/// To which relay to connect, and as whom.
#[derive(Debug)]
pub struct RelayConfig {
    /// Host and port.
    pub url: RelayUrl,
    /// SHA-256 of the relay's public key. Certificates of public authorities are not supported: without a pin the
    /// client reports [`RelayErrorKind::PinMissing`] and does not connect.
    pub pin: Option<Pin>,
    /// Member, Root or Guest.
    pub role: Role,
    /// The network to speak for.
    pub net: NetId,
    /// The node's keys, or the network's root keys for [`Role::Root`].
    pub identity: Arc<Identity>,
    /// Proof of membership; empty for Root and Guest.
    pub admission: Vec<u8>,
    /// Frames may go over UDP where the relay offers it and the network lets it through.
    pub udp: bool,
    /// It is the door of a node, and at these addresses; no name is looked up then.
    pub door: Option<DoorAt>,
}

/// The door of a node: a relay inside it, for that node alone.
#[derive(Debug, Clone)]
pub struct DoorAt {
    /// Whose it is. What shows who the client is holds for this node's door alone, and for no relay.
    pub host: NodeId,
    /// Where it is, the most promising first.
    pub addresses: Vec<SocketAddr>,
}

/// A change of the connection, or something that the relay says.
#[derive(Debug)]
pub enum RelayEvent {
    /// An attempt to connect begins.
    Connecting,
    /// The relay accepted this client.
    Up {
        /// The client's own address as the relay sees it.
        observed: SocketAddr,
        /// The relay's address.
        relay: Option<SocketAddr>,
        /// From the start of the attempt, name resolution included.
        connect_time: Duration,
    },
    /// The attempt failed or the connection ended.
    Down {
        /// Why.
        reason: RelayError,
        /// When the next attempt begins, at the latest.
        retry_in: Duration,
    },
    /// A bound node, or one that sent frames, came or went.
    Peer {
        /// The node, or the network's mailbox.
        node: NodeId,
        /// Whether it is connected to this relay.
        present: bool,
    },
    /// Frames go over UDP from now on, or no longer.
    Udp(bool),
    /// The relay leaves frames without a sign of life for longer than it usually takes, or gives one again. Told only
    /// where another relay could be used instead; see [`RelaySender::set_several`].
    Suspect(bool),
    /// A round trip over the authenticated connection, asked while no frames waited.
    Rtt(Duration),
    /// The relay holds this sealed roster.
    Roster {
        /// Its version as its maker named it; nothing vouches for it.
        version: u64,
        /// Sealed bytes.
        blob: Bytes,
    },
    /// A text of the relay for people. It may hold anything; strip control characters before printing.
    Notice(String),
}

/// Receives what the client learns. It is called from the client's task and must not block.
pub trait RelaySink: Send + Sync + 'static {
    /// Takes frames from a node: one, or several of `segment` bytes each of which only the last may be shorter.
    fn frames(&self, from: NodeId, payload: BytesMut, segment: Option<u16>);
    /// Takes frames whose datagrams the network marked as having met congestion (ECN); the same as others, unless the sink
    /// passes the mark on.
    fn marked_frames(&self, from: NodeId, payload: BytesMut, segment: Option<u16>) {
        self.frames(from, payload, segment);
    }
    /// Takes an event.
    fn event(&self, event: RelayEvent);
}

/// A connection to a relay that is made again for ever. Dropping it ends the connection at once.
pub struct RelayClient {
    shared: Arc<Shared>,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl RelayClient {
    /// Starts the client's task. Has to be called within a tokio runtime.
    pub fn start(config: RelayConfig, sink: Arc<dyn RelaySink>) -> Self {
        let shared = Arc::new(Shared {
            outgoing: Outgoing::new(),
            reconnect: Notify::new(),
            doubted: AtomicBool::new(false),
            udp_unsent: AtomicU64::new(0),
            udp_singly: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            several: AtomicBool::new(false),
            measure: AtomicBool::new(false),
            // A guest joins, and others join through the root's mailbox: somebody waits for either.
            demand: Demand::new(config.role != Role::Member, Instant::now()),
            admission: Mutex::new(config.admission.clone()),
        });
        let stop = CancellationToken::new();
        let task = Client { config, sink, shared: shared.clone(), stop: stop.clone() };
        Self { shared, stop, task: AbortOnDropHandle::new(tokio::spawn(task.run())) }
    }

    /// Returns a handle for sending.
    #[must_use]
    pub fn sender(&self) -> RelaySender {
        RelaySender { shared: self.shared.clone() }
    }

    /// Sends what is queued, for one second at most, and closes the connection.
    pub async fn stop(self) {
        self.stop.cancel();
        self.shared.outgoing.wake();
        if timeout(STOP_TIMEOUT, self.task).await.is_err() {
            tracing::debug!("relay connection did not end in time");
        }
    }

    /// Replaces the proof of membership, from the next connection on.
    pub fn set_admission(&self, admission: Vec<u8>) {
        *lock(&self.shared.admission) = admission;
    }

    /// Ends a wait between two attempts, and keeps the waits of the next two minutes short. Does nothing to a
    /// connection that is up.
    pub fn reconnect_now(&self) {
        self.shared.demand.used(Instant::now());
        self.shared.reconnect.notify_one();
    }
}

impl fmt::Debug for RelayClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayClient").finish_non_exhaustive()
    }
}

/// Sends to other nodes through the relay, from any thread and without waiting.
#[derive(Clone)]
pub struct RelaySender {
    shared: Arc<Shared>,
}

impl RelaySender {
    /// Asks the relay for the node, on this connection and on all later ones, and to be told whether it is present.
    ///
    /// # Errors
    /// [`QueueFull`] when as many nodes are bound as a client may have.
    pub fn bind(&self, node: NodeId) -> Result<(), QueueFull> {
        self.shared.outgoing.change(|queue| queue.bind(node))
    }

    /// Takes back [`RelaySender::bind`], and forgets a node that sent frames unasked, as guests do.
    pub fn unbind(&self, node: NodeId) {
        self.shared.outgoing.change(|queue| queue.unbind(node));
    }

    /// Queues frames for a node that is bound or has sent frames on this connection. Without a connection the next
    /// attempt begins soon.
    ///
    /// # Errors
    /// [`SendError`]; the frames are dropped then.
    pub fn send(&self, to: NodeId, payload: BytesMut, segment: Option<u16>) -> Result<(), SendError> {
        self.queue(|queue| queue.send(to, payload, segment))
    }

    /// Like [`RelaySender::send`]; `class` is the traffic class of the frames' datagrams while they go over UDP.
    ///
    /// # Errors
    /// As for [`RelaySender::send`].
    pub fn send_as(
        &self,
        to: NodeId,
        payload: BytesMut,
        segment: Option<u16>,
        class: u8,
    ) -> Result<(), SendError> {
        self.queue(|queue| queue.send_as(to, payload, segment, class))
    }

    fn queue(&self, send: impl FnOnce(&mut Queue) -> Result<(), SendError>) -> Result<(), SendError> {
        self.shared.demand.used(Instant::now());
        let sent = send(&mut self.shared.outgoing.queue());
        match sent {
            Ok(()) => self.shared.outgoing.wake(),
            Err(SendError::Down) => self.shared.demand.miss(),
            Err(SendError::QueueFull | SendError::Unbound | SendError::Size) => {}
        }
        sent
    }

    /// Gives the relay this sealed roster for the members, on this connection and on all later ones.
    ///
    /// Only the latest one is kept. It needs [`Role::Root`].
    pub fn put_roster(&self, version: u64, blob: Bytes) {
        self.shared.outgoing.change(|queue| queue.put_roster(version, blob));
    }

    /// Says that the machine's network changed: a connection that does not answer within a second is made anew, and a wait
    /// between two attempts ends.
    pub fn network_changed(&self) {
        self.shared.demand.used(Instant::now());
        self.shared.doubted.store(true, Ordering::Relaxed);
        self.shared.reconnect.notify_one();
        self.shared.outgoing.wake();
    }

    /// Says that somebody wants the connection: without one the next attempt begins soon.
    pub fn wanted(&self) {
        self.shared.demand.used(Instant::now());
        if !self.is_ready() {
            self.shared.demand.miss();
        }
    }

    /// Tells whether frames have a chance: the connection is up and the relay answers. Takes no lock.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shared.ready.load(Ordering::Relaxed)
    }

    /// Says whether another relay could be used instead. If so, a relay that does not answer is noticed within
    /// 0.7 s or two round trips, and its round trip is measured now and then.
    pub fn set_several(&self, several: bool) {
        self.shared.several.store(several, Ordering::Relaxed);
        self.shared.outgoing.wake();
    }

    /// Measures the round trip at once; [`RelayEvent::Rtt`] tells it.
    pub fn measure(&self) {
        self.shared.measure.store(true, Ordering::Relaxed);
        self.shared.outgoing.wake();
    }

    /// Returns for how long nobody has sent or received frames over this relay, or waited for it.
    #[must_use]
    pub fn idle_for(&self, now: Instant) -> Duration {
        self.shared.demand.idle_for(now)
    }

    /// Returns how many bytes of frames wait.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.shared.outgoing.queue().queued_bytes()
    }

    /// Returns how many datagrams for the relay's UDP port the kernel did not take, since the client was started.
    #[must_use]
    pub fn udp_unsent(&self) -> u64 {
        self.shared.udp_unsent.load(Ordering::Relaxed)
    }

    /// Tells whether datagrams for the relay's UDP port leave one by one because those that left together did not arrive.
    #[must_use]
    pub fn udp_goes_singly(&self) -> bool {
        self.shared.udp_singly.load(Ordering::Relaxed)
    }

    /// Sets the function that is called when the waiting bytes fall below half of the limit.
    ///
    /// It is called from the client's task and must not block.
    pub fn on_room(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.shared.outgoing.on_room(Arc::new(hook));
    }
}

impl fmt::Debug for RelaySender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelaySender").field("queued_bytes", &self.queued_bytes()).finish()
    }
}

/// What the client's task and its handles share.
struct Shared {
    outgoing: Outgoing,
    reconnect: Notify,
    /// The machine's network changed since the link last looked.
    doubted: AtomicBool,
    /// Datagrams with frames that the kernel did not take.
    udp_unsent: AtomicU64,
    /// Datagrams that leave together do not arrive.
    udp_singly: AtomicBool,
    /// The connection is up and the relay answers.
    ready: AtomicBool,
    /// Another relay could be used.
    several: AtomicBool,
    /// Somebody wants to know the round trip.
    measure: AtomicBool,
    demand: Demand,
    admission: Mutex<Vec<u8>>,
}

/// The task behind a [`RelayClient`].
struct Client {
    config: RelayConfig,
    sink: Arc<dyn RelaySink>,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Client {
    async fn run(self) {
        let mut backoff = Backoff::new();
        loop {
            self.sink.event(RelayEvent::Connecting);
            let (ended, stood) = Box::pin(self.connect_and_serve()).await;
            let Some(reason) = ended else { return };
            if stood >= STOOD {
                backoff.reset();
            }
            let now = Instant::now();
            let mut wait = Wait::new(now, wait_after(&reason, &mut backoff), is_fixed(reason.kind()));
            if self.shared.demand.is_there(now) {
                wait.hurry(now, random());
            }
            tracing::debug!(relay = %self.config.url.host(), reason = %reason, "relay connection ended");
            // What was asked for during the attempt is counted in already.
            let _ = self.shared.reconnect.notified().now_or_never();
            self.sink.event(RelayEvent::Down { reason, retry_in: wait.until().duration_since(now) });
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = self.shared.reconnect.notified() => backoff.reset(),
                () = self.wait(wait) => {}
            }
        }
    }

    /// Waits to the end, or for less when somebody begins to want the connection.
    async fn wait(&self, mut wait: Wait) {
        loop {
            tokio::select! {
                biased;
                () = sleep_until(wait.until().into()) => return,
                () = self.shared.demand.missed(), if wait.hurries() => {
                    let now = Instant::now();
                    // The miss may be as old as the connection before.
                    if self.shared.demand.is_there(now) {
                        wait.hurry(now, random());
                    }
                }
            }
        }
    }

    /// Returns why it ended (`None`: it was told to stop), and for how long the connection stood.
    async fn connect_and_serve(&self) -> (Option<RelayError>, Duration) {
        let started = Instant::now();
        let admission = lock(&self.shared.admission).clone();
        let attempt = connect::connect(&self.config, &admission);
        let attempt = tokio::select! {
            biased;
            () = self.stop.cancelled() => return (None, Duration::ZERO),
            result = timeout(CONNECT_TIMEOUT, attempt) => result,
        };
        let connect::Connected { socket, welcome, remote, udp } = match attempt {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return (Some(error), Duration::ZERO),
            Err(_) => return (Some(RelayError::Timeout), Duration::ZERO),
        };
        self.shared.outgoing.queue().connected();
        self.shared.ready.store(true, Ordering::Relaxed);
        let (connect_time, up_since) = (started.elapsed(), Instant::now());
        self.sink.event(RelayEvent::Up { observed: welcome.observed, relay: Some(remote), connect_time });
        let link = link::Link::new(
            (socket, udp.then_some(remote)),
            &welcome,
            self.shared.clone(),
            self.sink.clone(),
        );
        let ended = link.run(&self.stop).await;
        self.shared.ready.store(false, Ordering::Relaxed);
        let room = self.shared.outgoing.queue().disconnected();
        if room {
            self.shared.outgoing.call_room_hook();
        }
        (ended, up_since.elapsed())
    }
}

fn wait_after(reason: &RelayError, backoff: &mut Backoff) -> Duration {
    match reason.kind() {
        RelayErrorKind::Restarting { min, max } => between(clamped(min), clamped(max), random()),
        // Whoever took the id over is running: contending with it at full speed would cut off both.
        RelayErrorKind::Replaced => between(LONGEST / 3, LONGEST, random()),
        RelayErrorKind::PinMissing => LONGEST,
        RelayErrorKind::PinMismatch
        | RelayErrorKind::Unresolved
        | RelayErrorKind::Refused
        | RelayErrorKind::Unreachable
        | RelayErrorKind::Timeout
        | RelayErrorKind::Tls
        | RelayErrorKind::Protocol
        | RelayErrorKind::Auth(_)
        | RelayErrorKind::Identity
        | RelayErrorKind::Closed => backoff.next(random()),
    }
}

/// Tells whether the wait after this failure holds however much the connection is wanted: the relay asked for it, or
/// more attempts only do harm.
const fn is_fixed(kind: RelayErrorKind) -> bool {
    match kind {
        RelayErrorKind::Restarting { .. }
        | RelayErrorKind::Replaced
        | RelayErrorKind::PinMissing
        | RelayErrorKind::PinMismatch
        | RelayErrorKind::Auth(_)
        | RelayErrorKind::Identity => true,
        RelayErrorKind::Unresolved
        | RelayErrorKind::Refused
        | RelayErrorKind::Unreachable
        | RelayErrorKind::Timeout
        | RelayErrorKind::Tls
        | RelayErrorKind::Protocol
        | RelayErrorKind::Closed => false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For name resolution, TCP, TLS, WebSocket and authentication together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// One second for the flush, and a little for the close.
const STOP_TIMEOUT: Duration = Duration::from_millis(1500);
