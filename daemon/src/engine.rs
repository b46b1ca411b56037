//! The packet path: one thread that owns the [`Node`], and where wanted further ones with lanes of its sessions.
//!
//! ```text
//! device ─FairQueue─► Node::handle_offloaded ─► TxQueue ─► UDP socket or relay client
//! UDP socket, relay client ─Inbox─► Node::handle_frame ─► device, QUIC endpoint
//!                                 └► handshake thread ─Inbox─► Node::handle_outcome
//! ```
//! In: packets of the device, datagrams of the UDP sockets, and through the [`Inbox`] what the relay client and the
//! handshake thread bring and what the daemon asks. Out: batches for sockets and relay client, packets for the device,
//! datagrams for the QUIC endpoint, handshake messages for the handshake thread, [`EngineEvent`]s.
//!
//! Each further thread (`worker`) has a queue of the device, sockets and lanes of its own; what it cannot do itself it
//! passes to the first.
//!
//! Invariants: only the thread of a lane touches its counter and window, so nothing on a packet's way takes a lock; while
//! the relay's queue is full, what is for the relay waits, and nothing else for longer than a moment; an error of the device
//! ends the thread and is told.

mod backlog;
mod counts;
mod crew;
mod fair;
mod inbox;
mod post;
mod slow;
mod sync;
mod traffic;
mod ways;
mod worker;
mod writer;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mesh_identity::Roster;
use mesh_net::{QuicEndpoint, Rooms, UdpSockets};
use mesh_node::{Echo, Finding, NoPath, Node, NodeEvent, Now, Path, Snapshot, ToNode, TxQueue};
use mesh_packet::ECN;
use mesh_session::wipe_after_sessions;
use mesh_tun::DeviceIo;
use mesh_wire::NodeId;
use mesh_wire::control::{Candidates, DoorTold, RelaysTold};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use self::backlog::Backlog;
pub use self::counts::ThreadSnapshot;
use self::crew::{Common, Crew};
pub use self::crew::{MOST_THREADS, ThreadParts, threads};
use self::fair::FairQueue;
pub use self::inbox::{Datagrams, Frames, Inbox};
use self::traffic::{Moved, Traffic};
use self::ways::Ways;
use self::writer::Joining;
use crate::direct::StunDatagram;
use crate::handshakes::Handshakes;
use crate::relays::pool::RelayPool;

/// Bytes of frames taken from the inbox between two looks at the device: about as much as a batch of packets, so that
/// neither direction starves the other.
const FRAMES: usize = 128 * 1024;
/// While this much waits for the relay, nothing more is sealed for it: 2 ms at 1 Gbit/s.
const RELAY_BACKLOG: usize = 256 * 1024;
/// Events that wait for the daemon; one that finds the queue full is lost, as status shows the same.
const EVENTS: usize = 1024;
/// Pings that wait for their answer at a time.
const PINGS: usize = 64;

/// The answer to a ping.
#[derive(Debug, Clone, Copy)]
pub struct Pong {
    /// How long it took.
    pub rtt: Duration,
    /// What it came over.
    pub path: Path,
}

/// What the daemon asks of the engine.
#[derive(Debug)]
pub enum Command {
    /// Stand on a newer roster.
    Roster(Arc<Roster>),
    /// Ping a peer, dialling it first where needed; who stops waiting drops the receiver.
    Ping(NodeId, Echo, oneshot::Sender<Result<Pong, NoPath>>),
    /// The relay says whether a peer is connected.
    Presence(NodeId, bool),
    /// Mix the exporter of the QUIC connection with a peer into the session with this id.
    Mix(NodeId, [u8; 16], Box<Zeroizing<[u8; 64]>>),
    /// The addresses at which this node may be reached.
    Candidates(Candidates),
    /// The addresses at which a peer was found on local networks.
    Near(NodeId, Vec<SocketAddr>),
    /// What the ICE agent for a peer says.
    Finding(NodeId, Finding),
    /// Whether a relay is connected.
    Relay(bool),
    /// The relays at which this node is, home first.
    Relays(RelaysTold),
    /// Where this node takes connections of its peers.
    Door(Option<DoorTold>),
    /// Whether a peer is connected past the relays.
    Beside(NodeId, bool),
    /// Addresses or routes of the machine changed, or it slept.
    NetworkChanged,
    /// Look for a path to a peer without the relay.
    Search(NodeId),
    /// Show everything.
    Snapshot(oneshot::Sender<EngineSnapshot>),
    /// Say goodbye to the peers, then answer.
    Close(oneshot::Sender<()>),
    /// End the thread.
    Stop,
}

/// What the daemon hears from the engine.
#[derive(Debug)]
pub enum EngineEvent {
    /// Something happened to a peer.
    Node(NodeEvent),
    /// The device failed; the engine has ended.
    Failed(io::Error),
}

/// The engine at one moment.
#[derive(Debug)]
pub struct EngineSnapshot {
    /// Peers and drops.
    pub node: Snapshot,
    /// What the engine itself dropped.
    pub drops: EngineDrops,
    /// Where its UDP sockets are bound, at most one address for each family.
    pub sockets: Vec<SocketAddr>,
    /// What each of its threads did.
    pub threads: Vec<ThreadSnapshot>,
    /// What slows it down.
    pub slow: Slow,
}

/// What keeps an engine from its full speed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slow {
    /// The room of its UDP sockets: in each direction that of the socket that misses most.
    pub rooms: Option<Rooms>,
    /// The device refused joined packets of TCP, and of UDP.
    pub single_packets: [bool; 2],
    /// Datagrams for the relay's UDP port leave one by one, since those that left together did not arrive.
    pub relay_singly: bool,
}

/// Packets that the engine dropped, by reason.
#[derive(Debug, Clone, Copy, Default)]
pub struct EngineDrops {
    /// The relay is not connected.
    pub relay_down: u64,
    /// The queue to the relay was full.
    pub relay_queue_full: u64,
    /// The device did not take a packet.
    pub device: u64,
    /// More packets of the device waited than may.
    pub waiting_full: u64,
    /// The network around the tunnel met congestion, and the packet's sender does not understand the mark.
    pub congested: u64,
    /// The inbox was full.
    pub inbox_full: u64,
    /// The UDP socket did not take a datagram.
    pub udp: u64,
    /// The UDP sockets had no room for a datagram that came.
    pub udp_room: u64,
    /// The kernel took no datagram for the relay's UDP port.
    pub relay_udp: u64,
    /// A datagram that came over UDP is of no known kind.
    pub unknown_datagram: u64,
    /// Too many handshake messages waited.
    pub handshakes_full: u64,
}

/// The daemon's hold on a running engine; dropping it ends the thread.
#[derive(Debug)]
pub struct Engine {
    inbox: Arc<Inbox>,
    thread: Option<JoinHandle<()>>,
}

/// What an engine works with.
#[derive(Debug)]
pub struct Parts {
    /// The sessions.
    pub node: Node,
    /// The interface.
    pub device: DeviceIo,
    /// The way to the relays.
    pub relay: RelayPool,
    /// The way without it.
    pub udp: UdpSockets,
    /// Datagrams of UDP get the DSCP of the packet in them.
    pub copy_dscp: bool,
    /// Where handshake messages go.
    pub handshakes: Arc<Handshakes>,
    /// Where QUIC datagrams go.
    pub quic: Arc<QuicEndpoint>,
    /// Where STUN goes.
    pub stun: mpsc::Sender<StunDatagram>,
    /// Where everything else comes from.
    pub inbox: Arc<Inbox>,
    /// The further threads.
    pub further: Vec<ThreadParts>,
}

impl Engine {
    /// Starts the threads.
    ///
    /// # Errors
    /// When a thread cannot be made.
    pub fn start(parts: Parts) -> io::Result<(Self, mpsc::Receiver<EngineEvent>)> {
        let (events, receiver) = mpsc::channel(EVENTS);
        let inbox = Arc::clone(&parts.inbox);
        let wake = Arc::clone(&inbox);
        parts.relay.on_room(move || wake.wake());
        let Parts { node, device, relay, udp, copy_dscp, handshakes, quic, stun, inbox: mail, further } =
            parts;
        let classes = if copy_dscp { u8::MAX } else { ECN };
        let offload = device.offload();
        let joining = Joining { tcp: offload.tcp, udp: offload.udp };
        let seed = RandomState::new().hash_one(0);
        let traffic = |device, udp| Traffic {
            device,
            ways: Ways {
                relay: relay.clone(),
                bound: BTreeSet::new(),
                udp,
                classes,
                drops: EngineDrops::default(),
            },
            quic: Arc::clone(&quic),
            tx: TxQueue::new(),
            waiting: FairQueue::new(),
            backlog: Backlog::default(),
            seed,
            joining,
            moved: Moved::default(),
            room_told: false,
        };
        let crew = Crew::start(further, &Common { home: &mail, events: &events }, traffic)?;
        let worker = Worker {
            node,
            traffic: traffic(device, udp),
            handshakes,
            stun,
            inbox: mail,
            events,
            pings: Vec::new(),
            messages: Vec::new(),
            crew,
        };
        let thread = thread::Builder::new().name("mesh-engine".into()).spawn(move || {
            crew::bind(worker.crew.first_cpu());
            worker.run();
        })?;
        Ok((Self { inbox, thread: Some(thread) }, receiver))
    }

    /// Hands the engine a command.
    pub fn send(&self, command: Command) {
        self.inbox.command(command);
    }

    /// Returns what the engine holds; none when it has ended.
    pub async fn snapshot(&self) -> Option<EngineSnapshot> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Snapshot(reply));
        answer.await.ok()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.inbox.command(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

struct Worker {
    node: Node,
    traffic: Traffic,
    handshakes: Arc<Handshakes>,
    stun: mpsc::Sender<StunDatagram>,
    inbox: Arc<Inbox>,
    events: mpsc::Sender<EngineEvent>,
    pings: Vec<Ping>,
    /// Handshake messages of this turn.
    messages: Vec<(Path, Box<[u8]>)>,
    /// The further threads.
    crew: Crew,
}

/// A ping that somebody waits for; without an id it waits for a session.
struct Ping {
    peer: NodeId,
    echo: Echo,
    id: Option<u64>,
    reply: oneshot::Sender<Result<Pong, NoPath>>,
}

impl Worker {
    fn run(mut self) {
        loop {
            match self.turn() {
                Ok(true) => wipe_after_sessions(),
                Ok(false) => return,
                Err(error) => {
                    let _ = self.events.try_send(EngineEvent::Failed(error));
                    return;
                }
            }
        }
    }

    /// Waits for work and does some of each kind; false when the engine is to end.
    fn turn(&mut self) -> io::Result<bool> {
        let ready = self.wait()?;
        let now = now();
        let mail = self.inbox.take(FRAMES);
        // Sessions first: the frames that follow may be of them.
        for outcome in mail.outcomes {
            self.node.handle_outcome(now, outcome, &mut self.traffic.tx);
            self.deliver_late();
        }
        for transmit in mail.transmits {
            self.traffic.ways.carry(transmit, &mut self.traffic.tx);
        }
        for batch in mail.frames {
            self.receive(now, batch);
        }
        for Datagrams { to, payload, segment } in mail.quic {
            let segment = segment.map_or(payload.len(), usize::from);
            self.node.handle_quic(now, to, &payload, segment, &mut self.traffic.tx);
        }
        if mail.quic_has_room {
            self.traffic.quic.room();
        }
        for (thread, passed) in mail.passed {
            self.take_passed(now, thread, passed);
        }
        for command in mail.commands {
            if matches!(command, Command::Stop) {
                self.flush();
                return Ok(false);
            }
            self.obey(now, command);
        }
        if ready.udp {
            self.read_udp(now);
            self.traffic.make_room(now.instant, || self.node.longest_trip());
        }
        if ready.others {
            self.read_others(now, ready.udp || ready.device);
        }
        if ready.device {
            self.traffic.send_waiting(&mut self.node, now)?;
            // Senders of packets that are too long are told through the device.
            self.deliver_late();
        }
        if self.node.poll_timeout().is_some_and(|at| at <= now.instant) {
            self.node.handle_timeout(now, &mut self.traffic.tx);
        }
        self.report(now);
        self.share(now);
        self.flush();
        if self.crew.has_marks() {
            // All before them has left.
            self.crew.return_marks(self.relay_has_room());
        }
        self.count();
        Ok(true)
    }

    /// Takes what a worker passed on, in its order.
    fn take_passed(&mut self, now: Now, thread: u16, passed: Vec<ToNode>) {
        for passed in passed {
            match passed {
                ToNode::Packet { packet, offload } => {
                    self.node.handle_passed(now, thread, (&packet, &offload), &mut self.traffic.tx);
                }
                ToNode::Frame { path, mut frame, .. } => {
                    if let Some(delivery) =
                        self.node.handle_frame(now, path, &mut frame, &mut self.traffic.tx)
                    {
                        self.traffic.deliver(delivery);
                    }
                }
                ToNode::Control { number, path, message } => {
                    self.node.handle_passed_control(now, (number, path), &message, &mut self.traffic.tx);
                }
                ToNode::Want(number) => self.node.handle_want(thread, number),
                ToNode::Report(report) => self.node.handle_report(now, *report, &mut self.traffic.tx),
                ToNode::Mark(mark) => self.crew.mark(thread, mark, false),
                ToNode::Window(mark) => self.crew.mark(thread, mark, true),
            }
        }
    }

    /// Tells the workers what changed.
    fn share(&mut self, now: Now) {
        if !self.crew.is_empty() {
            self.node.share_out(now);
            self.crew.tell(&mut self.node);
            self.crew.tell_trip(now.instant, || self.node.longest_trip());
        }
    }

    fn count(&self) {
        self.crew.first().show(self.traffic.moved, 0, self.crew.locks);
    }

    fn relay_has_room(&self) -> bool {
        self.traffic.ways.relay.queued_bytes() < RELAY_BACKLOG
    }

    /// Waits until the device, a socket or the inbox has something, or a timer is due.
    fn wait(&mut self) -> io::Result<Ready> {
        let alone = self.traffic.look_at_relay(!self.relay_has_room(), Instant::now);
        let timer = self.node.poll_timeout().into_iter().chain(alone).min();
        let timeout = timer.map_or(PollTimeout::NONE, |at| {
            let left = at.saturating_duration_since(Instant::now());
            // Rounded up, so that a timer is not looked at just before it is due.
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let unwatched = PollFd::new(self.inbox.signal().as_fd(), PollFlags::empty());
        let mut fds = [
            PollFd::new(self.inbox.signal().as_fd(), PollFlags::POLLIN),
            unwatched.clone(),
            unwatched.clone(),
            unwatched.clone(),
            unwatched.clone(),
            unwatched.clone(),
            unwatched,
        ];
        for (fd, socket) in fds[FRAMES_AT..OTHERS_AT].iter_mut().zip(self.traffic.ways.udp.fds()) {
            *fd = PollFd::new(socket, PollFlags::POLLIN);
        }
        for (fd, socket) in fds[OTHERS_AT..DEVICE_AT].iter_mut().zip(self.traffic.ways.udp.other_fds()) {
            *fd = PollFd::new(socket, PollFlags::POLLIN);
        }
        if alone.is_none() {
            fds[DEVICE_AT] = PollFd::new(self.traffic.device.as_fd(), PollFlags::POLLIN);
        }
        let waiting = alone.is_none() && !self.traffic.waiting.is_empty();
        match poll(&mut fds, if waiting { PollTimeout::ZERO } else { timeout }) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.inbox.clear();
        let any = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
        Ok(Ready {
            udp: fds[FRAMES_AT..OTHERS_AT].iter().any(any),
            others: fds[OTHERS_AT..DEVICE_AT].iter().any(any),
            device: waiting || any(&fds[DEVICE_AT]),
        })
    }

    fn flush(&mut self) {
        let orders: Vec<_> = std::iter::from_fn(|| self.node.poll_order()).collect();
        if !self.messages.is_empty() || !orders.is_empty() {
            self.handshakes.put(self.messages.drain(..), orders);
        }
        self.traffic.flush();
    }

    fn obey(&mut self, now: Now, command: Command) {
        match command {
            Command::Roster(roster) => self.node.set_roster(roster, &mut self.traffic.tx),
            Command::Ping(peer, echo, reply) => self.ping(now, peer, echo, reply),
            Command::Presence(peer, present) => {
                self.node.handle_presence(now, peer, present, &mut self.traffic.tx);
            }
            Command::Mix(peer, session, exporter) => {
                self.node.mix(now, peer, session, &exporter, &mut self.traffic.tx);
                self.deliver_late();
            }
            Command::Candidates(candidates) => {
                self.node.set_candidates(now, candidates, &mut self.traffic.tx)
            }
            Command::Near(peer, addresses) => {
                self.node.handle_near(now, peer, addresses, &mut self.traffic.tx)
            }
            Command::Finding(peer, finding) => {
                self.node.handle_finding(now, peer, finding, &mut self.traffic.tx);
            }
            Command::Relay(connected) => self.node.handle_relay(now, connected),
            Command::Relays(relays) => self.node.set_relays(now, relays, &mut self.traffic.tx),
            Command::Door(door) => self.node.set_door(now, door, &mut self.traffic.tx),
            Command::Beside(peer, beside) => self.node.handle_beside(now, peer, beside),
            Command::NetworkChanged => self.node.handle_network_change(now, &mut self.traffic.tx),
            Command::Search(peer) => self.node.search(now, peer, &mut self.traffic.tx),
            Command::Snapshot(reply) => {
                let (handshakes, handshakes_full) = self.handshakes.drops();
                let inbox_full = self.inbox.dropped();
                let waiting_full = self.traffic.waiting.dropped();
                let ways = &self.traffic.ways;
                let udp_room = self.crew.lost().and(&ways.udp.lost()).datagrams();
                let relay_udp = ways.relay.udp_unsent();
                let mut drops = EngineDrops {
                    inbox_full,
                    handshakes_full,
                    waiting_full,
                    udp_room,
                    relay_udp,
                    ..ways.drops
                };
                self.crew.add_drops(&mut drops);
                let slow = self.slow();
                let node = self.node.snapshot(now.instant, &handshakes);
                let sockets = self.traffic.ways.udp.local_addrs().collect();
                self.count();
                let threads = self.crew.snapshot();
                let _ = reply.send(EngineSnapshot { node, drops, sockets, threads, slow });
            }
            Command::Close(reply) => {
                self.node.close(&mut self.traffic.tx);
                self.flush();
                let _ = reply.send(());
            }
            Command::Stop => {}
        }
    }

    /// Sends a ping, at once or when a session stands.
    fn ping(&mut self, now: Now, peer: NodeId, echo: Echo, reply: oneshot::Sender<Result<Pong, NoPath>>) {
        self.pings.retain(|ping| !ping.reply.is_closed());
        if self.pings.len() == PINGS {
            return;
        }
        match self.node.echo(now, peer, echo, &mut self.traffic.tx) {
            Ok(id) if id.is_some() || self.node.connect(peer) => {
                self.pings.push(Ping { peer, echo, id, reply });
            }
            Ok(_) => {}
            Err(why) => {
                if why == NoPath::NoDirect {
                    // Who asks by hand does not wait for the next turn.
                    self.node.search(now, peer, &mut self.traffic.tx);
                }
                let _ = reply.send(Err(why));
            }
        }
    }

    fn report(&mut self, now: Now) {
        while let Some(event) = self.node.poll_event() {
            match event {
                NodeEvent::Pong { id, rtt, path, .. } => {
                    if let Some(at) = self.pings.iter().position(|ping| ping.id == Some(id)) {
                        let _ = self.pings.swap_remove(at).reply.send(Ok(Pong { rtt, path }));
                    }
                }
                NodeEvent::Established { peer } => {
                    let waits = |ping: &mut Ping| ping.peer == peer && ping.id.is_none();
                    let waiting: Vec<_> = self.pings.extract_if(.., waits).collect();
                    for ping in waiting {
                        self.ping(now, ping.peer, ping.echo, ping.reply);
                    }
                }
                NodeEvent::Path { peer, path: Path::Udp(address), .. } => {
                    let kept = self.traffic.ways.udp.keep_extra(address);
                    self.node.keep_alone(peer, kept.then_some(address));
                    // What is aside for the relay need not wait for it any more.
                    self.traffic.waiting.bring_back();
                }
                NodeEvent::Guessed { .. } => self.traffic.ways.udp.finish_extra(),
                NodeEvent::Relays { peer, relays } => {
                    self.traffic.ways.relay.told(peer, &relays);
                    continue;
                }
                NodeEvent::Session { .. }
                | NodeEvent::Absent { .. }
                | NodeEvent::Door { .. }
                | NodeEvent::NoDirect { .. }
                | NodeEvent::Path { path: Path::Relay(_), .. }
                | NodeEvent::PathSize { .. }
                | NodeEvent::Gather
                | NodeEvent::Ice { .. }
                | NodeEvent::Near { .. }
                | NodeEvent::Idle { .. }
                | NodeEvent::Lost { .. } => {}
            }
            let _ = self.events.try_send(EngineEvent::Node(event));
        }
    }
}

/// Which of the file descriptors have something.
struct Ready {
    /// A socket has sealed frames.
    udp: bool,
    /// A socket has what is no frame.
    others: bool,
    device: bool,
}

/// Where the UDP sockets of the frames are among the file descriptors: one for each family, and one for all extra sockets.
const FRAMES_AT: usize = 1;
/// The same of the sockets for what is no frame.
const OTHERS_AT: usize = 4;
const DEVICE_AT: usize = 6;

/// Returns the present by this machine's clocks.
#[must_use]
pub fn now() -> Now {
    Now { instant: Instant::now(), unix: unix_now() }
}

/// Returns seconds since 1970.
#[must_use]
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
