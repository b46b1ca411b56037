//! A packet's way out: device → route → session → seal → batch.

use std::time::Instant;

use mesh_packet::{Ethernet, IpPacket, Offload};
use mesh_session::Session;
use mesh_wire::NodeId;
use mesh_wire::control::Control;
use mesh_wire::frame::{PAYLOAD_OFFSET, PayloadKind};

use crate::contact::MIX_PATIENCE;
use crate::counters::DropReason;
use crate::node::{Link, Node, NodeEvent, Now, Slot};
use crate::offload::for_each_whole;
use crate::path::Path;
use crate::segment::{Target, receiver};
use crate::tx::TxQueue;

/// Packets beyond this may meet a path that only carries shorter ones: what every IPv6 network carries is below it.
pub(crate) const LONG: usize = 1200;
/// On a path with a limit, packets count as long that are less than this below it.
const BELOW: usize = 64;
/// The lane of the first thread, and of what goes over the relay.
pub(crate) const LANE: u16 = 0;

/// Where a frame goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    pub(crate) path: Path,
    pub(crate) also: Option<Path>,
    /// The traffic class of the datagram.
    pub(crate) class: u8,
    /// It is not to leave together with others.
    pub(crate) single: bool,
    /// The thread whose flow it is of.
    pub(crate) lane: u16,
}

impl Node {
    /// Sends a packet from the device for which nothing is left to be done. Poll for transmits, events and the timeout
    /// afterwards.
    pub fn handle_packet(&mut self, now: Now, packet: &[u8], tx: &mut TxQueue) {
        self.handle_offloaded(now, packet, &Offload::NONE, tx);
    }

    /// Sends a packet from a device with offload, of which several frames may become. Poll for transmits, events and the
    /// timeout afterwards.
    pub fn handle_offloaded(&mut self, now: Now, packet: &[u8], offload: &Offload, tx: &mut TxQueue) {
        match self.config.link {
            Link::Ip => {
                let Ok(header) = IpPacket::parse(packet) else {
                    return self.counters.count(DropReason::NotAPacket);
                };
                let Some(slot) = self.routes.lookup(header.dst) else {
                    return self.counters.count(DropReason::NoRoute);
                };
                self.send_packet(now, slot, &packet[..header.total_len.min(packet.len())], offload, tx);
            }
            Link::Ethernet => {
                let Ok(frame) = Ethernet::parse(packet) else {
                    return self.counters.count(DropReason::NotAPacket);
                };
                // A member's overlay address names its node, whatever hardware address the frame is for.
                if let Some(slot) = receiver(&frame).and_then(|address| self.routes.lookup(address)) {
                    return self.send_packet(now, slot, packet, offload, tx);
                }
                match self.segment.outgoing(now.instant, &frame) {
                    Ok(Target::One(slot)) => self.send_packet(now, slot, packet, offload, tx),
                    Ok(Target::All) => {
                        for slot in (0..self.peers.len()).map(Slot) {
                            // What is for everybody does not wait for those who are away.
                            if self.peers[slot.0].is_reachable() {
                                self.send_packet(now, slot, packet, offload, tx);
                            }
                        }
                    }
                    Err(reason) => self.counters.count(reason),
                }
            }
        }
    }

    /// Seals a packet for a peer, or has it wait for others, or for a session.
    pub(crate) fn send_packet(
        &mut self,
        now: Now,
        slot: Slot,
        packet: &[u8],
        offload: &Offload,
        tx: &mut TxQueue,
    ) {
        if self.hold_back(now, slot, (packet, offload), tx) {
            return;
        }
        let Some(at) = self.data_session(now.instant, slot) else {
            return self.queue_packet(now, slot, packet, offload);
        };
        let way = self.data_way(now.instant, slot);
        let sealed = self.seal_packet(now.instant, slot, (at, way), (packet, offload), tx);
        let sealed = match sealed {
            Ok(sealed) => sealed,
            Err(reason) => {
                if reason == DropReason::KeyExhausted && !self.peers[slot.0].dialling {
                    self.dial(slot);
                }
                return self.counters.count(reason);
            }
        };
        let peer = &mut self.peers[slot.0];
        if matches!(way.path, Path::Relay(_)) {
            peer.relayed = Some(now.instant);
        }
        peer.traffic.tx_packets += sealed.frames;
        peer.traffic.tx_bytes += u64::try_from(packet.len()).unwrap_or(0);
        let limit = usize::from(self.peers[slot.0].paths.limit());
        let long = sealed.longest > LONG.min(limit.saturating_sub(BELOW));
        self.sent_data(now, slot, at, long, tx);
    }

    /// Notes that data went to a peer under one of its sessions.
    pub(crate) fn sent_data(&mut self, now: Now, slot: Slot, at: usize, long: bool, tx: &mut TxQueue) {
        let peer = &mut self.peers[slot.0];
        let arm = peer.unanswered_since.is_none();
        peer.unanswered_since.get_or_insert(now.instant);
        if arm {
            self.arm(slot, now.instant + crate::timers::DEAD_AFTER);
        }
        let setting = self.setting(slot);
        if self.peers[slot.0].paths.sends(now.instant, long, setting) {
            self.arm_paths(slot);
        }
        self.renew_keys(now, slot, at, tx);
    }

    /// Seals a control message for a peer; false when there is no session.
    pub(crate) fn send_control(
        &mut self,
        now: Instant,
        slot: Slot,
        message: &Control<'_>,
        tx: &mut TxQueue,
    ) -> bool {
        let Some(at) = self.peers[slot.0].settled() else { return false };
        let number = self.peers[slot.0].sessions[at].number.get();
        self.send_control_under(now, slot, number, message, tx)
    }

    /// Seals a control message under one session of a peer.
    pub(crate) fn send_control_under(
        &mut self,
        now: Instant,
        slot: Slot,
        number: u32,
        message: &Control<'_>,
        tx: &mut TxQueue,
    ) -> bool {
        self.send_control_by(now, slot, number, self.way(now, slot), message, tx)
    }

    /// The same over a path that need not be the one in use.
    pub(crate) fn send_control_over(
        &mut self,
        now: Instant,
        slot: Slot,
        number: u32,
        path: Path,
        message: &Control<'_>,
        tx: &mut TxQueue,
    ) -> bool {
        let way = Way { path, also: None, class: 0, single: false, lane: LANE };
        self.send_control_by(now, slot, number, way, message, tx)
    }

    fn send_control_by(
        &mut self,
        now: Instant,
        slot: Slot,
        number: u32,
        way: Way,
        message: &Control<'_>,
        tx: &mut TxQueue,
    ) -> bool {
        let Some(at) = self.peers[slot.0].position(number) else { return false };
        let bytes = message.encode();
        self.seal(
            now,
            slot,
            at,
            way,
            (PayloadKind::Control, bytes.len()),
            |out| out.copy_from_slice(&bytes),
            tx,
        )
    }

    /// Sends QUIC datagrams to a peer, each of `segment` bytes but the last; without a session they are dropped, and
    /// QUIC repeats them. Poll for transmits afterwards.
    pub fn handle_quic(&mut self, now: Now, peer: NodeId, payload: &[u8], segment: usize, tx: &mut TxQueue) {
        let at = self.by_id.get(&peer).and_then(|slot| Some((*slot, self.peers[slot.0].settled()?)));
        let Some((slot, at)) = at else { return self.counters.count(DropReason::NoSession) };
        let way = self.way(now.instant, slot);
        for datagram in payload.chunks(segment.max(1)) {
            let kind = (PayloadKind::Quic, datagram.len());
            if !self.seal(now.instant, slot, at, way, kind, |out| out.copy_from_slice(datagram), tx) {
                self.counters.count(DropReason::KeyExhausted);
            }
        }
    }

    /// The path in use; while it is unsure that this still leads to the peer, the relay, too.
    pub(crate) fn way(&self, now: Instant, slot: Slot) -> Way {
        let paths = &self.peers[slot.0].paths;
        let path = paths.current();
        let also = paths.also(now, self.setting(slot));
        Way { path, also, class: 0, single: paths.is_single(now, path), lane: LANE }
    }

    /// The same for packets, on the lane of the thread whose packet is handled.
    pub(crate) fn data_way(&self, now: Instant, slot: Slot) -> Way {
        let way = self.way(now, slot);
        let alone = matches!(way.path, Path::Udp(_)) && way.also.is_none();
        Way { lane: if alone { self.sharing.origin } else { LANE }, ..way }
    }

    /// Seals one frame, whose payload of `length` zero bytes `fill` fills; false when the key is used up.
    #[expect(clippy::too_many_arguments, reason = "what is sealed, under what, for where")]
    pub(crate) fn seal(
        &mut self,
        now: Instant,
        slot: Slot,
        at: usize,
        way: Way,
        (kind, length): (PayloadKind, usize),
        fill: impl FnOnce(&mut [u8]),
        tx: &mut TxQueue,
    ) -> bool {
        let peer = &mut self.peers[slot.0];
        let sealed = Session::frame_len(length);
        let frame = tx.frame(way.path, sealed, way.class);
        fill(&mut frame[PAYLOAD_OFFSET..PAYLOAD_OFFSET + length]);
        let live = &mut peer.sessions[at];
        let sealed_frame = match live.lane(way.lane) {
            Some(lane) => lane.seal(kind, frame),
            None => live.session.seal(LANE, kind, frame),
        };
        if sealed_frame.is_err() {
            tx.cancel(way.path, sealed);
            return false;
        }
        live.last_used = now;
        peer.silent_since = None;
        if way.single {
            tx.singly(way.path);
        }
        if let Some(also) = way.also {
            tx.repeat(way.path, also, sealed);
        }
        true
    }

    fn queue_packet(&mut self, now: Now, slot: Slot, packet: &[u8], offload: &Offload) {
        if self.peers[slot.0].dialling && self.peers[slot.0].queue.is_empty() {
            // The attempt may be in one of its long waits.
            self.dial(slot);
        }
        let network = self.network_offset(packet);
        let first = self.peers[slot.0].queue.is_empty();
        let queue = &mut self.peers[slot.0].queue;
        let lane = self.sharing.origin;
        let whole = for_each_whole(packet, network, offload, |whole| {
            for _ in 0..queue.push(now.instant, lane, whole) {
                self.counters.count(DropReason::QueueFull);
            }
        });
        if !whole {
            self.counters.count(DropReason::NotAPacket);
        }
        self.arm(slot, now.instant + crate::peer::QUEUE_AGE);
        if first && self.paths(slot).is_empty() {
            let peer = self.peers[slot.0].id;
            self.event(NodeEvent::Absent { peer });
        }
        self.dial_for_queue(now.instant, slot);
    }

    /// Dials for packets that wait, unless a session is about to carry them; then looks again when it should have.
    pub(crate) fn dial_for_queue(&mut self, now: Instant, slot: Slot) {
        let peer = &self.peers[slot.0];
        if peer.queue.is_empty() || peer.dialling {
            return;
        }
        match peer.current().map(|at| peer.sessions[at].established + MIX_PATIENCE) {
            Some(look_again) if now < look_again => self.arm(slot, look_again),
            _ if !self.paths(slot).is_empty() => self.dial(slot),
            _ => {}
        }
    }
}
