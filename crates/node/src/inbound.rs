//! A packet's way in: carrier → session → open → source check → device.

use std::net::IpAddr;

use mesh_packet::{Ethernet, IpPacket, Layout};
use mesh_session::OpenError;
use mesh_wire::control::Control;
use mesh_wire::frame::{FrameHeader, PayloadKind};
use mesh_wire::roster::ula;

use crate::beyond::clamp_to;
use crate::counters::DropReason;
use crate::node::{Delivery, LateDelivery, Link, Node, NodeEvent, Now, Slot};
use crate::offload::complete;
use crate::path::Path;
use crate::segment::claimed_addresses;
use crate::timers::KEEPALIVE_AFTER;
use crate::tx::TxQueue;

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
    /// It waits for its keys.
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
        let opened = live.session.open(frame).map_err(|error| match error {
            OpenError::Malformed(_) | OpenError::Lane => DropReason::Malformed,
            OpenError::Index => DropReason::UnknownSession,
            OpenError::Replayed => DropReason::Replayed,
            OpenError::Forged | OpenError::Spent => DropReason::Forged,
        })?;
        live.last_used = now.instant;
        let confirms = !live.confirmed;
        (live.confirmed, live.heard) = (true, true);
        (peer.last_received, peer.heard_under) = (Some(now.instant), Some(header.receiver));
        peer.unanswered_since = None;
        (peer.probe, peer.doubted) = (None, false);
        self.heard_over(now, slot, path);
        if confirms {
            self.confirmed(now, slot, header.receiver, tx);
        }
        Ok((Sender { slot, index: header.receiver, path }, opened.kind, opened.payload))
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
                self.handle_control(now, from, payload, tx);
                return None;
            }
            (Kind::Quic, _) => return Some(Delivery::Quic(self.peers[slot.0].id, payload)),
            (Kind::Ip | Kind::IpPartial | Kind::IpContinued, Link::Ip) => self.check_packet(slot, payload),
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
        if peer.silent_since.is_none() {
            peer.silent_since = Some(now.instant);
            self.arm(slot, now.instant + KEEPALIVE_AFTER);
        }
        let setting = self.setting(slot);
        if self.peers[slot.0].paths.receives(now.instant, setting) {
            self.arm_paths(slot);
        }
        if let Some(limit) = self.clamp(slot)
            && let Some(network) = self.network_offset(&payload[..length])
        {
            let partial = matches!(kind, Kind::IpPartial | Kind::EthernetPartial);
            clamp_to(&mut payload[network..length], limit.saturating_sub(network), partial);
        }
        let continued = matches!(kind, Kind::IpContinued | Kind::EthernetContinued);
        if !continued && !matches!(kind, Kind::IpPartial | Kind::EthernetPartial) {
            return Some(Delivery::Packet(&mut payload[..length]));
        }
        let network = self.network_offset(payload);
        let Some(network) = network.filter(|at| Layout::find(&payload[..length], *at).is_some()) else {
            self.counters.count(DropReason::Malformed);
            return None;
        };
        Some(Delivery::Partial { network, packet: &mut payload[..length], continued })
    }

    /// Checks that the source is one of the sender's addresses and returns the length without padding.
    fn check_packet(&self, slot: Slot, payload: &[u8]) -> Result<usize, DropReason> {
        let header = IpPacket::parse(payload).map_err(|_| DropReason::Malformed)?;
        if self.routes.lookup(header.src) != Some(slot) {
            return Err(DropReason::SourceNotAllowed);
        }
        Ok(header.total_len)
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

    fn handle_control(&mut self, now: Now, from: Sender, payload: &[u8], tx: &mut TxQueue) {
        let Sender { slot, index, path } = from;
        match Control::parse(payload) {
            Ok(Control::Ping(id)) => {
                // Under the session that is asked about, which need not be the one in use.
                self.send_control_under(now.instant, slot, index, &Control::Pong(id), tx);
            }
            Ok(Control::Pong(id)) => {
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
                    self.peers[slot.0].paths.forget();
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
            Ok(Control::Keepalive) => {}
            Ok(Control::EnrolRequest { .. } | Control::EnrolPart { .. } | Control::EnrolRefused { .. })
            | Err(_) => {
                self.counters.count(DropReason::Malformed);
            }
        }
    }
}
