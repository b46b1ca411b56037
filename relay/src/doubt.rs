//! Whether a client that is sent frames still gives a sign of life. Pure: the time is an argument.
//!
//! A relay need not know: its clients do, and take another relay. Behind a door both ends have another way.

use std::time::{Duration, Instant};

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    /// Ask the client for a sign of life.
    Ask,
    /// Frames should take another way until the client gives a sign of life.
    Doubtful,
    /// The connection is dead.
    Silent,
}

/// Watches frames and signs of life of one client.
#[derive(Debug, Default)]
pub(crate) struct Doubt {
    /// When the first frames went out after the last sign of life.
    unanswered: Option<Instant>,
    asked: Option<Instant>,
    /// How long the last answer took, at most.
    took: Duration,
    doubtful: bool,
}

impl Doubt {
    /// Notes that frames were handed to the socket.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.unanswered.get_or_insert(now);
    }

    /// Notes that anything came from the client; true when it was doubtful.
    pub(crate) fn heard(&mut self, now: Instant) -> bool {
        if let Some(asked) = self.asked.take() {
            self.took = now.saturating_duration_since(asked);
        }
        self.unanswered = None;
        std::mem::take(&mut self.doubtful)
    }

    /// Notes that the kernel, which was full, took bytes: the other end acknowledges. Over a slow path the question and its
    /// answer take long, behind all that waits.
    pub(crate) fn progressed(&mut self, now: Instant) {
        if self.unanswered.is_some() && !self.doubtful {
            (self.unanswered, self.asked) = (Some(now), None);
        }
    }

    /// Judges. All but [`Verdict::Silent`] are said once until the next sign of life.
    pub(crate) fn check(&mut self, now: Instant) -> Verdict {
        if self.due().is_none_or(|due| now < due) {
            return Verdict::Fine;
        }
        if self.asked.is_none() {
            self.asked = Some(now);
            return Verdict::Ask;
        }
        if std::mem::replace(&mut self.doubtful, true) { Verdict::Silent } else { Verdict::Doubtful }
    }

    /// Returns when the verdict may change, if nothing is heard until then.
    pub(crate) fn due(&self) -> Option<Instant> {
        let since = self.unanswered?;
        let Some(asked) = self.asked else { return Some(since + UNANSWERED) };
        Some(asked + if self.doubtful { DEAD } else { ANSWER.max(self.took * 2) })
    }
}

/// For so long after frames nothing at all may be heard before the client is asked.
const UNANSWERED: Duration = Duration::from_millis(300);
/// For so long it may take to answer, or for two round trips: together less than a second of silence.
const ANSWER: Duration = Duration::from_millis(400);
/// So long after the question the connection is given up: as a client does with a relay.
const DEAD: Duration = Duration::from_millis(4700);

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn client_that_is_sent_nothing_is_not_asked() {
        let (mut doubt, now) = (Doubt::default(), Instant::now());
        assert!(!doubt.heard(now) && doubt.due().is_none());
        doubt.progressed(now);
        assert_eq!(doubt.check(now + Duration::from_secs(3600)), Verdict::Fine);
    }

    #[test]
    fn silent_client_is_asked_then_doubted_then_given_up() {
        let (mut doubt, now) = (Doubt::default(), Instant::now());
        doubt.sent(now);
        doubt.sent(now + UNANSWERED - MOMENT);
        assert_eq!(doubt.check(now + UNANSWERED - MOMENT), Verdict::Fine);
        let asked = now + UNANSWERED;
        assert_eq!(doubt.check(asked), Verdict::Ask);
        assert_eq!(doubt.check(asked + ANSWER - MOMENT), Verdict::Fine);
        assert_eq!(doubt.check(asked + ANSWER), Verdict::Doubtful);
        assert!(UNANSWERED + ANSWER < Duration::from_secs(1));
        assert_eq!(doubt.check(asked + DEAD - MOMENT), Verdict::Fine);
        assert_eq!(doubt.check(asked + DEAD), Verdict::Silent);
    }

    #[test]
    fn sign_of_life_ends_the_doubt_and_tells_how_far_the_client_is() {
        let (mut doubt, now) = (Doubt::default(), Instant::now());
        doubt.sent(now);
        let asked = now + UNANSWERED;
        assert_eq!(doubt.check(asked), Verdict::Ask);
        assert_eq!(doubt.check(asked + ANSWER), Verdict::Doubtful);
        let far = Duration::from_millis(600);
        assert!(doubt.heard(asked + far));
        assert!(doubt.due().is_none());
        let later = now + Duration::from_secs(9);
        doubt.sent(later);
        assert_eq!(doubt.check(later + UNANSWERED), Verdict::Ask);
        assert_eq!(doubt.check(later + UNANSWERED + far), Verdict::Fine, "its distance is known");
        assert!(!doubt.heard(later + UNANSWERED + far));
    }

    #[test]
    fn slow_path_is_not_a_silent_one() {
        let (mut doubt, mut now) = (Doubt::default(), Instant::now());
        doubt.sent(now);
        for _ in 0..10 {
            now += UNANSWERED;
            assert_eq!(doubt.check(now), Verdict::Ask);
            now += ANSWER - MOMENT;
            doubt.progressed(now);
            assert_eq!(doubt.check(now + MOMENT), Verdict::Fine);
        }
    }
}
