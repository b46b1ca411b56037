//! A direct path that ends without a word: the relay takes over, and another path is found.

use std::time::{Duration, Instant};

use anyhow::Result;
use lab::{NatKind, Pair, Process, Underlay, scenario};
use nix::sys::signal::Signal;

use crate::direct::pair;

/// Between two pings, in seconds.
const APART: &str = "0.02";

#[test]
fn direct_path_is_cut_and_heals() {
    scenario("direct_path_is_cut_and_heals", |lab| {
        let public = lab.public(Underlay::V4)?;
        let (pair, sites) = pair(lab, &public, NatKind::PortRestricted, NatKind::LinuxPortRestricted)?;
        pair.meet(LIMIT)?;
        let pings = begin(&pair)?;
        sites[0].block_udp()?;
        pair.wait_for_path("relay", LIMIT)?;
        let outage = end(&pair, pings)?;
        let pings = begin(&pair)?;
        sites[0].unblock_udp()?;
        let healed = Instant::now();
        pair.wait_for_path("direct", Duration::from_secs(30))?;
        tell("cut", outage, healed);
        assert!(outage <= SOON, "nothing for {outage:?} after the cut");
        let return_outage = end(&pair, pings)?;
        assert!(return_outage <= Duration::from_millis(100), "nothing for {return_outage:?} on the way back");
        Ok(())
    });
}

#[test]
fn ping_takes_the_path_that_is_asked_for() {
    scenario("ping_takes_the_path_that_is_asked_for", |lab| {
        let public = lab.public(Underlay::V4)?;
        let (pair, sites) = pair(lab, &public, NatKind::PortRestricted, NatKind::LinuxPortRestricted)?;
        pair.meet(LIMIT)?;
        let [laptop, pi] = &pair.nodes;
        for via in ["relay", "direct"] {
            let words = ["ping", pi.name(), "-c", "1", "--size", "1200", "--via", via];
            let text = laptop.ctl(&words)?.success()?.stdout;
            assert!(text.contains(&format!("via {via}: seq=1 size=1200 ")), "{text}");
        }
        let _pings = begin(&pair)?;
        sites[0].block_udp()?;
        pair.wait_for_path("relay", LIMIT)?;
        let refused = laptop.ctl(&["ping", pi.name(), "-c", "1", "--via", "direct"])?;
        assert!(refused.stderr.contains("there is no direct path to"), "{}", refused.stderr);
        refused.exits(1)?;
        // The relay's UDP port is cut off as well, which takes a moment to show.
        let text =
            laptop.ctl(&["ping", pi.name(), "-c", "10", "-i", "0.2", "--timeout", "1"])?.success()?.stdout;
        assert!(text.contains("via relay: seq=") && text.contains(" size=9 "), "{text}");
        Ok(())
    });
}

#[test]
fn router_is_switched_off_and_on() {
    scenario("router_is_switched_off_and_on", |lab| {
        let public = lab.public(Underlay::V4)?;
        let (pair, sites) = pair(lab, &public, NatKind::PortRestricted, NatKind::PortRestricted)?;
        pair.meet(LIMIT)?;
        let pings = begin(&pair)?;
        sites[1].reboot()?;
        recovers(&pair, pings, "router off and on", SOON)
    });
}

#[test]
fn node_moves_to_another_network() {
    scenario("node_moves_to_another_network", |lab| {
        let public = lab.public(Underlay::V4)?;
        let (pair, _sites) = pair(lab, &public, NatKind::PortRestricted, NatKind::PortRestricted)?;
        let cafe = public.site("cafe", NatKind::FullCone)?;
        pair.meet(LIMIT)?;
        let pings = begin(&pair)?;
        cafe.take(pair.nodes[1].host())?;
        // Data needs the relay at first, whose connection from the old network is asked at once and given up.
        recovers(&pair, pings, "another network", SOON)
    });
}

#[test]
fn interface_goes_down_and_up() {
    scenario("interface_goes_down_and_up", |lab| {
        let public = lab.public(Underlay::V4)?;
        let (pair, _sites) = pair(lab, &public, NatKind::PortRestricted, NatKind::PortRestricted)?;
        pair.meet(LIMIT)?;
        let [peer, node] = &pair.nodes;
        let way = node.host().run("ip").args(["route", "show", "default"]).ok()?.stdout;
        let pings = begin(&pair)?;
        node.host().run("ip").args(["link", "set", "eth0", "down"]).ok()?;
        peer.wait_for_status("the end of the direct path", LIMIT, |status| {
            status.peer(node.name()).is_ok_and(|node| node["path"] != "direct")
        })?;
        let answers = pings.log()?.lines().count();
        let line = format!("ip link set eth0 up; ip route replace {}", way.trim());
        node.host().shell(&line).ok()?;
        let start = Instant::now();
        lab::wait_until("an answer", LIMIT, || Ok((pings.log()?.lines().count() > answers).then_some(())))?;
        let outage = start.elapsed();
        pair.wait_for_path("direct", Duration::from_secs(30))?;
        tell("interface up again", outage, start);
        assert!(outage <= SOON, "nothing for {outage:?}");
        pair.every_ping("0.05", 20)
    });
}

#[test]
fn daemon_starts_anew_while_its_path_is_direct() {
    scenario("daemon_starts_anew_while_its_path_is_direct", |lab| {
        let public = lab.public(Underlay::V4)?;
        let (mut pair, _sites) = pair(lab, &public, NatKind::PortRestricted, NatKind::None)?;
        for _ in 0..3 {
            pair.meet(LIMIT)?;
            // Its socket has another port from then on, and the peer still sends to the old one.
            pair.forget()?;
            let contact = pair.contact(LIMIT)?;
            assert!(contact.answered <= SOON && contact.direct.is_some(), "{contact:?}");
        }
        Ok(())
    });
}

/// Data flows again soon, over whatever way; and later directly.
fn recovers(pair: &Pair, pings: Process, what: &str, limit: Duration) -> Result<()> {
    let start = Instant::now();
    let outage = end(pair, pings)?;
    let _pings = begin(pair)?;
    pair.wait_for_path("direct", Duration::from_secs(30))?;
    tell(what, outage, start);
    assert!(outage <= limit, "{what}: nothing for {outage:?}");
    pair.every_ping("0.05", 20)
}

fn begin(pair: &Pair) -> Result<Process> {
    let mut pings = pair.pings(APART)?;
    pings.wait_for_log("bytes from", LIMIT)?;
    Ok(pings)
}

/// The longest time without an answer, once answers come again.
fn end(pair: &Pair, mut pings: Process) -> Result<Duration> {
    // Every one of these is answered only when the way is good again.
    lab::wait_until("answers to pings again", LIMIT, || Ok(pair.every_ping("0.05", 5).ok()))?;
    let counted = pings.log()?.lines().count();
    lab::wait_until("further answers", LIMIT, || Ok((pings.log()?.lines().count() > counted).then_some(())))?;
    pings.signal(Signal::SIGINT)?;
    let log = pings.wait_ok(LIMIT)?;
    lab::longest_silence(&log, Duration::from_millis(20))
}

#[expect(clippy::print_stdout, reason = "how long it took is what a reader of the run wants to know")]
fn tell(what: &str, outage: Duration, start: Instant) {
    println!("{what}: {outage:?} without an answer, direct again after {:?}", start.elapsed());
}

/// Half a second more than what is promised, for a loaded machine.
const SOON: Duration = Duration::from_millis(2500);

const LIMIT: Duration = Duration::from_secs(15);
