//! Direct WSS: a node whose network lets no UDP through connects to a peer whose TCP port can be reached.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::{
    Daemon, DaemonOptions, Host, Lab, NatKind, Pair, Process, Relay, Site, StreamServer, Switch, Underlay,
    scenario, wait_until,
};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::gateway::{Gateway, MAPPED};
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
            node.wait_for_status("data without the relay", LIMIT, |status| {
                status.relay_state() != "connected" && status.0["ready"]["data_passed"] == true
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

#[test]
fn port_that_a_gateway_maps_is_a_door() {
    scenario("wss_mapped", |lab| {
        let public = lab.public(Underlay::V4)?;
        let (home, shut) =
            (public.site("home", NatKind::LinuxPortRestricted)?, public.site("shut", NatKind::UdpBlocked)?);
        let router = home.routers()[0].namespace();
        let _gateway = Gateway::start(lab, &home, &[&shut], "masquerade")?;

        let hosts = [home.host("open")?, shut.host("shut")?];
        let options =
            [DaemonOptions { extra: WSS.into(), ..DaemonOptions::default() }, DaemonOptions::default()];
        let mut pair = Pair::of(lab, &public, [&hosts[0], &hosts[1]], options)?;
        connect(&pair)?;
        let endpoint = sides(&pair)?[1]["endpoint"].clone();
        ensure!(endpoint == format!("{MAPPED}:443"), "{endpoint}");
        let told = pair.nodes[0].status()?.0["wss"]["addresses"].clone();
        ensure!(told[0]["kind"] == "mapped" && told[0]["address"] == endpoint, "{told}");
        pair.relay.process()?.signal(Signal::SIGSTOP)?;
        pair.every_ping("0.02", 20)?;
        pair.relay.process()?.signal(Signal::SIGCONT)?;
        // It is given back.
        let rules = || router.run("nft").args(["list", "table", "inet", "sm"]).ok().map(|list| list.stdout);
        ensure!(rules()?.contains("dport 443 dnat"), "{}", rules()?);
        pair.nodes[0].stop()?;
        ensure!(!rules()?.contains("dport 443 dnat"), "still open: {}", rules()?);
        Ok(())
    });
}

#[test]
fn somebody_else_at_the_door_gets_nothing() {
    scenario("wss_impostor", |lab| {
        let public = lab.public(Underlay::V4)?;
        let (pair, site) = pair(lab, &public, WSS)?;
        // What goes to the door ends at the relay, which has another key.
        let (door, relay) = (pair.nodes[0].host().address(), pair.relay.host().address());
        site.routers()[0].namespace().nft(&format!(
            "table ip impostor {{
                chain prerouting {{
                    type nat hook prerouting priority dstnat;
                    ip daddr {door} tcp dport 443 dnat to {relay}:{}
                }}
            }}\n",
            Relay::PORT
        ))?;
        let mut pings = pair.pings("0.05")?;
        pings.wait_for_log("bytes from", LIMIT)?;
        pair.nodes[1].wait_for_status("the wrong key", LIMIT, |status| {
            let error =
                |peer: &Value| peer["wss"]["error"].as_str().is_some_and(|error| error.contains("key"));
            status.peer("open").is_ok_and(error)
        })?;
        pair.every_ping("0.05", 20)?;
        ensure!(pair.paths()? == ["relay", "relay"], "{:?}", pair.paths()?);
        // It is tried ever more rarely, and taken once it is the right one.
        let why = pair.nodes[1].ctl(&["why", "open"])?.stdout;
        ensure!(why.contains("its wss") && why.contains("the last attempt"), "{why}");
        site.routers()[0].namespace().nft("delete table ip impostor\n")?;
        pair.wait_for_path("direct_wss", Duration::from_secs(70))
    });
}

#[test]
fn port_that_is_taken_stops_nothing_and_is_tried_again() {
    scenario("wss_taken", |lab| {
        let public = lab.public(Underlay::V4)?;
        let site = public.site("shut", NatKind::UdpBlocked)?;
        let hosts = [public.host("open")?, site.host("shut")?];
        let mut holder =
            hosts[0].run(PROBE).args(["tcp-receive", "--bind", "0.0.0.0:443"]).spawn("holder")?;
        holder.wait_for_log("ready", LIMIT)?;
        let options =
            [DaemonOptions { extra: WSS.into(), ..DaemonOptions::default() }, DaemonOptions::default()];
        let pair = Pair::of(lab, &public, [&hosts[0], &hosts[1]], options)?;
        pair.nodes[0].wait_for_status("the reason", LIMIT, |status| {
            let wss = &status.0["wss"];
            wss["open"] == false
                && wss["error"]
                    .as_str()
                    .is_some_and(|error| error.contains("stop the program that uses the port"))
        })?;
        let text = pair.nodes[0].ctl(&["status"])?.success()?.stdout;
        ensure!(text.contains("wss") && text.contains("closed: cannot listen on 0.0.0.0:443"), "{text}");
        pair.every_ping("0.05", 10)?;
        // Nobody offers it, and that would be the way out.
        let offer = |node: &Daemon, peer: &str, part: &str| {
            node.wait_for_status("a search that found nothing", LIMIT, |status| {
                status.peer(peer).is_ok_and(|peer| peer["direct"]["next_search_s"].as_u64() > Some(0))
            })?;
            let why = node.ctl(&["why", peer])?.stdout;
            ensure!(why.contains(part), "{why}");
            Ok(())
        };
        let _pings = pair.pings("0.05")?;
        offer(&pair.nodes[1], "open", "add \"[wss]\" with listen")?;
        holder.kill()?;
        pair.wait_for_path("direct_wss", Duration::from_secs(90))
    });
}

#[test]
fn speed_beside_that_of_the_relay() {
    scenario("wss_speed", |lab| {
        let public = lab.public(Underlay::V4)?;
        let (pair, _site) = pair(lab, &public, WSS)?;
        connect(&pair)?;
        let speed = |what: &str| -> Result<f64> {
            let mut rates = Vec::new();
            for (from, to) in [(0, 1), (1, 0)] {
                let mut server = StreamServer::start(pair.nodes[to].host(), &pair.nodes[to].ipv4()?)?;
                let rate = server.measure(pair.nodes[from].host(), 4)?;
                println!("{what} from {}: {:.0} Mbit/s", pair.nodes[from].name(), rate / 1e6);
                rates.push(rate);
            }
            Ok(rates.into_iter().fold(f64::MAX, f64::min))
        };
        let direct = speed("direct WSS")?;
        ensure!(pair.paths()? == ["direct_wss", "direct_wss"], "{:?}", pair.paths()?);
        pair.nodes[0].host().nft(CUT)?;
        pair.wait_for_path("relay", LIMIT)?;
        speed("relay")?;
        ensure!(direct > 20e6, "{direct} bit/s");
        Ok(())
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

const PROBE: &str = env!("CARGO_BIN_EXE_mesh-lab-probe");
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
