//! What happens to the device while too much waits for the relay: it is left alone for a moment, and then read for the peers that
//! need no relay. Pure: the time is an argument.
//!
//! A packet that waits in the kernel is lost to nobody, but keeps the ones behind it from leaving, whoever they are for. So
//! the device is left alone only for [`PATIENCE`], in which a relay that works makes room, and not at all while packets go
//! past the relay. What is for the relay waits aside meanwhile, in the lines of its flows.

use std::time::{Duration, Instant};

/// Since when too much waits for the relay, and when a packet last went past it.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    since: Option<Instant>,
    past: Option<Instant>,
}

impl Backlog {
    /// Notes whether too much waits. Returns until when the device is to be left alone.
    pub(super) fn look(&mut self, full: bool, now: impl FnOnce() -> Instant) -> Option<Instant> {
        if !full {
            self.since = None;
            return None;
        }
        let now = now();
        let until = *self.since.get_or_insert(now) + PATIENCE;
        let busy = self.past.is_some_and(|past| now.saturating_duration_since(past) < BUSY);
        (now < until && !busy).then_some(until)
    }

    /// Whether too much waited at the last look.
    pub(super) const fn is_full(&self) -> bool {
        self.since.is_some()
    }

    /// Notes that a packet went past the relay while too much waited for that.
    pub(super) const fn passed(&mut self, now: Instant) {
        self.past = Some(now);
    }
}

/// The time in which a relay takes a full queue of 256 KiB at 100 Mbit/s.
const PATIENCE: Duration = Duration::from_millis(20);

/// So long after a packet that needed no relay another one is expected.
const BUSY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn device_is_left_alone_for_a_moment_only() {
        let start = Instant::now();
        let mut backlog = Backlog::default();
        assert_eq!(backlog.look(false, || unreachable!("no clock is read")), None);
        assert!(!backlog.is_full());
        assert_eq!(backlog.look(true, || start), Some(start + PATIENCE));
        assert_eq!(backlog.look(true, || start + MOMENT), Some(start + PATIENCE));
        assert_eq!(backlog.look(true, || start + PATIENCE), None);
        assert!(backlog.is_full());
        // Room in between begins it anew.
        backlog.look(false, || start);
        let later = start + 2 * PATIENCE;
        assert_eq!(backlog.look(true, || later), Some(later + PATIENCE));
    }

    #[test]
    fn device_is_read_at_once_while_others_need_no_relay() {
        let start = Instant::now();
        let mut backlog = Backlog::default();
        backlog.passed(start);
        assert_eq!(backlog.look(true, || start + BUSY - MOMENT), None);
        backlog.look(false, || start);
        let later = start + BUSY;
        assert_eq!(backlog.look(true, || later), Some(later + PATIENCE));
    }
}
