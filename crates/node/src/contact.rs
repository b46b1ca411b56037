//! Peers: wished for, reached, lost. Handshakes themselves are the [`Handshaker`](crate::Handshaker)'s; this side asks
//! for them and takes the sessions that they lead to.

use std::time::{Duration, Instant};

use mesh_packet::Offload;
use mesh_wire::NodeId;
use mesh_wire::control::Control;

use crate::counters::DropReason;
use crate::node::{Node, NodeEvent, Now, Slot};
use crate::order::{Establishment, Order, Outcome};
use crate::path::Path;
use crate::peer::{Live, Mixing, Probe};
use crate::tx::TxQueue;

/// Most peers whose membership is newer than our roster.
pub(crate) const LEARNED: usize = 64;
/// Packets that wait for a session that has stood this long without being mixed call for another handshake: the way
/// that it was made over may be dead. The QUIC handshake goes on meanwhile.
pub(crate) const MIX_PATIENCE: Duration = Duration::from_secs(2);

/// Addresses at which a peer answered that a handshake tries.
const FOUND: usize = 4;

impl Node {
    /// Makes sure that a session with a peer stands or is on its way; false when nobody has that id. Poll afterwards.
    pub fn connect(&mut self, peer: NodeId) -> bool {
        let Some(slot) = self.by_id.get(&peer).copied() else { return false };
        if self.peers[slot.0].current().is_none() && !self.peers[slot.0].dialling {
            self.dial(slot);
        }
        true
    }

    /// Sends a sealed ping and returns its id; none when there is no session. Poll afterwards.
    pub fn ping(&mut self, now: Now, peer: NodeId, tx: &mut TxQueue) -> Option<u64> {
        let slot = self.by_id.get(&peer).copied()?;
        self.ping_slot(now.instant, slot, tx)
    }

    /// Takes what the relay says of a peer: whether it is connected there. Poll afterwards.
    pub fn handle_presence(&mut self, now: Now, peer: NodeId, present: bool, tx: &mut TxQueue) {
        let Some(slot) = self.by_id.get(&peer).copied() else { return };
        self.peers[slot.0].online = Some(present);
        if !present {
            if self.paths(slot).is_empty() {
                self.stop_dial(slot);
            }
            return;
        }
        let peer = &self.peers[slot.0];
        if peer.current().is_some() {
            // It may have been started anew and know nothing of the session: ask.
            self.probe(now.instant, slot, 0, tx);
        } else if peer.dialling || !peer.queue.is_empty() {
            // The handshaker leaves an attempt alone that was just made.
            self.dial(slot);
        }
    }

    /// Takes what a handshake led to. Poll for transmits, packets, events and the timeout afterwards.
    pub fn handle_outcome(&mut self, now: Now, outcome: Outcome, tx: &mut TxQueue) {
        match outcome {
            Outcome::Established(established) => self.established(now, *established, tx),
            Outcome::Refused { peer, error } => {
                if let Some(slot) = self.by_id.get(&peer) {
                    self.peers[slot.0].last_error = Some(error);
                }
            }
            Outcome::GaveUp { peer } => {
                if let Some(slot) = self.by_id.get(&peer) {
                    self.peers[slot.0].dialling = false;
                }
            }
        }
    }

    /// Says goodbye to every peer. Poll for transmits afterwards.
    pub fn close(&mut self, tx: &mut TxQueue) {
        for slot in (0..self.peers.len()).map(Slot) {
            self.forget_sessions(slot, Some(tx));
        }
    }

    pub(crate) fn ping_slot(&mut self, now: Instant, slot: Slot, tx: &mut TxQueue) -> Option<u64> {
        let id = self.random_u64();
        if !self.send_control(now, slot, &Control::Ping(id), tx) {
            return None;
        }
        self.peers[slot.0].pinged(id, now);
        Some(id)
    }

    /// Asks for a handshake over every path that may lead to the peer.
    pub(crate) fn dial(&mut self, slot: Slot) {
        let paths = self.paths(slot);
        let peer = &mut self.peers[slot.0];
        peer.dialling = true;
        let order = Order::Dial { peer: peer.id, paths, holds_session: peer.holds_session() };
        self.orders.push_back(order);
    }

    pub(crate) fn stop_dial(&mut self, slot: Slot) {
        let peer = &mut self.peers[slot.0];
        if std::mem::take(&mut peer.dialling) {
            self.orders.push_back(Order::Stop { peer: peer.id });
        }
    }

    /// Returns the ways that may lead to a peer: its configured addresses, the relay unless it says otherwise, those on
    /// local networks, and addresses at which it answered.
    pub(crate) fn paths(&self, slot: Slot) -> Vec<Path> {
        let peer = &self.peers[slot.0];
        let endpoints = self.config.endpoints.get(&peer.name).into_iter().flatten();
        let relay = (peer.beside || peer.online != Some(false)).then_some(Path::Relay(peer.id));
        let near = peer.paths.near().iter().copied();
        let found = near.chain(peer.paths.answered().take(FOUND)).map(Path::Udp);
        let mut paths: Vec<_> = endpoints.map(|address| Path::Udp(*address)).chain(relay).collect();
        for path in found {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        paths
    }

    /// A session may carry data now: sends what waited.
    pub(crate) fn flush_queue(&mut self, now: Now, slot: Slot, tx: &mut TxQueue) {
        while self.data_session(now.instant, slot).is_some() {
            let Some((lane, packet)) = self.peers[slot.0].queue.pop() else { break };
            let origin = std::mem::replace(&mut self.sharing.origin, lane);
            self.send_packet(now, slot, &packet, &Offload::NONE, tx);
            self.sharing.origin = origin;
        }
        self.unsettle(slot);
    }

    /// Forgets a peer's sessions; with `tx`, tells it so.
    pub(crate) fn forget_sessions(&mut self, slot: Slot, tx: Option<&mut TxQueue>) {
        if let Some(tx) = tx {
            // Each goodbye ends the session that it is sent under.
            let sessions = self.peers[slot.0].sessions.iter();
            let sessions: Vec<_> = sessions.map(|live| (live.last_used, live.number.get())).collect();
            for (last_used, number) in sessions {
                self.send_control_under(last_used, slot, number, &Control::Close, tx);
            }
        }
        self.stop_dial(slot);
        let peer = &mut self.peers[slot.0];
        (peer.lead, peer.follow) = (None, None);
        for live in std::mem::take(&mut peer.sessions) {
            self.owners.remove(live.number.get());
        }
        (peer.unanswered_since, peer.silent_since, peer.probe) = (None, None, None);
        self.unsettle(slot);
    }

    /// Forgets one session of a peer.
    pub(crate) fn forget_session(&mut self, slot: Slot, index: u32) {
        let peer = &mut self.peers[slot.0];
        if let Some(at) = peer.position(index) {
            peer.sessions.remove(at);
            self.owners.remove(index);
            self.unsettle(slot);
            let peer = &mut self.peers[slot.0];
            if peer.sessions.is_empty() {
                (peer.unanswered_since, peer.silent_since, peer.probe) = (None, None, None);
                (peer.lead, peer.follow) = (None, None);
            }
            if peer.dialling {
                let order = Order::Holds { peer: peer.id, session: peer.holds_session() };
                self.orders.push_back(order);
            }
        }
    }

    /// Asks whether the session in use still stands; `sent` pings have asked before.
    pub(crate) fn probe(&mut self, now: Instant, slot: Slot, sent: u32, tx: &mut TxQueue) {
        self.ping_slot(now, slot, tx);
        let next = now + crate::timers::PROBE;
        self.peers[slot.0].probe = Some(Probe { sent: sent + 1, next });
        self.arm(slot, next);
    }

    /// Adds a session beside those that stand.
    pub(crate) fn push_session(&mut self, now: Now, slot: Slot, mut live: Live) {
        self.share_session(slot, &mut live);
        let number = live.number.get();
        let look_again = if live.mixing.is_some() { MIX_PATIENCE } else { crate::peer::LINGER };
        self.owners.set(number, slot);
        if let Some(evicted) = self.peers[slot.0].add_session(live) {
            self.owners.remove(evicted);
        }
        self.arm(slot, now.instant + look_again);
    }

    fn established(&mut self, now: Now, established: Establishment, tx: &mut TxQueue) {
        let Establishment { leaf, session, initiator, crossed, path, params, keeps_connection, .. } =
            established;
        if established.roster_version < self.roster.version() && !self.by_id.contains_key(&leaf.node_id) {
            // It was judged by a roster that a newer one without it has replaced.
            return self.counters.count(DropReason::NotMember);
        }
        let Some(slot) = self.slot_for(&leaf) else { return self.counters.count(DropReason::TableFull) };
        let ours = initiator == self.config.own;
        let mixing = established.mixed.filter(|_| params.mixed_index != 0);
        let live = Live {
            number: established.number,
            initiator,
            handshake: now.instant,
            established: now.instant,
            last_used: now.instant,
            confirmed: ours,
            heard: ours,
            crossed,
            roster_version: established.roster_version,
            mixed: false,
            mixing: mixing.map(|number| Mixing { number, remote: params.mixed_index }),
            tls_pin: params.tls_pin,
            session,
            lanes: Vec::new(),
            lanes_sealed: 0,
        };
        self.forget_earlier_starts(now.instant, slot, &live.tls_pin);
        let (id, session_id, number) = (leaf.node_id, live.session.id(), live.number.get());
        let mixes = live.mixing.is_some();
        self.push_session(now, slot, live);
        let setting = self.setting(slot);
        let peer = &mut self.peers[slot.0];
        peer.paths.shown(now.instant, path, setting);
        if matches!(path, Path::Relay(_)) {
            peer.online = Some(true);
        }
        if ours {
            (peer.dialling, peer.last_error) = (false, None);
            // The ping tells the responder that its keys are confirmed, and us the way's length.
            let ping = self.random_u64();
            self.peers[slot.0].pinged(ping, now.instant);
            self.send_control_under(now.instant, slot, number, &Control::Ping(ping), tx);
        }
        self.event(NodeEvent::Session {
            peer: id,
            session: session_id,
            tls_pin: params.tls_pin,
            keeps_connection,
            mixes,
        });
        if ours {
            self.confirmed(now, slot, number, tx);
        }
        self.replay_early(now, number, tx);
    }

    /// The peer holds the session of this place: announces it, if it came of a handshake, and sends what waited.
    pub(crate) fn confirmed(&mut self, now: Now, slot: Slot, number: u32, tx: &mut TxQueue) {
        let peer = &self.peers[slot.0];
        let announced = peer.position(number).map(|at| &peer.sessions[at]);
        if announced.is_some_and(|live| live.established == live.handshake && !live.mixed) {
            let peer = peer.id;
            self.event(NodeEvent::Established { peer });
            if !self.relays.list.is_empty() {
                self.tell_relays(now.instant, slot, tx);
            }
            if self.door.is_some() {
                self.tell_door(now.instant, slot, tx);
            }
        }
        self.flush_queue(now, slot, tx);
    }

    fn slot_for(&mut self, leaf: &mesh_wire::roster::Leaf) -> Option<Slot> {
        if let Some(slot) = self.by_id.get(&leaf.node_id) {
            return Some(*slot);
        }
        let known = self.roster.leaves().len();
        (self.peers.len() < known + LEARNED).then(|| self.learn(leaf))
    }

    /// A certificate of its own marks each start of a peer: sessions with an earlier start are dead.
    fn forget_earlier_starts(&mut self, now: Instant, slot: Slot, tls_pin: &[u8; 32]) {
        let owners = &mut self.owners;
        let peer = &mut self.peers[slot.0];
        let before = peer.sessions.len();
        peer.sessions.retain(|live| {
            let same = live.tls_pin == *tls_pin;
            if !same {
                owners.remove(live.number.get());
            }
            same
        });
        if peer.sessions.len() < before {
            // It may be somewhere else.
            self.forget_paths(now, slot);
        }
    }
}
