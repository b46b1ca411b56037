//! How long the payloads are that one address carries (RFC 8899, datagram packetization layer path MTU discovery).
//!
//! In: what was answered, the passing of time. Out: the length of the next challenge. First the longest is asked for, since
//! most paths carry it; then the shortest that makes a path worth taking; then what lies between, halving each time. No
//! ICMP message takes part, so that none is needed and none can be forged.

use std::time::{Duration, Instant};

/// What is known of one address.
#[derive(Debug, Default)]
pub(crate) struct Sizing {
    /// The longest that was answered; zero for none.
    good: u16,
    /// The shortest that was asked for in vain.
    bad: Option<u16>,
    /// The longest that is wanted.
    most: u16,
    ask: Option<Ask>,
    /// When the last question was answered or given up.
    ended: Option<Instant>,
}

/// A length that is asked for.
#[derive(Debug, Clone, Copy)]
struct Ask {
    bytes: u16,
    tries: u32,
    next: Instant,
}

impl Sizing {
    /// The longest payload that was answered, in bytes; none while none was that makes a path worth taking.
    pub(crate) fn carries(&self) -> Option<u16> {
        (self.good > 0).then_some(self.good)
    }

    /// Questions are open.
    pub(super) fn is_busy(&self) -> bool {
        self.ask.is_some()
    }

    /// Begins anew, with nothing known; unless questions are open or were a moment ago.
    pub(super) fn begin(&mut self, now: Instant, most: u16) {
        let again = self.ended.is_none_or(|ended| now.saturating_duration_since(ended) >= AGAIN);
        if self.ask.is_none() && again {
            *self = Self { most, ..Self::default() };
            self.ask(now, most);
        }
    }

    /// Asks for more than is carried, when that was last done long ago.
    pub(super) fn raise(&mut self, now: Instant, most: u16) {
        let due = self.ended.is_some_and(|ended| now.saturating_duration_since(ended) >= RAISE);
        if self.ask.is_none() && due && self.good < most {
            (self.bad, self.most) = (None, most);
            self.ask(now, most);
        }
    }

    /// Of what was carried only the least arrives; looks for what lies between.
    pub(super) fn shrink(&mut self, now: Instant, from: u16) {
        let least = least(from);
        (self.good, self.bad, self.most, self.ask) = (least, Some(from), from, None);
        self.next(now);
    }

    /// So many bytes were answered.
    pub(super) fn answered(&mut self, now: Instant, bytes: u16) {
        if bytes < least(self.most.max(bytes)) {
            return;
        }
        self.good = self.good.max(bytes);
        self.bad = self.bad.filter(|bad| *bad > bytes);
        if self.ask.is_some_and(|ask| ask.bytes <= bytes) {
            self.next(now);
        }
    }

    /// When [`Sizing::timeout`] is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.ask.map(|ask| ask.next)
    }

    /// Returns how long a challenge to send now is to be, over a way of this length.
    pub(super) fn timeout(&mut self, now: Instant, rtt: Duration) -> Option<u16> {
        if self.ask.is_some_and(|ask| ask.next <= now && ask.tries == TRIES) {
            self.bad = self.ask.map(|ask| ask.bytes);
            self.next(now);
        }
        let ask = self.ask.as_mut().filter(|ask| ask.next <= now)?;
        ask.tries += 1;
        ask.next = now + if ask.tries == TRIES { LAST + rtt * 2 } else { RETRY };
        Some(ask.bytes)
    }

    fn ask(&mut self, now: Instant, bytes: u16) {
        self.ask = Some(Ask { bytes, tries: 0, next: now });
    }

    /// Goes on with the next length, or ends.
    fn next(&mut self, now: Instant) {
        let least = least(self.most);
        let bytes = match (self.good, self.bad) {
            (good, _) if good >= self.most => None,
            (_, None) => Some(self.most),
            (0, Some(bad)) => (bad > least).then_some(least),
            (good, Some(bad)) => {
                let between = (good + bad.saturating_sub(good) / 2) / STEP * STEP;
                (bad.saturating_sub(good) > NEAR && between > good).then_some(between)
            }
        };
        self.ask = None;
        match bytes {
            Some(bytes) => self.ask(now, bytes),
            None => self.ended = Some(now),
        }
    }
}

/// The least that makes a path worth taking, where `most` is the longest that is wanted.
pub(super) fn least(most: u16) -> u16 {
    LEAST.min(most)
}

/// Payload that fits every path of IPv6 (1280 bytes) sealed and in UDP, and the length of QUIC's datagrams: what RFC 8899
/// calls `BASE_PLPMTU`.
const LEAST: u16 = 1200;
/// Lengths are multiples of this, and the search ends this near to the truth, or twice as far.
const STEP: u16 = 8;
const NEAR: u16 = 2 * STEP;
/// How often one length is asked for (`MAX_PROBES`).
const TRIES: u32 = 3;
/// Between two tries, and from the last one until it counts as lost, beyond two round trips.
const RETRY: Duration = Duration::from_millis(60);
const LAST: Duration = Duration::from_millis(120);
/// Between two beginnings for one address.
const AGAIN: Duration = Duration::from_secs(1);
/// A longer one is tried again after this (`PMTU_RAISE_TIMER`).
const RAISE: Duration = Duration::from_secs(600);

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need a first moment")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Asks a way that carries up to `limit` until it is at rest; returns how many challenges that took.
    fn run(sizing: &mut Sizing, now: &mut Instant, limit: u16) -> u32 {
        let mut sent = 0;
        while let Some(due) = sizing.due() {
            *now = due.max(*now);
            if let Some(bytes) = sizing.timeout(*now, Duration::from_millis(10)) {
                sent += 1;
                if bytes <= limit {
                    *now += Duration::from_millis(10);
                    sizing.answered(*now, bytes);
                }
            }
            assert!(sent < 100, "never at rest");
        }
        sent
    }

    #[test]
    fn whole_length_takes_one_challenge() {
        let (mut sizing, mut now) = (Sizing::default(), Instant::now());
        sizing.begin(now, 1420);
        assert_eq!(run(&mut sizing, &mut now, 1500), 1);
        assert_eq!(sizing.carries(), Some(1420));
    }

    #[test]
    fn what_lies_between_is_found_within_two_seconds() {
        let (mut sizing, mut now) = (Sizing::default(), Instant::now());
        let begin = now;
        sizing.begin(now, 1420);
        run(&mut sizing, &mut now, 1320);
        assert!((1304..=1320).contains(&sizing.carries().unwrap()), "{sizing:?}");
        assert!(now - begin <= Duration::from_secs(2), "{:?}", now - begin);
    }

    #[test]
    fn way_for_short_ones_only_is_given_up_and_asked_again_later() {
        let (mut sizing, mut now) = (Sizing::default(), Instant::now());
        sizing.begin(now, 1420);
        assert_eq!(run(&mut sizing, &mut now, 1199), 6);
        assert_eq!(sizing.carries(), None);
        sizing.begin(now, 1420);
        assert!(!sizing.is_busy(), "at once again");
        sizing.begin(now + AGAIN, 1420);
        assert!(sizing.is_busy());
    }

    #[test]
    fn shrunk_way_is_measured_and_a_longer_one_found_after_ten_minutes() {
        let (mut sizing, mut now) = (Sizing::default(), Instant::now());
        sizing.begin(now, 1420);
        run(&mut sizing, &mut now, 1500);
        sizing.shrink(now, 1420);
        assert_eq!(sizing.carries(), Some(1200));
        run(&mut sizing, &mut now, 1300);
        let carries = sizing.carries().unwrap();
        assert!((1284..=1300).contains(&carries), "{carries}");
        sizing.raise(now + RAISE - Duration::from_secs(1), 1420);
        assert!(!sizing.is_busy());
        now += RAISE;
        sizing.raise(now, 1420);
        assert_eq!(sizing.carries(), Some(carries), "what is carried stays while more is asked for");
        run(&mut sizing, &mut now, 1500);
        assert_eq!(sizing.carries(), Some(1420));
        sizing.raise(now + RAISE, 1420);
        assert!(!sizing.is_busy(), "nothing is left to ask for");
    }

    #[test]
    fn one_lost_challenge_of_three_changes_nothing() {
        let (mut sizing, now) = (Sizing::default(), Instant::now());
        sizing.begin(now, 1420);
        assert_eq!(sizing.timeout(now, Duration::ZERO), Some(1420));
        assert_eq!(sizing.timeout(now, Duration::ZERO), None);
        assert_eq!(sizing.timeout(now + RETRY, Duration::ZERO), Some(1420));
        assert_eq!(sizing.timeout(now + 2 * RETRY, Duration::ZERO), Some(1420));
        sizing.answered(now + 2 * RETRY, 1420);
        assert!(!sizing.is_busy());
        assert_eq!(sizing.carries(), Some(1420));
    }

    proptest! {
        #[test]
        fn every_way_is_measured_from_below_and_closely(most in 1280_u16..=9000, limit in 0_u16..=9100) {
            let (mut sizing, mut now) = (Sizing::default(), Instant::now());
            sizing.begin(now, most);
            run(&mut sizing, &mut now, limit);
            match sizing.carries() {
                None => prop_assert!(limit < LEAST),
                Some(carries) => {
                    prop_assert!(carries <= limit.min(most));
                    prop_assert!(carries + NEAR > limit.min(most) || carries == most);
                }
            }
        }

        #[test]
        fn whatever_is_answered_or_lost_it_comes_to_rest(answers in prop::collection::vec(0_u16..9000, 0..60)) {
            let (mut sizing, mut now) = (Sizing::default(), Instant::now());
            sizing.begin(now, 1420);
            let mut answers = answers.into_iter();
            for _ in 0..200 {
                let Some(due) = sizing.due() else { break };
                now = due.max(now);
                sizing.timeout(now, Duration::ZERO);
                if let Some(bytes) = answers.next() {
                    sizing.answered(now, bytes);
                }
            }
            prop_assert!(!sizing.is_busy());
        }
    }
}
