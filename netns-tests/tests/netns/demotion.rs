//! A direct path that dies in part, under data: it is left within two seconds, and not taken up and left again and again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Daemon, DaemonOptions, Host, NatKind, Pair, Switch, Underlay, scenario};

/// Short packets pass, and with them all that a search begins with.
#[test]
fn way_that_carries_short_packets_only_is_left_and_says_so() {
    for longest in ["ping", "stream"] {
        scenario("way_that_carries_short_packets_only_is_left_and_says_so", |lab| {
            let public = lab.public(Underlay::V4)?;
            let hosts = hosts(&public)?;
            let pair = Pair::new(lab, &public, [&hosts[0], &hosts[1]])?;
            pair.meet(LIMIT)?;
            let [laptop, pi] = &pair.nodes;
            let address = pi.ipv4()?;
            let _short = laptop.host().run("ping").args(["-n", "-i", "0.05", &address]).spawn("short")?;
            // Both ends send long packets, or one of them does.
            let _long = if longest == "ping" {
                let words = ["-n", "-i", "0.05", "-s", "1300", &address];
                laptop.host().run("ping").args(words).spawn("long")?
            } else {
                let to = format!("{address}:7000");
                let words =
                    ["udp-send", "--to", &to, "--rate", "200", "--count", "1000000", "--size", "1300"];
                laptop.host().run(PROBE).args(words).spawn("long")?
            };
            pair.every_ping("0.05", 40)?;
            let leaves: &[usize] = if longest == "ping" { &[0, 1] } else { &[0] };
            dies(&pair, leaves, "short_only", || public.limit_udp(1000))?;
            let why = laptop.ctl(&["why", pi.name()])?.stdout;
            ensure!(why.contains("the direct path carried short frames only"), "{why}");
            Ok(())
        });
    }
}

/// STUN passes, and agents of ICE see nothing amiss; nothing else does.
#[test]
fn way_that_carries_stun_only_is_left() {
    for finder in ["sealed", "ice"] {
        scenario("way_that_carries_stun_only_is_left", |lab| {
            let public = lab.public(Underlay::V4)?;
            let extra = format!("path_finder = \"{finder}\"\n");
            let options = DaemonOptions { extra, ..DaemonOptions::default() };
            let hosts = hosts(&public)?;
            let pair = Pair::of(lab, &public, [&hosts[0], &hosts[1]], [options.clone(), options])?;
            pair.meet(LIMIT)?;
            let _pings = pair.pings("0.02")?;
            pair.every_ping("0.05", 20)?;
            dies(&pair, &[0, 1], "silent", || {
                let nodes = pair.nodes.iter().map(|node| node.host().address().to_string());
                public.bridge().nft(&only_stun(&nodes.collect::<Vec<_>>().join(", ")))
            })
        });
    }
}

/// Ends a path by `cut`; the nodes that `leaves` names do so in time for this reason, once, and do not come back to it.
fn dies(pair: &Pair, leaves: &[usize], reason: &str, cut: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = [changes(pair, 0)?, changes(pair, 1)?];
    let start = Instant::now();
    cut()?;
    for &at in leaves {
        let (node, peer) = ends(pair, at);
        node.wait_for_status("the end of the direct path", SOON, |status| {
            status.peer(peer.name()).is_ok_and(|peer| peer["path"] == "relay")
        })?;
        tell(node, start.elapsed());
        ensure!(start.elapsed() <= SOON, "{} left it after {:?}", node.name(), start.elapsed());
        let status = node.status()?;
        let change = &status.peer(peer.name())?["last_path_change"];
        ensure!(change["from"] == "direct" && change["to"] == "relay", "{change}");
        ensure!(change["reason"] == reason, "{change}");
    }
    // Data goes on, and searches with it.
    let pinged = pair.every_ping("0.1", 100);
    pinged.context("the relay does not carry everything")?;
    for &at in leaves {
        let now = changes(pair, at)?;
        ensure!(
            now == before[at] + 1,
            "{} changed its path {} times",
            ends(pair, at).0.name(),
            now - before[at]
        );
    }
    Ok(())
}

fn ends(pair: &Pair, at: usize) -> (&Daemon, &Daemon) {
    (&pair.nodes[at], &pair.nodes[1 - at])
}

fn changes(pair: &Pair, at: usize) -> Result<u64> {
    let (node, peer) = ends(pair, at);
    node.status()?.peer(peer.name())?["path_changes"].as_u64().context("no count")
}

/// Two hosts on the public network, whose packets show their lengths there.
fn hosts(public: &Switch<'_>) -> Result<[Host; 2]> {
    let kind = NatKind::None;
    let hosts = [public.site("one", kind)?.host("laptop")?, public.site("two", kind)?.host("pi")?];
    hosts.iter().try_for_each(Switch::cuts_at_the_host)?;
    Ok(hosts)
}

/// Between these addresses only UDP with the magic cookie of STUN (RFC 8489, section 5) passes.
fn only_stun(hosts: &str) -> String {
    format!(
        "table bridge stun {{
            chain forward {{
                type filter hook forward priority 0;
                meta l4proto udp ip saddr {{ {hosts} }} ip daddr {{ {hosts} }} @th,96,32 != 0x2112a442 drop
            }}
        }}\n"
    )
}

#[expect(clippy::print_stdout, reason = "how long it took is what a reader of the run wants to know")]
fn tell(node: &Daemon, after: Duration) {
    println!("{} left the path after {after:?}", node.name());
}

const PROBE: &str = env!("CARGO_BIN_EXE_mesh-lab-probe");
/// Half a second more than what is promised, for a loaded machine.
const SOON: Duration = Duration::from_millis(2500);
const LIMIT: Duration = Duration::from_secs(15);
