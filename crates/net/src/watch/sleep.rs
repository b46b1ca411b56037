//! Tells from two clocks whether the machine slept in between.

use std::io;
use std::time::Duration;

use nix::time::ClockId;

/// Both clocks at one moment.
#[derive(Debug)]
pub(super) struct Clocks {
    /// `CLOCK_BOOTTIME`, which goes on while the machine sleeps.
    pub(super) boot: Duration,
    /// `CLOCK_MONOTONIC`, which does not.
    pub(super) awake: Duration,
}

/// Remembers the last look.
#[derive(Debug)]
pub(super) struct SleepGauge {
    last: Clocks,
}

impl SleepGauge {
    pub(super) const fn new(clocks: Clocks) -> Self {
        Self { last: clocks }
    }

    /// Tells whether the machine slept for more than [`LEAST`] since the last look.
    ///
    /// Only the advance of each clock counts: in a time namespace either may be ahead of the other.
    pub(super) fn look(&mut self, clocks: Clocks) -> bool {
        let passed = clocks.boot.saturating_sub(self.last.boot);
        let awake = clocks.awake.saturating_sub(self.last.awake);
        self.last = clocks;
        passed.saturating_sub(awake) > LEAST
    }
}

pub(super) fn read_clocks() -> io::Result<Clocks> {
    Ok(Clocks { boot: ClockId::CLOCK_BOOTTIME.now()?.into(), awake: ClockId::CLOCK_MONOTONIC.now()?.into() })
}

/// Shorter naps are nothing: the clocks are not read at the same moment, and mappings of NATs outlive them.
const LEAST: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn clocks(boot: u64, awake: u64) -> Clocks {
        Clocks { boot: Duration::from_millis(boot), awake: Duration::from_millis(awake) }
    }

    #[test]
    fn only_sleep_moves_the_clocks_apart() {
        let mut gauge = SleepGauge::new(clocks(1_005_000, 1_000_000));
        assert!(!gauge.look(clocks(1_008_000, 1_003_000)));
        assert!(!gauge.look(clocks(9_008_000, 9_003_000)), "a look that came late is no sleep");
        assert!(gauge.look(clocks(9_013_001, 9_006_000)));
        assert!(!gauge.look(clocks(9_016_001, 9_009_000)), "one sleep is told once");
        assert!(!gauge.look(clocks(9_021_001, 9_012_000)), "two seconds are not more than two seconds");
        assert!(gauge.look(clocks(19_021_001, 9_012_500)));
    }

    #[test]
    fn clock_that_is_behind_shows_sleep_as_well() {
        let mut gauge = SleepGauge::new(clocks(5_000, 1_000_000));
        assert!(!gauge.look(clocks(8_000, 1_003_000)));
        assert!(gauge.look(clocks(15_000, 1_006_000)));
    }

    #[test]
    fn clocks_of_this_machine_agree_while_it_is_awake() {
        let mut gauge = SleepGauge::new(read_clocks().unwrap());
        assert!(!gauge.look(read_clocks().unwrap()));
    }
}
