//! Fresh keys for a session that carries traffic, without a handshake and without losing a frame.
//!
//! The initiator of the handshake leads at [`Timings::rekey`], the responder only 10 s later, so that they rarely meet;
//! where they do, the initiator's offer counts. Offers are repeated until answered; the follower keeps its answer and
//! repeats it. The previous keys stay receivable for a while.

use std::time::{Duration, Instant};

use mesh_session::Rekey;
use mesh_wire::control::{Control, Half, REKEY_PART, RekeyPart};

use crate::counters::DropReason;
use crate::index::Number;
use crate::node::{Node, Now, Slot};
use crate::tx::TxQueue;

/// An offer without an answer is repeated after this, so often.
const RETRY: Duration = Duration::from_secs(1);
const TRIES: u32 = 10;
/// A responder leaves the initiator this much time to lead.
const RESPONDER_WAITS: Duration = Duration::from_secs(10);

/// Keys that were mixed this long ago and under which nothing was heard, not even the answer to the first ping, are in
/// doubt.
const MIX_DOUBT: Duration = Duration::from_secs(1);

/// When keys are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// A session that carries traffic gets fresh keys at this age.
    pub rekey: Duration,
    /// Keys of this age neither send nor receive.
    pub reject: Duration,
    /// A full handshake replaces a chain of keys of this age.
    pub handshake: Duration,
    /// A key that has sealed so many frames is replaced like one of age `rekey`.
    pub frames: u64,
}

/// An offer of ours that waits for its answer.
#[derive(Debug)]
pub(crate) struct Lead {
    /// Our number of the session that is rekeyed.
    under: u32,
    rekey: Rekey,
    /// Our number for the next session.
    number: Number,
    answer: Halves,
    tries: u32,
    pub(crate) retry_at: Instant,
}

/// An offer of the peer that we answer.
#[derive(Debug)]
pub(crate) struct Follow {
    under: u32,
    /// The leader's number for the next session.
    id: u32,
    offer: Halves,
    answer: Option<Vec<u8>>,
}

/// A message that comes in two parts.
#[derive(Debug, Default)]
struct Halves([Option<Box<[u8; REKEY_PART]>>; 2]);

impl Timings {
    /// The age from which on nothing is sent under a key: the other side may count a little faster.
    pub(crate) fn stale(&self) -> Duration {
        self.reject - self.reject / 12
    }

    /// The age from which on a newer roster calls for a handshake: a network that grows by the second does not shake
    /// hands by the second.
    fn settled(&self) -> Duration {
        self.rekey / 2
    }

    /// The age at which keys that no rekey replaced call for a handshake: early enough that it ends before they do.
    fn urgent(&self) -> Duration {
        self.rekey + self.reject.saturating_sub(self.rekey) / 2
    }
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            rekey: Duration::from_secs(120),
            reject: Duration::from_secs(180),
            handshake: Duration::from_secs(3600),
            // Half of what a key may seal.
            frames: 1 << 59,
        }
    }
}

impl Node {
    /// Leads a rekey or a handshake when the session that just sent is old enough.
    pub(crate) fn renew_keys(&mut self, now: Now, slot: Slot, at: usize, tx: &mut TxQueue) {
        let peer = &self.peers[slot.0];
        let live = &peer.sessions[at];
        let age = now.instant.duration_since(live.established);
        let unheard = live.mixed && !live.heard && age >= MIX_DOUBT.max(peer.rtt.unwrap_or_default() * 4);
        if unheard && !peer.dialling && !self.paths(slot).is_empty() {
            // Perhaps the two sides mixed different exporters into these keys. Which of two crossing sessions counts
            // must not lead back to them.
            self.peers[slot.0].doubted = true;
            return self.dial(slot);
        }
        let patience = if live.initiator == self.config.own { Duration::ZERO } else { RESPONDER_WAITS };
        let handshake_age = now.instant.duration_since(live.handshake);
        let outdated = live.roster_version < self.roster.version()
            && handshake_age >= self.config.timings.settled() + patience;
        let due = outdated || handshake_age > self.config.timings.handshake;
        if !peer.dialling && !peer.mixes_soon(now.instant) && (due || age >= self.config.timings.urgent()) {
            return self.dial(slot);
        }
        let index = live.number.get();
        let under_way =
            peer.lead.is_some() || peer.follow.as_ref().is_some_and(|follow| follow.under == index);
        let worn = live.sealed() >= self.config.timings.frames.min(live.session.limit() / 2);
        if !under_way && (worn || age >= self.config.timings.rekey + patience) {
            self.lead_rekey(now, slot, at, tx);
        }
    }

    fn lead_rekey(&mut self, now: Now, slot: Slot, at: usize, tx: &mut TxQueue) {
        let Some(number) = self.config.numbers.allocate() else {
            return self.counters.count(DropReason::TableFull);
        };
        let peer = &mut self.peers[slot.0];
        let live = &peer.sessions[at];
        let Ok(rekey) = live.session.lead_rekey(self.config.provider, number.get()) else {
            // The chain has moved on with an answer that never came: only a handshake helps.
            if !peer.dialling {
                self.dial(slot);
            }
            return;
        };
        let under = live.number.get();
        let retry_at = now.instant + RETRY;
        peer.lead = Some(Lead { under, rekey, number, answer: Halves::default(), tries: 1, retry_at });
        self.arm(slot, retry_at);
        self.send_offer(now.instant, slot, tx);
    }

    /// Repeats an offer that is due; one that stays unanswered gives way to a handshake.
    pub(crate) fn retry_rekey(&mut self, now: Now, slot: Slot, tx: &mut TxQueue) {
        let due = |lead: &&mut Lead| lead.retry_at <= now.instant;
        let Some(lead) = self.peers[slot.0].lead.as_mut().filter(due) else { return };
        if lead.tries < TRIES {
            lead.tries += 1;
            lead.retry_at = now.instant + RETRY;
            return self.send_offer(now.instant, slot, tx);
        }
        self.peers[slot.0].lead = None;
        if !self.peers[slot.0].dialling {
            self.dial(slot);
        }
    }

    pub(crate) fn handle_offer(
        &mut self,
        now: Now,
        slot: Slot,
        under: u32,
        part: RekeyPart<'_>,
        tx: &mut TxQueue,
    ) {
        let peer = &mut self.peers[slot.0];
        let Some(at) = peer.position(under) else { return };
        if peer.lead.as_ref().is_some_and(|lead| lead.under == under) {
            if peer.sessions[at].initiator == self.config.own {
                return;
            }
            peer.lead = None;
        }
        if peer.follow.as_ref().is_none_or(|follow| follow.under != under || follow.id != part.id) {
            let answered =
                peer.follow.as_ref().is_some_and(|follow| follow.under == under && follow.answer.is_some());
            if answered {
                // The session has moved on with the first offer; another one cannot.
                return self.counters.count(DropReason::HandshakeRefused);
            }
            peer.follow = Some(Follow { under, id: part.id, offer: Halves::default(), answer: None });
        }
        let Some(follow) = &mut peer.follow else { return };
        let whole = follow.offer.put(part);
        if follow.answer.is_none() {
            let Some(offer) = whole else { return };
            self.follow(now, slot, at, &offer);
        } else if part.half == Half::First {
            // Both halves are repeated; one of them calls for the answer.
            return;
        }
        self.send_answer(now.instant, slot, tx);
    }

    pub(crate) fn handle_answer(
        &mut self,
        now: Now,
        slot: Slot,
        under: u32,
        part: RekeyPart<'_>,
        tx: &mut TxQueue,
    ) {
        let peer = &mut self.peers[slot.0];
        let Some(at) = peer.position(under) else { return };
        let Some(lead) =
            peer.lead.as_mut().filter(|lead| lead.under == under && lead.rekey.index() == part.id)
        else {
            return;
        };
        let Some(answer) = lead.answer.put(part) else { return };
        let live = &mut peer.sessions[at];
        match live.session.finish_rekey(self.config.provider, &lead.rekey, &answer) {
            Ok(session) => {
                let Some(Lead { number, .. }) = peer.lead.take() else { return };
                let next = live.followed_by(session, number, now.instant, true);
                self.push_session(now, slot, next);
                // Tells the follower that it may send under the new keys.
                self.ping_slot(now.instant, slot, tx);
            }
            Err(_) => lead.answer = Halves::default(),
        }
    }

    fn follow(&mut self, now: Now, slot: Slot, at: usize, offer: &[u8]) {
        let Some(number) = self.config.numbers.allocate() else {
            return self.counters.count(DropReason::TableFull);
        };
        let peer = &mut self.peers[slot.0];
        let live = &mut peer.sessions[at];
        let Ok((session, answer)) = live.session.follow_rekey(self.config.provider, offer, number.get())
        else {
            peer.follow = None;
            return self.counters.count(DropReason::HandshakeRefused);
        };
        let next = live.followed_by(session, number, now.instant, false);
        if let Some(follow) = &mut peer.follow {
            follow.answer = Some(answer);
        }
        self.push_session(now, slot, next);
    }

    fn send_offer(&mut self, now: Instant, slot: Slot, tx: &mut TxQueue) {
        let Some(lead) = &self.peers[slot.0].lead else { return };
        let (id, under, offer) = (lead.rekey.index(), lead.under, lead.rekey.offer().to_vec());
        for (half, bytes) in halves(&offer) {
            self.send_under(now, slot, under, &Control::RekeyOffer(RekeyPart { id, half, bytes }), tx);
        }
    }

    fn send_answer(&mut self, now: Instant, slot: Slot, tx: &mut TxQueue) {
        let Some(Follow { under, id, answer: Some(answer), .. }) = &self.peers[slot.0].follow else { return };
        let (under, id, answer) = (*under, *id, answer.clone());
        for (half, bytes) in halves(&answer) {
            self.send_under(now, slot, under, &Control::RekeyAnswer(RekeyPart { id, half, bytes }), tx);
        }
    }

    fn send_under(&mut self, now: Instant, slot: Slot, under: u32, message: &Control<'_>, tx: &mut TxQueue) {
        self.send_control_under(now, slot, under, message, tx);
    }
}

impl Halves {
    /// Keeps a part and returns the whole once both are there.
    fn put(&mut self, part: RekeyPart<'_>) -> Option<Vec<u8>> {
        let at = match part.half {
            Half::First => 0,
            Half::Second => 1,
        };
        self.0[at] = Some(Box::new(*part.bytes));
        let [Some(first), Some(second)] = &self.0 else { return None };
        Some([&first[..], &second[..]].concat())
    }
}

fn halves(message: &[u8]) -> impl Iterator<Item = (Half, &[u8; REKEY_PART])> {
    let parts = message.as_chunks::<REKEY_PART>().0.iter();
    [Half::First, Half::Second].into_iter().zip(parts)
}
