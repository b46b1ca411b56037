//! Two nodes that cannot know each other's port guess, many times at once: the birthday paradox.
//!
//! Behind a NAT that gives each destination another port (hard), 256 sockets send to the one known address of the peer, so
//! that 256 ports of the NAT are open for it. The peer, whose own NAT keeps its port (easy), tries ports of that NAT in no
//! order. Every 252nd guess hits on average; which of the two is first does not matter, since each packet opens the NAT
//! of its sender. Where both are hard, both a port and the port that it is looked for from have to fit, which is rare.
//!
//! Invariants: pure; one attempt sends no more than its [`BUDGET`] and no faster than [`BURST`] each [`TICK`], and ends
//! [`LONGEST`] after it began; guesses go to an address that the peer itself named, and to one only.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use mesh_wire::control::{CandidateKind, Mapping, Step as PortStep};

use super::predict::{FIRST_PORT, PORTS, follows};
use super::{Paths, Search, Setting, Step};
use crate::path::Path;
use crate::tx::By;

/// What came of guessing with one peer.
#[derive(Debug, Default)]
pub(crate) struct Birthday {
    attempt: Option<Attempt>,
    pub(crate) attempts: u32,
    /// Attempts that led to a path.
    pub(crate) found: u32,
    /// Attempts in a row that did not.
    failures: u32,
    pub(crate) next: Option<Instant>,
}

/// Which part a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Its NAT keeps its port, the peer's does not.
    Easy,
    /// The other way round.
    Hard,
    /// Neither does.
    Both,
}

/// Guesses under way.
#[derive(Debug)]
struct Attempt {
    began: Instant,
    next: Instant,
    sent: u32,
    budget: u32,
    aim: Aim,
}

/// Where guesses go.
#[derive(Debug)]
enum Aim {
    /// To ports of an address, in an order that the seed gives, from the usual socket.
    Ports { ip: Ipv4Addr, order: Order },
    /// To known addresses, from all extra sockets in turn.
    Known { to: Vec<SocketAddr> },
    /// To ports of an address, from all extra sockets in turn.
    Spread { ip: Ipv4Addr, order: Order },
}

/// An order of ports.
#[derive(Debug, Clone, Copy)]
enum Order {
    /// Any, without repetition.
    Mixed { start: u32, stride: u32 },
    /// Those that the NAT gives out next.
    Next { port: u16, step: PortStep },
}

impl Order {
    fn mixed(seed: u64) -> Self {
        let below = |part: u64, limit: u32| u32::try_from(part % u64::from(limit)).expect("below a u32");
        // PORTS is 2^10 * 3^2 * 7: what leaves 1 when divided by 42 has no divisor in common with it.
        Self::Mixed { start: below(seed, PORTS), stride: 1 + 42 * below(seed >> 32, PORTS / 42) }
    }

    fn port(self, number: u32) -> u16 {
        match self {
            Self::Mixed { start, stride } => {
                let at = (u64::from(start) + u64::from(number) * u64::from(stride)) % u64::from(PORTS);
                FIRST_PORT + u16::try_from(at).expect("there are fewer than 65536 ports")
            }
            Self::Next { port, step } => {
                follows(port, step, u16::try_from(number).unwrap_or(u16::MAX).saturating_add(1))
            }
        }
    }
}

impl Side {
    fn of(own: Mapping, peer: Mapping) -> Option<Self> {
        let easy = |mapping| matches!(mapping, Mapping::None | Mapping::Independent);
        match (own, peer) {
            (own, peer) if own.is_dependent() && peer.is_dependent() => Some(Self::Both),
            (own, peer) if own.is_dependent() && easy(peer) => Some(Self::Hard),
            (own, peer) if easy(own) && peer.is_dependent() => Some(Self::Easy),
            _ => None,
        }
    }
}

/// How likely one attempt leads to a path, from 0 to 1, where both NATs let in only whom was sent to and give out any of
/// [`PORTS`] ports; none where nothing has to be guessed.
pub(crate) fn chance(own: Mapping, peer: Mapping) -> Option<f64> {
    let ports = f64::from(PORTS);
    let budget = f64::from(BUDGET);
    Some(match Side::of(own, peer)? {
        Side::Easy | Side::Hard => 1.0 - (1.0 - f64::from(EXTRA_SOCKETS) / ports).powf(budget),
        Side::Both if own == Mapping::Dependent && peer == Mapping::Dependent => {
            1.0 - (-(budget / ports) * (budget / ports)).exp()
        }
        Side::Both => 1.0 - (1.0 - 1.0 / ports).powf(budget),
    })
}

impl Birthday {
    pub(crate) fn is_active(&self) -> bool {
        self.attempt.is_some()
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.attempt.as_ref().map(|attempt| attempt.next)
    }

    /// A path was found; true when an attempt goes on, which may have led to it.
    pub(super) fn is_found(&mut self) {
        if self.attempt.take().is_some() {
            self.found = self.found.saturating_add(1);
        }
        (self.failures, self.next) = (0, None);
    }

    /// The peer was started anew: only what is counted stays.
    pub(super) fn anew(&self) -> Self {
        Self { attempts: self.attempts, found: self.found, ..Self::default() }
    }

    fn fails(&mut self, now: Instant) {
        self.attempt = None;
        let wait = PAUSE.saturating_mul(1 << self.failures.min(16)).min(PAUSE_MOST);
        self.failures = self.failures.saturating_add(1);
        self.next = Some(now + wait);
    }
}

impl Paths {
    /// What came of guessing ports.
    pub(crate) fn birthday(&self) -> &Birthday {
        &self.birthday
    }

    /// Tells whether ports are guessed at the moment.
    pub(crate) fn guesses(&self) -> bool {
        self.birthday.is_active()
    }

    /// Asks for an attempt where the plain search has found nothing for a while.
    pub(super) fn wants_birthday(&self, now: Instant, search: &Search, setting: Setting) -> bool {
        let relayed = matches!(self.current, Path::Relay(_));
        let silent = self.remotes.iter().all(|remote| remote.answered.is_none());
        setting.birthday
            && relayed
            && silent
            && !self.guesses()
            && now.duration_since(search.began) >= AFTER
            && self.birthday.next.is_none_or(|next| next <= now)
            && self.aim(setting.mapping, 0).is_some()
    }

    /// Begins an attempt; true when there is one. The seed is unpredictable.
    pub(crate) fn begin_birthday(&mut self, now: Instant, seed: u64, setting: Setting) -> bool {
        let Some(aim) = self.aim(setting.mapping, seed) else { return false };
        let budget = match aim {
            Aim::Known { .. } => OPENINGS,
            Aim::Ports { .. } | Aim::Spread { .. } => BUDGET,
        };
        self.birthday.attempts = self.birthday.attempts.saturating_add(1);
        self.birthday.attempt = Some(Attempt { began: now, next: now, sent: 0, budget, aim });
        true
    }

    fn aim(&self, own: Mapping, seed: u64) -> Option<Aim> {
        match Side::of(own, self.mapping)? {
            Side::Easy => Some(Aim::Ports { ip: *self.public?.ip(), order: Order::mixed(seed) }),
            Side::Hard => {
                let to = self.known();
                (!to.is_empty()).then_some(Aim::Known { to })
            }
            Side::Both => {
                let public = self.public?;
                let order = if let Mapping::Sequential(step) = self.mapping {
                    Order::Next { port: public.port(), step }
                } else {
                    Order::mixed(seed)
                };
                Some(Aim::Spread { ip: *public.ip(), order })
            }
        }
    }

    /// The public IPv4 addresses of a peer whose NAT keeps its port.
    fn known(&self) -> Vec<SocketAddr> {
        let is_public = |kind| match kind {
            CandidateKind::Reflexive | CandidateKind::Mapped | CandidateKind::Configured => true,
            CandidateKind::Host => self.mapping == Mapping::None,
        };
        let remotes = self.remotes.iter().filter(|remote| remote.kind.is_some_and(is_public));
        remotes.map(|remote| remote.address).filter(SocketAddr::is_ipv4).take(KNOWN).collect()
    }

    pub(super) fn birthday_goes_on(&mut self, now: Instant, setting: Setting, steps: &mut Vec<Step>) {
        let Some(attempt) = &mut self.birthday.attempt else { return };
        if !setting.birthday || now.duration_since(attempt.began) >= LONGEST {
            self.birthday.fails(now);
            return;
        }
        if now < attempt.next {
            return;
        }
        let burst = BURST.min(attempt.budget - attempt.sent);
        for number in attempt.sent..attempt.sent + burst {
            let (to, by) = attempt.aim.guess(number);
            steps.push(Step::Guess(to, by));
        }
        attempt.sent += burst;
        self.guessed += u64::from(burst);
        let rest = attempt.sent == attempt.budget;
        attempt.next = if rest { attempt.began + LONGEST } else { now + TICK };
    }
}

impl Aim {
    fn guess(&self, number: u32) -> (SocketAddr, By) {
        let sockets = u32::from(EXTRA_SOCKETS);
        let socket = By::Extra(u16::try_from(number % sockets).expect("below the number of sockets"));
        match self {
            Self::Ports { ip, order } => (SocketAddrV4::new(*ip, order.port(number)).into(), By::Usual),
            Self::Spread { ip, order } => (SocketAddrV4::new(*ip, order.port(number)).into(), socket),
            Self::Known { to } => {
                let round = usize::try_from(number / sockets).unwrap_or(0);
                (to[round % to.len()], socket)
            }
        }
    }
}

/// What all peers together may cause in an hour, whoever they are.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    begun: VecDeque<Instant>,
}

impl Allowance {
    /// Takes one attempt, if there is one left.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        while self.begun.front().is_some_and(|at| now.duration_since(*at) >= HOUR) {
            self.begun.pop_front();
        }
        let left = self.begun.len() < HOURLY;
        if left {
            self.begun.push_back(now);
        }
        left
    }
}

/// Extra sockets of one attempt. With so many of the 64,512 ports, every 252nd guess hits one.
pub(crate) const EXTRA_SOCKETS: u16 = 256;
/// Guesses of one attempt: 98 of 100 attempts hit by then, half of them with the first 175.
pub(crate) const BUDGET: u32 = 1024;
/// Each of the extra sockets sends to a known address twice, in case that a packet is lost.
const OPENINGS: u32 = 2 * EXTRA_SOCKETS as u32;
/// Known addresses of the peer: more than a port that a router keeps open and that a server saw there rarely are.
const KNOWN: usize = 2;
/// At most 200 packets in a second, each of about 100 bytes: less than a telephone call.
const BURST: u32 = 4;
const TICK: Duration = Duration::from_millis(20);
/// An attempt ends by then: its guesses take 5 s to 6 s, and what they opened stays open for a while.
pub(crate) const LONGEST: Duration = Duration::from_secs(8);
/// What the plain search reaches answers before.
const AFTER: Duration = Duration::from_secs(1);
/// After an attempt without a result; doubled after each further one.
const PAUSE: Duration = Duration::from_secs(60);
const PAUSE_MOST: Duration = Duration::from_secs(3600);
/// Attempts of one node in an hour, with all its peers: six megabytes, if every one fails.
const HOURLY: usize = 60;
const HOUR: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests;
