//! How much is taken of each sender.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

/// So many at once, and so many a second on average.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    pub(super) per_second: u32,
    pub(super) burst: u32,
}

/// A token bucket that starts full.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    state: Option<(Instant, u32)>,
}

/// One bucket for each interface and sender.
#[derive(Debug, Default)]
pub(super) struct Sources {
    buckets: BTreeMap<(u32, IpAddr), Bucket>,
}

impl Bucket {
    /// Takes a token; false when there is none.
    pub(super) fn take(&mut self, now: Instant, rate: Rate) -> bool {
        let (at, tokens) = self.state.unwrap_or((now, rate.burst));
        let earned = now.saturating_duration_since(at).as_micros() * u128::from(rate.per_second) / 1_000_000;
        let earned = u32::try_from(earned).unwrap_or(rate.burst);
        // The bucket's clock moves only when something was earned, so that fractions of a token are not lost.
        let at = if earned > 0 { now } else { at };
        let tokens = tokens.saturating_add(earned).min(rate.burst);
        self.state = Some((at, tokens.saturating_sub(1)));
        tokens > 0
    }
}

impl Sources {
    /// Takes a token of one sender. When as many are known as may be, all are forgotten: addresses are easily invented, and
    /// [`super::OPENS`] bounds what they cost together.
    pub(super) fn take(&mut self, now: Instant, source: (u32, IpAddr)) -> bool {
        if self.buckets.len() >= SOURCES && !self.buckets.contains_key(&source) {
            self.buckets.clear();
        }
        self.buckets.entry(source).or_default().take(now, SOURCE)
    }
}

/// Senders that are remembered: as many as a large switch has hosts.
const SOURCES: usize = 1024;
/// A node says something once a second at most, over two families; daemons beside each other share an address.
const SOURCE: Rate = Rate { per_second: 4, burst: 32 };

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_sender_does_not_use_up_what_others_may_send() {
        let now = Instant::now();
        let mut sources = Sources::default();
        let taken = (0..1000).filter(|_| sources.take(now, (1, "10.0.0.1".parse().unwrap()))).count();
        assert_eq!(taken, 32);
        assert!(sources.take(now, (1, "10.0.0.2".parse().unwrap())));
        assert!(sources.take(now + Duration::from_secs(1), (1, "10.0.0.1".parse().unwrap())));
    }

    #[test]
    fn number_of_senders_is_bounded() {
        let now = Instant::now();
        let mut sources = Sources::default();
        for number in 0..100_000_u32 {
            sources.take(now, (1, IpAddr::from(number.to_be_bytes())));
            assert!(sources.buckets.len() <= SOURCES);
        }
    }
}
