//! A token bucket. Pure: the time is an argument.

use std::time::{Duration, Instant};

/// Grants `rate` tokens per second, of which `burst` at once.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// Starts full. A rate of 0 grants everything.
    pub(crate) fn new(rate: f64, burst: f64, now: Instant) -> Self {
        Self { rate, burst, tokens: burst, at: now }
    }

    /// Takes tokens when there are enough.
    pub(crate) fn try_take(&mut self, amount: f64, now: Instant) -> bool {
        self.refill(now);
        let enough = self.rate == 0.0 || self.tokens >= amount;
        if enough {
            self.tokens -= amount;
        }
        enough
    }

    /// Takes tokens also when there are too few; [`Bucket::wait`] then tells how long to pause.
    pub(crate) fn take(&mut self, amount: f64, now: Instant) {
        self.refill(now);
        self.tokens -= amount;
    }

    /// Returns until when nothing more should be taken.
    pub(crate) fn wait(&self) -> Option<Instant> {
        (self.rate > 0.0 && self.tokens < 0.0)
            .then(|| self.at + Duration::from_secs_f64((-self.tokens / self.rate).min(LONGEST_WAIT)))
    }

    /// Tells whether nothing was taken for as long as it takes to fill up.
    pub(crate) fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.tokens >= self.burst
    }

    fn refill(&mut self, now: Instant) {
        if self.rate == 0.0 {
            self.tokens = self.burst;
        } else {
            let passed = now.saturating_duration_since(self.at).as_secs_f64();
            self.tokens = (self.tokens + passed * self.rate).min(self.burst);
        }
        self.at = self.at.max(now);
    }
}

/// Keeps the arithmetic of times in range, whatever the rate.
const LONGEST_WAIT: f64 = 60.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_is_granted_then_the_rate() {
        let now = Instant::now();
        let mut bucket = Bucket::new(10.0, 3.0, now);
        assert!((0..3).all(|_| bucket.try_take(1.0, now)));
        assert!(!bucket.try_take(1.0, now));
        assert!(bucket.try_take(1.0, now + Duration::from_millis(101)));
        assert!(!bucket.try_take(1.0, now + Duration::from_millis(102)));
        assert!(!bucket.is_full(now + Duration::from_millis(200)));
        assert!(bucket.is_full(now + Duration::from_secs(1)));
    }

    #[test]
    fn debt_is_waited_for() {
        let now = Instant::now();
        let mut bucket = Bucket::new(100.0, 10.0, now);
        bucket.take(10.0, now);
        assert_eq!(bucket.wait(), None);
        bucket.take(50.0, now);
        assert_eq!(bucket.wait(), Some(now + Duration::from_millis(500)));
        bucket.take(0.0, now + Duration::from_millis(501));
        assert_eq!(bucket.wait(), None);
    }

    #[test]
    fn rate_zero_is_no_limit() {
        let now = Instant::now();
        let mut bucket = Bucket::new(0.0, 1.0, now);
        assert!(bucket.try_take(1e12, now));
        bucket.take(1e12, now);
        assert_eq!(bucket.wait(), None);
    }
}
