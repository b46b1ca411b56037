//! Transfers and round trips between two hosts.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::figures::percentile;
use crate::arena::{Host, Process, wait_until};

/// The result of a transfer.
#[derive(Debug)]
pub(crate) struct Tcp {
    /// What the receiver got, in Mbit/s.
    pub(crate) mbit_s: f64,
    /// What the receiver got in all, in GB.
    pub(crate) gigabytes: f64,
}

/// Sends over TCP for some seconds; the far end sends when `reverse`.
pub(crate) fn tcp(
    near: &Host,
    far: &Host,
    address: &str,
    seconds: u32,
    streams: u32,
    reverse: bool,
) -> Result<Tcp> {
    let (time, streams) = (seconds.to_string(), streams.to_string());
    let mut words = vec!["-t", &time, "-P", &streams];
    if reverse {
        words.push("-R");
    }
    let report = iperf3(near, far, address, &words)?;
    let sum = &report["end"]["sum_received"];
    Ok(Tcp {
        mbit_s: sum["bits_per_second"].as_f64().context("no rate in the report of iperf3")? / 1e6,
        gigabytes: sum["bytes"].as_f64().context("no bytes in the report of iperf3")? / 1e9,
    })
}

/// The result of a blast of datagrams.
#[derive(Debug)]
pub(crate) struct Udp {
    /// Datagrams that arrived per second.
    pub(crate) received: f64,
    /// Share of those sent that did not arrive, in percent.
    pub(crate) loss: f64,
}

/// Sends datagrams as fast as the sender can.
pub(crate) fn udp(near: &Host, far: &Host, address: &str, seconds: u32, size: u32) -> Result<Udp> {
    let (time, size) = (seconds.to_string(), size.to_string());
    let report = iperf3(near, far, address, &["-u", "-b", "0", "-t", &time, "-l", &size])?;
    let sum = &report["end"]["sum"];
    let number = |key: &str| sum[key].as_f64().with_context(|| format!("no {key} in the report of iperf3"));
    let (packets, lost) = (number("packets")?, number("lost_packets")?);
    Ok(Udp { received: (packets - lost) / number("seconds")?, loss: 100.0 * lost / packets.max(1.0) })
}

/// Round trips in milliseconds.
#[derive(Debug)]
pub(crate) struct Latency {
    /// The middle one.
    pub(crate) median: f64,
    /// What 99 of 100 of those that were answered do not exceed.
    pub(crate) p99: f64,
    /// Share of pings without an answer, in percent.
    pub(crate) loss: f64,
}

/// Pings a hundred times a second for two seconds, next to a TCP stream when `loaded`.
pub(crate) fn latency(near: &Host, far: &Host, address: &str, loaded: bool) -> Result<Latency> {
    let load = if loaded { Some(background_load(near, far, address)?) } else { None };
    let words = ["ping", "-n", "-c", &PINGS.to_string(), "-i", "0.01", "-W", "2", address];
    let output = near.command(&words).output()?;
    drop(load);
    let text = String::from_utf8_lossy(&output.stdout);
    let times: Vec<f64> = text
        .lines()
        .filter(|line| !line.contains("(DUP!)"))
        .filter_map(|line| line.split_once("time=")?.1.split_whitespace().next()?.parse().ok())
        .collect();
    let value = |share| percentile(&times, share).context("no ping was answered");
    let lost = f64::from(PINGS) - times.len() as f64;
    Ok(Latency { median: value(0.5)?, p99: value(0.99)?, loss: 100.0 * lost / f64::from(PINGS) })
}

/// A stream that runs until the values are dropped: server, then client.
fn background_load(near: &Host, far: &Host, address: &str) -> Result<[Process; 2]> {
    let server = start_server(far, address)?;
    let client = near.spawn("iperf3-load", &["iperf3", "-c", address, "-t", "60", "--forceflush"])?;
    // From the second interval on the stream fills the path. On a busy machine it need not end after 2.00 s.
    wait_until("the load", Duration::from_secs(10), || {
        Ok((client.log().matches("bits/sec").count() >= 2).then_some(()))
    })?;
    Ok([client, server])
}

fn iperf3(near: &Host, far: &Host, address: &str, words: &[&str]) -> Result<Value> {
    let _server = start_server(far, address)?;
    let text = near.run(&[&["iperf3", "-c", address, "-J"][..], words].concat())?;
    serde_json::from_str(&text).context("the report of iperf3 is no JSON")
}

fn start_server(far: &Host, address: &str) -> Result<Process> {
    let mut server = far.spawn("iperf3", &["iperf3", "-s", "-B", address])?;
    wait_until("iperf3 to listen", Duration::from_secs(5), || {
        server.check_running()?;
        Ok(far.run(&["ss", "-H", "-lnt"])?.contains(":5201 ").then_some(()))
    })?;
    Ok(server)
}

/// Pings of one measurement.
const PINGS: u32 = 200;
