//! When this node connects to a peer's door (direct WSS). Pure: the time and randomness are arguments.
//!
//! A door is dialled for frames that would go over a relay, once a search for a path over UDP has found nothing. Attempts
//! that fail come ever more rarely, whatever the peer says meanwhile.

use std::time::{Duration, Instant};

/// A connection that stood for so long was a good one: the next attempt need not wait.
const STOOD: Duration = Duration::from_secs(10);
/// The wait after a first failure, doubled with each further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The connections to one peer's door.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dialling {
    /// A search over UDP found nothing, and nothing was found since.
    udp_failed: bool,
    attempt: Attempt,
    failures: u32,
    not_before: Option<Instant>,
}

#[derive(Debug, Clone, Copy, Default)]
enum Attempt {
    #[default]
    None,
    UnderWay,
    Up(Instant),
}

impl Dialling {
    /// A search over UDP found nothing.
    pub(crate) fn no_direct(&mut self) {
        self.udp_failed = true;
    }

    /// There is a path over UDP.
    pub(crate) fn direct(&mut self) {
        self.udp_failed = false;
    }

    /// Tells whether frames for the peer should lead to an attempt.
    pub(crate) fn wishes(&self, now: Instant) -> bool {
        let idle = matches!(self.attempt, Attempt::None);
        self.udp_failed && idle && self.not_before.is_none_or(|at| now >= at)
    }

    /// An attempt begins.
    pub(crate) fn begins(&mut self) {
        self.attempt = Attempt::UnderWay;
    }

    /// The connection stands.
    pub(crate) fn up(&mut self, now: Instant) {
        self.attempt = Attempt::Up(now);
    }

    /// The attempt failed or the connection ended by itself. `random` shortens the wait by up to a half, so that many who
    /// lost the same door do not come back together.
    pub(crate) fn ended(&mut self, now: Instant, random: u32) {
        let stood = matches!(self.attempt, Attempt::Up(since) if now.duration_since(since) >= STOOD);
        self.attempt = Attempt::None;
        if stood {
            self.failures = 0;
        }
        let wait = FIRST_WAIT.saturating_mul(1 << self.failures.min(8)).min(LONGEST_WAIT);
        self.failures = self.failures.saturating_add(1);
        let cut = wait.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0);
        self.not_before = Some(now + wait - cut);
    }

    /// There is no room for a connection, which is not this door's fault.
    pub(crate) fn postponed(&mut self, now: Instant) {
        self.not_before = Some(now + FIRST_WAIT);
    }

    /// The connection was given up because nobody used it.
    pub(crate) fn left(&mut self) {
        self.attempt = Attempt::None;
    }

    /// The door is another one, or this machine's network: what failed may work.
    pub(crate) fn hope(&mut self, now: Instant) {
        // Soon, but no attempts in a row by a peer that says something else all the time.
        let soon = now + FIRST_WAIT;
        self.not_before = self.not_before.map(|at| if self.failures > 3 { at } else { at.min(soon) });
    }

    /// When [`Dialling::wishes`] may change by itself.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|at| self.udp_failed && matches!(self.attempt, Attempt::None) && *at > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn door_is_wanted_only_after_udp_failed() {
        let (mut dialling, now) = (Dialling::default(), Instant::now());
        assert!(!dialling.wishes(now));
        dialling.no_direct();
        assert!(dialling.wishes(now));
        dialling.direct();
        assert!(!dialling.wishes(now));
        dialling.no_direct();
        dialling.begins();
        assert!(!dialling.wishes(now), "one attempt at a time");
        dialling.up(now);
        dialling.left();
        assert!(dialling.wishes(now), "an idle connection was no failure");
        dialling.postponed(now);
        assert!(!dialling.wishes(now) && dialling.wishes(now + FIRST_WAIT));
        assert_eq!(dialling.failures, 0);
    }

    #[test]
    fn failures_make_attempts_rare_and_a_good_connection_makes_up_for_them() {
        let (mut dialling, mut now) = (Dialling::default(), Instant::now());
        dialling.no_direct();
        let mut waits = Vec::new();
        for _ in 0..9 {
            dialling.begins();
            dialling.ended(now, 0);
            let at = dialling.due(now).unwrap();
            assert!(!dialling.wishes(at - Duration::from_millis(1)) && dialling.wishes(at));
            waits.push((at - now).as_secs());
            now = at;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        dialling.begins();
        dialling.up(now);
        dialling.ended(now + STOOD, u32::MAX);
        assert_eq!(dialling.due(now + STOOD), Some(now + STOOD + FIRST_WAIT / 2));
    }

    #[test]
    fn peer_that_names_other_doors_all_the_time_does_not_make_attempts_frequent() {
        let (mut dialling, start) = (Dialling::default(), Instant::now());
        dialling.no_direct();
        let (mut now, mut attempts) = (start, 0);
        while now < start + Duration::from_secs(600) {
            dialling.hope(now);
            if dialling.wishes(now) {
                attempts += 1;
                dialling.begins();
                dialling.ended(now, u32::MAX);
            }
            now += Duration::from_millis(100);
        }
        assert!(attempts < 30, "{attempts} attempts in ten minutes");
    }
}
