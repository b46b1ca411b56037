//! A path changes under traffic that is not at its limit: nothing is sent again, nothing comes twice or in another order.
//!
//! `SHADOWMESH_RUNS=20` repeats each scenario, with a new pair of nodes each time.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::{Daemon, Lab, NatKind, Pair, Rough, Site, Underlay, scenario};
use nix::sys::signal::Signal;

use crate::direct::pair_at;

const PROBE: &str = env!("CARGO_BIN_EXE_mesh-lab-probe");

#[test]
fn no_segment_is_sent_again_when_a_path_is_found() {
    repeated("no_segment_is_sent_again_when_a_path_is_found", |lab| switches(lab, Duration::ZERO));
}

/// Whatever takes the direct path is there long before what left over the relay.
#[test]
fn no_segment_is_sent_again_when_the_relay_is_far() {
    repeated("no_segment_is_sent_again_when_the_relay_is_far", |lab| switches(lab, FAR));
}

/// A stream goes on from the relay, which is so much further away one way, to the direct path.
fn switches(lab: &Lab, further: Duration) -> Result<()> {
    let public = lab.public(Underlay::Both)?;
    let sites = [public.site("one", KIND)?, public.site("two", KIND)?];
    sites.iter().try_for_each(Site::block_udp)?;
    let pair = pair_at(lab, &public, &sites)?;
    let IpAddr::V4(relay) = pair.relay.host().address() else { bail!("the relay has no IPv4 address") };
    sites[0].roughen(Rough { delay: further, only: Some(relay), ..Rough::default() })?;
    pair.every_ping("0.05", 10)?;
    let [receiver, sender] = &pair.nodes;
    let to = format!("{}:7000", receiver.ipv4()?);
    let mut received = receiver.host().run(PROBE).args(["tcp-receive", "--bind", &to]).spawn("received")?;
    received.wait_for_log("ready", Duration::from_secs(5))?;
    let words = ["tcp-send", "--to", &to, "--bytes", BYTES, "--rate", RATE];
    // Probes of the tail (RFC 8985, section 7) resend a segment after some ms without an acknowledgement: on a loaded machine
    // that says how long programs waited for a processor.
    sender.host().shell("echo 0 > /proc/sys/net/ipv4/tcp_early_retrans").ok()?;
    let mut sent = sender.host().run(PROBE).args(words).spawn("sent")?;
    lab::wait_until("the stream", LIMIT, || Ok(Flow::of(sender)?.map(drop)))?;
    pair.wait_for_path("relay", LIMIT)?;
    let flows = || -> Result<[Flow; 2]> {
        Ok([Flow::of(sender)?.context("the stream ended")?, Flow::of(receiver)?.context("the stream ended")?])
    };
    let before = flows()?;
    unblocked(&pair, &sites)?;
    // What was on its way by then has come, and its acknowledgements as well.
    pair.every_ping("0.05", 20)?;
    let after = flows()?;
    tell(&before, &after);
    ensure!(sent.is_running()?, "the path was found after the last byte");
    sent.kill()?;
    ensure!(before == after, "{before:?}, then {after:?}");
    Ok(())
}

#[test]
fn no_ping_is_lost_or_doubled_when_a_path_is_found() {
    repeated("no_ping_is_lost_or_doubled_when_a_path_is_found", nothing_lost);
}

/// Pings 10 ms apart all the while: not one is lost or answered twice.
fn nothing_lost(lab: &Lab) -> Result<()> {
    let public = lab.public(Underlay::Both)?;
    let sites = [public.site("one", KIND)?, public.site("two", KIND)?];
    sites.iter().try_for_each(Site::block_udp)?;
    let pair = pair_at(lab, &public, &sites)?;
    pair.every_ping("0.05", 10)?;
    let mut pings = pair.pings("0.01")?;
    pings.wait_for_log("icmp_seq=50 ", Duration::from_secs(5))?;
    assert_eq!(pair.paths()?, ["relay", "relay"]);
    unblocked(&pair, &sites)?;
    let log = pings.log()?;
    let seen = log.lines().count();
    pings.wait_for_log(&format!("icmp_seq={} ", seen + 100), Duration::from_secs(10))?;
    pings.signal(Signal::SIGINT)?;
    let log = pings.wait_ok(Duration::from_secs(5))?;
    let last = log.lines().last().unwrap_or_default().to_owned();
    let summary = log.lines().find(|line| line.contains("packets transmitted")).context(last)?;
    // The last one may be under way when the program is told to end.
    let figures: Vec<u64> =
        summary.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    assert!(figures[0] - figures[1] <= 1 && !summary.contains("duplicates"), "{summary}");
    Ok(())
}

/// Lets UDP through from here on, and waits for the direct path.
fn unblocked(pair: &Pair, sites: &[Site<'_, '_>; 2]) -> Result<()> {
    sites.iter().try_for_each(Site::unblock_udp)?;
    let [laptop, pi] = &pair.nodes;
    for (node, peer) in [(laptop, pi), (pi, laptop)] {
        // Who asks by hand has a search begin at once.
        node.ctl(&["ping", peer.name(), "-c", "1", "--via", "direct", "--timeout", "0.1"])?;
    }
    pair.wait_for_path("direct", Duration::from_secs(30))
}

/// What the kernel of one end counted of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flow {
    /// Segments that it sent again.
    resent: u64,
    /// Segments that the other end had already, as it said.
    doubled: u64,
    /// Segments that came before one that was sent earlier.
    disordered: u64,
}

impl Flow {
    /// The stream to or from port 7000; none where there is none.
    fn of(node: &Daemon) -> Result<Option<Self>> {
        let words = ["-tinH", "state", "established", "( sport = 7000 or dport = 7000 )"];
        let text = node.host().run("ss").args(words).ok()?.stdout;
        let number = |name: &str| -> u64 {
            let word = text.split_whitespace().find_map(|word| word.strip_prefix(name));
            word.and_then(|word| word.rsplit('/').next()?.parse().ok()).unwrap_or(0)
        };
        Ok((!text.trim().is_empty()).then(|| Self {
            resent: number("retrans:"),
            doubled: number("dsack_dups:"),
            disordered: number("rcv_ooopack:"),
        }))
    }
}

/// Runs a scenario as often as `SHADOWMESH_RUNS` says; once unless it is set.
#[expect(clippy::print_stdout, reason = "a reader of many runs wants to know how far they are")]
fn repeated(name: &str, body: fn(&Lab) -> Result<()>) {
    let runs = std::env::var("SHADOWMESH_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(1_u32);
    for run in 1..=runs {
        scenario(name, body);
        println!("{name}: run {run} of {runs} held");
    }
}

#[expect(clippy::print_stdout, reason = "the figures are what a reader of the run wants to know")]
fn tell(before: &[Flow; 2], after: &[Flow; 2]) {
    println!("sender {:?}, then {:?}; receiver {:?}, then {:?}", before[0], after[0], before[1], after[1]);
}

const KIND: NatKind = NatKind::PortRestricted;
/// Far less than the relay carries on a loaded machine, in bytes per second, and more than the scenario has time for.
const RATE: &str = "5000000";
const BYTES: &str = "1000000000";
/// One way of the far relay.
const FAR: Duration = Duration::from_millis(30);
const LIMIT: Duration = Duration::from_secs(10);
