//! One address of a peer, and what is known of it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mesh_wire::control::{Candidate, CandidateKind};

use super::Size;
use super::segments::Segments;
use super::size::Sizing;

/// An address at which a peer may be reached.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) address: SocketAddr,
    /// What the peer says of it; none where it was only seen there.
    pub(crate) kind: Option<CandidateKind>,
    /// It was found on a local network.
    pub(crate) near: bool,
    /// Challenges that went there, how many, and the newest that may still be answered.
    pub(crate) sent: u32,
    pub(crate) last_sent: Option<Instant>,
    open: VecDeque<(u64, Instant, Size)>,
    pub(crate) rtt: Option<Duration>,
    /// When a challenge was last answered from there.
    pub(crate) answered: Option<Instant>,
    /// When a long one was.
    pub(crate) proved: Option<Instant>,
    /// When this search sent the packet there that opens the own NAT and goes no further.
    pub(super) opened: Option<Instant>,
    /// Something of the peer came from there since this search began.
    pub(super) heard: bool,
    /// How long they may be.
    pub(crate) sizing: Sizing,
    /// Whether frames that leave together arrive.
    pub(crate) segments: Segments,
}

/// How good an address is; the smallest is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// Within one site before across the internet.
    far: bool,
    rtt: Duration,
}

impl Remote {
    pub(crate) fn named(candidate: Candidate) -> Self {
        Self { kind: Some(candidate.kind), ..Self::seen(candidate.address) }
    }

    /// One that was found on a local network.
    pub(super) fn near(address: SocketAddr) -> Self {
        Self { near: true, ..Self::seen(address) }
    }

    pub(crate) fn seen(address: SocketAddr) -> Self {
        Self {
            address,
            kind: None,
            near: false,
            sent: 0,
            last_sent: None,
            open: VecDeque::new(),
            rtt: None,
            answered: None,
            proved: None,
            opened: None,
            heard: false,
            sizing: Sizing::default(),
            segments: Segments::default(),
        }
    }

    pub(super) fn challenged(&mut self, now: Instant, id: u64, size: Size) {
        if self.open.len() == OPEN {
            self.open.pop_front();
        }
        self.open.push_back((id, now, size));
        self.segments.sent(size);
        self.sent = self.sent.saturating_add(1);
        self.last_sent = Some(now);
    }

    /// Takes the answer to a challenge; none when it is no such answer.
    pub(super) fn answer(&mut self, now: Instant, id: u64) -> Option<(Duration, Size)> {
        let at = self.open.iter().position(|(open, ..)| *open == id)?;
        let (_, sent, size) = self.open.remove(at)?;
        let rtt = now.duration_since(sent);
        // The least of what was seen lately, so that one delay in a queue does not move frames.
        self.rtt = Some(self.rtt.map_or(rtt, |known| known.min(rtt)));
        self.answered = Some(now);
        self.segments.answered(now, size);
        if size != Size::Short {
            self.proved = Some(now);
        }
        Some((rtt, size))
    }

    /// What was shown does not count any more.
    pub(super) fn forget(&mut self) {
        (self.answered, self.proved, self.rtt) = (None, None, None);
        self.sizing = Sizing::default();
        self.open.clear();
    }

    /// Long frames were answered not long ago.
    pub(super) fn is_proved(&self, now: Instant) -> bool {
        self.proved.is_some_and(|at| now.saturating_duration_since(at) < PROVED)
    }

    pub(crate) fn rank(&self) -> Rank {
        Rank { far: !is_private(self.address.ip()), rtt: self.rtt.unwrap_or(Duration::MAX) }
    }
}

impl Rank {
    /// Tells whether a change pays.
    pub(super) fn is_clearly_better(&self, than: &Self) -> bool {
        if self.far != than.far {
            return !self.far;
        }
        self.rtt.saturating_add(CLEARLY) < than.rtt && self.rtt.saturating_mul(5) < than.rtt.saturating_mul(4)
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// An answer to a long challenge counts this long.
const PROVED: Duration = Duration::from_secs(20);
/// Challenges of one address that may be answered: of a search, or of a second of checks at a long round trip.
const OPEN: usize = 24;
/// A way that is shorter by less is not worth a change.
const CLEARLY: Duration = Duration::from_millis(2);
