//! A packet's way in: carrier → session → open → source check → device.

use std::net::IpAddr;

use mesh_packet::{Ethernet, IpPacket, Layout};
use mesh_wire::control::Control;
use mesh_wire::frame::{FrameHeader, PayloadKind};
use mesh_wire::roster::ula;

use crate::beyond::clamp_to;
use crate::counters::DropReason;
use crate::node::{Delivery, LateDelivery, Link, Node, NodeEvent, Now, Slot};
use crate::offload::{Form, complete};
use crate::path::Path;
use crate::routes::Routes;
use crate::segment::claimed_addresses;
use crate::timers::KEEPALIVE_AFTER;
use crate::tx::TxQueue;
use crate::worker::reason_of;

/// Where a frame came from: the peer, and our number of the session it was sealed under.
#[derive(Debug, Clone, Copy)]
struct Sender {
    slot: Slot,
    index: u32,
    path: Path,
}

/// Why a frame brought nothing.
enum Unopened {
    Dropped(DropReason),
    /// It waits for its keys, or is another thread's.
    Kept,
}

impl From<DropReason> for Unopened {
    fn from(reason: DropReason) -> Self {
        Self::Dropped(reason)
    }
}

impl LateDelivery {
    /// Copies what came; a packet with a partial checksum gets a complete one, or is dropped where it can have none.
    #[must_use]
    pub fn of(delivery: Delivery<'_>) -> Option<Self> {
        match delivery {
            Delivery::Packet(packet) => Some(Self::Packet(packet.to_vec())),
            Delivery::Partial { network, packet, .. } => {
                complete(packet, Some(network)).then(|| Self::Packet(packet.to_vec()))
            }
            Delivery::Quic(peer, datagram) => Some(Self::Quic(peer, datagram.to_vec())),
        }
    }
}

impl Node {
    /// Takes one sealed frame that came over a path and returns what it brings, if that is not for the node itself. Poll for transmits,
    /// orders, events and the timeout afterwards.
    pub fn handle_frame<'a>(
        &mut self,
        now: Now,
        path: Path,
        frame: &'a mut [u8],
        tx: &mut TxQueue,
    ) -> Option<Delivery<'a>> {
        match self.open(now, path, frame, tx) {
            Ok((from, kind, payload)) => self.accept(now, from, kind, payload, tx),
            Err(Unopened::Dropped(reason)) => {
                self.counters.count(reason);
                None
            }
            Err(Unopened::Kept) => None,
        }
    }

    /// Takes the frames that came before the session with this number.
    pub(crate) fn replay_early(&mut self, now: Now, number: u32, tx: &mut TxQueue) {
        for (path, mut frame) in self.early.take(number) {
            let late = self.handle_frame(now, path, &mut frame, tx).and_then(LateDelivery::of);
            self.late.extend(late);
        }
    }

    /// Finds the session, opens the frame and notes that the peer lives.
    fn open<'a>(
        &mut self,
        now: Now,
        path: Path,
        frame: &'a mut [u8],
        tx: &mut TxQueue,
    ) -> Result<(Sender, PayloadKind, &'a mut [u8]), Unopened> {
        let header = FrameHeader::parse(frame).map_err(|_| DropReason::Malformed)?;
        let Some(slot) = self.owners.get(header.receiver) else {
            return Err(self.not_yet(now, header.receiver, path, frame));
        };
        let peer = &mut self.peers[slot.0];
        let live = peer
            .sessions
            .iter_mut()
            .find(|live| live.number.get() == header.receiver)
            .ok_or(DropReason::UnknownSession)?;
        if let Some(thread) = live.session.owner_elsewhere(header.lane) {
            self.sharing.stray(thread, path, frame);
            return Err(Unopened::Kept);
        }
        let opened = live.session.open(frame).map_err(reason_of)?;
        self.lives(now, (slot, header.receiver), path, tx);
        Ok((Sender { slot, index: header.receiver, path }, opened.kind, opened.payload))
    }

    /// Notes that a peer sealed a frame under one of its sessions, which came over a path.
    pub(crate) fn lives(&mut self, now: Now, (slot, number): (Slot, u32), path: Path, tx: &mut TxQueue) {
        let peer = &mut self.peers[slot.0];
        let Some(live) = peer.sessions.iter_mut().find(|live| live.number.get() == number) else { return };
        live.last_used = now.instant;
        let confirms = !live.confirmed;
        (live.confirmed, live.heard) = (true, true);
        (peer.last_received, peer.heard_under) = (Some(now.instant), Some(number));
        peer.unanswered_since = None;
        (peer.probe, peer.doubted) = (None, false);
        if peer.shared.grant.is_none() {
            self.unsettle(slot);
        }
        self.heard_over(now, slot, path);
        if confirms {
            self.confirmed(now, slot, number, tx);
        }
    }

    fn heard_over(&mut self, now: Now, slot: Slot, path: Path) {
        let setting = self.setting(slot);
        if self.peers[slot.0].paths.heard(now.instant, path, setting) {
            self.arm_paths(slot);
        }
    }

    /// Keeps a frame whose session is on its way from the handshaker or waits for the exporter.
    fn not_yet(&mut self, now: Now, number: u32, path: Path, frame: &[u8]) -> Unopened {
        if !self.config.numbers.is_taken(number) {
            return DropReason::UnknownSession.into();
        }
        for _ in 0..self.early.put(now.instant, number, path, frame) {
            self.counters.count(DropReason::QueueExpired);
        }
        Unopened::Kept
    }

    fn accept<'a>(
        &mut self,
        now: Now,
        from: Sender,
        kind: PayloadKind,
        payload: &'a mut [u8],
        tx: &mut TxQueue,
    ) -> Option<Delivery<'a>> {
        use PayloadKind as Kind;
        let slot = from.slot;
        let checked = match (kind, self.config.link) {
            (Kind::Control, _) => {
                self.handle_control(now, (from.slot, from.index, from.path), payload, tx);
                return None;
            }
            (Kind::Quic, _) => return Some(Delivery::Quic(self.peers[slot.0].id, payload)),
            (Kind::Ip | Kind::IpPartial | Kind::IpContinued, Link::Ip) => {
                check_packet(&self.routes, slot, payload)
            }
            (Kind::Ethernet | Kind::EthernetPartial | Kind::EthernetContinued, Link::Ethernet) => {
                self.check_ethernet(now, slot, payload)
            }
            _ => Err(DropReason::WrongLink),
        };
        let length = match checked {
            Ok(length) => length,
            Err(reason) => {
                self.counters.count(reason);
                return None;
            }
        };
        let peer = &mut self.peers[slot.0];
        peer.packets_under = Some(from.index);
        peer.traffic.rx_packets += 1;
        peer.traffic.rx_bytes += u64::try_from(length).unwrap_or(0);
        self.received_data(now, slot);
        delivery(self.form(slot), kind, payload, length).map_err(|reason| self.counters.count(reason)).ok()
    }

    /// Notes that data came from a peer.
    pub(crate) fn received_data(&mut self, now: Now, slot: Slot) {
        let peer = &mut self.peers[slot.0];
        if peer.silent_since.is_none() {
            peer.silent_since = Some(now.instant);
            self.arm(slot, now.instant + KEEPALIVE_AFTER);
        }
        let setting = self.setting(slot);
        if self.peers[slot.0].paths.receives(now.instant, setting) {
            self.arm_paths(slot);
        }
    }

    /// Learns the station and checks that no overlay address of another member is claimed.
    fn check_ethernet(&mut self, now: Now, slot: Slot, payload: &[u8]) -> Result<usize, DropReason> {
        let frame = Ethernet::parse(payload).map_err(|_| DropReason::Malformed)?;
        for address in claimed_addresses(&frame)?.into_iter().flatten() {
            if self.is_overlay(address) && self.routes.lookup(address) != Some(slot) {
                return Err(DropReason::SourceNotAllowed);
            }
        }
        self.segment.incoming(now.instant, slot, &frame)?;
        Ok(payload.len())
    }

    pub(crate) fn is_overlay(&self, address: IpAddr) -> bool {
        let pool = self.roster.settings().ipv4_pool.prefix();
        pool.contains(address) || ula(self.config.net).contains(address)
    }

    /// Takes a message to the node itself, with the peer, our number of the session and the path that it came over.
    pub(crate) fn handle_control(
        &mut self,
        now: Now,
        (slot, index, path): (Slot, u32, Path),
        payload: &[u8],
        tx: &mut TxQueue,
    ) {
        match Control::parse(payload) {
            Ok(Control::Ping(id)) => {
                // Under the session that is asked about, which need not be the one in use.
                self.send_control_under(now.instant, slot, index, &Control::Pong(id), tx);
            }
            Ok(Control::Pong(id)) => {
                self.hold_answered(now, slot, id, tx);
                let peer = &mut self.peers[slot.0];
                if let Some(sent) = peer.ponged(id) {
                    let rtt = now.instant.duration_since(sent);
                    peer.rtt = Some(rtt);
                    let peer = peer.id;
                    self.event(NodeEvent::Pong { peer, id, rtt, path });
                }
            }
            Ok(Control::Close) => {
                let peer = self.peers[slot.0].id;
                self.forget_session(slot, index);
                if self.peers[slot.0].sessions.is_empty() {
                    // Who starts anew listens on another port, and may be somewhere else.
                    self.forget_paths(now.instant, slot);
                    self.event(NodeEvent::Lost { peer });
                }
            }
            Ok(Control::RekeyOffer(part)) => self.handle_offer(now, slot, index, part, tx),
            Ok(Control::RekeyAnswer(part)) => self.handle_answer(now, slot, index, part, tx),
            Ok(Control::Candidates(said)) => self.handle_candidates(now, slot, said, tx),
            Ok(Control::Ice(offer)) => self.handle_ice(now, slot, offer),
            Ok(Control::PathChallenge(challenge)) => {
                self.handle_challenge(now, (slot, index), path, challenge, tx);
            }
            Ok(Control::PathResponse(response)) => self.handle_path_response(now, slot, path, response, tx),
            Ok(Control::Relays(told)) => self.handle_relays(now.instant, slot, told),
            Ok(Control::Door(told)) => self.handle_door(now.instant, slot, told),
            Ok(Control::Keepalive) => {}
            Ok(Control::EnrolRequest { .. } | Control::EnrolPart { .. } | Control::EnrolRefused { .. })
            | Err(_) => {
                self.counters.count(DropReason::Malformed);
            }
        }
    }
}

/// Checks that the source of a packet is one of the sender's addresses and returns the length without padding.
pub(crate) fn check_packet(routes: &Routes<Slot>, slot: Slot, payload: &[u8]) -> Result<usize, DropReason> {
    let header = IpPacket::parse(payload).map_err(|_| DropReason::Malformed)?;
    if routes.lookup(header.src) != Some(slot) {
        return Err(DropReason::SourceNotAllowed);
    }
    Ok(header.total_len)
}

/// Returns what a payload with a packet of `length` bytes brings.
pub(crate) fn delivery(
    form: Form,
    kind: PayloadKind,
    payload: &mut [u8],
    length: usize,
) -> Result<Delivery<'_>, DropReason> {
    use PayloadKind as Kind;
    if let Some(limit) = form.clamp
        && let Some(network) = form.network_offset(&payload[..length])
    {
        let partial = matches!(kind, Kind::IpPartial | Kind::EthernetPartial);
        clamp_to(&mut payload[network..length], limit.saturating_sub(network), partial);
    }
    let continued = matches!(kind, Kind::IpContinued | Kind::EthernetContinued);
    if !continued && !matches!(kind, Kind::IpPartial | Kind::EthernetPartial) {
        return Ok(Delivery::Packet(&mut payload[..length]));
    }
    let network = form.network_offset(payload);
    let network = network.filter(|at| Layout::find(&payload[..length], *at).is_some());
    let network = network.ok_or(DropReason::Malformed)?;
    Ok(Delivery::Partial { network, packet: &mut payload[..length], continued })
}
