//! When the round trip to the relay is measured. Pure: no socket, no clock.
//!
//! Right after the connection begins a few times in a row, later now and then where several relays are compared, and
//! whenever somebody wants to know. A question that left behind frames says how much waits, not how far the relay is:
//! it is not counted.

use std::time::{Duration, Instant};

/// The questions of one connection.
#[derive(Debug)]
pub(super) struct RoundTrips {
    next: Option<Instant>,
    /// Measurements of the beginning that are left.
    first: u32,
    count: u32,
    /// The question on its way: its token and when it left.
    asked: Option<([u8; 8], Instant)>,
    last: Option<Duration>,
    several: bool,
}

impl RoundTrips {
    /// Starts with the connection.
    pub(super) const fn new(now: Instant) -> Self {
        Self { next: Some(now), first: FIRST, count: 0, asked: None, last: None, several: false }
    }

    /// Says whether other relays are compared with this one.
    pub(super) fn set_several(&mut self, now: Instant, several: bool) {
        if several && !self.several && self.next.is_none() {
            self.next = Some(now + EVERY);
        }
        self.several = several;
    }

    /// Has the round trip measured at once.
    pub(super) const fn want(&mut self, now: Instant) {
        self.next = Some(now);
    }

    /// Returns when a question is due.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.next
    }

    /// Makes the token of a question that leaves now; `clear` says that nothing waits before it.
    pub(super) fn ask(&mut self, now: Instant, clear: bool) -> [u8; 8] {
        self.count = self.count.wrapping_add(1);
        let mut token = *b"rtt\0\0\0\0\0";
        token[4..].copy_from_slice(&self.count.to_be_bytes());
        if clear {
            self.asked = Some((token, now));
            self.next = self.several.then(|| now + EVERY);
        } else {
            // Frames do not wait for long, and home may depend on the answer.
            self.next = (self.several || self.first > 0).then(|| now + AGAIN);
        }
        token
    }

    /// Takes an answer and returns how long it took; none for one that nobody waits for.
    pub(super) fn answered(&mut self, now: Instant, token: [u8; 8]) -> Option<Duration> {
        let (_, sent) = self.asked.take_if(|(asked, _)| *asked == token)?;
        if self.first > 0 {
            self.first -= 1;
            self.next = Some(now + SOON);
        }
        let took = now.saturating_duration_since(sent);
        self.last = Some(took);
        Some(took)
    }

    /// Returns the last round trip.
    pub(super) const fn last(&self) -> Option<Duration> {
        self.last
    }
}

/// Measurements in a row at the beginning, after the first.
const FIRST: u32 = 3;
/// Between these.
const SOON: Duration = Duration::from_millis(50);
/// After a question that was asked behind frames.
const AGAIN: Duration = Duration::from_millis(500);
/// Between two measurements later on: often enough to notice another route within a minute, 60 bytes each way.
const EVERY: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn beginning_is_measured_a_few_times_and_then_only_where_relays_are_compared() {
        let start = Instant::now();
        let mut trips = RoundTrips::new(start);
        let mut now = start;
        for _ in 0..=FIRST {
            assert!(trips.due().unwrap() <= now);
            let token = trips.ask(now, true);
            now += 20 * MS;
            assert_eq!(trips.answered(now, token), Some(20 * MS));
            now += SOON;
        }
        assert_eq!((trips.due(), trips.last()), (None, Some(20 * MS)));
        trips.set_several(now, true);
        assert_eq!(trips.due(), Some(now + EVERY));
        trips.ask(now, true);
        assert_eq!(trips.due(), Some(now + EVERY));
    }

    #[test]
    fn foreign_old_and_held_up_answers_do_not_count() {
        let now = Instant::now();
        let mut trips = RoundTrips::new(now);
        let old = trips.ask(now, true);
        let new = trips.ask(now + MS, true);
        assert_eq!(trips.answered(now + 2 * MS, *b"heartbt?"), None);
        assert_eq!(trips.answered(now + 2 * MS, old), None);
        assert_eq!(trips.answered(now + 2 * MS, new), Some(MS));
        assert_eq!(trips.answered(now + 3 * MS, new), None, "once");
        let behind = trips.ask(now, false);
        assert_eq!(trips.due(), Some(now + AGAIN), "asked again soon");
        assert_eq!(trips.answered(now + 900 * MS, behind), None);
    }
}
