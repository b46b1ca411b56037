//! How long to wait before the next attempt to connect.
//!
//! Invariant: while somebody wants the connection an attempt begins at most [`HURRIED`] after the last one failed, unless
//! the failure fixes the wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Full jitter between [`SHORTEST`] and a bound that grows with every failure.
///
/// The bound grows by half each time, so that after an outage of `t` the wait is about `t` at most: a relay that
/// was away for two seconds is not found again only ten seconds later.
#[derive(Debug)]
pub(crate) struct Backoff {
    bound: Duration,
}

impl Backoff {
    pub(crate) const fn new() -> Self {
        Self { bound: FIRST_BOUND }
    }

    /// Starts over after a success.
    pub(crate) const fn reset(&mut self) {
        self.bound = FIRST_BOUND;
    }

    /// Returns the next wait; `random` is uniform.
    pub(crate) fn next(&mut self, random: u32) -> Duration {
        let bound = self.bound;
        self.bound = (bound * 3 / 2).min(LONGEST);
        between(SHORTEST, bound, random)
    }
}

/// A wait between two attempts. It is cut short once, when somebody begins to want the connection.
#[derive(Debug)]
pub(crate) struct Wait {
    until: Instant,
    hurries: bool,
}

impl Wait {
    /// Starts a wait. One with `fixed` is never cut short.
    pub(crate) fn new(now: Instant, wait: Duration, fixed: bool) -> Self {
        Self { until: now + wait, hurries: !fixed }
    }

    /// Ends the wait soon; `random` is uniform. A second call changes nothing, or many calls would leave no jitter.
    pub(crate) fn hurry(&mut self, now: Instant, random: u32) {
        if std::mem::replace(&mut self.hurries, false) {
            self.until = self.until.min(now + between(SHORTEST, HURRIED, random));
        }
    }

    /// Tells whether [`Wait::hurry`] still has an effect.
    pub(crate) const fn hurries(&self) -> bool {
        self.hurries
    }

    /// Returns when the next attempt begins.
    pub(crate) const fn until(&self) -> Instant {
        self.until
    }
}

/// Knows whether somebody wants the connection: always, or because it was used a short time ago.
#[derive(Debug)]
pub(crate) struct Demand {
    always: bool,
    start: Instant,
    /// Milliseconds from `start`; being started is a use.
    used: AtomicU64,
    missed: Notify,
}

impl Demand {
    pub(crate) fn new(always: bool, now: Instant) -> Self {
        Self { always, start: now, used: AtomicU64::new(0), missed: Notify::new() }
    }

    /// Notes that the connection is used, or would be if it were up.
    pub(crate) fn used(&self, now: Instant) {
        self.used.store(self.millis(now), Ordering::Relaxed);
    }

    /// Wakes [`Demand::missed`]: somebody found no connection.
    pub(crate) fn miss(&self) {
        self.missed.notify_one();
    }

    /// Waits for [`Demand::miss`]; an earlier one that nobody waited for counts.
    pub(crate) async fn missed(&self) {
        self.missed.notified().await;
    }

    /// Tells whether somebody wants the connection.
    pub(crate) fn is_there(&self, now: Instant) -> bool {
        let since = self.millis(now).saturating_sub(self.used.load(Ordering::Relaxed));
        self.always || Duration::from_millis(since) < WANTED
    }

    /// Returns how long ago the last use was.
    pub(crate) fn idle_for(&self, now: Instant) -> Duration {
        Duration::from_millis(self.millis(now).saturating_sub(self.used.load(Ordering::Relaxed)))
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }
}

/// Brings a wait that somebody else chose into the bounds of all waits.
pub(crate) fn clamped(wait: Duration) -> Duration {
    wait.clamp(SHORTEST, LONGEST)
}

/// Returns a duration between the two, in proportion to `random`.
pub(crate) fn between(min: Duration, max: Duration, random: u32) -> Duration {
    min + max.saturating_sub(min).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// Returns uniform randomness; a failing generator costs only the jitter.
pub(crate) fn random() -> u32 {
    let mut bytes = [0x7f; 4];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        tracing::warn!("the system's random generator failed");
    }
    u32::from_le_bytes(bytes)
}

const SHORTEST: Duration = Duration::from_millis(250);
const FIRST_BOUND: Duration = Duration::from_millis(500);
/// Longest wait between two attempts.
pub(crate) const LONGEST: Duration = Duration::from_secs(30);
/// Longest wait while somebody wants the connection.
const HURRIED: Duration = Duration::from_secs(2);
/// For so long after its last use somebody still wants a connection: a receiver is silent while its sender is cut off,
/// and the pauses between the repetitions of TCP grow to this length.
const WANTED: Duration = Duration::from_secs(120);
/// A connection that stood for this long was a success; a relay that accepts and drops at once is not hammered.
pub(crate) const STOOD: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_wait_is_cut_short_once() {
        let now = Instant::now();
        for random in [0, u32::MAX / 2, u32::MAX] {
            let mut wait = Wait::new(now, LONGEST, false);
            assert_eq!(wait.until(), now + LONGEST);
            let later = now + Duration::from_secs(20);
            wait.hurry(later, random);
            let until = wait.until();
            assert!((later + SHORTEST..=later + HURRIED).contains(&until));
            assert!(!wait.hurries());
            wait.hurry(later, 0);
            assert_eq!(wait.until(), until);
        }
    }

    #[test]
    fn hurry_never_lengthens_a_wait_and_leaves_a_fixed_one() {
        let now = Instant::now();
        let mut wait = Wait::new(now, SHORTEST, false);
        wait.hurry(now, u32::MAX);
        assert_eq!(wait.until(), now + SHORTEST);
        let mut wait = Wait::new(now, LONGEST, true);
        wait.hurry(now, 0);
        assert_eq!(wait.until(), now + LONGEST);
    }

    #[test]
    fn demand_lasts_for_a_while_after_the_last_use() {
        let start = Instant::now();
        let demand = Demand::new(false, start);
        assert!(demand.is_there(start));
        assert!(!demand.is_there(start + WANTED));
        let used = start + 3 * WANTED;
        demand.used(used);
        assert!(demand.is_there(used + WANTED / 2));
        assert!(!demand.is_there(used + WANTED + Duration::from_millis(1)));
        assert!(Demand::new(true, start).is_there(start + 9 * WANTED));
    }

    #[test]
    fn foreign_waits_are_clamped() {
        assert_eq!(clamped(Duration::ZERO), SHORTEST);
        assert_eq!(clamped(Duration::from_secs(3600)), LONGEST);
        assert_eq!(clamped(Duration::from_secs(1)), Duration::from_secs(1));
    }

    #[test]
    fn waits_grow_to_the_longest_and_start_over() {
        let mut backoff = Backoff::new();
        assert_eq!(backoff.next(u32::MAX), FIRST_BOUND);
        let mut elapsed = FIRST_BOUND;
        for _ in 0..50 {
            let wait = backoff.next(u32::MAX);
            assert!(wait <= LONGEST && wait <= elapsed.max(Duration::from_millis(750)));
            elapsed += wait;
        }
        assert_eq!(backoff.next(u32::MAX), LONGEST);
        assert_eq!(backoff.next(0), SHORTEST);
        backoff.reset();
        assert_eq!(backoff.next(u32::MAX), FIRST_BOUND);
    }

    #[test]
    fn jitter_stays_between_its_bounds() {
        let (min, max) = (Duration::from_millis(10), Duration::from_millis(20));
        assert_eq!(between(min, max, 0), min);
        assert_eq!(between(min, max, u32::MAX), max);
        assert!(between(min, max, u32::MAX / 2) < Duration::from_millis(16));
        assert_eq!(between(max, min, u32::MAX), max);
    }
}
