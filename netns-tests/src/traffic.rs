//! The speed of a TCP stream, by `iperf3`.

use std::time::Duration;

use anyhow::{Context, Result};
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

/// Returns the longest time without an answer in the output of a `ping` that sent one in each `apart`.
///
/// # Errors
/// There are fewer than two answers.
pub fn longest_silence(log: &str, apart: Duration) -> Result<Duration> {
    let mut numbers: Vec<u32> = log
        .lines()
        .filter(|line| line.contains("bytes from"))
        .filter_map(|line| line.split("icmp_seq=").nth(1)?.split(' ').next()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    let gap = numbers.windows(2).map(|two| two[1] - two[0]).max().context("fewer than two answers")?;
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
