//! What a further thread of the packet path does beside the [`Node`](crate::Node): it seals and opens frames of sessions that the node
//! handed it lanes of, and passes on whatever else comes.
//!
//! ```text
//! packets of its queue ─► Worker::handle_offloaded ─► TxQueue, or passed to the node
//! frames of its lane ───► Worker::handle_frame ─► a delivery, or passed to the node or to the lane's owner
//! node ── ToWorker ─► sessions, ways, their end     worker ── ToNode ─► what is passed, reports
//! ```
//! In: packets, frames, what the node tells. Out: datagrams in a [`TxQueue`], deliveries, [`ToNode`].
//!
//! Invariants: only a direct path in use, of which the node is sure, is sent over from here; a lane's counter and replay
//! window are in one place at a time. What the worker passes on and what it does itself keep their order: when it is told of
//! something that lets it do itself what it passed on before, it asks the node for a mark, and holds further packets or
//! frames until the mark comes back, behind everything passed before it. No clock, no socket; everything is bounded.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_packet::{IpPacket, Offload, traffic_class};
use mesh_session::{LaneOpener, LaneSealer, OpenError, Opened, Session};
use mesh_wire::NodeId;
use mesh_wire::frame::{FrameHeader, PAYLOAD_OFFSET, PayloadKind};

use crate::counters::{Counters, DropReason};
use crate::inbound::{check_packet, delivery};
use crate::index::{Numbers, Owners};
use crate::lanes::{Grant, Item, News, ToNode, Told};
use crate::node::{Delivery, Link, Slot};
use crate::offload::{Form, Seal, Succession};
use crate::outbound::LONG;
use crate::path::Path;
use crate::report::{Activity, Entry, Report};
use crate::routes::Routes;
use crate::tx::TxQueue;
use crate::window::{Passing, Window};

/// So often the node hears what the worker did; its timers are a tenth of a second and more.
const REPORT: Duration = Duration::from_millis(20);

/// A further thread's part of the packet path.
#[derive(Debug)]
pub struct Worker {
    form: Form,
    numbers: Numbers,
    /// None before the node told them.
    routes: Option<Arc<Routes<Slot>>>,
    peers: Vec<Peer>,
    owners: Owners,
    succession: Succession,
    counters: Counters,
    out: VecDeque<ToNode>,
    /// Sessions that something happened to since the last report.
    touched: Vec<u32>,
    /// The node is to hear of it at once.
    urgent: bool,
    reported: Option<Instant>,
    packets: Passing,
    frames: Passing,
    /// Packets for the node that the relay carries from there, and all others.
    to_relay: Window,
    to_others: Window,
    marks: u64,
}

#[derive(Debug)]
struct Peer {
    id: NodeId,
    sessions: Vec<Held>,
    grant: Option<Grant>,
    /// The longest packet of a path that has a limit.
    clamp: Option<usize>,
    /// What the node gets for it leaves over the relay.
    by_relay: bool,
}

/// A session of which the worker holds lanes.
#[derive(Debug)]
struct Held {
    number: u32,
    opener: LaneOpener,
    sealer: Option<LaneSealer>,
    /// The node was asked for the lane.
    asked: bool,
    activity: Activity,
    /// What the last frame came over.
    heard_over: Option<Path>,
}

impl Worker {
    /// Makes a worker of a node of IP packets, which goes by what the node tells it.
    #[must_use]
    pub fn new(mtu: u16, numbers: Numbers) -> Self {
        Self {
            form: Form { link: Link::Ip, mtu, clamp: None },
            numbers,
            routes: None,
            peers: Vec::new(),
            owners: Owners::default(),
            succession: Succession::default(),
            counters: Counters::default(),
            out: VecDeque::new(),
            touched: Vec::new(),
            urgent: false,
            reported: None,
            packets: Passing::default(),
            frames: Passing::default(),
            to_relay: Window::default(),
            to_others: Window::default(),
            marks: 0,
        }
    }

    /// Takes what the node tells. Poll afterwards.
    pub fn handle_news(&mut self, News(item): News) {
        match item {
            Item::Routes(routes, ids) => self.stand_on(routes, &ids),
            Item::Session { number, peer, opener } => {
                let Some(slot) = self.slot(peer) else { return };
                let activity = Activity::default();
                let held =
                    Held { number, opener: *opener, sealer: None, asked: false, activity, heard_over: None };
                self.peers[slot.0].sessions.push(held);
                self.owners.set(number, slot);
                if self.frames.is_open() {
                    let mark = self.mark();
                    self.frames.held = Some(mark);
                }
            }
            Item::Sealer { number, sealer } => {
                if let Some(held) = self.held(number) {
                    held.sealer = Some(*sealer);
                }
            }
            Item::Way { peer, told: Told { grant, clamp, by_relay } } => {
                let Some(slot) = self.slot(peer) else { return };
                let peer = &mut self.peers[slot.0];
                (peer.grant, peer.clamp, peer.by_relay) = (grant, clamp, by_relay);
                let wanted = peer.sending().and_then(|(_, held)| held.wants());
                self.out.extend(wanted.map(ToNode::Want));
                if wanted.is_some() || grant.is_some() && self.packets.is_open() {
                    let mark = self.mark();
                    self.packets.held = Some(mark);
                }
            }
            Item::End(number) => {
                let Some(slot) = self.owners.get(number) else { return };
                self.owners.remove(number);
                let peer = &mut self.peers[slot.0];
                peer.sessions.retain(|held| held.number != number);
                peer.grant = peer.grant.filter(|grant| grant.number != number);
            }
        }
    }

    /// Takes a mark back from the node: everything passed before it was dealt with.
    pub fn handle_mark(&mut self, mark: u64) {
        self.packets.back(mark);
        self.frames.back(mark);
        self.to_relay.back(mark);
        self.to_others.back(mark);
    }

    /// Tells whether packets of the device are to wait.
    #[must_use]
    pub const fn holds_packets(&self) -> bool {
        self.packets.held.is_some() || self.to_others.is_full() || self.routes.is_none()
    }

    /// Tells whether packets are to wait that the relay would carry: those for which [`Worker::goes_by_relay`] says so.
    #[must_use]
    pub const fn holds_for_relay(&self) -> bool {
        self.to_relay.is_full()
    }

    /// Whether a packet of the device is for one peer alone that only the relay leads to, by what the node said last.
    #[must_use]
    pub fn goes_by_relay(&self, packet: &[u8]) -> bool {
        let slot = IpPacket::parse(packet).ok().and_then(|header| self.routes.as_ref()?.lookup(header.dst));
        slot.is_some_and(|slot| self.peers[slot.0].by_relay)
    }

    /// Tells whether frames of the sockets are to wait.
    #[must_use]
    pub const fn holds_frames(&self) -> bool {
        self.frames.held.is_some()
    }

    /// Takes the next thing for the node. Poll after every `handle_*`.
    pub fn poll_out(&mut self) -> Option<ToNode> {
        self.out.pop_front()
    }

    /// Sends a packet from a device with offload, of which several frames may become, or passes it on. Poll for transmits
    /// and for what is passed on afterwards.
    pub fn handle_offloaded(&mut self, packet: &[u8], offload: &Offload, tx: &mut TxQueue) {
        let Ok(header) = IpPacket::parse(packet) else {
            return self.counters.count(DropReason::NotAPacket);
        };
        let Some(slot) = self.routes.as_ref().and_then(|routes| routes.lookup(header.dst)) else {
            return self.counters.count(DropReason::NoRoute);
        };
        let packet = &packet[..header.total_len.min(packet.len())];
        let peer = &mut self.peers[slot.0];
        let Some((grant, held)) = peer.sending() else { return self.pass_packet(slot, packet, offload) };
        let class = traffic_class(packet, self.form.network_offset(packet));
        let Some(sealer) = &mut held.sealer else { return self.pass_packet(slot, packet, offload) };
        let mut seal = UnderLane { sealer, grant, class, tx };
        match self.succession.pack(self.form, slot, (packet, offload), &mut seal) {
            Ok(sealed) => {
                let sealed_under = sealer.sealed();
                let long = sealed.longest > LONG;
                if held.activity.sent(sealed.frames, packet.len(), long, sealed_under) {
                    self.touched.push(grant.number);
                }
            }
            // The node finds another way.
            Err(DropReason::KeyExhausted) => self.pass_packet(slot, packet, offload),
            Err(reason) => self.counters.count(reason),
        }
    }

    /// Takes one sealed frame that came over a path, or from another thread that it was not for, and returns what it
    /// brings. Poll for what is passed on afterwards.
    pub fn handle_frame<'a>(
        &mut self,
        path: Path,
        frame: &'a mut [u8],
        from_thread: bool,
    ) -> Option<Delivery<'a>> {
        let Ok(header) = FrameHeader::parse(frame) else {
            self.counters.count(DropReason::Malformed);
            return None;
        };
        let Some(slot) = self.owners.get(header.receiver) else {
            // A number that is given out and unknown here is of keys that are on their way.
            if from_thread || !self.numbers.is_taken(header.receiver) {
                self.counters.count(DropReason::UnknownSession);
            } else {
                self.pass_frame(0, path, frame);
            }
            return None;
        };
        let peer = &mut self.peers[slot.0];
        let Some(held) = peer.sessions.iter_mut().find(|held| held.number == header.receiver) else {
            self.counters.count(DropReason::UnknownSession);
            return None;
        };
        // Looked at first: a frame of another thread is to leave as it came.
        if let Some(owner) = held.opener.owner_elsewhere(header.lane) {
            if from_thread {
                self.counters.count(DropReason::Malformed);
            } else {
                self.pass_frame(owner, path, frame);
            }
            return None;
        }
        let Opened { kind, payload } = match held.opener.open(frame) {
            Ok(opened) => opened,
            Err(error) => {
                self.counters.count(reason_of(error));
                return None;
            }
        };
        let form = Form { clamp: peer.clamp, ..self.form };
        let current = peer.grant.map(|grant| Path::Udp(grant.to));
        // The node waits for the first frame under new keys, and wants to know where a peer moved to.
        self.urgent |= held.heard_over.replace(path) != Some(path);
        if held.activity.heard(path, current) {
            self.touched.push(header.receiver);
        }
        match kind {
            PayloadKind::Control => {
                let message = payload.to_vec();
                self.out.push_back(ToNode::Control { number: header.receiver, path, message });
                None
            }
            PayloadKind::Quic => Some(Delivery::Quic(peer.id, payload)),
            PayloadKind::Ip | PayloadKind::IpPartial | PayloadKind::IpContinued => {
                let routes = self.routes.as_ref()?;
                let delivered = check_packet(routes, slot, payload).and_then(|length| {
                    held.activity.received(length);
                    delivery(form, kind, payload, length)
                });
                delivered.map_err(|reason| self.counters.count(reason)).ok()
            }
            PayloadKind::Ethernet | PayloadKind::EthernetPartial | PayloadKind::EthernetContinued => {
                self.counters.count(DropReason::WrongLink);
                None
            }
        }
    }

    /// Returns when [`Worker::report`] is due.
    #[must_use]
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if self.touched.is_empty() && self.counters.is_empty() {
            return None;
        }
        Some(self.reported.filter(|_| !self.urgent).map_or(now, |at| at + REPORT))
    }

    /// Tells the node what happened, where it is time to. Poll for what is passed on afterwards.
    pub fn report(&mut self, now: Instant) {
        if self.poll_timeout(now).is_some_and(|due| due <= now) {
            self.report_all(now);
        }
    }

    fn report_all(&mut self, now: Instant) {
        (self.urgent, self.reported) = (false, Some(now));
        let mut entries = Vec::with_capacity(self.touched.len());
        for number in std::mem::take(&mut self.touched) {
            let Some(slot) = self.owners.get(number) else { continue };
            let peer = &mut self.peers[slot.0];
            let held = peer.sessions.iter_mut().find(|held| held.number == number);
            entries.extend(held.map(|held| Entry {
                peer: peer.id,
                number,
                activity: std::mem::take(&mut held.activity),
            }));
        }
        let drops = std::mem::take(&mut self.counters);
        self.out.push_back(ToNode::Report(Box::new(Report { entries, drops })));
    }

    fn pass_packet(&mut self, slot: Slot, packet: &[u8], offload: &Offload) {
        self.packets.since += packet.len().max(1);
        self.out.push_back(ToNode::Packet { packet: packet.to_vec(), offload: *offload });
        let by_relay = self.peers[slot.0].by_relay;
        let window = if by_relay { &mut self.to_relay } else { &mut self.to_others };
        if window.pass(packet.len()) {
            self.marks += 1;
            let mark = self.marks;
            window.close(mark);
            self.noted(mark);
            self.out.push_back(if by_relay { ToNode::Window(mark) } else { ToNode::Mark(mark) });
        }
    }

    fn pass_frame(&mut self, thread: u16, path: Path, frame: &[u8]) {
        if thread == 0 {
            self.frames.since += frame.len().max(1);
        }
        self.out.push_back(ToNode::Frame { thread, path, frame: frame.to_vec() });
    }

    /// Asks for a mark behind everything passed on so far.
    fn mark(&mut self) -> u64 {
        self.marks += 1;
        self.noted(self.marks);
        self.out.push_back(ToNode::Mark(self.marks));
        self.marks
    }

    /// A mark follows all that was passed on so far.
    const fn noted(&mut self, mark: u64) {
        self.packets.marked(mark);
        self.frames.marked(mark);
    }

    fn slot(&self, peer: NodeId) -> Option<Slot> {
        self.peers.iter().position(|known| known.id == peer).map(Slot)
    }

    fn held(&mut self, number: u32) -> Option<&mut Held> {
        let slot = self.owners.get(number)?;
        self.peers[slot.0].sessions.iter_mut().find(|held| held.number == number)
    }

    /// Takes other routes; peers that stay keep their sessions.
    fn stand_on(&mut self, routes: Arc<Routes<Slot>>, ids: &[NodeId]) {
        let mut before: BTreeMap<NodeId, Peer> =
            std::mem::take(&mut self.peers).into_iter().map(|peer| (peer.id, peer)).collect();
        self.routes = Some(routes);
        for (at, id) in ids.iter().enumerate() {
            let new = || Peer { id: *id, sessions: Vec::new(), grant: None, clamp: None, by_relay: false };
            let peer = before.remove(id).unwrap_or_else(new);
            for held in &peer.sessions {
                self.owners.set(held.number, Slot(at));
            }
            self.peers.push(peer);
        }
        for held in before.values().flat_map(|peer| &peer.sessions) {
            self.owners.remove(held.number);
        }
    }
}

impl Peer {
    /// Returns the session that packets for it are sealed under here, and where to.
    fn sending(&mut self) -> Option<(Grant, &mut Held)> {
        let grant = self.grant?;
        let held = self.sessions.iter_mut().find(|held| held.number == grant.number)?;
        Some((grant, held))
    }
}

impl Held {
    /// Returns the number of a session whose lane the node is to be asked for.
    fn wants(&mut self) -> Option<u32> {
        (self.sealer.is_none() && !std::mem::replace(&mut self.asked, true)).then_some(self.number)
    }
}

/// Seals on the lane of a thread.
struct UnderLane<'l, 't> {
    sealer: &'l mut LaneSealer,
    grant: Grant,
    class: u8,
    tx: &'t mut TxQueue,
}

impl Seal for UnderLane<'_, '_> {
    fn seal(&mut self, kind: PayloadKind, length: usize, fill: impl FnOnce(&mut [u8])) -> bool {
        let path = Path::Udp(self.grant.to);
        let sealed = Session::frame_len(length);
        let frame = self.tx.frame(path, sealed, self.class);
        fill(&mut frame[PAYLOAD_OFFSET..PAYLOAD_OFFSET + length]);
        if self.sealer.seal(kind, frame).is_err() {
            self.tx.cancel(path, sealed);
            return false;
        }
        if self.grant.single {
            self.tx.singly(path);
        }
        true
    }
}

/// Why a frame that did not open is dropped.
pub(crate) const fn reason_of(error: OpenError) -> DropReason {
    match error {
        OpenError::Malformed(_) | OpenError::Lane => DropReason::Malformed,
        OpenError::Index | OpenError::Elsewhere(_) => DropReason::UnknownSession,
        OpenError::Replayed => DropReason::Replayed,
        OpenError::Forged | OpenError::Spent => DropReason::Forged,
    }
}
