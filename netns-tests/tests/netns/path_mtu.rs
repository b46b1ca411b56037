//! Ways that carry shorter packets than the interface, on which nobody tells: paths become direct all the same.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Daemon, Host, Lab, NatKind, Pair, Switch, Underlay, scenario};
use serde_json::Value;

use crate::transfer::stream;

const PROBE: &str = env!("CARGO_BIN_EXE_mesh-lab-probe");

#[test]
fn every_length_is_found_and_carries_tcp_and_datagrams_over_ipv4() {
    for mtu in [1500, 1400, 1280] {
        small("small_ipv4", Underlay::V4, mtu);
    }
}

#[test]
fn every_length_is_found_and_carries_tcp_and_datagrams_over_ipv6() {
    for mtu in [1500, 1400, 1280] {
        small("small_ipv6", Underlay::V6, mtu);
    }
}

#[test]
fn shorter_way_in_the_middle_of_a_transfer() {
    scenario("shorter_way_in_the_middle_of_a_transfer", |lab| {
        let public = lab.public(Underlay::V4)?;
        let pair = pair_on(lab, &public, Underlay::V4)?;
        pair.meet(LIMIT)?;
        let [laptop, pi] = &pair.nodes;
        let before = changes(&pair)?;
        for (mtu, carried) in [(1350, 1290), (1280, 1220)] {
            let to = format!("{}:5000", pi.ipv4()?);
            let name = format!("receiver-{mtu}");
            let mut receiver = pi.host().run(PROBE).args(["tcp-receive", "--bind", &to]).spawn(&name)?;
            receiver.wait_for_log("ready", Duration::from_secs(5))?;
            let words = ["tcp-send", "--to", &to, "--bytes", "200000000", "--rate", "20000000"];
            let mut sender = laptop.host().run(PROBE).args(words).spawn(&format!("sender-{mtu}"))?;
            grows(pi, Duration::from_secs(10))?;
            public.limit_udp(mtu)?;
            let silence = longest_pause(pi, Duration::from_secs(6))?;
            tell(&format!("{mtu} bytes from here on: nothing for {silence:?} at most"));
            ensure!(
                silence <= Duration::from_secs(2),
                "nothing for {silence:?} after the way became shorter"
            );
            sender.wait_ok(Duration::from_secs(60))?;
            let report = receiver.wait_ok(Duration::from_secs(20))?;
            let report: Value = serde_json::from_str(report.trim_end().lines().last().unwrap_or_default())?;
            ensure!(report["received"] == 200_000_000 && report["intact"] == true, "{report}");
            // The other end sends nothing that is long, and has no cause to look.
            carries(laptop, pi, carried)?;
        }
        ensure!(
            changes(&pair)? == before,
            "the path was left: {:?} changes instead of {before:?}",
            changes(&pair)?
        );
        Ok(())
    });
}

/// A pair whose way carries packets of so many bytes: the path is direct and carries everything.
fn small(name: &str, underlay: Underlay, mtu: u16) {
    scenario(name, |lab| {
        let public = lab.public(if underlay == Underlay::V6 { Underlay::Both } else { underlay })?;
        public.limit_udp(mtu)?;
        let pair = pair_on(lab, &public, underlay)?;
        let after = pair.meet(LIMIT)?;
        let outer = if underlay == Underlay::V6 { 40 + 8 } else { 20 + 8 };
        let carried = (mtu - outer - SEAL).min(1420);
        tell(&format!("{underlay:?}, {mtu} bytes: direct after {after:?}"));
        let [laptop, pi] = &pair.nodes;
        carries(laptop, pi, carried)?;
        carries(pi, laptop, carried)?;
        let before = changes(&pair)?;
        stream(laptop, pi, &pi.ipv4()?, BYTES)?;
        stream(pi, laptop, &format!("[{}]", laptop.ipv6()?), BYTES)?;
        if carried < 1420 {
            told(laptop, pi)?;
        }
        learns(laptop, pi, carried)?;
        // May be fragmented, and is; the longest come back whole.
        let words = ["-n", "-M", "dont", "-s", "4000", "-c", "5", "-i", "0.1", &pi.ipv4()?];
        let output = laptop.host().run("ping").args(words).output()?;
        ensure!(output.stdout.contains(" 0% packet loss"), "{}", output.stdout);
        let relayed = pair.paths()?;
        ensure!(
            relayed == ["direct", "direct"] && changes(&pair)? == before,
            "the path was left: {relayed:?}"
        );
        let why = laptop.ctl(&["why", pi.name()])?.stdout;
        ensure!(why.contains("pass in one piece"), "{why}");
        Ok(())
    });
}

/// Two hosts without routers of their own, whose lengths the public network sees.
fn pair_on(lab: &Lab, public: &Switch<'_>, underlay: Underlay) -> Result<Pair> {
    let kind = if underlay == Underlay::V6 { NatKind::Ipv6Only } else { NatKind::None };
    let hosts: [Host; 2] = [public.site("one", kind)?.host("laptop")?, public.site("two", kind)?.host("pi")?];
    for host in &hosts {
        Switch::cuts_at_the_host(host)?;
    }
    Pair::new(lab, public, [&hosts[0], &hosts[1]])
}

/// A node finds that so many bytes pass in one piece to another, or a few less.
fn carries(node: &Daemon, peer: &Daemon, bytes: u16) -> Result<()> {
    node.wait_for_status(&format!("a path for {bytes} bytes"), LIMIT, |status| {
        let mtu = status.peer(peer.name()).ok().and_then(|peer| peer["path_mtu"].as_u64());
        mtu.is_some_and(|mtu| mtu <= bytes.into() && mtu + 16 > bytes.into())
    })
    .map(drop)
}

/// The kernel hears what is too long, over both families.
fn told(from: &Daemon, to: &Daemon) -> Result<()> {
    for (address, size) in [(to.ipv4()?, "1392"), (to.ipv6()?, "1372")] {
        // What the kernel learned from TCP does not count.
        for family in ["-4", "-6"] {
            from.host().run("ip").args([family, "route", "flush", "cache"]).ok()?;
        }
        let words = ["-n", "-M", "do", "-s", size, "-c", "3", "-i", "0.2", "-W", "1", &address];
        let output = from.host().run("ping").args(words).output()?;
        let text = format!("{}{}", output.stdout, output.stderr);
        ensure!(text.contains("mtu"), "nobody says that {size} bytes are too many: {text}");
    }
    Ok(())
}

/// Datagrams as long as the path carries arrive, once their sender knows how long that is.
fn learns(from: &Daemon, to: &Daemon, carried: u16) -> Result<()> {
    from.host().run("ip").args(["route", "flush", "cache"]).ok()?;
    let target = format!("{}:5002", to.ipv4()?);
    let words = ["udp-receive", "--bind", &target];
    let mut receiver = to.host().run(PROBE).args(words).spawn("learnt")?;
    receiver.wait_for_log("ready", Duration::from_secs(5))?;
    let words = ["udp-learn", "--to", &target, "--count", "5000", "--rate", "1000"];
    let sent = from.host().run(PROBE).args(words).ok()?.stdout;
    let sent: Value = serde_json::from_str(sent.trim())?;
    let last = sent["last"].as_u64().context("no length")? + 28;
    ensure!(last <= carried.into() && last + 16 > carried.into(), "{carried} bytes pass, it learnt {last}");
    let log = receiver.wait_ok(Duration::from_secs(20))?;
    let report: Value = serde_json::from_str(log.trim_end().lines().last().unwrap_or_default())?;
    ensure!(report["intact"].as_u64() >= Some(4900) && report["corrupt"] == 0, "{report}");
    Ok(())
}

fn changes(pair: &Pair) -> Result<[u64; 2]> {
    let [first, second] = &pair.nodes;
    let count = |node: &Daemon, peer: &Daemon| -> Result<u64> {
        node.status()?.peer(peer.name())?["path_changes"].as_u64().context("no count")
    };
    Ok([count(first, second)?, count(second, first)?])
}

/// Bytes that came out of the tunnel.
fn received(node: &Daemon) -> Result<u64> {
    let file = format!("/sys/class/net/{}/statistics/rx_bytes", node.interface());
    Ok(node.host().run("cat").args([file]).ok()?.stdout.trim().parse()?)
}

/// Waits until a transfer is under way.
fn grows(node: &Daemon, limit: Duration) -> Result<()> {
    let start = received(node)?;
    lab::wait_until("a transfer", limit, || Ok((received(node)? > start + 5_000_000).then_some(())))
}

/// The longest time in which nothing worth the name came out of the tunnel.
fn longest_pause(node: &Daemon, during: Duration) -> Result<Duration> {
    let start = Instant::now();
    let (mut last, mut since, mut longest) = (received(node)?, Instant::now(), Duration::ZERO);
    while start.elapsed() < during {
        let bytes = received(node)?;
        if bytes > last + 50_000 {
            (last, since) = (bytes, Instant::now());
        }
        longest = longest.max(since.elapsed());
    }
    Ok(longest)
}

#[expect(clippy::print_stdout, reason = "figures are what a reader of the run wants to know")]
fn tell(line: &str) {
    println!("{line}");
}

/// Bytes of a frame around its payload.
const SEAL: u16 = 32;
const BYTES: u64 = 100_000_000;
const LIMIT: Duration = Duration::from_secs(15);
