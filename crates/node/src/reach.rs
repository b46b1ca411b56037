//! Finds paths to peers without the relay: carries out what [`Paths`](crate::paths::Paths) decides.

use std::net::SocketAddr;
use std::time::Instant;

use mesh_wire::NodeId;
use mesh_wire::control::{
    Candidates, Control, PATH_CHALLENGE, PROBE, PathChallenge, PathResponse, RelaysTold,
};

use crate::bucket::Rate;
use crate::counters::DropReason;
use crate::node::{Link, Node, NodeEvent, Now, Slot};
use crate::path::Path;
use crate::paths::{Change, OPENING_HOPS, Setting, Size, Step};
use crate::tx::{By, TxQueue};

/// How often a peer may say at which relays it is: two changes for each loss of a relay, and some to spare.
const TOLD: Rate = Rate { per_second: 1, burst: 8 };

impl Node {
    /// Takes the addresses at which this node may be reached, found anew. Poll for transmits afterwards.
    pub fn set_candidates(&mut self, now: Now, candidates: Candidates, tx: &mut TxQueue) {
        let changed = self.candidates != candidates;
        self.candidates = candidates;
        if !changed {
            return;
        }
        for slot in (0..self.peers.len()).map(Slot) {
            if self.peers[slot.0].paths.searches() {
                self.tell_candidates(now.instant, slot, tx);
            }
        }
    }

    /// Takes the relays at which this node is, home first, and tells its peers where they changed. Poll for transmits
    /// afterwards.
    pub fn set_relays(&mut self, now: Now, relays: RelaysTold, tx: &mut TxQueue) {
        if self.relays == relays {
            return;
        }
        self.relays = relays;
        for slot in (0..self.peers.len()).map(Slot) {
            self.tell_relays(now.instant, slot, tx);
        }
    }

    /// Tells a peer with a session at which relays this node is.
    pub(crate) fn tell_relays(&mut self, now: Instant, slot: Slot, tx: &mut TxQueue) {
        if !self.peers[slot.0].sessions.is_empty() {
            let message = Control::Relays(self.relays.clone());
            self.send_control(now, slot, &message, tx);
        }
    }

    pub(crate) fn handle_relays(&mut self, now: Instant, slot: Slot, told: RelaysTold) {
        let peer = &mut self.peers[slot.0];
        if !peer.told_relays.take(now, TOLD) {
            return self.counters.count(DropReason::RateLimited);
        }
        let peer = peer.id;
        self.event(NodeEvent::Relays { peer, relays: told.list });
    }

    /// Says whether the relay is connected. Poll for transmits, events and the timeout afterwards.
    pub fn handle_relay(&mut self, now: Now, connected: bool) {
        self.relay = connected;
        if connected {
            // The peer may be told of addresses again: a search that failed for want of it need not wait.
            for peer in &mut self.peers {
                peer.paths.relay_found();
            }
            return;
        }
        for slot in
            (0..self.peers.len()).map(Slot).filter(|slot| !self.peers[slot.0].beside).collect::<Vec<_>>()
        {
            self.relay_lost(now.instant, slot);
        }
    }

    pub(crate) fn relay_lost(&mut self, now: Instant, slot: Slot) {
        let setting = self.setting(slot);
        if self.peers[slot.0].paths.relay_lost(now, setting) {
            self.moved(slot);
        }
    }

    /// Says that addresses or routes of the machine changed, or that it slept. Poll for transmits, events and the
    /// timeout afterwards.
    pub fn handle_network_change(&mut self, now: Now, tx: &mut TxQueue) {
        for slot in (0..self.peers.len()).map(Slot) {
            if self.peers[slot.0].sessions.is_empty() {
                self.forget_paths(now.instant, slot);
                continue;
            }
            let setting = self.setting(slot);
            if self.peers[slot.0].paths.network_changed(now.instant, setting) {
                self.paths_timeout(now, slot, tx);
            }
        }
    }

    /// Looks for a path to a peer without the relay at once, whenever the last search was. Poll for transmits, events
    /// and the timeout afterwards.
    pub fn search(&mut self, now: Now, peer: NodeId, tx: &mut TxQueue) {
        let Some(slot) = self.by_id.get(&peer).copied() else { return };
        let setting = self.setting(slot);
        if self.peers[slot.0].paths.search(now.instant, setting) {
            self.paths_timeout(now, slot, tx);
        }
    }

    /// Takes the addresses at which a peer was found on local networks, all that there are. Poll for transmits, orders, events
    /// and the timeout afterwards.
    pub fn handle_near(&mut self, now: Now, peer: NodeId, mut addresses: Vec<SocketAddr>, tx: &mut TxQueue) {
        let Some(slot) = self.by_id.get(&peer).copied() else { return };
        addresses.retain(|address| !self.is_overlay(address.ip()));
        let setting = self.setting(slot);
        let near = self.peers[slot.0].paths.set_near(now.instant, addresses, setting);
        if near.timeout {
            self.agent_wanted(now.instant, slot);
            self.paths_timeout(now, slot, tx);
        }
        if near.news {
            self.event(NodeEvent::Near { peer });
            let peer = &self.peers[slot.0];
            if peer.current().is_none() && (peer.dialling || !peer.queue.is_empty()) {
                // What waits need not wait for the next attempt.
                self.dial(slot);
            }
        }
    }

    /// What the paths of a peer depend on.
    pub(crate) fn setting(&self, slot: Slot) -> Setting {
        let searches = self.config.direct && !self.peers[slot.0].sessions.is_empty();
        let peer = &self.peers[slot.0];
        let relay = peer.beside || (self.relay && peer.online != Some(false));
        let birthday = searches && self.config.birthday;
        let (mapping, most) = (self.candidates.mapping, self.longest_payload());
        Setting { searches, relay, birthday, mapping, most }
    }

    pub(crate) fn paths_timeout(&mut self, now: Now, slot: Slot, tx: &mut TxQueue) {
        self.agent_leads(now.instant, slot);
        let setting = self.setting(slot);
        let steps = self.peers[slot.0].paths.timeout(now.instant, setting);
        self.agent_rests(now.instant, slot);
        self.carry_out(now.instant, slot, steps, tx);
        self.arm_paths(slot);
    }

    /// Sees to it that the paths are looked at when they are due.
    pub(crate) fn arm_paths(&mut self, slot: Slot) {
        self.unsettle(slot);
        if let Some(due) = self.peers[slot.0].paths.due() {
            self.arm(slot, due);
        }
    }

    pub(crate) fn handle_candidates(&mut self, now: Now, slot: Slot, mut said: Candidates, tx: &mut TxQueue) {
        let ours = |address: SocketAddr| {
            self.candidates.list.iter().any(|own| own.address.is_ipv4() == address.is_ipv4())
        };
        // Frames in frames lead nowhere, and a family that this node has no socket for neither.
        said.list.retain(|candidate| !self.is_overlay(candidate.address.ip()));
        if !self.candidates.list.is_empty() {
            said.list.retain(|candidate| ours(candidate.address));
        }
        let setting = self.setting(slot);
        let due = self.peers[slot.0].paths.candidates(now.instant, &said, setting);
        self.agent_wanted(now.instant, slot);
        if due {
            self.paths_timeout(now, slot, tx);
        }
    }

    /// Answers a challenge where it came from.
    pub(crate) fn handle_challenge(
        &mut self,
        now: Now,
        (slot, index): (Slot, u32),
        from: Path,
        challenge: PathChallenge,
        tx: &mut TxQueue,
    ) {
        self.proof = true;
        let seen = match from {
            Path::Relay(_) => None,
            // Which of the interfaces it means, only the peer knows.
            Path::Udp(SocketAddr::V6(v6)) if v6.ip().is_unicast_link_local() => None,
            Path::Udp(address) => Some(address),
        };
        let response = PathResponse { id: challenge.id, seen, size: challenge.size };
        // The answer says something about the way of the challenge, not about what is sent together here.
        tx.end(from);
        self.send_control_over(now.instant, slot, index, from, &Control::PathResponse(response), tx);
        tx.end(from);
        let short = usize::from(challenge.size) == PATH_CHALLENGE;
        if short && self.peers[slot.0].paths.sought(now.instant, from) {
            self.arm_paths(slot);
        }
    }

    pub(crate) fn handle_path_response(
        &mut self,
        now: Now,
        slot: Slot,
        from: Path,
        response: PathResponse,
        tx: &mut TxQueue,
    ) {
        if let Some(sent) = self.peers[slot.0].echo_answered(response.id, from) {
            let (peer, rtt) = (self.peers[slot.0].id, now.instant.duration_since(sent));
            self.event(NodeEvent::Pong { peer, id: response.id, rtt, path: from });
            return;
        }
        self.proof = true;
        let setting = self.setting(slot);
        let (rtt, steps) = self.peers[slot.0].paths.answered_by(now.instant, from, response.id, setting);
        if rtt.is_some() && from == self.peers[slot.0].paths.current() {
            self.peers[slot.0].rtt = rtt;
        }
        self.carry_out(now.instant, slot, steps, tx);
        self.arm_paths(slot);
    }

    pub(crate) fn carry_out(&mut self, now: Instant, slot: Slot, steps: Vec<Step>, tx: &mut TxQueue) {
        self.agent_leads(now, slot);
        for step in steps {
            match step {
                Step::Tell => {
                    self.event(NodeEvent::Gather);
                    self.tell_candidates(now, slot, tx);
                    self.agent_wanted(now, slot);
                }
                Step::Open(address) | Step::Guess(address, _) if !self.may_search(now, slot, address) => {}
                Step::Open(address) => {
                    let id = self.short_challenge(now, slot, address, By::Hops(OPENING_HOPS), tx);
                    // It may reach a peer that is near all the same.
                    if let Some(id) = id {
                        self.peers[slot.0].paths.challenged(now, address, id, Size::Short);
                    }
                }
                Step::Guess(address, by) => {
                    self.short_challenge(now, slot, address, by, tx);
                }
                Step::Birthday => self.begin_birthday(now, slot),
                Step::Challenge(address, size) => {
                    let Some(size) = self.challenge_size(now, slot, address, size) else { continue };
                    let id = self.random_u64();
                    let bytes = match size {
                        Size::Short => PATH_CHALLENGE,
                        Size::Long(bytes) | Size::Pair(bytes) => {
                            usize::from(bytes).clamp(PATH_CHALLENGE, PROBE)
                        }
                    };
                    let bytes = u16::try_from(bytes).expect("9000 at most");
                    let challenge = Control::PathChallenge(PathChallenge { id, size: bytes });
                    let Some(at) = self.peers[slot.0].settled() else { continue };
                    let number = self.peers[slot.0].sessions[at].number.get();
                    self.peers[slot.0].paths.challenged(now, address, id, size);
                    let path = Path::Udp(address);
                    // What is not to be tried together with others leaves by itself.
                    tx.end(path);
                    for _ in 0..if matches!(size, Size::Pair(_)) { 2 } else { 1 } {
                        self.send_control_over(now, slot, number, path, &challenge, tx);
                    }
                    tx.end(path);
                }
                Step::Moved => {
                    self.moved(slot);
                    self.begin_hold(now, slot, tx);
                }
                Step::Failed => self.event(NodeEvent::NoDirect { peer: self.peers[slot.0].id }),
                Step::Sized => self.event(NodeEvent::PathSize { peer: self.peers[slot.0].id }),
            }
        }
    }

    /// Lets ports be guessed with a peer: with one at a time, and not too often.
    fn begin_birthday(&mut self, now: Instant, slot: Slot) {
        let idle = self.guessing.is_none_or(|peer| !self.is_guessing(peer));
        if !idle || !self.allowance.take(now) {
            return;
        }
        let (seed, setting) = (self.random_u64(), self.setting(slot));
        let peer = &mut self.peers[slot.0];
        if peer.paths.begin_birthday(now, seed, setting) {
            self.guessing = Some(peer.id);
        }
    }

    fn is_guessing(&self, peer: NodeId) -> bool {
        self.by_id.get(&peer).is_some_and(|slot| self.peers[slot.0].paths.guesses())
    }

    /// Tells once that the guessing is over.
    pub(crate) fn guessing_ended(&mut self) -> Option<NodeEvent> {
        let peer = self.guessing.filter(|peer| !self.is_guessing(*peer))?;
        self.guessing = None;
        Some(NodeEvent::Guessed { peer })
    }

    /// Tells once whether something came since the last call that answers, or asks for an answer, on the way that it came.
    pub fn take_proof(&mut self) -> bool {
        std::mem::take(&mut self.proof)
    }

    /// Sends a challenge that leaves by itself, and returns its id.
    fn short_challenge(
        &mut self,
        now: Instant,
        slot: Slot,
        to: SocketAddr,
        by: By,
        tx: &mut TxQueue,
    ) -> Option<u64> {
        let size = u16::try_from(PATH_CHALLENGE).expect("it is short");
        let id = self.random_u64();
        let peer = &self.peers[slot.0];
        let number = peer.sessions[peer.settled()?].number.get();
        let path = Path::Udp(to);
        tx.end(path);
        let challenge = Control::PathChallenge(PathChallenge { id, size });
        let sent = self.send_control_over(now, slot, number, path, &challenge, tx);
        tx.end_by(path, by);
        sent.then_some(id)
    }

    /// The longest payload of a frame, in bytes: an IP packet, or an Ethernet frame with a VLAN tag around one.
    pub(crate) fn longest_payload(&self) -> u16 {
        self.config.mtu.saturating_add(self.overhead()).min(LONGEST)
    }

    /// Bytes of a frame's payload around the packet in it.
    pub(crate) fn overhead(&self) -> u16 {
        if self.config.link == Link::Ethernet { ETHERNET } else { 0 }
    }

    fn tell_candidates(&mut self, now: Instant, slot: Slot, tx: &mut TxQueue) {
        if self.candidates.list.is_empty() {
            return;
        }
        let message = Control::Candidates(self.candidates.clone());
        if self.send_control(now, slot, &message, tx) {
            self.peers[slot.0].paths.tells(now);
        }
    }

    pub(crate) fn moved(&mut self, slot: Slot) {
        self.unsettle(slot);
        let peer = &mut self.peers[slot.0];
        // What was measured belongs to another way.
        peer.rtt = peer.paths.rtt();
        let (peer, change) = (peer.id, peer.paths.last_change());
        let Some(Change { from, to, reason, .. }) = change else { return };
        self.event(NodeEvent::Path { peer, from, path: to, reason });
    }
}

/// An Ethernet header with a VLAN tag.
const ETHERNET: u16 = 14 + 4;
/// What a challenge can be as long as.
const LONGEST: u16 = 9000;
const _: () = assert!(LONGEST as usize == PROBE);
