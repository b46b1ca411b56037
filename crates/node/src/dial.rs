//! Handshakes: led, answered, repeated.

use std::time::{Duration, Instant};

use mesh_identity::{MembershipProof, UnixSeconds};
use mesh_session::Session;
use mesh_session::handshake::{AwaitChallenge, AwaitResponse, HandshakeError, LocalClaims, Peer as Claimed};
use mesh_wire::NodeId;
use mesh_wire::control::Control;
use mesh_wire::handshake::HOLDS_SESSION;

use crate::bucket::Rate;
use crate::counters::DropReason;
use crate::index::Owner;
use crate::node::{Node, NodeEvent, Now, Slot};
use crate::peer::{Dial, DialState, Live, Probe};
use crate::tx::TxQueue;

/// The first HELLO without an answer is repeated after this, each next one after twice as long.
pub(crate) const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(16);
/// A handshake that nobody renews the wish for ends after this (WireGuard's REKEY_ATTEMPT_TIME).
const GIVE_UP: Duration = Duration::from_secs(90);
/// How long a responder waits for RESPONSE.
const HALF_OPEN_AGE: Duration = Duration::from_secs(5);
/// Most handshakes that others begin with us at a time.
const HALF_OPEN: usize = 1024;
/// Most peers whose membership is newer than our roster.
const LEARNED: usize = 64;

/// HELLOs answered for one node: 70 us of key exchange each.
const HELLOS: Rate = Rate { per_second: 5, burst: 20 };
/// HELLOs answered for all nodes together: 1.5 % of a core, and a network of 400 that comes up at once in two seconds.
const ALL_HELLOS: Rate = Rate { per_second: 200, burst: 400 };
/// RESPONSEs judged for all nodes together: 400 us of signature checks each.
const ALL_RESPONSES: Rate = Rate { per_second: 100, burst: 400 };

/// A handshake that somebody began with us.
#[derive(Debug)]
pub(crate) struct HalfOpen {
    index: u32,
    state: AwaitResponse,
    expires: Instant,
}

impl Node {
    /// Makes sure that a session with a peer stands or is on its way; false when nobody has that id. Poll afterwards.
    pub fn connect(&mut self, now: Now, peer: NodeId, tx: &mut TxQueue) -> bool {
        let Some(slot) = self.by_id.get(&peer).copied() else { return false };
        if self.peers[slot.0].current().is_none() && self.peers[slot.0].dial.is_none() {
            self.dial(now, slot, tx);
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
            self.stop_dial(slot);
            return;
        }
        if self.peers[slot.0].current().is_some() {
            // It may have been started anew and know nothing of the session: ask.
            self.probe(now.instant, slot, 0, tx);
        } else if self.peers[slot.0].wants_dial(now.instant) {
            self.stop_dial(slot);
            self.dial(now, slot, tx);
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

    /// Begins a handshake, or begins it anew with fresh keys.
    pub(crate) fn dial(&mut self, now: Now, slot: Slot, tx: &mut TxQueue) {
        let before = self.stop_dial(slot);
        let Some(index) = self.indices.allocate(Owner::Peer(slot)) else {
            return self.counters.count(DropReason::TableFull);
        };
        let (nonce, to) = (self.random_nonce(), self.peers[slot.0].id);
        let started = AwaitChallenge::start(&self.config.local, &self.network, to, index, nonce);
        let Ok((state, hello)) = started else {
            self.indices.release(index);
            return self.counters.count(DropReason::HandshakeRefused);
        };
        let tries = before.as_ref().map_or(0, |dial| dial.tries) + 1;
        let wait = RETRY_FIRST.saturating_mul(1 << (tries - 1).min(8)).min(RETRY_MOST);
        let dial = Dial {
            index,
            state: DialState::Hello(Box::new(state)),
            sent: now.instant,
            retry_at: now.instant + wait,
            tries,
            give_up_at: before.map_or(now.instant + GIVE_UP, |dial| dial.give_up_at),
            crossed: false,
        };
        self.arm(slot, dial.retry_at);
        self.peers[slot.0].dial = Some(dial);
        tx.message(to, &hello);
    }

    pub(crate) fn stop_dial(&mut self, slot: Slot) -> Option<Dial> {
        let dial = self.peers[slot.0].dial.take()?;
        self.indices.release(dial.index);
        Some(dial)
    }

    pub(crate) fn handle_hello(
        &mut self,
        now: Now,
        from: NodeId,
        hello: &[u8],
        tx: &mut TxQueue,
    ) -> Result<(), DropReason> {
        if !self.network.knows_hello(hello, self.own) {
            return Err(DropReason::Stranger);
        }
        if !self.hellos.take(now.instant, from, HELLOS) || !self.all_hellos.take(now.instant, ALL_HELLOS) {
            return Err(DropReason::RateLimited);
        }
        self.expire_half_open(now.instant);
        if let Some(old) = self.half_open.remove(&from) {
            self.indices.release(old.index);
        }
        if self.half_open.len() == HALF_OPEN {
            return Err(DropReason::TableFull);
        }
        let index = self.indices.allocate(Owner::HalfOpen).ok_or(DropReason::TableFull)?;
        let nonce = self.random_nonce();
        let started = AwaitResponse::start(&self.config.local, &self.network, self.own, hello, index, nonce);
        let Ok((state, challenge)) = started else {
            self.indices.release(index);
            return Err(DropReason::HandshakeRefused);
        };
        let expires = now.instant + HALF_OPEN_AGE;
        self.half_open.insert(from, HalfOpen { index, state, expires });
        tx.message(from, &challenge);
        Ok(())
    }

    pub(crate) fn handle_challenge(
        &mut self,
        now: Now,
        from: NodeId,
        challenge: &[u8],
        tx: &mut TxQueue,
    ) -> Result<(), DropReason> {
        let slot = self.by_id.get(&from).copied().ok_or(DropReason::HandshakeRefused)?;
        let peer = &mut self.peers[slot.0];
        let Some(Dial { state: DialState::Hello(state), .. }) = &peer.dial else {
            return Err(DropReason::HandshakeRefused);
        };
        let crossed = (!peer.sessions.is_empty() && !peer.doubted) || self.half_open.contains_key(&from);
        let mut claims = self.claims.clone();
        claims.params.capabilities |= if crossed { HOLDS_SESSION } else { 0 };
        let taken = state.take(&self.config.local, &self.network, challenge, &claims);
        let (next, response) = taken.map_err(|error| note(&mut peer.last_error, error))?;
        if let Some(dial) = &mut peer.dial {
            dial.state = DialState::Response(Box::new(next));
            dial.sent = now.instant;
            dial.crossed = crossed;
            dial.retry_at = now.instant + RETRY_FIRST.saturating_mul(1 << (dial.tries - 1).min(4));
        }
        tx.message(from, &response);
        Ok(())
    }

    pub(crate) fn handle_response(
        &mut self,
        now: Now,
        from: NodeId,
        response: &[u8],
        tx: &mut TxQueue,
    ) -> Result<(), DropReason> {
        self.expire_half_open(now.instant);
        let waiting = self.half_open.get(&from).ok_or(DropReason::HandshakeRefused)?;
        if !self.all_responses.take(now.instant, ALL_RESPONSES) {
            return Err(DropReason::RateLimited);
        }
        let claimed = waiting
            .state
            .take(&self.config.local, self.own, response)
            .map_err(|_| DropReason::HandshakeRefused)?;
        let crossed = claimed.params.capabilities & HOLDS_SESSION != 0;
        let Some(HalfOpen { index, state, .. }) = self.half_open.remove(&from) else {
            return Err(DropReason::HandshakeRefused);
        };
        let slot = self.admit(now, from, &claimed).inspect_err(|_| self.indices.release(index))?;
        let claims = self.claims_for(claimed.params.roster_version);
        let (_, session, established) =
            state.proven(claimed, response).establish(&self.config.local, claims).map_err(|_| {
                self.indices.release(index);
                DropReason::HandshakeRefused
            })?;
        self.indices.assign(index, Owner::Peer(slot));
        tx.message(from, &established);
        self.add_session(now, slot, session, from, crossed);
        Ok(())
    }

    pub(crate) fn handle_established(
        &mut self,
        now: Now,
        from: NodeId,
        message: &[u8],
        tx: &mut TxQueue,
    ) -> Result<(), DropReason> {
        let slot = self.by_id.get(&from).copied().ok_or(DropReason::HandshakeRefused)?;
        let peer = &mut self.peers[slot.0];
        let Some(Dial { state: DialState::Response(state), index, crossed, .. }) = &peer.dial else {
            return Err(DropReason::HandshakeRefused);
        };
        let (index, crossed) = (*index, *crossed);
        let taken = state.take(&self.config.local, message);
        let established = taken.map_err(|error| note(&mut peer.last_error, error))?;
        self.admit(now, from, &established.peer)?;
        let peer = &mut self.peers[slot.0];
        peer.dial = None;
        peer.last_error = None;
        self.indices.assign(index, Owner::Peer(slot));
        self.add_session(now, slot, established.session, self.own, crossed);
        // The ping tells the responder that its keys are confirmed, and us the way's length.
        let at = self.peers[slot.0].sessions.len() - 1;
        self.peers[slot.0].sessions[at].confirmed = true;
        let id = self.random_u64();
        self.peers[slot.0].pinged(id, now.instant);
        self.send_control_under(now.instant, slot, at, &Control::Ping(id), tx);
        self.confirmed(now, slot, tx);
        Ok(())
    }

    /// A session may carry data now: announces it and sends what waited.
    pub(crate) fn confirmed(&mut self, now: Now, slot: Slot, tx: &mut TxQueue) {
        let peer = self.peers[slot.0].id;
        self.event(NodeEvent::Established { peer });
        self.flush_queue(now, slot, tx);
    }

    /// Forgets a peer's sessions; with `tx`, tells it so.
    pub(crate) fn forget_sessions(&mut self, slot: Slot, tx: Option<&mut TxQueue>) {
        if let Some(tx) = tx
            && let Some(last) = self.peers[slot.0].sessions.last().map(|live| live.last_used)
        {
            self.send_control(last, slot, &Control::Close, tx);
        }
        self.stop_dial(slot);
        self.stop_lead(slot);
        self.peers[slot.0].follow = None;
        for live in std::mem::take(&mut self.peers[slot.0].sessions) {
            self.indices.release(live.session.local_index());
        }
        let peer = &mut self.peers[slot.0];
        (peer.unanswered_since, peer.silent_since, peer.probe) = (None, None, None);
    }

    /// Forgets one session of a peer.
    pub(crate) fn forget_session(&mut self, slot: Slot, index: u32) {
        let peer = &mut self.peers[slot.0];
        if let Some(at) = peer.position(index) {
            peer.sessions.remove(at);
            self.indices.release(index);
        }
    }

    /// Asks whether the session in use still stands; `sent` pings have asked before.
    pub(crate) fn probe(&mut self, now: Instant, slot: Slot, sent: u32, tx: &mut TxQueue) {
        self.ping_slot(now, slot, tx);
        let next = now + crate::timers::PROBE;
        self.peers[slot.0].probe = Some(Probe { sent: sent + 1, next });
        self.arm(slot, next);
    }

    /// Judges who proved its keys: it must be whom the carrier named and a member.
    fn admit(&mut self, now: Now, from: NodeId, claimed: &Claimed) -> Result<Slot, DropReason> {
        if claimed.id != from {
            return Err(DropReason::HandshakeRefused);
        }
        let proof = MembershipProof::parse(&claimed.proof).map_err(|_| DropReason::NotMember)?;
        let admitted = self
            .roster
            .accepts(&claimed.id, &proof, UnixSeconds(now.unix), &self.heads)
            .map_err(|_| DropReason::NotMember)?;
        if let Some(slot) = self.by_id.get(&from) {
            return Ok(*slot);
        }
        let known = self.roster.leaves().len();
        if self.peers.len() >= known + LEARNED {
            return Err(DropReason::TableFull);
        }
        Ok(self.learn(&admitted.leaf))
    }

    fn claims_for(&self, their_version: u64) -> &LocalClaims {
        if their_version < self.roster.version() { &self.claims } else { &self.short_claims }
    }

    fn add_session(&mut self, now: Now, slot: Slot, session: Session, initiator: NodeId, crossed: bool) {
        let live = Live {
            session,
            initiator,
            handshake: now.instant,
            established: now.instant,
            last_used: now.instant,
            confirmed: false,
            crossed,
        };
        self.push_session(now, slot, live);
        self.peers[slot.0].online = Some(true);
    }

    /// Adds a session beside those that stand.
    pub(crate) fn push_session(&mut self, now: Now, slot: Slot, live: Live) {
        if let Some(evicted) = self.peers[slot.0].add_session(live) {
            self.indices.release(evicted);
        }
        self.arm(slot, now.instant + crate::peer::LINGER);
    }

    fn flush_queue(&mut self, now: Now, slot: Slot, tx: &mut TxQueue) {
        while self.peers[slot.0].current().is_some() {
            let Some(packet) = self.peers[slot.0].queue.pop() else { return };
            self.send_packet(now, slot, &packet, tx);
        }
    }

    fn expire_half_open(&mut self, now: Instant) {
        let expired: Vec<NodeId> =
            self.half_open.iter().filter(|(_, half)| half.expires <= now).map(|(id, _)| *id).collect();
        for id in expired {
            if let Some(half) = self.half_open.remove(&id) {
                self.indices.release(half.index);
            }
        }
    }
}

fn note(last_error: &mut Option<HandshakeError>, error: HandshakeError) -> DropReason {
    *last_error = Some(error);
    DropReason::HandshakeRefused
}
