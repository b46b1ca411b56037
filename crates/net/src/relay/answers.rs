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
    /// Another relay should carry the frames until this one gives a sign of life.
    Suspect,
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
    /// How long the relay may take to answer before it is suspect, where another relay could be used.
    hasty: Option<Duration>,
    suspect: bool,
}

impl Answers {
    /// Notes that frames were handed to the socket.
    pub(super) fn sent(&mut self, now: Instant) {
        self.unanswered.get_or_insert(now);
    }

    /// Says whether another relay could be used, and how long a round trip takes.
    pub(super) fn be_hasty(&mut self, several: bool, rtt: Option<Duration>) {
        self.hasty = several.then(|| SUSPECT.max(rtt.unwrap_or_default() * 2));
        self.suspect &= several;
    }

    /// Notes that a way beside the connection no longer answers: with another relay at hand that is enough.
    pub(super) fn suspect(&mut self) {
        self.suspect = self.hasty.is_some();
    }

    pub(super) const fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Notes that the machine's network changed: the relay is asked at once, and has less time to answer.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.unanswered = Some(now);
        (self.asked, self.doubted) = (None, true);
    }

    /// Notes that anything came from the relay.
    pub(super) const fn heard(&mut self) {
        self.doubted = false;
        self.suspect = false;
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

    /// Judges. [`Verdict::Ask`] and [`Verdict::Suspect`] are said once until the next sign of life.
    pub(super) fn check(&mut self, now: Instant) -> Verdict {
        if self.due().is_none_or(|due| now < due) {
            return Verdict::Fine;
        }
        let Some(asked) = self.asked else {
            self.asked = Some(now);
            return Verdict::Ask;
        };
        if !self.suspect && self.hasty.is_some_and(|patience| now >= asked + patience) {
            self.suspect = true;
            return Verdict::Suspect;
        }
        Verdict::Silent
    }

    /// Returns when the verdict may change, if nothing is heard until then.
    pub(super) fn due(&self) -> Option<Instant> {
        let since = self.unanswered?;
        let (wait, answer) = match self.hasty {
            _ if self.doubted => (Duration::ZERO, HURRIED),
            // Asked earlier, given up no earlier.
            Some(_) => (UNANSWERED_HASTY, UNANSWERED - UNANSWERED_HASTY + ANSWER),
            None => (UNANSWERED, ANSWER),
        };
        let Some(asked) = self.asked else { return Some(since + wait) };
        let suspect = self.hasty.filter(|_| !self.suspect).map_or(answer, |patience| patience.min(answer));
        Some(asked + suspect)
    }
}

/// For so long after frames nothing at all may be heard before the relay is asked.
const UNANSWERED: Duration = Duration::from_secs(3);
/// For so long the relay may take to answer: longer than a bad path's round trip and one loss.
const ANSWER: Duration = Duration::from_secs(2);
/// As [`UNANSWERED`], where another relay could be used.
const UNANSWERED_HASTY: Duration = Duration::from_millis(300);
/// For so long at least a relay may take to answer where another one could be used: with the wait before it, and the way
/// of a frame over the other relay, less than a second of silence.
const SUSPECT: Duration = Duration::from_millis(400);
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
    fn with_another_relay_a_silent_one_is_suspect_before_it_is_given_up() {
        let mut answers = Answers::default();
        let now = Instant::now();
        answers.be_hasty(true, None);
        answers.sent(now);
        let asked = now + UNANSWERED_HASTY;
        assert_eq!(answers.check(asked), Verdict::Ask);
        assert_eq!(answers.check(asked + SUSPECT - MOMENT), Verdict::Fine);
        assert_eq!(answers.check(asked + SUSPECT), Verdict::Suspect);
        assert!(answers.is_suspect() && SUSPECT + UNANSWERED_HASTY < Duration::from_secs(1));
        assert_eq!(answers.check(now + UNANSWERED + ANSWER - MOMENT), Verdict::Fine);
        assert_eq!(
            answers.check(now + UNANSWERED + ANSWER),
            Verdict::Silent,
            "no earlier than with one relay"
        );
        answers.heard();
        assert!(!answers.is_suspect());
    }

    #[test]
    fn relay_far_away_is_not_suspect_for_its_distance() {
        let mut answers = Answers::default();
        let now = Instant::now();
        let rtt = Duration::from_millis(600);
        answers.be_hasty(true, Some(rtt));
        answers.sent(now);
        assert_eq!(answers.check(now + UNANSWERED_HASTY), Verdict::Ask);
        assert_eq!(answers.check(now + UNANSWERED_HASTY + rtt), Verdict::Fine);
        answers.be_hasty(false, Some(rtt));
        answers.suspect();
        assert!(!answers.is_suspect(), "without another relay there is nothing to gain");
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
