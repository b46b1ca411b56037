//! Whether the relay answers while frames go to it. Pure: no socket, no clock.
//!
//! The heartbeat finds a relay that vanished after minutes, which is enough for an idle connection only. Frames alone show
//! nothing, because the kernel takes them for a while, and a peer need not answer them.

use std::time::{Duration, Instant};

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    /// Ask the relay for a sign of life.
    Ask,
    Silent,
}

/// Watches frames and answers of one connection.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// When the first frames went out after the last sign of life.
    unanswered: Option<Instant>,
    asked: Option<Instant>,
    /// There is reason to think that the connection is dead.
    doubted: bool,
}

impl Answers {
    /// Notes that frames were handed to the socket.
    pub(super) fn sent(&mut self, now: Instant) {
        self.unanswered.get_or_insert(now);
    }

    /// Notes that the machine's network changed: the relay is asked at once, and has less time to answer.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.unanswered = Some(now);
        (self.asked, self.doubted) = (None, true);
    }

    /// Notes that anything came from the relay.
    pub(super) const fn heard(&mut self) {
        self.doubted = false;
        self.unanswered = None;
        self.asked = None;
    }

    /// Notes that the kernel, which was full, took bytes: the other side acknowledges. Over a slow path the question and
    /// its answer take long, behind all that waits.
    pub(super) fn progressed(&mut self, now: Instant) {
        if self.unanswered.is_some() {
            self.unanswered = Some(now);
            self.asked = None;
        }
    }

    /// Judges. [`Verdict::Ask`] is said once until the next sign of life.
    pub(super) fn check(&mut self, now: Instant) -> Verdict {
        if self.due().is_none_or(|due| now < due) {
            return Verdict::Fine;
        }
        if self.asked.is_some() {
            return Verdict::Silent;
        }
        self.asked = Some(now);
        Verdict::Ask
    }

    /// Returns when the verdict may change, if nothing is heard until then.
    pub(super) fn due(&self) -> Option<Instant> {
        let since = self.unanswered?;
        let (wait, answer) = if self.doubted { (Duration::ZERO, HURRIED) } else { (UNANSWERED, ANSWER) };
        Some(self.asked.map_or(since + wait, |asked| asked + answer))
    }
}

/// For so long after frames nothing at all may be heard before the relay is asked.
const UNANSWERED: Duration = Duration::from_secs(3);
/// For so long the relay may take to answer: longer than a bad path's round trip and one loss.
const ANSWER: Duration = Duration::from_secs(2);
/// The same on a network that just changed, where waiting for a connection of the old one costs more than making another.
const HURRIED: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn idle_connection_is_not_asked() {
        let mut answers = Answers::default();
        let now = Instant::now();
        assert_eq!(answers.due(), None);
        assert_eq!(answers.check(now + Duration::from_secs(3600)), Verdict::Fine);
        answers.progressed(now);
        assert_eq!(answers.due(), None);
    }

    #[test]
    fn relay_is_asked_at_once_when_the_network_changed() {
        let mut answers = Answers::default();
        let now = Instant::now();
        answers.doubt(now);
        assert_eq!(answers.check(now), Verdict::Ask);
        assert_eq!(answers.check(now + HURRIED - MOMENT), Verdict::Fine);
        assert_eq!(answers.check(now + HURRIED), Verdict::Silent);
        answers.heard();
        assert_eq!(answers.due(), None);
        answers.sent(now);
        assert_eq!(answers.due(), Some(now + UNANSWERED), "as patient as before");
    }

    #[test]
    fn silent_relay_is_asked_once_and_given_up() {
        let mut answers = Answers::default();
        let now = Instant::now();
        answers.sent(now);
        answers.sent(now + UNANSWERED - MOMENT);
        assert_eq!(answers.check(now + UNANSWERED - MOMENT), Verdict::Fine);
        assert_eq!(answers.check(now + UNANSWERED), Verdict::Ask);
        answers.sent(now + UNANSWERED + MOMENT);
        assert_eq!(answers.check(now + UNANSWERED + ANSWER - MOMENT), Verdict::Fine);
        assert_eq!(answers.check(now + UNANSWERED + ANSWER), Verdict::Silent);
    }

    #[test]
    fn sign_of_life_ends_the_question() {
        let mut answers = Answers::default();
        let now = Instant::now();
        answers.sent(now);
        assert_eq!(answers.check(now + UNANSWERED), Verdict::Ask);
        answers.heard();
        assert_eq!(answers.check(now + 2 * UNANSWERED + ANSWER), Verdict::Fine);
        let later = now + 3 * UNANSWERED;
        answers.sent(later);
        assert_eq!(answers.check(later), Verdict::Fine);
        assert_eq!(answers.due(), Some(later + UNANSWERED));
    }

    #[test]
    fn slow_path_is_not_a_silent_one() {
        let mut answers = Answers::default();
        let mut now = Instant::now();
        answers.sent(now);
        for _ in 0..10 {
            now += UNANSWERED;
            let _ = answers.check(now);
            now += ANSWER - MOMENT;
            answers.progressed(now);
            assert_eq!(answers.check(now + MOMENT), Verdict::Fine);
        }
        assert_eq!(answers.check(now + UNANSWERED), Verdict::Ask);
    }

    #[test]
    fn process_that_stood_still_asks_before_it_judges() {
        let mut answers = Answers::default();
        let now = Instant::now();
        answers.sent(now);
        let later = now + Duration::from_secs(600);
        assert_eq!(answers.check(later), Verdict::Ask);
        assert_eq!(answers.check(later + MOMENT), Verdict::Fine);
    }
}
