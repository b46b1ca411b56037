//! Direct WSS: a node whose network lets no UDP through connects to a peer whose TCP port can be reached.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::{
    Daemon, DaemonOptions, Host, Lab, NatKind, Pair, Process, Site, Switch, Underlay, scenario, wait_until,
};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::transfer::stream;

/// A port that the network which blocks UDP lets out.
const WSS: &str = "[wss]\nlisten = \"0.0.0.0:443\"\n";
const APART: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(30);
/// A second, and half of one for a loaded machine.
const SOON: Duration = Duration::from_millis(1500);

/// "open" with a public address, and "shut" behind a router that lets no UDP through.
fn pair<'lab, 'switch>(
    lab: &'lab Lab,
    public: &'switch Switch<'lab>,
    open: &str,
) -> Result<(Pair, Site<'lab, 'switch>)> {
    let site = public.site("shut", NatKind::UdpBlocked)?;
    let hosts = [public.host("open")?, site.host("shut")?];
    let options =
        [DaemonOptions { extra: open.into(), ..DaemonOptions::default() }, DaemonOptions::default()];
    Ok((Pair::of(lab, public, [&hosts[0], &hosts[1]], options)?, site))
}

/// Pings until both ends say that frames go over WSS.
fn connect(pair: &Pair) -> Result<()> {
    let mut pings = pair.pings("0.05")?;
    pings.wait_for_log("bytes from", LIMIT)?;
    pair.wait_for_path("direct_wss", LIMIT)
}

#[test]
fn path_is_direct_wss_where_udp_is_blocked_and_needs_no_relay() {
    scenario("wss_direct", |lab| {
        let public = lab.public(Underlay::V4)?;
        let (mut pair, site) = pair(lab, &public, WSS)?;
        connect(&pair)?;
        let sides = sides(&pair)?;
        let address = format!("{}:443", pair.nodes[0].host().address());
        ensure!(sides[1]["endpoint"] == address.as_str(), "{}", sides[1]);
        let wan = site.wan().map(|wan| wan.to_string()).unwrap_or_default();
        ensure!(sides[0]["endpoint"].as_str().is_some_and(|end| end.starts_with(&wan)), "{}", sides[0]);
        for side in &sides {
            let change = &side["last_path_change"];
            ensure!(change["to"] == "direct_wss" && change["reason"] == "connected", "{change}");
        }
        let why = pair.nodes[1].ctl(&["why", "open"])?.success()?.stdout;
        ensure!(why.contains("over TCP (WSS)") && why.contains(&address), "{why}");
        // Nothing of it passes the relay.
        pair.relay.process()?.signal(Signal::SIGSTOP)?;
        pair.every_ping("0.02", 50)?;
        for (from, to) in [(0, 1), (1, 0)] {
            stream(&pair.nodes[from], &pair.nodes[to], &pair.nodes[to].ipv4()?, BYTES)?;
        }
        pair.relay.process()?.signal(Signal::SIGCONT)?;
        // Nor does it when there is none.
        pair.relay.kill()?;
        for node in &pair.nodes {
            node.wait_for_status("the loss of the relay", LIMIT, |status| {
                status.relay_state() != "connected"
            })?;
        }
        pair.every_ping("0.02", 50)?;
        ensure!(pair.paths()? == ["direct_wss", "direct_wss"], "{:?}", pair.paths()?);
        Ok(())
    });
}

#[test]
fn relay_takes_over_within_a_second_when_the_door_is_cut() {
    scenario("wss_cut", |lab| {
        let public = lab.public(Underlay::V4)?;
        let (pair, _site) = pair(lab, &public, WSS)?;
        connect(&pair)?;
        let host = pair.nodes[0].host();
        let pings = begin(&pair)?;
        host.nft(CUT)?;
        pair.wait_for_path("relay", LIMIT)?;
        let silence = end(&pair, pings)?;
        println!("cut: nothing for {silence:?}");
        ensure!(silence <= SOON, "nothing for {silence:?} after the cut");
        let pings = begin(&pair)?;
        host.nft("delete table ip cut\n")?;
        pair.wait_for_path("direct_wss", Duration::from_secs(70))?;
        let silence = end(&pair, pings)?;
        println!("back: nothing for {silence:?}");
        ensure!(silence <= Duration::from_millis(200), "nothing for {silence:?} on the way back");
        Ok(())
    });
}

#[test]
fn udp_is_taken_when_it_passes_again() {
    scenario("wss_udp_returns", |lab| {
        let public = lab.public(Underlay::V4)?;
        let site = public.site("shut", NatKind::PortRestricted)?;
        site.block_udp()?;
        let hosts = [public.host("open")?, site.host("shut")?];
        let options =
            [DaemonOptions { extra: WSS.into(), ..DaemonOptions::default() }, DaemonOptions::default()];
        let pair = Pair::of(lab, &public, [&hosts[0], &hosts[1]], options)?;
        let pings = begin(&pair)?;
        pair.wait_for_path("direct_wss", LIMIT)?;
        site.unblock_udp()?;
        // The next search may be a minute away.
        pair.wait_for_path("direct", Duration::from_secs(90))?;
        let silence = end(&pair, pings)?;
        ensure!(silence <= Duration::from_millis(500), "nothing for {silence:?}");
        // The connection is left when nothing has used it for a while.
        wait_until("the end of the connection", Duration::from_secs(60), || {
            Ok(connections(pair.nodes[1].host())?.is_empty().then_some(()))
        })?;
        pair.every_ping("0.05", 20)
    });
}

/// What both ends say of each other.
fn sides(pair: &Pair) -> Result<[Value; 2]> {
    let side =
        |node: &Daemon, peer: &Daemon| Ok::<_, anyhow::Error>(node.status()?.peer(peer.name())?.clone());
    Ok([side(&pair.nodes[0], &pair.nodes[1])?, side(&pair.nodes[1], &pair.nodes[0])?])
}

/// The TCP connections of a host to doors.
fn connections(host: &Host) -> Result<Vec<String>> {
    let lines = host.run("ss").args(["-H", "-nt", "state", "established"]).ok()?.stdout;
    Ok(lines.lines().filter(|line| line.contains(":443")).map(str::to_owned).collect())
}

fn begin(pair: &Pair) -> Result<Process> {
    let mut pings = pair.pings("0.02")?;
    pings.wait_for_log("bytes from", LIMIT)?;
    Ok(pings)
}

/// The longest time without an answer, once answers come again.
fn end(pair: &Pair, mut pings: Process) -> Result<Duration> {
    wait_until("answers to pings again", LIMIT, || Ok(pair.every_ping("0.05", 5).ok()))?;
    let counted = pings.log()?.lines().count();
    wait_until("further answers", LIMIT, || Ok((pings.log()?.lines().count() > counted + 20).then_some(())))?;
    pings.signal(Signal::SIGINT)?;
    let log = pings.wait_ok(LIMIT)?;
    lab::longest_silence(&log, APART)
}

const BYTES: u64 = 50_000_000;
/// The door hears and says nothing, silently.
const CUT: &str = "table ip cut {
    chain input {
        type filter hook input priority raw;
        tcp dport 443 drop
    }
    chain output {
        type filter hook output priority raw;
        tcp sport 443 drop
    }
}\n";
