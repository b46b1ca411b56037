//! The agents of all peers: who gets one, what their credentials are, and which of them a datagram is for.
//!
//! Credentials go as an offer, which asks for an answer, or as an answer, which names the offer. An agent stands for
//! one exchange of credentials; an offer with others than those in use means that the peer began anew, and so does
//! this side. Offers may cross, be lost or come twice: each side takes the last offer of the other for the agent that
//! it has.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_wire::control::{Candidate, IceCredentials, IceOffer};
use mesh_wire::stun::{Check, CheckClass};
use zeroize::Zeroizing;

use crate::gate::{Gate, IceCounts, Refusal};
use crate::{Agent, Event, Library, Pair, Setup, Transmit};

/// Fills a slice with unpredictable bytes.
pub type Random = Box<dyn FnMut(&mut [u8]) + Send>;

/// What the finder is to know of a search with a peer.
#[derive(Debug, Clone)]
pub struct Setting {
    /// This side is the controlling one; the other is not.
    pub controlling: bool,
    /// Where the peer may be reached.
    pub remotes: Vec<Candidate>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output<K> {
    /// Send a datagram.
    Transmit(Transmit),
    /// Tell the peer inside the session.
    Say(K, IceOffer),
    /// The peer can be reached at this address, say both agents.
    Nominated(K, SocketAddr),
    /// The peer cannot be reached by this way.
    Failed(K),
}

/// Agents by peer.
pub struct Finder<K> {
    library: &'static dyn Library,
    random: Random,
    wake: Arc<dyn Fn() + Send + Sync>,
    bases: Vec<SocketAddr>,
    held: BTreeMap<K, Held>,
    /// Peers that began anew: since when they are counted, and how often.
    renewed: BTreeMap<K, (Instant, u32)>,
    outputs: VecDeque<Output<K>>,
    counts: IceCounts,
}

#[derive(Debug)]
struct Held {
    agent: Box<dyn Agent>,
    gate: Gate,
    ends: Instant,
    /// Nothing came of it.
    failed: bool,
    /// What both agents agreed on last.
    nominated: Option<SocketAddr>,
}

impl<K: Copy + Ord> Finder<K> {
    /// Makes one without agents; `wake` is called when an agent that works by itself has something to poll.
    #[must_use]
    pub fn new(library: &'static dyn Library, random: Random, wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self {
            library,
            random,
            wake,
            bases: Vec::new(),
            held: BTreeMap::new(),
            renewed: BTreeMap::new(),
            outputs: VecDeque::new(),
            counts: IceCounts::default(),
        }
    }

    /// Takes the addresses that checks leave from, one for each family; agents that stand keep theirs.
    pub fn set_bases(&mut self, bases: Vec<SocketAddr>) {
        self.bases = bases;
        for held in self.held.values_mut() {
            self.bases.iter().for_each(|base| held.agent.add_local(*base));
        }
    }

    /// A path to the peer is searched, or it may be reached at further addresses. The offer that goes to it is
    /// repeated at each call until the peer's credentials are known, as it may be lost; and so is what the agents
    /// agreed on, since this search may be another one than that in which they did.
    pub fn search(&mut self, now: Instant, peer: K, setting: &Setting) {
        let usable = self.held.get(&peer).is_some_and(|held| !held.failed && now + RENEWED < held.ends);
        if !usable && !self.renew(now, peer, setting) {
            return;
        }
        self.add_remotes(peer, setting);
        if self.held.get(&peer).is_some_and(|held| held.gate.remote().is_none()) {
            self.say(peer, None);
        }
        let nominated = self.held.get(&peer).and_then(|held| held.nominated);
        self.outputs.extend(nominated.map(|address| Output::Nominated(peer, address)));
        self.drain(peer);
    }

    /// The peer tells its credentials.
    pub fn handle_offer(&mut self, now: Instant, peer: K, offer: &IceOffer, setting: &Setting) {
        let theirs = &offer.credentials;
        let held = self.held.get(&peer);
        let in_use = held.and_then(|held| held.gate.remote());
        match &offer.answers {
            Some(answered) => {
                let ours = held.is_some_and(|held| held.gate.local().fragment == *answered);
                if !ours || in_use.is_some() {
                    return;
                }
            }
            None => {
                let fits =
                    held.is_some_and(|held| !held.failed) && in_use.is_none_or(|known| known == theirs);
                if !fits && held.is_some() && !self.may_renew(now, peer) {
                    self.counts.hasty += 1;
                    return;
                }
                if !fits && !self.renew(now, peer, setting) {
                    return;
                }
            }
        }
        if let Some(held) = self.held.get_mut(&peer)
            && held.gate.remote().is_none()
        {
            held.gate.set_remote(theirs.clone());
            held.agent.set_remote(now, theirs);
        }
        self.add_remotes(peer, setting);
        if offer.answers.is_none() {
            self.say(peer, Some(theirs.fragment.clone()));
        }
        self.drain(peer);
    }

    /// Takes a datagram that may be a check or an answer.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let Ok(check) = Check::parse(datagram) else {
            self.counts.malformed += 1;
            return;
        };
        let meant = |held: &Held| match check.class {
            CheckClass::Request { receiver, .. } => held.gate.local().fragment == receiver,
            CheckClass::Success(_) | CheckClass::Failure => held.gate.awaits(check.transaction),
        };
        let Some((peer, held)) = self.held.iter_mut().find(|(_, held)| meant(held)) else {
            match check.class {
                CheckClass::Request { .. } => self.counts.strangers += 1,
                CheckClass::Success(_) | CheckClass::Failure => self.counts.unasked += 1,
            }
            return;
        };
        match held.gate.admit(from, &check) {
            Ok(()) => {
                self.counts.taken += 1;
                held.agent.handle_datagram(now, from, datagram);
                let peer = *peer;
                self.drain(peer);
            }
            Err(Refusal::Stranger) => self.counts.strangers += 1,
            Err(Refusal::Unauthenticated) => self.counts.unauthenticated += 1,
            Err(Refusal::Unasked) => self.counts.unasked += 1,
            Err(Refusal::Crowded) => self.counts.crowded += 1,
        }
    }

    /// Does what is due, and looks at agents that woke.
    pub fn handle_timeout(&mut self, now: Instant) {
        let ended: Vec<K> =
            self.held.iter().filter(|(_, held)| held.ends <= now).map(|(peer, _)| *peer).collect();
        for peer in ended {
            self.held.remove(&peer);
        }
        let peers: Vec<K> = self.held.keys().copied().collect();
        for peer in peers {
            if let Some(held) = self.held.get_mut(&peer)
                && held.agent.poll_timeout().is_some_and(|at| at <= now)
            {
                held.agent.handle_timeout(now);
            }
            self.drain(peer);
        }
    }

    /// Returns when [`Finder::handle_timeout`] is due.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        self.held
            .values_mut()
            .map(|held| held.agent.poll_timeout().map_or(held.ends, |at| at.min(held.ends)))
            .min()
    }

    /// Takes the next thing to do; poll after each call of the others.
    pub fn poll_output(&mut self) -> Option<Output<K>> {
        self.outputs.pop_front()
    }

    /// Returns what was sent, taken and refused.
    #[must_use]
    pub const fn counts(&self) -> IceCounts {
        self.counts
    }

    /// Returns the pairs of the search with a peer.
    #[must_use]
    pub fn pairs(&self, peer: K) -> Vec<Pair> {
        self.held.get(&peer).map(|held| held.agent.pairs()).unwrap_or_default()
    }

    /// Gives the peer a new agent; false where too many peers have one.
    fn renew(&mut self, now: Instant, peer: K, setting: &Setting) -> bool {
        self.held.remove(&peer);
        self.held.retain(|_, held| held.ends > now);
        if self.held.len() == AGENTS {
            self.counts.agents_full += 1;
            self.outputs.push_back(Output::Failed(peer));
            return false;
        }
        let credentials = IceCredentials {
            fragment: text::<FRAGMENT_BYTES>(&mut self.random),
            password: Zeroizing::new(text::<PASSWORD_BYTES>(&mut self.random)),
        };
        let mut tie_breaker = [0; 8];
        (self.random)(&mut tie_breaker);
        let mut agent = self.library.agent(Setup {
            credentials: credentials.clone(),
            controlling: setting.controlling,
            tie_breaker: u64::from_be_bytes(tie_breaker),
            wake: Arc::clone(&self.wake),
        });
        self.bases.iter().for_each(|base| agent.add_local(*base));
        let ends = now + LIFE;
        let held = Held { agent, gate: Gate::new(credentials), ends, failed: false, nominated: None };
        self.held.insert(peer, held);
        true
    }

    /// Tells whether a peer that begins anew may have another agent, and counts that.
    fn may_renew(&mut self, now: Instant, peer: K) -> bool {
        self.renewed.retain(|_, (since, _)| now < *since + RENEWED_APART);
        let (_, count) = self.renewed.entry(peer).or_insert((now, 0));
        *count += 1;
        *count <= RENEWALS
    }

    fn add_remotes(&mut self, peer: K, setting: &Setting) {
        let Some(held) = self.held.get_mut(&peer) else { return };
        for candidate in &setting.remotes {
            if held.gate.name(candidate.address) {
                held.agent.add_remote(*candidate);
            }
        }
    }

    fn say(&mut self, peer: K, answers: Option<String>) {
        let Some(held) = self.held.get(&peer) else { return };
        let credentials = held.gate.local().clone();
        self.outputs.push_back(Output::Say(peer, IceOffer { credentials, answers }));
    }

    fn drain(&mut self, peer: K) {
        let Some(held) = self.held.get_mut(&peer) else { return };
        while let Some(transmit) = held.agent.poll_transmit() {
            held.gate.sends(transmit.to, &transmit.payload);
            self.counts.sent += 1;
            self.outputs.push_back(Output::Transmit(transmit));
        }
        while let Some(event) = held.agent.poll_event() {
            match event {
                Event::Checked(_) => {}
                Event::Nominated(address) => {
                    held.nominated = Some(address);
                    self.counts.nominated += 1;
                    self.outputs.push_back(Output::Nominated(peer, address));
                }
                Event::Failed => {
                    (held.failed, held.nominated) = (true, None);
                    self.outputs.push_back(Output::Failed(peer));
                }
            }
        }
        while self.outputs.len() > OUTPUTS {
            self.outputs.pop_front();
        }
    }
}

/// Draws a text of ICE characters (RFC 8839, section 5.4), 6 random bits each.
fn text<const N: usize>(random: &mut Random) -> String {
    let mut bytes = Zeroizing::new([0; N]);
    random(&mut bytes[..]);
    bytes.iter().map(|byte| char::from(CHARACTERS[usize::from(byte % 64)])).collect()
}

impl<K: fmt::Debug> fmt::Debug for Finder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finder")
            .field("held", &self.held)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

/// Agents at a time; peers beyond it are searched by challenges alone.
pub const AGENTS: usize = 64;
/// How long an agent lives: a search, and what the peer's still asks after it.
const LIFE: Duration = Duration::from_secs(10);
/// An agent that has less left than this is replaced by the next search.
const RENEWED: Duration = Duration::from_secs(5);
/// Within this time, offers of a peer that begins anew make [`RENEWALS`] new agents at most: who really began anew repeats
/// them. Two ends that start at once may need one or two, as each has seen the other's agent from before.
const RENEWED_APART: Duration = Duration::from_secs(1);
const RENEWALS: u32 = 4;
/// Things to do that wait to be polled; the oldest are dropped.
const OUTPUTS: usize = 1024;
/// 48 bits: told inside the session, and enough to tell agents apart.
const FRAGMENT_BYTES: usize = 8;
/// 192 bits; the RFC demands 128.
const PASSWORD_BYTES: usize = 32;
const CHARACTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
