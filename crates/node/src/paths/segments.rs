//! Whether datagrams that are handed to the kernel together, to be cut by it or by the network card, arrive.

use std::time::{Duration, Instant};

use super::Size;

/// What checks of one address showed about segmentation.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    /// Pairs that were not answered since one was, or since one by itself was judged.
    lost: u32,
    /// Checks in a row in which pairs were lost and what went by itself arrived.
    suspicions: u32,
    /// When it was given up.
    off: Option<Instant>,
}

impl Segments {
    /// Tells whether datagrams may be handed over together.
    pub(crate) fn works(&self, now: Instant) -> bool {
        self.off.is_none_or(|off| now.duration_since(off) >= RETRY)
    }

    /// A check was sent.
    pub(super) fn sent(&mut self, size: Size) {
        if matches!(size, Size::Pair(_)) {
            self.lost += 1;
        }
    }

    /// A check was answered.
    pub(super) fn answered(&mut self, now: Instant, size: Size) {
        match size {
            Size::Pair(_) => *self = Self::default(),
            Size::Long(_) if self.lost >= LOST => {
                self.lost = 0;
                self.suspicions += 1;
                if self.suspicions >= SUSPICIONS {
                    (self.suspicions, self.off) = (0, Some(now));
                }
            }
            Size::Long(_) | Size::Short => {}
        }
    }
}

/// Pairs lost in a check until it counts.
const LOST: u32 = 2;
/// Checks in a row: what is lost by chance is seldom lost as pair only, four times in turn.
const SUSPICIONS: u32 = 2;
/// Another kernel or network card on the way may cut better.
const RETRY: Duration = Duration::from_secs(600);

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need a first moment")]
mod tests {
    use super::*;

    #[test]
    fn segmentation_is_given_up_after_two_checks_that_only_single_frames_passed() {
        let (mut segments, now) = (Segments::default(), Instant::now());
        for check in 0..2 {
            assert!(segments.works(now), "check {check}");
            segments.sent(Size::Pair(1420));
            segments.sent(Size::Pair(1420));
            segments.sent(Size::Long(1420));
            segments.answered(now, Size::Long(1420));
        }
        assert!(!segments.works(now));
        assert!(segments.works(now + RETRY));
        segments.answered(now + RETRY, Size::Pair(1420));
        assert!(segments.works(now));
    }

    #[test]
    fn one_answered_pair_clears_it_and_short_ones_say_nothing() {
        let (mut segments, now) = (Segments::default(), Instant::now());
        for _ in 0..10 {
            segments.sent(Size::Pair(1420));
            segments.answered(now, Size::Long(1420));
            segments.sent(Size::Pair(1420));
            segments.answered(now, Size::Pair(1420));
            segments.sent(Size::Pair(1420));
            segments.sent(Size::Pair(1420));
            segments.answered(now, Size::Short);
            segments.answered(now, Size::Long(1420));
            segments.answered(now, Size::Pair(1420));
        }
        assert!(segments.works(now));
    }
}
