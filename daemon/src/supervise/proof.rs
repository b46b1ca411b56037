//! Which peers are asked to show that data passes: a few at a time, each once before any is asked again, because some
//! that the relay calls present may not answer. Pure: the time is an argument.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use mesh_wire::NodeId;
use tokio::time::Instant;

/// Peers asked at a time.
const AT_A_TIME: usize = 3;
/// How long they have to answer: a handshake over a slow link with one repetition.
const PATIENCE: Duration = Duration::from_secs(3);

/// Peers that were asked.
#[derive(Debug)]
pub(super) struct Proof {
    asked: BTreeSet<NodeId>,
    round: usize,
    round_ends: Instant,
}

/// Whether data passed, and with whom it may without the relay.
#[derive(Debug, Default)]
pub(super) struct Passed {
    ever: bool,
    without_relay: bool,
    /// Those that were last found on a local network, or connected by WSS.
    near: VecDeque<NodeId>,
}

impl Passed {
    /// Data passed; true when that is news.
    pub(super) fn note(&mut self, connected: bool) -> bool {
        let news = !self.ever || !self.holds(connected);
        self.ever = true;
        self.without_relay |= !connected;
        news
    }

    /// A peer was found on a local network, or connected by WSS.
    pub(super) fn found(&mut self, peer: NodeId) {
        self.near.retain(|near| *near != peer);
        self.near.push_front(peer);
        self.near.truncate(AT_A_TIME);
    }

    /// Data passed since the node came up.
    pub(super) const fn ever(&self) -> bool {
        self.ever
    }

    /// Data passes, as far as is known, with the relay or without it.
    pub(super) const fn holds(&self, connected: bool) -> bool {
        if connected { self.ever } else { self.without_relay }
    }

    /// The relay came or went.
    pub(super) fn relay_changed(&mut self) {
        self.without_relay = false;
    }

    /// Who may show that data passes without the relay; nobody while that is known.
    pub(super) fn to_ask(&self) -> impl Iterator<Item = NodeId> {
        self.near.iter().copied().filter(|_| !self.without_relay)
    }
}

impl Proof {
    pub(super) fn new(now: Instant) -> Self {
        Self { asked: BTreeSet::new(), round: 0, round_ends: now + PATIENCE }
    }

    /// Returns when [`Proof::next_round`] is due.
    pub(super) const fn round_ends(&self) -> Instant {
        self.round_ends
    }

    /// Takes a peer that is present and tells whether to ask it at once.
    pub(super) fn came(&mut self, peer: NodeId) -> bool {
        self.round < AT_A_TIME && self.ask(peer)
    }

    /// Gives the earlier peers up and returns those to ask next.
    pub(super) fn next_round(&mut self, now: Instant, present: &[NodeId]) -> Vec<NodeId> {
        self.round = 0;
        self.round_ends = now + PATIENCE;
        if present.iter().all(|peer| self.asked.contains(peer)) {
            self.asked.clear();
        }
        present.iter().copied().filter(|peer| self.came(*peer)).collect()
    }

    fn ask(&mut self, peer: NodeId) -> bool {
        let first = self.asked.insert(peer);
        self.round += usize::from(first);
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(numbers: std::ops::Range<u8>) -> Vec<NodeId> {
        numbers.map(|number| NodeId([number; 32])).collect()
    }

    #[test]
    fn three_dead_peers_do_not_keep_the_others_from_being_asked() {
        let now = Instant::now();
        let mut proof = Proof::new(now);
        let present = peers(0..7);
        let first: Vec<NodeId> = present.iter().copied().filter(|peer| proof.came(*peer)).collect();
        assert_eq!(first, peers(0..3));
        assert_eq!(proof.next_round(now, &present), peers(3..6));
        assert_eq!(proof.next_round(now, &present), peers(6..7));
        assert_eq!(proof.next_round(now, &present), peers(0..3));
    }

    #[test]
    fn round_has_its_time_and_nobody_is_asked_twice_in_it() {
        let now = Instant::now();
        let mut proof = Proof::new(now);
        assert_eq!(proof.round_ends(), now + PATIENCE);
        assert!(proof.came(NodeId([1; 32])) && !proof.came(NodeId([1; 32])));
        let later = now + PATIENCE;
        assert!(proof.next_round(later, &[]).is_empty());
        assert_eq!(proof.round_ends(), later + PATIENCE);
    }

    #[test]
    fn what_passed_over_the_relay_says_nothing_of_other_ways() {
        let mut passed = Passed::default();
        assert!(passed.note(true) && !passed.note(true));
        assert!(passed.ever() && passed.holds(true) && !passed.holds(false));
        for number in 0..9 {
            passed.found(NodeId([number; 32]));
        }
        assert_eq!(passed.to_ask().collect::<Vec<_>>(), [8, 7, 6].map(|number| NodeId([number; 32])));
        assert!(passed.note(false) && !passed.note(false));
        assert!(passed.holds(false) && passed.to_ask().next().is_none());
        passed.relay_changed();
        assert!(passed.holds(true) && !passed.holds(false));
    }
}
