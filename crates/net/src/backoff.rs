//! How long to wait before the next attempt to connect.

use std::time::Duration;

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

#[cfg(test)]
mod tests {
    use super::*;

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
