//! Agents of the crate `is`, the ICE agent of str0m: a state machine as ours are, but for the randomness of its
//! transactions, which it draws itself and which nothing rests on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use is::stun::{StunMessage, StunPacket};
use is::{Candidate as IsCandidate, IceAgent, IceAgentEvent, IceConnectionState, IceCreds};
use is::{Protocol, Sha1HmacProvider};
use mesh_wire::control::{Candidate, CandidateKind, IceCredentials};

use crate::gate::sha1_hmac;
use crate::{Agent, Event, Library, Pair, PairState, REMOTES, Setup, Transmit};

/// Makes agents of `is`.
#[derive(Debug, Clone, Copy, Default)]
pub struct SansIo;

impl Library for SansIo {
    fn agent(&self, setup: Setup) -> Box<dyn Agent> {
        Box::new(SansIoAgent::new(&setup))
    }
}

/// One agent.
#[derive(Debug)]
struct SansIoAgent {
    inner: IceAgent,
    /// At most one base for each family: what arrives is said to have come to it.
    bases: Vec<SocketAddr>,
    /// What is tried, as it was handed in or learnt.
    remotes: BTreeMap<SocketAddr, IsCandidate>,
    succeeded: BTreeSet<SocketAddr>,
    nominated: Option<SocketAddr>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl SansIoAgent {
    fn new(setup: &Setup) -> Self {
        let mut inner = IceAgent::with_hmac(creds(&setup.credentials), &Hmac);
        inner.set_controlling(setup.controlling);
        inner.set_control_tie_breaker(setup.tie_breaker);
        inner.set_timing_advance(PACE);
        inner.set_initial_stun_rto(FIRST_RETRY);
        inner.set_max_stun_rto(LAST_RETRY);
        inner.set_max_stun_retransmits(TRIES);
        inner.set_max_candidate_pairs(REMOTES);
        Self {
            inner,
            bases: Vec::new(),
            remotes: BTreeMap::new(),
            succeeded: BTreeSet::new(),
            nominated: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes out what the last step led to.
    fn drain(&mut self) {
        while let Some(transmit) = self.inner.poll_transmit() {
            if self.transmits.len() == TRANSMITS {
                self.transmits.pop_front();
            }
            self.transmits
                .push_back(Transmit { to: transmit.destination, payload: transmit.contents.to_vec() });
        }
        for remote in self.inner.remote_candidates() {
            let address = remote.addr();
            if self.remotes.len() < REMOTES {
                self.remotes.entry(address).or_insert(remote);
            }
            if self.inner.has_viable_remote_candidate(address) && self.succeeded.insert(address) {
                self.events.push_back(Event::Checked(address));
            }
        }
        while let Some(event) = self.inner.poll_event() {
            match event {
                IceAgentEvent::NominatedSend { destination, .. } if self.nominated != Some(destination) => {
                    self.nominated = Some(destination);
                    self.events.push_back(Event::Nominated(destination));
                }
                IceAgentEvent::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                    self.nominated = None;
                    self.events.push_back(Event::Failed);
                }
                IceAgentEvent::NominatedSend { .. }
                | IceAgentEvent::IceConnectionStateChange(_)
                | IceAgentEvent::IceRestart(_)
                | IceAgentEvent::DiscoveredRecv { .. } => {}
            }
        }
        while self.events.len() > EVENTS {
            self.events.pop_front();
        }
    }

    fn base(&self, of: SocketAddr) -> Option<SocketAddr> {
        self.bases.iter().find(|base| base.is_ipv4() == of.is_ipv4()).copied()
    }
}

impl Agent for SansIoAgent {
    fn add_local(&mut self, base: SocketAddr) {
        if self.base(base).is_none()
            && let Ok(candidate) = IsCandidate::host(base, Protocol::Udp)
            && self.inner.add_local_candidate(candidate).is_some()
        {
            self.bases.push(base);
        }
    }

    fn add_remote(&mut self, candidate: Candidate) {
        let address = candidate.address;
        if self.remotes.contains_key(&address) || self.remotes.len() == REMOTES {
            return;
        }
        let remote = match candidate.kind {
            CandidateKind::Host | CandidateKind::Configured => IsCandidate::host(address, Protocol::Udp),
            CandidateKind::Mapped | CandidateKind::Reflexive => {
                IsCandidate::server_reflexive(address, address, Protocol::Udp)
            }
        };
        if let Ok(remote) = remote {
            self.inner.add_remote_candidate(remote.clone());
            self.remotes.insert(address, remote);
            self.drain();
        }
    }

    fn set_remote(&mut self, now: Instant, credentials: &IceCredentials) {
        self.inner.set_remote_credentials(creds(credentials));
        self.handle_timeout(now);
    }

    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let Some(destination) = self.base(from) else { return };
        let Ok(message) = StunMessage::parse(datagram) else { return };
        self.inner
            .handle_packet(now, StunPacket { proto: Protocol::Udp, source: from, destination, message });
        self.drain();
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.inner.handle_timeout(now);
        self.drain();
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.inner.poll_timeout()
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn pairs(&self) -> Vec<Pair> {
        let served = self.remotes.iter().filter(|(address, _)| self.base(**address).is_some());
        let pair = |(address, remote): (&SocketAddr, &IsCandidate)| {
            // What failed is gone from the agent's list.
            let open = self.inner.find_pair_for_equivalent_remote_candidate(remote).is_some();
            let state = match () {
                () if self.nominated == Some(*address) => PairState::Nominated,
                () if self.inner.has_viable_remote_candidate(*address) => PairState::Succeeded,
                () if open => PairState::Checking,
                () => PairState::Failed,
            };
            Pair { remote: *address, state }
        };
        served.map(pair).collect()
    }
}

fn creds(credentials: &IceCredentials) -> IceCreds {
    IceCreds { ufrag: credentials.fragment.clone(), pass: credentials.password.to_string() }
}

/// HMAC-SHA-1 of the library that the programs use for everything else.
#[derive(Debug)]
struct Hmac;

impl Sha1HmacProvider for Hmac {
    fn sha1_hmac(&self, key: &[u8], payloads: &[&[u8]]) -> [u8; 20] {
        sha1_hmac(key, payloads)
    }
}

/// Between two new checks (Ta of RFC 8445, section 14.2, which permits 5 ms and recommends 50): all pairs have left
/// within half a second.
const PACE: Duration = Duration::from_millis(20);
/// A check is repeated after this, doubled up to the other, as long as the NAT of the peer may still open.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_millis(500);
/// Checks of one pair without an answer: about three seconds.
const TRIES: usize = 7;
/// Datagrams that wait to be polled; the oldest are dropped, as a network may lose them.
const TRANSMITS: usize = 64;
/// Events that wait to be polled.
const EVENTS: usize = 64;
