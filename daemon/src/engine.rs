//! The packet path: one thread that owns the [`Node`] and the device.
//!
//! ```text
//! device ─read_batch─► Node::handle_packet ─► TxQueue ─► relay client
//! relay client ─Inbox─► Node::handle_datagram ─► device
//! ```
//! In: packets of the device, and through the [`Inbox`] what the relay client brings and what the daemon asks. Out:
//! batches for the relay client, packets for the device, [`EngineEvent`]s.
//!
//! Invariants: only this thread touches keys, so nothing on a packet's way takes a lock; it reads from the device only
//! while the relay's queue has room, so that packets wait in the kernel, which drops them fairly; an error of the
//! device ends the thread and is told.

mod inbox;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use mesh_identity::Roster;
use mesh_net::{RelaySender, SendError};
use mesh_node::{Node, NodeEvent, Now, Snapshot, Transmit, TxQueue};
use mesh_tun::DeviceIo;
use mesh_wire::NodeId;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::{mpsc, oneshot};

pub use self::inbox::{Frames, Inbox};

/// Packets read from the device between two looks at the inbox.
const BATCH: usize = 64;
/// Bytes of frames taken from the inbox between two looks at the device: about as much as a batch of packets, so that
/// neither direction starves the other.
const FRAMES: usize = 128 * 1024;
/// The device hands out at most this much at once: an IP packet or Ethernet frame.
const PACKET: usize = 65_536;
/// While this much waits for the relay, the device is not read: 2 ms at 1 Gbit/s.
const RELAY_BACKLOG: usize = 256 * 1024;
/// Events that wait for the daemon; one that finds the queue full is lost, as status shows the same.
const EVENTS: usize = 1024;
/// Pings that wait for their answer at a time.
const PINGS: usize = 64;

/// What the daemon asks of the engine.
#[derive(Debug)]
pub enum Command {
    /// Stand on a newer roster.
    Roster(Arc<Roster>),
    /// Ping a peer, dialling it first where needed; who stops waiting drops the receiver.
    Ping(NodeId, oneshot::Sender<Duration>),
    /// The relay says whether a peer is connected.
    Presence(NodeId, bool),
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
    /// The inbox was full.
    pub inbox_full: u64,
}

/// The daemon's hold on a running engine; dropping it ends the thread.
#[derive(Debug)]
pub struct Engine {
    inbox: Arc<Inbox>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start(
        node: Node,
        device: DeviceIo,
        relay: RelaySender,
        inbox: Arc<Inbox>,
    ) -> io::Result<(Self, mpsc::Receiver<EngineEvent>)> {
        let (events, receiver) = mpsc::channel(EVENTS);
        let wake = Arc::clone(&inbox);
        relay.on_room(move || wake.wake());
        let worker = Worker {
            node,
            device,
            relay,
            bound: BTreeSet::new(),
            inbox: Arc::clone(&inbox),
            tx: TxQueue::new(),
            events,
            pings: Vec::new(),
            drops: EngineDrops::default(),
            buffer: vec![0; PACKET],
        };
        let thread = thread::Builder::new().name("mesh-engine".into()).spawn(move || worker.run())?;
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
    device: DeviceIo,
    relay: RelaySender,
    /// Peers that the relay was asked for; the client asks again by itself after a reconnect.
    bound: BTreeSet<NodeId>,
    inbox: Arc<Inbox>,
    tx: TxQueue,
    events: mpsc::Sender<EngineEvent>,
    pings: Vec<Ping>,
    drops: EngineDrops,
    buffer: Vec<u8>,
}

/// A ping that somebody waits for; without an id it waits for a session.
struct Ping {
    peer: NodeId,
    id: Option<u64>,
    reply: oneshot::Sender<Duration>,
}

impl Worker {
    fn run(mut self) {
        loop {
            match self.turn() {
                Ok(true) => {}
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
        let device_ready = self.wait()?;
        let now = now();
        let (frames, commands) = self.inbox.take(FRAMES);
        for batch in frames {
            self.receive(now, batch);
        }
        for command in commands {
            if matches!(command, Command::Stop) {
                self.flush();
                return Ok(false);
            }
            self.obey(now, command);
        }
        if device_ready {
            self.read_batch(now)?;
        }
        if self.node.poll_timeout().is_some_and(|at| at <= now.instant) {
            self.node.handle_timeout(now, &mut self.tx);
        }
        self.report(now);
        self.flush();
        Ok(true)
    }

    /// Waits until the device or the inbox has something, or a timer is due; tells whether the device has.
    fn wait(&self) -> io::Result<bool> {
        let timeout = self.node.poll_timeout().map_or(PollTimeout::NONE, |at| {
            let left = at.saturating_duration_since(Instant::now());
            // Rounded up, so that a timer is not looked at just before it is due.
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [
            PollFd::new(self.inbox.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.device.as_fd(), PollFlags::POLLIN),
        ];
        let watched = if self.relay.queued_bytes() < RELAY_BACKLOG { 2 } else { 1 };
        match poll(&mut fds[..watched], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.inbox.clear();
        Ok(watched == 2 && fds[1].any().unwrap_or(false))
    }

    fn read_batch(&mut self, now: Now) -> io::Result<()> {
        for _ in 0..BATCH {
            match self.device.recv(&mut self.buffer) {
                Ok(length) => self.node.handle_packet(now, &self.buffer[..length], &mut self.tx),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn receive(&mut self, now: Now, mut batch: Frames) {
        let segment = batch.segment.map_or(batch.payload.len(), usize::from).max(1);
        for datagram in batch.payload.chunks_mut(segment) {
            let Some(packet) = self.node.handle_datagram(now, batch.from, datagram, &mut self.tx) else {
                continue;
            };
            if self.device.send(packet).is_err() {
                self.drops.device += 1;
            }
        }
    }

    fn flush(&mut self) {
        while let Some(Transmit { to, payload, segment }) = self.tx.pop() {
            match self.send(to, payload, segment) {
                Ok(()) => {}
                Err(SendError::QueueFull) => self.drops.relay_queue_full += 1,
                Err(SendError::Unbound | SendError::Down | SendError::Size) => self.drops.relay_down += 1,
            }
        }
    }

    /// Sends through the relay; a peer that the relay was not asked for yet is asked for first.
    fn send(&mut self, to: NodeId, payload: BytesMut, segment: Option<u16>) -> Result<(), SendError> {
        if self.bound.insert(to) && self.relay.bind(to).is_err() {
            self.bound.remove(&to);
            return Err(SendError::QueueFull);
        }
        self.relay.send(to, payload, segment)
    }

    fn obey(&mut self, now: Now, command: Command) {
        match command {
            Command::Roster(roster) => self.node.set_roster(roster, &mut self.tx),
            Command::Ping(peer, reply) => self.ping(now, peer, reply),
            Command::Presence(peer, present) => self.node.handle_presence(now, peer, present, &mut self.tx),
            Command::Snapshot(reply) => {
                let drops = EngineDrops { inbox_full: self.inbox.dropped(), ..self.drops };
                let _ = reply.send(EngineSnapshot { node: self.node.snapshot(now.instant), drops });
            }
            Command::Close(reply) => {
                self.node.close(&mut self.tx);
                self.flush();
                let _ = reply.send(());
            }
            Command::Stop => {}
        }
    }

    /// Sends a ping, at once or when a session stands.
    fn ping(&mut self, now: Now, peer: NodeId, reply: oneshot::Sender<Duration>) {
        self.pings.retain(|ping| !ping.reply.is_closed());
        if self.pings.len() == PINGS {
            return;
        }
        let id = self.node.ping(now, peer, &mut self.tx);
        if id.is_some() || self.node.connect(now, peer, &mut self.tx) {
            self.pings.push(Ping { peer, id, reply });
        }
    }

    fn report(&mut self, now: Now) {
        while let Some(event) = self.node.poll_event() {
            match event {
                NodeEvent::Pong { id, rtt, .. } => {
                    if let Some(at) = self.pings.iter().position(|ping| ping.id == Some(id)) {
                        let _ = self.pings.swap_remove(at).reply.send(rtt);
                    }
                }
                NodeEvent::Established { peer } => {
                    for ping in self.pings.iter_mut().filter(|ping| ping.peer == peer && ping.id.is_none()) {
                        ping.id = self.node.ping(now, peer, &mut self.tx);
                    }
                }
                NodeEvent::Lost { .. } => {}
            }
            let _ = self.events.try_send(EngineEvent::Node(event));
        }
    }
}

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
