//! Pings of which none may be missing, and the speed of a TCP stream, by `ping` and `iperf3`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::host::Host;
use crate::process::Process;
use crate::wait::wait_until;

/// An `iperf3` that waits for streams on a host.
#[derive(Debug)]
pub struct StreamServer {
    host: Host,
    address: String,
    process: Process,
}

impl StreamServer {
    /// Starts it on one address of a host and waits until it listens.
    ///
    /// # Errors
    /// `iperf3` did not start.
    pub fn start(host: &Host, address: &str) -> Result<Self> {
        let mut process = host.run("iperf3").args(["-s", "-B", address]).spawn("iperf3")?;
        wait_until("iperf3 to listen", Duration::from_secs(5), || {
            anyhow::ensure!(process.is_running()?, "iperf3 ended: {}", process.log()?.trim_end());
            Ok(host.open_ports()?.iter().any(|line| line.contains(":5201")).then_some(()))
        })?;
        Ok(Self { host: host.clone(), address: address.into(), process })
    }

    /// Sends one stream from another host for some seconds; returns bits per second as the receiver counted them.
    ///
    /// # Errors
    /// `iperf3` failed on one of the hosts.
    pub fn measure(&mut self, from: &Host, seconds: u32) -> Result<f64> {
        let output = from
            .run("iperf3")
            .args(["-J", "-c", &self.address, "-t", &seconds.to_string()])
            .limit(Duration::from_secs(u64::from(seconds) + 20))
            .output()?;
        let report: Value = serde_json::from_str(&output.stdout)
            .with_context(|| format!("no report from iperf3: {} {}", output.stdout, output.stderr))?;
        let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
        anyhow::ensure!(self.process.is_running()?, "iperf3 on {} ended", self.host.name());
        rate.with_context(|| format!("no rate in the report of iperf3: {}", report["error"]))
    }
}

/// Sends `count` pings, one in each `apart` seconds, and fails unless each is answered once, late answers included.
///
/// # Errors
/// An answer is missing or came twice.
pub fn every_answer(host: &Host, options: &[&str], (count, apart): (u32, &str), address: &str) -> Result<()> {
    let seconds = f64::from(count) * apart.parse::<f64>()? + PATIENCE;
    // By itself ping waits for the last answer as long as between two questions, 50 ms or less. With a deadline it asks on
    // until it has as many answers, which may be those of further questions.
    let (count_word, deadline) = (count.to_string(), format!("{:.0}", seconds.ceil()));
    let words = ["-n", "-i", apart, "-c", &count_word, "-w", &deadline];
    let limit = Duration::from_secs_f64(seconds + 10.0);
    let output =
        host.run("ping").args(words).args(options.iter().copied()).args([address]).limit(limit).output()?;
    let log = output.stdout;
    ensure!(
        all_answered(&log, count),
        "answers to {count} pings are missing or came twice: {log}{}",
        output.stderr
    );
    Ok(())
}

/// Whether the output of `ping` has an answer to each of the first pings, and none twice.
fn all_answered(log: &str, count: u32) -> bool {
    let answered = answers(log);
    let twice = answered.windows(2).any(|two| two[0] == two[1]);
    !twice && (1..=count).all(|number| answered.binary_search(&number).is_ok())
}

/// The numbers of the pings that were answered, in order.
fn answers(log: &str) -> Vec<u32> {
    let mut numbers: Vec<u32> = log
        .lines()
        .filter(|line| line.contains("bytes from"))
        .filter_map(|line| line.split("icmp_seq=").nth(1)?.split(' ').next()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}

/// Seconds that the last answer may take.
const PATIENCE: f64 = 3.0;

/// Returns the longest time without an answer in the output of a `ping` that sent one in each `apart`.
///
/// # Errors
/// There are fewer than two answers.
pub fn longest_silence(log: &str, apart: Duration) -> Result<Duration> {
    let gap = answers(log).windows(2).map(|two| two[1] - two[0]).max().context("fewer than two answers")?;
    Ok(apart * gap)
}

/// The middle one of several figures.
///
/// # Panics
/// There is none.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(numbers: &[u32]) -> String {
        let line = |number: &u32| format!("64 bytes from 10.9.9.2: icmp_seq={number} ttl=64 time=0.2 ms\n");
        numbers.iter().map(line).collect()
    }

    #[test]
    fn late_answers_count_and_missing_ones_and_second_ones_do_not() {
        assert!(all_answered(&log(&[1, 2, 3]), 3));
        assert!(all_answered(&log(&[1, 2, 4, 3]), 3), "a late one");
        assert!(!all_answered(&log(&[1, 2, 4]), 3), "a further one in place of one that is missing");
        assert!(!all_answered(&log(&[1, 2, 2, 3]), 3), "one twice");
        assert!(!all_answered("", 1));
    }

    #[test]
    fn silence_lies_between_two_answers() {
        let apart = Duration::from_millis(20);
        assert_eq!(longest_silence(&log(&[1, 2, 7, 8]), apart).unwrap(), 5 * apart);
        assert!(longest_silence(&log(&[1]), apart).is_err());
    }
}
