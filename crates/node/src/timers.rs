//! What happens when nothing does.

use std::time::{Duration, Instant};

use mesh_wire::control::Control;

use crate::counters::DropReason;
use crate::node::{Node, NodeEvent, Now, Slot};
use crate::peer::{LINGER, QUEUE_AGE};
use crate::tx::TxQueue;

/// Who heard data and had nothing to send says so after this (WireGuard's KEEPALIVE_TIMEOUT).
pub(crate) const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);
/// Who sent data and heard nothing dials anew after this: the other side's keepalive would have come.
pub(crate) const DEAD_AFTER: Duration = Duration::from_secs(15);
/// A peer that came back to the relay is pinged so often, with this between, before its session counts as gone.
pub(crate) const PROBE: Duration = Duration::from_millis(300);
const PROBES: u32 = 3;
/// Timers are not finer than this.
const GRAIN: Duration = Duration::from_millis(5);

impl Node {
    /// Does what is due. Poll for transmits, events and the timeout afterwards.
    pub fn handle_timeout(&mut self, now: Now, tx: &mut TxQueue) {
        while let Some((at, slot)) = self.deadlines.first().copied()
            && at <= now.instant
        {
            self.deadlines.remove(&(at, slot));
            self.peers[slot.0].armed = None;
            self.peer_timeout(now, slot, tx);
        }
    }

    /// Makes sure that the peer is looked at by `at`.
    pub(crate) fn arm(&mut self, slot: Slot, at: Instant) {
        let peer = &mut self.peers[slot.0];
        if let Some(armed) = peer.armed {
            if armed <= at {
                return;
            }
            self.deadlines.remove(&(armed, slot));
        }
        peer.armed = Some(at);
        self.deadlines.insert((at, slot));
    }

    fn peer_timeout(&mut self, now: Now, slot: Slot, tx: &mut TxQueue) {
        let instant = now.instant;
        for _ in 0..self.peers[slot.0].queue.expire(instant) {
            self.counters.count(DropReason::QueueExpired);
        }
        self.expire_sessions(instant, slot);
        let peer = &mut self.peers[slot.0];
        if is_due(peer.silent_since, KEEPALIVE_AFTER, instant) {
            peer.silent_since = None;
            self.send_control(instant, slot, &Control::Keepalive, tx);
        }
        let peer = &mut self.peers[slot.0];
        if let Some(probe) = peer.probe.take_if(|probe| probe.next <= instant) {
            if probe.sent < PROBES {
                self.probe(instant, slot, probe.sent, tx);
            } else if !peer.dialling {
                // It is at the relay and does not know the session. Should it know it after all, nothing is lost.
                peer.doubted = true;
                self.dial(slot);
            }
        } else if is_due(peer.unanswered_since, DEAD_AFTER, instant) {
            peer.unanswered_since = None;
            peer.doubted = true;
            if !peer.dialling && !self.paths(slot).is_empty() {
                self.dial(slot);
            }
        }
        self.retry_rekey(now, slot, tx);
        self.hold_timeout(now, slot, tx);
        self.paths_timeout(now, slot, tx);
        self.dial_for_queue(instant, slot);
        self.unsettle(slot);
        self.rearm(instant, slot);
    }

    /// Drops sessions that were replaced, and those with keys too old; the keys are wiped with them.
    fn expire_sessions(&mut self, now: Instant, slot: Slot) {
        let reject = self.config.timings.reject;
        let peer = &mut self.peers[slot.0];
        let stood = !peer.sessions.is_empty();
        let in_use = peer.in_use();
        let newest = peer.sessions.iter().map(|live| live.established).max();
        let owners = &mut self.owners;
        let mut at = 0;
        peer.sessions.retain(|live| {
            // One that waits for its confirmation may be all that the peer sends under.
            let replaced = live.confirmed
                && !in_use.contains(&Some(at))
                && newest.is_some_and(|newest| now.duration_since(newest.max(live.last_used)) >= LINGER);
            at += 1;
            let keep = !replaced && now.duration_since(live.established) < reject;
            if !keep {
                owners.remove(live.number.get());
            }
            keep
        });
        if stood && peer.sessions.is_empty() {
            let peer = peer.id;
            self.event(NodeEvent::Idle { peer });
        }
    }

    fn rearm(&mut self, now: Instant, slot: Slot) {
        let peer = &self.peers[slot.0];
        let in_use = peer.in_use();
        let newest = peer.sessions.iter().map(|live| live.established).max();
        let sessions = peer.sessions.iter().enumerate().map(|(at, live)| {
            let rejected = live.established + self.config.timings.reject;
            match newest {
                Some(newest) if live.confirmed && !in_use.contains(&Some(at)) => {
                    rejected.min(newest.max(live.last_used) + LINGER)
                }
                _ => rejected,
            }
        });
        let next = [
            peer.queue.oldest().map(|at| at + QUEUE_AGE),
            peer.silent_since.map(|at| at + KEEPALIVE_AFTER),
            peer.unanswered_since.map(|at| at + DEAD_AFTER),
            peer.probe.map(|probe| probe.next),
            peer.lead.as_ref().map(|lead| lead.retry_at),
            peer.paths.due(),
            peer.held.as_ref().map(|held| held.until),
            sessions.min(),
        ];
        if let Some(at) = next.into_iter().flatten().min() {
            // A deadline never lies in the past, so that one call of handle_timeout ends.
            self.arm(slot, at.max(now + GRAIN));
        }
    }
}

fn is_due(since: Option<Instant>, after: Duration, now: Instant) -> bool {
    since.is_some_and(|since| now.duration_since(since) >= after)
}
