//! Whether datagrams that are handed to the kernel together, to be cut by it or by the network card, arrive at the relay.
//! Pure: no socket, no clock.
//!
//! A check is two pings that leave together and one that leaves by itself. Frames leave together only after the second of a
//! pair was answered, and by themselves from when only the single one was: a card that loses or corrupts what it is to cut
//! costs no frame at first, and little later. A check that was lost by chance costs speed until the next one.

/// What the checks of one way to the relay showed.
#[derive(Debug, Default)]
pub(super) struct Together {
    works: bool,
    /// Checks in a row of which only the single ping was answered.
    failed: u32,
    /// The counter of the second ping of a pair that is not judged yet.
    open: Option<u64>,
    /// The next ping is the single one of a check.
    alone: bool,
    /// Pings until the next check.
    rest: u32,
}

impl Together {
    /// Tells whether the next ping is to be a pair.
    pub(super) const fn is_due(&mut self) -> bool {
        if self.alone {
            self.alone = false;
            return false;
        }
        if !self.works || self.rest == 0 {
            return true;
        }
        self.rest -= 1;
        false
    }

    /// A pair was sent, the second ping with this counter; the single one follows at once.
    pub(super) const fn sent(&mut self, second: u64) {
        (self.open, self.alone, self.rest) = (Some(second), true, BETWEEN);
    }

    /// A ping with this counter was answered.
    pub(super) fn answered(&mut self, counter: u64) {
        let Some(second) = self.open.filter(|second| counter >= *second) else { return };
        self.open = None;
        self.works = counter == second;
        self.failed = if self.works { 0 } else { self.failed.saturating_add(1) };
    }

    /// The way begins anew, perhaps through another interface.
    pub(super) const fn begin(&mut self) {
        (self.works, self.open, self.alone, self.rest) = (false, None, false, 0);
    }

    /// Tells whether frames may leave together.
    pub(super) const fn works(&self) -> bool {
        self.works
    }

    /// Tells whether it is no chance that they may not.
    pub(super) const fn is_broken(&self) -> bool {
        self.failed >= BROKEN
    }
}

/// Single pings between two checks while frames leave together: five seconds.
const BETWEEN: u32 = 20;
/// Checks in a row after which it is shown: two seconds.
const BROKEN: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends one check; returns the counters of pair and single ping.
    fn check(together: &mut Together, counter: &mut u64) -> [u64; 3] {
        assert!(together.is_due());
        *counter += 3;
        together.sent(*counter - 1);
        assert!(!together.is_due(), "the single one follows");
        [*counter - 2, *counter - 1, *counter]
    }

    #[test]
    fn frames_leave_together_after_a_pair_was_answered_and_checks_become_rare() {
        let (mut together, mut counter) = (Together::default(), 0);
        let [first, second, single] = check(&mut together, &mut counter);
        together.answered(first);
        assert!(!together.works(), "the first one may have left by itself");
        together.answered(second);
        together.answered(single);
        assert!(together.works() && !together.is_broken());
        let rare = (0..100).take_while(|_| !together.is_due()).count();
        assert_eq!(rare, 20);
    }

    #[test]
    fn card_that_loses_pairs_is_found_and_forgiven() {
        let (mut together, mut counter) = (Together::default(), 0);
        let [_, second, _] = check(&mut together, &mut counter);
        together.answered(second);
        assert!(together.works());
        for _ in 0..20 {
            assert!(!together.is_due());
        }
        for failures in 1..=10 {
            let [first, _, single] = check(&mut together, &mut counter);
            together.answered(first);
            together.answered(single);
            assert!(!together.works());
            assert_eq!(together.is_broken(), failures >= 8);
        }
        let [_, second, _] = check(&mut together, &mut counter);
        together.answered(second);
        assert!(together.works() && !together.is_broken());
    }

    #[test]
    fn silence_says_nothing() {
        let (mut together, mut counter) = (Together::default(), 0);
        let [_, second, _] = check(&mut together, &mut counter);
        together.answered(second);
        for _ in 0..20 {
            assert!(!together.is_due());
        }
        for _ in 0..10 {
            check(&mut together, &mut counter);
            assert!(together.works() && !together.is_broken());
            together.rest = 0;
        }
        together.begin();
        assert!(!together.works() && together.is_due());
    }
}
