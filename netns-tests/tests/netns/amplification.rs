//! Nobody can make a node send more than they sent themselves, before they have shown that they receive at their address.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Capture, Exchange, Lab, scenario, udp_address};
use serde_json::Value;

use crate::flood::{SOURCES, Target};

const PROBE: &str = env!("CARGO_BIN_EXE_mesh-lab-probe");

#[test]
fn replayed_hellos_never_get_more_bytes_than_they_brought() {
    scenario("replayed_hellos_never_get_more_bytes_than_they_brought", |lab| {
        let mut target = Target::new(lab)?;
        let mut answered = 0;
        // One by one, as a node without load sees them; then as many as make it ask for cookies.
        for (order, count, rate) in [
            ("01", 50, 20),
            ("10", 50, 20),
            ("0", 50, 20),
            ("1", 50, 20),
            ("00", 50, 20),
            ("11", 50, 20),
            ("0011", 50, 40),
            ("0101", 50, 40),
            ("1010", 50, 40),
            ("01", 20_000, 20_000),
            ("10", 20_000, 20_000),
            ("0101", 10_000, 20_000),
            ("0", 20_000, 20_000),
        ] {
            let whole = order.contains('0') && order.contains('1');
            let remotes = replay(lab, &target, order, count, rate)?;
            let out: u64 = remotes.values().map(|exchange| exchange.datagrams_out).sum();
            assert!(whole || out == 0, "\"{order}\": {out} answers to half a HELLO");
            answered += out;
        }
        assert!(answered > 0, "no HELLO was answered at all, so that nothing is shown");
        assert!(target.mesh.nodes[0].process()?.is_running()?);
        target.mesh.ping_all()
    });
}

/// Sends HELLOs from `count` sources, each the parts of one HELLO in `order`; fails when any source ever received more
/// than it had sent so far.
fn replay(
    lab: &Lab,
    target: &Target<'_>,
    order: &str,
    count: u32,
    rate: u32,
) -> Result<BTreeMap<SocketAddr, Exchange>> {
    let victim = target.mesh.nodes[0].host();
    let node = udp_address(victim);
    let filter = format!("udp and net {SOURCES}");
    let capture = Capture::start(lab, victim, "eth0", &filter)?;
    let output = target
        .attacker
        .run(PROBE)
        .args(target.words(node.port()))
        .args(["--order", order, "--seconds", "60"])
        .args(["--count", &count.to_string(), "--rate", &rate.to_string()])
        .limit(Duration::from_secs(90))
        .ok()?;
    let report: Value =
        serde_json::from_str(output.stdout.trim_start_matches("ready")).context("no report")?;
    let recording = capture.stop()?;
    let amplified = recording.amplified(node);
    ensure!(amplified.is_empty(), "\"{order}\" at {rate}/s brought more out than in: {amplified:?}");
    let remotes = recording.exchanges(node);
    let datagrams_in: u64 = remotes.values().map(|exchange| exchange.datagrams_in).sum();
    assert_eq!(report["sent"], datagrams_in, "\"{order}\": the capture lacks some of {report}");
    assert_eq!(remotes.len(), usize::try_from(count)?, "\"{order}\": {report}");
    Ok(remotes)
}
