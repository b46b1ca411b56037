//! Waiting for a condition with a deadline.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Short enough not to blur what a test measures, long enough to leave the processor to the programs under test.
const INTERVAL: Duration = Duration::from_millis(20);

/// Calls `probe` until it returns a value, or fails with `what` after `limit`.
///
/// # Errors
/// What `probe` returns as an error ends the waiting; otherwise the limit passed.
pub fn wait_until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if start.elapsed() >= limit {
            bail!("waited {limit:?} in vain for {what}");
        }
        thread::sleep(INTERVAL);
    }
}

/// The time between two calls of a probe in [`wait_until`].
pub const fn poll_interval() -> Duration {
    INTERVAL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_ends_the_waiting() {
        let mut calls = 0;
        let value = wait_until("three calls", Duration::from_secs(5), || {
            calls += 1;
            Ok((calls == 3).then_some(calls))
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn limit_names_what_was_awaited() {
        let error = wait_until::<()>("rain", Duration::ZERO, || Ok(None)).unwrap_err();
        assert!(error.to_string().contains("rain"));
    }
}
