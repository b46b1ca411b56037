//! A direct path over a way that is long, loses and disorders: it is found, stays, and what it carries comes once.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{NatKind, Pair, Rough, Underlay, scenario};
use serde_json::Value;

use crate::direct::pair_at;

#[test]
fn path_with_loss_delay_and_disorder_stays_and_doubles_nothing() {
    scenario("path_with_loss_delay_and_disorder_stays_and_doubles_nothing", |lab| {
        let public = lab.public(Underlay::V4)?;
        let kind = NatKind::PortRestricted;
        let sites = [public.site("one", kind)?, public.site("two", kind)?];
        sites[1].roughen(ROUGH)?;
        let pair = pair_at(lab, &public, &sites)?;
        pair.meet(LIMIT)?;
        let before = changes(&pair)?;
        for size in ["64", "1300"] {
            carries(&pair, size)?;
        }
        ensure!(pair.paths()? == ["direct", "direct"], "{:?}", pair.paths()?);
        ensure!(changes(&pair)? == before, "{:?} path changes after {before:?}", changes(&pair)?);
        for (at, node) in pair.nodes.iter().enumerate() {
            let status = node.status()?;
            let peer = status.peer(pair.nodes[1 - at].name())?;
            ensure!(peer["path_mtu"] == 1420, "{}: {peer}", node.name());
        }
        Ok(())
    });
}

/// Datagrams go both ways for ten seconds.
fn carries(pair: &Pair, size: &str) -> Result<()> {
    let mut ends = Vec::new();
    for (from, to) in [(0, 1), (1, 0)] {
        let (from, to) = (&pair.nodes[from], &pair.nodes[to]);
        let target = format!("{}:7000", to.ipv4()?);
        let words = ["udp-receive", "--bind", &target];
        let mut receiver = to.host().run(PROBE).args(words).spawn(&format!("received-{size}"))?;
        receiver.wait_for_log("ready", Duration::from_secs(5))?;
        let words = ["udp-send", "--to", &target, "--rate", "200", "--count", "2000", "--size", size];
        let sender = from.host().run(PROBE).args(words).spawn(&format!("sent-{size}"))?;
        ends.push((sender, receiver));
    }
    for (mut sender, mut receiver) in ends {
        sender.wait_ok(Duration::from_secs(60))?;
        let log = receiver.wait_ok(Duration::from_secs(20))?;
        let report: Value = serde_json::from_str(log.trim_end().lines().last().unwrap_or_default())?;
        tell(size, &report);
        let count = |key: &str| report[key].as_u64().with_context(|| format!("no {key}"));
        ensure!(count("doubled")? == 0 && count("corrupt")? == 0, "{report}");
        // The link was as bad as it should be, and no worse.
        ensure!((1900..=1990).contains(&count("intact")?) && count("late")? > 20, "{report}");
    }
    Ok(())
}

fn changes(pair: &Pair) -> Result<[u64; 2]> {
    let count = |at: usize| -> Result<u64> {
        let status = pair.nodes[at].status()?;
        status.peer(pair.nodes[1 - at].name())?["path_changes"].as_u64().context("no count")
    };
    Ok([count(0)?, count(1)?])
}

#[expect(clippy::print_stdout, reason = "the figures are what a reader of the run wants to know")]
fn tell(size: &str, report: &Value) {
    let [intact, late, doubled] = ["intact", "late", "doubled"].map(|key| &report[key]);
    println!("{size} bytes: {intact} of 2000 arrived, {late} late, {doubled} twice");
}

/// Of a long wireless way, both ways alike.
const ROUGH: Rough =
    Rough { delay: Duration::from_millis(30), lost: 20, late: 50, by: Duration::from_millis(12), only: None };
const PROBE: &str = env!("CARGO_BIN_EXE_mesh-lab-probe");
const LIMIT: Duration = Duration::from_secs(15);
