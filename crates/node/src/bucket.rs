//! Token buckets, alone and one for each origin.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::path::Origin;

/// Origins whose bucket is remembered; beyond it, those that are full again are forgotten, then anybody.
const ORIGINS: usize = 1024;

/// How much is allowed: so many at once, and so many a second on average.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) per_second: u32,
    pub(crate) burst: u32,
}

/// A token bucket that starts full.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    state: Option<(Instant, u32)>,
}

/// One bucket for each origin, in bounded memory.
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    origins: BTreeMap<Origin, Bucket>,
}

impl Bucket {
    /// Takes a token; false when there is none.
    pub(crate) fn take(&mut self, now: Instant, rate: Rate) -> bool {
        let (at, tokens) = self.state.unwrap_or((now, rate.burst));
        let elapsed = now.saturating_duration_since(at);
        let earned = elapsed.as_micros() * u128::from(rate.per_second) / 1_000_000;
        let earned = u32::try_from(earned).unwrap_or(rate.burst);
        // The bucket's clock moves only when something was earned, so that fractions of a token are not lost.
        let at = if earned > 0 { now } else { at };
        let tokens = tokens.saturating_add(earned).min(rate.burst);
        self.state = Some((at, tokens.saturating_sub(1)));
        tokens > 0
    }

    fn is_full(&self, now: Instant, rate: Rate) -> bool {
        self.state.is_none_or(|(at, tokens)| {
            let elapsed = now.saturating_duration_since(at).as_secs();
            u64::from(tokens) + elapsed * u64::from(rate.per_second) >= u64::from(rate.burst)
        })
    }
}

impl Buckets {
    /// Takes a token of one origin; false when it has none.
    pub(crate) fn take(&mut self, now: Instant, origin: Origin, rate: Rate) -> bool {
        if self.origins.len() >= ORIGINS && !self.origins.contains_key(&origin) {
            self.origins.retain(|_, bucket| !bucket.is_full(now, rate));
            if self.origins.len() >= ORIGINS {
                self.origins.pop_first();
            }
        }
        self.origins.entry(origin).or_default().take(now, rate)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need a first moment")]
mod tests {
    use std::time::Duration;

    use super::*;

    const RATE: Rate = Rate { per_second: 1000, burst: 2000 };

    #[test]
    fn burst_passes_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::default();
        let passed = (0..10_000).filter(|_| bucket.take(start, RATE)).count();
        assert_eq!(passed, 2000);
        let step = |number: u32| start + Duration::from_micros(100) * number;
        let passed = (1..=10_000).filter(|number| bucket.take(step(*number), RATE)).count();
        assert!((990..=1001).contains(&passed), "{passed} passed in a second");
    }

    #[test]
    fn origins_are_apart_and_bounded() {
        let now = Instant::now();
        let rate = Rate { per_second: 1, burst: 1 };
        let mut buckets = Buckets::default();
        let node = |number: u32| Origin::Address(u128::from(number));
        assert!(buckets.take(now, node(0), rate));
        assert!(!buckets.take(now, node(0), rate));
        assert!(buckets.take(now, node(1), rate));
        for number in 2..5000 {
            buckets.take(now, node(number), rate);
        }
        assert_eq!(buckets.origins.len(), ORIGINS);
        buckets.take(now + Duration::from_secs(2), node(9000), rate);
        assert_eq!(buckets.origins.len(), 1);
    }
}
