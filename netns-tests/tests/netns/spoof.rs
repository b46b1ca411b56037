//! A member that sends packets with another member's source address.

use std::time::Duration;

use anyhow::Context;
use lab::{Mesh, MeshOptions, drops, scenario};
use serde_json::Value;

#[test]
fn foreign_source_is_dropped_and_counted() {
    scenario("foreign_source_is_dropped_and_counted", |lab| {
        let mesh = Mesh::new(lab, &["victim", "target", "liar"], &MeshOptions::default())?;
        mesh.ping_all()?;
        let [victim, target, liar] = mesh.nodes.as_slice() else { unreachable!("three names were given") };
        let probe = env!("CARGO_BIN_EXE_mesh-lab-probe");
        let mut total_before = refused_sources(target)?;
        for (stolen, to) in [(victim.ipv4()?, target.ipv4()?), (victim.ipv6()?, target.ipv6()?)] {
            let prefix = if stolen.contains(':') { 128 } else { 32 };
            let bracket = |address: &str, port: u16| {
                if address.contains(':') {
                    format!("[{address}]:{port}")
                } else {
                    format!("{address}:{port}")
                }
            };
            liar.host().add_address(liar.interface(), stolen.parse()?, prefix)?;
            let bind = bracket(&to, 7000);
            let mut receiver = target
                .host()
                .run(probe)
                .args(["udp-receive", "--bind", &bind, "--limit-s", "3"])
                .spawn(&format!("receiver-{prefix}"))?;
            receiver.wait_for_log("ready", Duration::from_secs(5))?;
            let from = bracket(&stolen, 0);
            liar.host()
                .run(probe)
                .args([
                    "udp-send", "--to", &bind, "--from", &from, "--count", "50", "--size", "100", "--rate",
                    "100",
                ])
                .ok()?;
            let log = receiver.wait_ok(Duration::from_secs(10))?;
            let report: Value = serde_json::from_str(log.lines().last().context("no report")?)?;
            assert_eq!(report["intact"], 0, "a forged datagram arrived: {report}");
            let total = refused_sources(target)?;
            assert!(total >= total_before + 50, "not counted: {total_before} before, {total} after");
            total_before = total;
        }
        // Who does not lie is not affected.
        target.ping_address(&victim.ipv4()?)
    });
}

/// Packets that a node dropped because their source was not the sender's.
fn refused_sources(daemon: &lab::Daemon) -> anyhow::Result<u64> {
    Ok(drops(&daemon.status()?, "source"))
}
