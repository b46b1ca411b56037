//! What NATs and networks do to a direct path in the course of time: they forget it, and addresses change under it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::{
    Daemon, Lab, NatKind, Pair, Site, Switch, Translation, Underlay, longest_silence, scenario, wait_until,
};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::direct::{pair, pair_at};

const PROBE: &str = env!("CARGO_BIN_EXE_mesh-lab-probe");

#[test]
fn mapping_of_thirty_seconds_is_forgotten_while_nothing_is_sent() {
    scenario("mapping_of_thirty_seconds_is_forgotten_while_nothing_is_sent", |lab| {
        let public = lab.public(Underlay::V4)?;
        let (pair, sites) = forgetful(lab, &public)?;
        pair.meet(LIMIT)?;
        let far = sites[1].wan().context("a router has an address")?;
        wait_until("the end of the mapping", Duration::from_secs(60), || {
            Ok((!sites[0].routers()[0].lets_in(far)?).then_some(()))
        })?;
        let start = Instant::now();
        let mut pings = pair.pings("0.05")?;
        pings.wait_for_log("bytes from", LIMIT)?;
        let answered = start.elapsed();
        pair.wait_for_path("direct", LIMIT)?;
        tell("mapping forgotten", answered, start);
        assert!(answered <= SOON, "nothing for {answered:?}");
        pair.every_ping("0.05", 20)
    });
}

#[test]
fn address_of_the_machine_is_replaced() {
    scenario("address_of_the_machine_is_replaced", |lab| {
        let public = lab.public(Underlay::V4)?;
        let kind = NatKind::PortRestricted;
        let (pair, sites) = pair(lab, &public, kind, kind)?;
        pair.meet(LIMIT)?;
        let mut pings = pair.pings("0.02")?;
        pings.wait_for_log("bytes from", LIMIT)?;
        // As when a lease ends and the server gives another address: on the same interface, with the same router.
        let host = pair.nodes[1].host();
        let routes = host.run("ip").args(["route", "show", "default"]).ok()?.stdout;
        let old = host.address();
        let new = sites[1].readdress(host)?;
        assert_ne!(Some(old), Some(new.into()));
        let start = Instant::now();
        wait_until("answers to pings again", LIMIT, || Ok(pair.every_ping("0.05", 5).ok()))?;
        pings.signal(Signal::SIGINT)?;
        let outage = longest_silence(&pings.wait_ok(LIMIT)?, Duration::from_millis(20))?;
        let _pings = pair.pings("0.05")?;
        pair.wait_for_path("direct", LIMIT)?;
        tell("another address", outage, start);
        assert!(outage <= SOON, "nothing for {outage:?}; the route was {routes}");
        Ok(())
    });
}

#[test]
fn tcp_transfer_arrives_whole_and_once_when_a_path_is_found() {
    scenario("tcp_transfer_arrives_whole_and_once_when_a_path_is_found", |lab| {
        let public = lab.public(Underlay::Both)?;
        let kind = NatKind::PortRestricted;
        let sites = [public.site("one", kind)?, public.site("two", kind)?];
        sites.iter().try_for_each(Site::block_udp)?;
        let pair = pair_at(lab, &public, &sites)?;
        pair.every_ping("0.05", 10)?;
        let [receiver, sender] = &pair.nodes;
        let to = format!("{}:7000", receiver.ipv4()?);
        let words = ["tcp-receive", "--bind", &to];
        let mut received = receiver.host().run(PROBE).args(words).spawn("received")?;
        received.wait_for_log("ready", Duration::from_secs(5))?;
        let before = [Tcp::of(receiver)?, Tcp::of(sender)?];
        let bytes = BYTES.to_string();
        let mut sent =
            sender.host().run(PROBE).args(["tcp-send", "--to", &to, "--bytes", &bytes]).spawn("sent")?;
        pair.wait_for_path("relay", Duration::from_secs(5))?;
        sites.iter().try_for_each(Site::unblock_udp)?;
        pair.wait_for_path("direct", Duration::from_secs(30))?;
        assert!(sent.is_running()?, "the path was found after the last byte");
        sent.wait_ok(Duration::from_secs(120))?;
        let log = received.wait_ok(LIMIT)?;
        let report: Value = serde_json::from_str(log.trim_end().lines().last().unwrap_or_default())?;
        assert_eq!((&report["received"], &report["intact"]), (&BYTES.into(), &true.into()), "{report}");
        let after = [Tcp::of(receiver)?, Tcp::of(sender)?];
        let doubled: u64 =
            after.iter().zip(&before).map(|(after, before)| after.doubled - before.doubled).sum();
        // At full speed the flow loses some to full queues, as on any way, and what it takes for lost it sends again.
        // A segment that came twice without that was doubled on the way.
        let resent = after[1].resent - before[1].resent;
        assert!(doubled <= resent, "segments came twice: {before:?}, then {after:?}");
        tell_resent(resent, doubled);
        Ok(())
    });
}

/// What the kernel of a host counted of TCP.
#[derive(Debug)]
struct Tcp {
    /// Segments that were sent again.
    resent: u64,
    /// Segments that came twice, which a DSACK told the sender.
    doubled: u64,
}

impl Tcp {
    fn of(node: &Daemon) -> Result<Self> {
        let words = ["-a", "-s", "-z", "TcpRetransSegs", "TcpExtTCPDSACKOldSent", "TcpExtTCPDSACKOfoSent"];
        let text = node.host().run("nstat").args(words).ok()?.stdout;
        let of = |name: &str| -> u64 {
            let lines = text.lines().filter(|line| line.starts_with(name));
            lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
        };
        Ok(Self { resent: of("TcpRetransSegs"), doubled: of("TcpExtTCPDSACK") })
    }
}

/// A pair of which one end's router forgets after 30 s.
fn forgetful<'lab, 'switch>(
    lab: &'lab Lab,
    public: &'switch Switch<'lab>,
) -> Result<(Pair, [Site<'lab, 'switch>; 2])> {
    let kind = NatKind::PortRestricted;
    let translation = kind.translation().context("a translation makes it")?;
    let translation = Translation { lifetime: Duration::from_secs(30), ..translation };
    let sites = [public.site_with("one", kind, translation)?, public.site("two", kind)?];
    Ok((pair_at(lab, public, &sites)?, sites))
}

#[expect(clippy::print_stdout, reason = "how long it took is what a reader of the run wants to know")]
fn tell(what: &str, outage: Duration, start: Instant) {
    println!("{what}: {outage:?} without an answer, direct again after {:?}", start.elapsed());
}

#[expect(clippy::print_stdout, reason = "the figures are what a reader of the run wants to know")]
fn tell_resent(segments: u64, doubled: u64) {
    println!("{segments} segments were sent again, {doubled} of them had come before");
}

/// Some seconds of what a busy machine carries over the relay.
const BYTES: u64 = 1_500_000_000;
/// Half a second more than what is promised, for a loaded machine.
const SOON: Duration = Duration::from_millis(2500);
const LIMIT: Duration = Duration::from_secs(15);
