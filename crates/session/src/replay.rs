//! The sliding window that refuses a counter seen before (RFC 6479).

/// Bits of the bitmap. At 1 Gbit/s it covers 100 ms of reordering between two paths.
const BITS: u64 = 8192;
const WORD: u64 = 64;
const WORDS: usize = 128;
/// Counters below the highest one that are still judged; one word is in transition (RFC 6479 section 2).
const REACH: u64 = BITS - WORD;

/// Remembers which of the newest counters were accepted. 1 KiB.
#[derive(Debug)]
pub struct ReplayWindow {
    /// One above the highest accepted counter; zero when none was.
    next: u64,
    words: Box<[u64; WORDS]>,
}

impl ReplayWindow {
    /// Starts with no counter seen.
    #[must_use]
    pub fn new() -> Self {
        Self { next: 0, words: Box::new([0; WORDS]) }
    }

    /// Tells whether `counter` is new and not too old. Changes nothing, so it may run before authentication.
    #[must_use]
    pub fn is_fresh(&self, counter: u64) -> bool {
        if counter >= self.next {
            return true;
        }
        if self.next - counter > REACH {
            return false;
        }
        let (word, bit) = place(counter);
        self.words[word] & bit == 0
    }

    /// Remembers a counter whose frame authenticated; returns false, and changes nothing, when it is not fresh.
    pub fn accept(&mut self, counter: u64) -> bool {
        if !self.is_fresh(counter) {
            return false;
        }
        if counter >= self.next {
            self.advance(counter);
        }
        let (word, bit) = place(counter);
        self.words[word] |= bit;
        true
    }

    fn advance(&mut self, counter: u64) {
        let newest = self.next.checked_sub(1).map_or(0, |top| top / WORD);
        let steps = (counter / WORD - newest).min(BITS / WORD);
        for step in 1..=steps {
            let (word, _) = place((newest + step).wrapping_mul(WORD));
            self.words[word] = 0;
        }
        self.next = counter.saturating_add(1);
    }
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

fn place(counter: u64) -> (usize, u64) {
    let word = usize::try_from(counter / WORD % (BITS / WORD)).expect("below WORDS");
    (word, 1 << (counter % WORD))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn replayed_counter_is_refused() {
        let mut window = ReplayWindow::new();
        assert!(window.accept(0));
        assert!(!window.accept(0));
        assert!(window.accept(5));
        assert!(window.accept(3));
        assert!(!window.accept(5));
        assert!(!window.accept(3));
    }

    #[test]
    fn counter_below_the_window_is_refused() {
        let mut window = ReplayWindow::new();
        assert!(window.accept(100_000));
        assert!(window.accept(100_001 - REACH));
        assert!(!window.accept(100_000 - REACH));
        assert!(!window.accept(0));
    }

    #[test]
    fn far_jumps_forget_the_past_and_keep_working() {
        let mut window = ReplayWindow::new();
        for counter in 0..BITS {
            assert!(window.accept(counter));
        }
        assert!(window.accept(1 << 40));
        for counter in (1 << 40) - 100..1 << 40 {
            assert!(window.accept(counter));
            assert!(!window.accept(counter));
        }
        assert!(window.accept(u64::MAX - 1));
        assert!(!window.accept(u64::MAX - 1));
    }

    proptest! {
        #[test]
        fn agrees_with_a_set_of_all_counters(counters in proptest::collection::vec(0u64..20_000, 1..2_000)) {
            let mut window = ReplayWindow::new();
            let mut seen = std::collections::BTreeSet::new();
            for counter in counters {
                let top = seen.last().copied();
                let in_reach = top.is_none_or(|top| counter > top || top + 1 - counter <= REACH);
                let expected = in_reach && !seen.contains(&counter);
                prop_assert_eq!(window.is_fresh(counter), expected);
                prop_assert_eq!(window.accept(counter), expected);
                if expected {
                    seen.insert(counter);
                }
            }
        }
    }
}
