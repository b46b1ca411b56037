//! An agent of ICE that finds paths before the challenges do: what it says, and when it is given the lead.
//!
//! The agent works outside of the node. It is told when a search goes on and what the peer says, and tells which
//! address both ends agreed on. While the peer's agent may answer, short challenges to addresses that no agent named
//! wait; the proof that moves frames is a full challenge, as ever. A peer that speaks no ICE, or an agent that finds
//! nothing, costs a search a part of its time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mesh_wire::NodeId;
use mesh_wire::control::{Candidate, CandidateKind, Control, IceOffer};

use crate::node::{Node, NodeEvent, Now, Slot};
use crate::path::Path;
use crate::paths::Size;
use crate::tx::TxQueue;

/// What an agent found out or wants to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Credentials for the peer's agent.
    Offer(IceOffer),
    /// Both agents agreed on this address of the peer.
    Nominated(SocketAddr),
    /// The agent found nothing.
    Failed,
}

/// What is known of the agents of this node and a peer.
#[derive(Debug, Default)]
pub(crate) struct Agent {
    /// The peer's agent answered, or did not.
    speaks: Option<bool>,
    /// When the search began in which an agent was asked for.
    began: Option<Instant>,
    /// That search is over.
    over: bool,
    /// Short challenges wait until then.
    leads: Option<Instant>,
    /// Challenges waited in this search, and no path was found yet.
    fruitless: bool,
    /// Addresses that both agents agreed on, the newest last.
    nominated: Vec<SocketAddr>,
}

impl Agent {
    /// An agent is asked for; the same search may do so several times.
    fn asked(&mut self, now: Instant) {
        if !self.over && self.began.is_some_and(|began| now.duration_since(began) < SEARCH) {
            return;
        }
        self.over = false;
        let before = self.began.replace(now);
        if self.speaks.is_none() && before.is_some_and(|began| now.duration_since(began) >= PATIENCE) {
            self.speaks = Some(false);
        }
        self.leads = match self.speaks {
            // After a search in which the agent found nothing, the challenges have one to themselves, with all they
            // try.
            _ if self.fruitless => None,
            None => Some(now + PATIENCE),
            Some(true) => Some(now + LEAD),
            Some(false) => None,
        };
        self.fruitless = self.leads.is_some() && self.speaks == Some(true);
    }

    /// No search goes on. An agent that did not get its time found nothing, and is to have the next one; nor did one
    /// fail that found the path in use, or was not needed.
    fn rests(&mut self, now: Instant, direct: bool) {
        self.over = true;
        if direct || self.leads.is_some_and(|until| now < until) {
            self.fruitless = false;
        }
    }

    /// The peer's agent spoke: a search that goes on is for the agents; one that begins later will be anyway.
    fn spoke(&mut self, now: Instant) {
        let news = self.speaks.replace(true) != Some(true);
        if let Some(began) = self.began.filter(|_| news && !self.over) {
            self.leads = Some(began + LEAD);
            self.fruitless = now < began + LEAD;
        }
    }

    fn nominate(&mut self, address: SocketAddr) {
        self.nominated.retain(|known| *known != address);
        if self.nominated.len() == NOMINATED {
            self.nominated.remove(0);
        }
        self.nominated.push(address);
    }

    /// Tells how long the challenge is that may go to an address; none where it waits for the agents.
    fn size(&self, now: Instant, address: SocketAddr, size: Size) -> Option<Size> {
        match size {
            Size::Short if self.nominated.contains(&address) => Some(size),
            Size::Short if self.leads.is_some_and(|until| now < until) => None,
            Size::Short | Size::Long(_) | Size::Pair(_) => Some(size),
        }
    }

    /// Tells whether both agents agreed on an address.
    pub(crate) fn nominated(&self, address: SocketAddr) -> bool {
        self.nominated.contains(&address)
    }
}

impl Node {
    /// Has an agent of ICE find paths before the challenges do; see [`NodeEvent::Ice`].
    pub fn find_by_ice(&mut self) {
        self.ice = true;
    }

    /// Takes what the agent for a peer says. Poll for transmits, events and the timeout afterwards.
    pub fn handle_finding(&mut self, now: Now, peer: NodeId, finding: Finding, tx: &mut TxQueue) {
        let Some(slot) = self.by_id.get(&peer).copied().filter(|_| self.ice) else { return };
        match finding {
            Finding::Offer(offer) => {
                self.send_control(now.instant, slot, &Control::Ice(offer), tx);
            }
            Finding::Nominated(address) => self.nominated(now, slot, address, tx),
            Finding::Failed => self.peers[slot.0].agent.leads = None,
        }
    }

    fn nominated(&mut self, now: Now, slot: Slot, address: SocketAddr, tx: &mut TxQueue) {
        if self.is_overlay(address.ip()) {
            return;
        }
        let setting = self.setting(slot);
        let peer = &mut self.peers[slot.0];
        peer.agent.nominate(address);
        peer.paths.found(address);
        if peer.paths.current() == Path::Udp(address) || !setting.searches {
            return;
        }
        let steps = peer.paths.prove(now.instant, address, setting);
        self.carry_out(now.instant, slot, steps, tx);
        self.arm_paths(slot);
        if matches!(self.peers[slot.0].paths.current(), Path::Relay(_)) {
            // Its rounds ask again, as challenges may be lost.
            self.peers[slot.0].paths.search(now.instant, setting);
            self.arm_paths(slot);
        }
    }

    /// A search may begin now: whether the agent leads it is known before its first step.
    pub(crate) fn agent_leads(&mut self, now: Instant, slot: Slot) {
        let peer = &mut self.peers[slot.0];
        if self.ice && peer.paths.searches_at(now) {
            peer.agent.asked(now);
        }
    }

    /// A search may be over: the next one is another, however soon it begins.
    pub(crate) fn agent_rests(&mut self, now: Instant, slot: Slot) {
        let peer = &mut self.peers[slot.0];
        if !peer.paths.searches() {
            peer.agent.rests(now, matches!(peer.paths.current(), Path::Udp(_)));
        }
    }

    /// The peer began anew, or its sessions are gone: what is known of its paths and of its agent is past.
    pub(crate) fn forget_paths(&mut self, now: Instant, slot: Slot) {
        let peer = &mut self.peers[slot.0];
        peer.agent = Agent::default();
        if peer.paths.forget(now) {
            self.moved(slot);
        }
    }

    /// The peer tells the credentials of its agent.
    pub(crate) fn handle_ice(&mut self, now: Now, slot: Slot, offer: IceOffer) {
        if self.ice {
            self.peers[slot.0].agent.spoke(now.instant);
            self.ask_agent(slot, Some(offer));
        }
    }

    /// A search may go on, and where the peer may be reached may have changed.
    pub(crate) fn agent_wanted(&mut self, now: Instant, slot: Slot) {
        if self.ice && self.peers[slot.0].paths.searches_at(now) {
            self.peers[slot.0].agent.asked(now);
            self.ask_agent(slot, None);
        }
    }

    /// Tells how long the challenge is that may go to an address; none where it waits for the agents.
    pub(crate) fn challenge_size(
        &self,
        now: Instant,
        slot: Slot,
        address: SocketAddr,
        size: Size,
    ) -> Option<Size> {
        self.peers[slot.0].agent.size(now, address, size)
    }

    /// Tells whether what is no proof may go to an address: whatever a search tries beside challenges waits as they do.
    pub(crate) fn may_search(&self, now: Instant, slot: Slot, address: SocketAddr) -> bool {
        self.challenge_size(now, slot, address, Size::Short).is_some()
    }

    /// What the agent is told with each wish is all that is known: it may have missed the one before.
    fn ask_agent(&mut self, slot: Slot, offer: Option<IceOffer>) {
        let peer = &self.peers[slot.0];
        let named = peer.paths.remotes().iter().filter_map(|remote| {
            let kind = remote.kind.or(remote.near.then_some(CandidateKind::Host))?;
            Some(Candidate { kind, address: remote.address })
        });
        let (peer, remotes) = (peer.id, named.collect());
        self.event(NodeEvent::Ice { peer, offer, remotes });
    }
}

/// A search, as `paths.rs` has it.
const SEARCH: Duration = Duration::from_secs(5);
/// The answer of a peer of which nothing is known takes two ways over the relay.
const PATIENCE: Duration = Duration::from_millis(500);
/// What is left of a search after it is for the challenges. An agent has tried every pair for as long.
const LEAD: Duration = Duration::from_secs(3);
/// Addresses that are remembered: of each family the first and a better one.
const NOMINATED: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, number], 1))
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests need a first moment")]
    fn challenges_wait_for_an_agent_that_may_answer() {
        let (start, mut agent) = (Instant::now(), Agent::default());
        let size = |agent: &Agent, after: Duration| agent.size(start + after, address(1), Size::Short);
        assert_eq!(size(&agent, Duration::ZERO), Some(Size::Short), "no agent was asked for");
        agent.asked(start);
        agent.asked(start + Duration::from_secs(1));
        assert_eq!(size(&agent, PATIENCE - Duration::from_millis(1)), None);
        assert_eq!(size(&agent, PATIENCE), Some(Size::Short), "the peer has none");
        agent.spoke(start + PATIENCE);
        assert_eq!(size(&agent, LEAD - Duration::from_millis(1)), None);
        assert_eq!(size(&agent, LEAD), Some(Size::Short), "its time is over");
        let proof = Size::Long(1420);
        assert_eq!(agent.size(start, address(1), proof), Some(proof), "proofs never wait");
        agent.nominate(address(1));
        assert_eq!(size(&agent, Duration::ZERO), Some(Size::Short));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests need a first moment")]
    fn peer_that_never_answered_is_not_waited_for_twice() {
        let (start, mut agent) = (Instant::now(), Agent::default());
        agent.asked(start);
        let next = start + 2 * SEARCH;
        agent.asked(next);
        assert_eq!(agent.size(next, address(1), Size::Short), Some(Size::Short));
        agent.spoke(next);
        assert_eq!(agent.size(next, address(1), Size::Short), None, "it has one after all");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests need a first moment")]
    fn search_after_one_without_a_find_is_not_led() {
        let (start, mut agent) = (Instant::now(), Agent::default());
        let waits = |agent: &mut Agent, search: u32| {
            let now = start + search * 2 * SEARCH;
            agent.asked(now);
            agent.spoke(now);
            agent.size(now, address(1), Size::Short).is_none()
        };
        assert_eq!([0, 1, 2, 3].map(|search| waits(&mut agent, search)), [true, false, true, false]);
        assert!(waits(&mut agent, 4));
        agent.rests(start + 9 * SEARCH, true);
        assert!(waits(&mut agent, 5), "the path is direct");
        agent.nominate(address(2));
        assert!(!waits(&mut agent, 6), "what the agent named did not carry frames");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests need a first moment")]
    fn search_that_follows_soon_is_led_too() {
        let (start, mut agent) = (Instant::now(), Agent::default());
        agent.asked(start);
        agent.spoke(start);
        agent.rests(start + LEAD - Duration::from_millis(1), false);
        let soon = start + SEARCH - Duration::from_millis(100);
        assert_eq!(agent.size(soon, address(1), Size::Short), Some(Size::Short), "the lead is over");
        agent.asked(soon);
        assert_eq!(agent.size(soon, address(1), Size::Short), None);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests need a first moment")]
    fn search_that_begins_after_the_peer_spoke_is_led() {
        let (start, mut agent) = (Instant::now(), Agent::default());
        agent.spoke(start);
        agent.asked(start);
        assert_eq!(agent.size(start, address(1), Size::Short), None, "the first one");
        agent = Agent::default();
        agent.asked(start);
        agent.rests(start + SEARCH, false);
        agent.spoke(start + SEARCH);
        agent.asked(start + 2 * SEARCH);
        assert_eq!(
            agent.size(start + 2 * SEARCH, address(1), Size::Short),
            None,
            "one after another without an agent"
        );
    }

    #[test]
    fn nominated_addresses_are_few() {
        let mut agent = Agent::default();
        for number in 0..100 {
            agent.nominate(address(number));
            agent.nominate(address(number));
        }
        assert_eq!(agent.nominated.len(), NOMINATED);
        assert!(agent.nominated(address(99)) && !agent.nominated(address(0)));
    }
}
