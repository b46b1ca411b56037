//! Which relay is home and which one is kept warm. Pure: the time is an argument.
//!
//! Home is the relay with the shortest round trip, as far as it is clearly shorter: by a fifth and by 10 ms, for half a
//! minute. A home that is lost is replaced by the warm one at once; it becomes home again by being clearly nearer only,
//! and each loss within an hour makes it wait longer. Whatever happens, of two equal relays the one in use stays.

use std::time::{Duration, Instant};

use mesh_wire::Pin;

/// The relays of the list and what is known of each.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    relays: Vec<Judged>,
    home: Option<Pin>,
    warm: Option<Pin>,
    /// Until then everything is measured, and the nearest relay is taken without waiting.
    settled: Option<Instant>,
    /// Nobody knows yet where this node is: until everything is measured home moves freely.
    fresh: bool,
    /// When all relays are measured again.
    probe: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Judged {
    pin: Pin,
    /// Since when it is connected and answers.
    up: Option<Instant>,
    /// The latest round trips.
    trips: [Option<Duration>; TRIPS],
    next: usize,
    losses: u32,
    /// Since when it is clearly nearer than home, or than the warm one.
    nearer: [Option<Instant>; 2],
}

/// Whose place a relay could take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Home,
    Warm,
}

impl Choice {
    /// Takes the list, in order of preference. What is known of relays that stay is kept.
    pub(crate) fn set_list(&mut self, now: Instant, list: &[Pin]) {
        let known = std::mem::take(&mut self.relays);
        let find = |pin: &Pin| known.iter().find(|judged| judged.pin == *pin).cloned();
        self.relays = list.iter().map(|pin| find(pin).unwrap_or_else(|| Judged::new(*pin))).collect();
        let listed = |pin: &Pin| list.contains(pin);
        self.home = self.home.filter(listed);
        self.warm = self.warm.filter(listed);
        if list.iter().any(|pin| find(pin).is_none()) {
            self.fresh = known.is_empty();
            self.settled = Some(now + SETTLE);
            self.probe = (list.len() > 2).then_some(now + PROBE);
        }
        self.decide(now);
    }

    /// Notes that a relay is connected and answers, or no longer.
    pub(crate) fn set_up(&mut self, now: Instant, pin: &Pin, up: bool) {
        let Some(judged) = self.relays.iter_mut().find(|judged| judged.pin == *pin) else { return };
        match (judged.up, up) {
            (None, true) => judged.up = Some(now),
            (Some(since), false) => {
                if now.saturating_duration_since(since) >= FORGIVEN {
                    judged.losses = 0;
                }
                judged.losses = judged.losses.saturating_add(1);
                judged.up = None;
                judged.nearer = [None; 2];
            }
            (None, false) | (Some(_), true) => return,
        }
        self.decide(now);
    }

    /// Notes that a relay's connection was ended because nobody needed it; that is no loss.
    pub(crate) fn closed(&mut self, now: Instant, pin: &Pin) {
        if let Some(judged) = self.relays.iter_mut().find(|judged| judged.pin == *pin) {
            judged.up = None;
            judged.nearer = [None; 2];
            self.decide(now);
        }
    }

    /// Takes a round trip.
    pub(crate) fn measured(&mut self, now: Instant, pin: &Pin, rtt: Duration) {
        let Some(judged) = self.relays.iter_mut().find(|judged| judged.pin == *pin) else { return };
        judged.trips[judged.next] = Some(rtt);
        judged.next = (judged.next + 1) % TRIPS;
        self.decide(now);
    }

    /// Does what the passing of time leads to.
    pub(crate) fn timeout(&mut self, now: Instant) {
        if self.probe.is_some_and(|at| at <= now) {
            self.settled = Some(now + SETTLE);
            self.probe = Some(now + PROBE);
            self.fresh = false;
        }
        self.decide(now);
    }

    /// When [`Choice::timeout`] is due.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let switches = self.relays.iter().flat_map(|judged| judged.nearer).flatten().map(|at| at + HOLD);
        let trusts = self.relays.iter().filter_map(Judged::trusted_at);
        let settles = self.settled;
        switches.chain(trusts).chain(settles).chain(self.probe).filter(|at| *at > now).min()
    }

    /// Where this node is reached. It stays the last one while no relay is connected.
    pub(crate) const fn home(&self) -> Option<Pin> {
        self.home
    }

    /// Where it is reached should home be lost.
    pub(crate) const fn warm(&self) -> Option<Pin> {
        self.warm
    }

    /// The smoothed round trip of a relay.
    pub(crate) fn rtt(&self, pin: &Pin) -> Option<Duration> {
        self.relays.iter().find(|judged| judged.pin == *pin)?.rtt()
    }

    /// Tells whether a connection to a relay is wanted for this node's own sake.
    pub(crate) fn wants(&self, now: Instant, pin: &Pin) -> bool {
        let measures = self.settled.is_some_and(|until| now < until);
        let both = [self.home, self.warm].iter().flatten().all(|pin| self.is_up(pin)) && self.warm.is_some();
        measures || !both || self.home == Some(*pin) || self.warm == Some(*pin)
    }

    fn is_up(&self, pin: &Pin) -> bool {
        self.relays.iter().any(|judged| judged.pin == *pin && judged.up.is_some())
    }

    fn decide(&mut self, now: Instant) {
        let home = self.home.filter(|pin| self.is_up(pin));
        let fresh = self.fresh && self.settled.is_some_and(|until| now < until);
        self.home = match home {
            // Members that are as near to several agree on the first of the list.
            Some(home) if fresh => self.best(now, None).or(Some(home)),
            Some(home) => self.nearer(now, home, Place::Home, None).or(Some(home)),
            // Whoever was kept warm for this is next; without anybody, home is where it was.
            None => {
                let warm = self.warm.filter(|pin| self.is_up(pin));
                warm.or_else(|| self.best(now, None)).or(self.home)
            }
        };
        let other = self.warm.filter(|pin| self.is_up(pin) && Some(*pin) != self.home);
        self.warm = match other {
            Some(warm) => self.nearer(now, warm, Place::Warm, self.home).or(Some(warm)),
            None => self.best(now, self.home).filter(|pin| Some(*pin) != self.home),
        };
    }

    /// Returns the relay that should take a place: clearly nearer than the one that has it, for long enough.
    fn nearer(&mut self, now: Instant, holder: Pin, place: Place, without: Option<Pin>) -> Option<Pin> {
        let (settling, known) = (self.settled.is_some_and(|until| now < until), self.rtt(&holder));
        let mut found: Option<(Duration, Pin)> = None;
        for judged in &mut self.relays {
            let better = known.zip(judged.rtt()).filter(|(known, rtt)| is_nearer(*rtt, *known));
            let may = judged.pin != holder && Some(judged.pin) != without && judged.up.is_some();
            let Some((_, rtt)) = better.filter(|_| may) else {
                judged.nearer[place as usize] = None;
                continue;
            };
            let began = *judged.nearer[place as usize].get_or_insert(now);
            let trusted = judged.trusted_at().is_none_or(|at| at <= now);
            let long = settling || now.saturating_duration_since(began) >= HOLD;
            if trusted && long && found.is_none_or(|(best, _)| rtt < best) {
                found = Some((rtt, judged.pin));
            }
        }
        let (_, pin) = found?;
        for judged in &mut self.relays {
            judged.nearer[place as usize] = None;
        }
        Some(pin)
    }

    /// Returns the best relay of those that are up: trusted before others, clearly nearer before the order of the list.
    fn best(&self, now: Instant, without: Option<Pin>) -> Option<Pin> {
        let mut best: Option<(bool, Duration, Pin)> = None;
        for judged in self.relays.iter().filter(|judged| judged.up.is_some() && Some(judged.pin) != without) {
            let trusted = judged.trusted_at().is_none_or(|at| at <= now);
            let rtt = judged.rtt().unwrap_or(UNMEASURED);
            let better = best.is_none_or(|(was_trusted, was, _)| {
                (trusted && !was_trusted) || (trusted == was_trusted && is_nearer(rtt, was))
            });
            if better {
                best = Some((trusted, rtt, judged.pin));
            }
        }
        best.map(|(.., pin)| pin)
    }
}

impl Judged {
    const fn new(pin: Pin) -> Self {
        Self { pin, up: None, trips: [None; TRIPS], next: 0, losses: 0, nearer: [None; 2] }
    }

    /// The least of the latest round trips: load makes single ones longer, nothing makes one shorter.
    fn rtt(&self) -> Option<Duration> {
        self.trips.iter().flatten().min().copied()
    }

    /// When a relay that was lost counts as one that stays; none for one that was not lost.
    fn trusted_at(&self) -> Option<Instant> {
        let doublings = self.losses.checked_sub(1)?.min(MAX_DOUBLINGS);
        Some(self.up? + TRUST * 2_u32.pow(doublings))
    }
}

fn is_nearer(rtt: Duration, than: Duration) -> bool {
    rtt * 5 <= than * 4 && rtt + MARGIN <= than
}

/// Round trips that are remembered: a minute of them.
const TRIPS: usize = 4;
/// A relay is not moved to for less.
const MARGIN: Duration = Duration::from_millis(10);
/// For so long a relay has to be clearly nearer.
const HOLD: Duration = Duration::from_secs(30);
/// After the start and after a change of the list everything is measured for so long.
const SETTLE: Duration = Duration::from_secs(10);
/// How often relays that are not in use are measured.
const PROBE: Duration = Duration::from_secs(600);
/// A relay that was lost once is trusted again after so long; each further loss doubles it.
const TRUST: Duration = Duration::from_secs(20);
/// At most ten minutes and a little.
const MAX_DOUBLINGS: u32 = 5;
/// Losses before a connection that stood so long are forgotten.
const FORGIVEN: Duration = Duration::from_secs(3600);
/// What a relay counts as until it was measured.
const UNMEASURED: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
