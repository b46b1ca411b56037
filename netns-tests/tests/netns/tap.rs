//! TAP mode: an Ethernet segment.

use std::time::Duration;

use anyhow::Context;
use lab::{DaemonOptions, Mesh, MeshOptions, Process, scenario, wait_until};
use serde_json::Value;

fn segment() -> MeshOptions {
    MeshOptions { daemon: DaemonOptions { tap: true, ..DaemonOptions::default() }, ..MeshOptions::default() }
}

#[test]
fn segment_resolves_addresses_itself() {
    scenario("segment_resolves_addresses_itself", |lab| {
        let mesh = Mesh::new(lab, &["a", "b", "c"], &segment())?;
        mesh.ping_all()?;
        let [a, b, c] = mesh.nodes.as_slice() else { unreachable!("three names were given") };
        // What the neighbour tables hold came through the segment, and is the other side's own address.
        for (near, far) in [(a, b), (b, c)] {
            let link = far.host().run("cat").args(["/sys/class/net/mesh0/address"]).ok()?.stdout;
            let neighbours = near.host().run("ip").args(["neigh", "show", "dev", "mesh0"]).ok()?.stdout;
            for address in [far.ipv4()?, far.ipv6()?] {
                let line = neighbours.lines().find(|line| line.starts_with(&format!("{address} ")));
                let line = line.with_context(|| format!("no neighbour {address} in {neighbours}"))?;
                assert!(line.contains(link.trim()), "{line} is not {link}");
            }
        }
        // Addresses that the mesh did not give out work as on any segment.
        a.host().add_address("mesh0", "192.168.77.1".parse()?, 24)?;
        b.host().add_address("mesh0", "192.168.77.2".parse()?, 24)?;
        a.ping_address("192.168.77.2")?;
        a.host().run("arping").args(["-c", "2", "-w", "5", "-I", "mesh0", "192.168.77.2"]).ok()?;
        Ok(())
    });
}

#[test]
fn broadcast_reaches_everybody() {
    scenario("broadcast_reaches_everybody", |lab| {
        let mesh = Mesh::new(lab, &["a", "b", "c", "d"], &segment())?;
        mesh.ping_all()?;
        let probe = env!("CARGO_BIN_EXE_mesh-lab-probe");
        let (a, others) = mesh.nodes.split_first().context("four names were given")?;
        let mut receivers: Vec<Process> = Vec::new();
        for node in others {
            let mut receiver = node
                .host()
                .run(probe)
                .args(["udp-receive", "--bind", "0.0.0.0:67", "--count", "5"])
                .spawn("dhcp")?;
            receiver.wait_for_log("ready", Duration::from_secs(5))?;
            receivers.push(receiver);
        }
        // As a DHCP client sends it: to all, at a low rate.
        a.host().run("ip").args(["route", "add", "255.255.255.255", "dev", "mesh0"]).ok()?;
        a.host()
            .run(probe)
            .args(["udp-send", "--to", "255.255.255.255:67", "--count", "5", "--size", "300", "--rate", "20"])
            .ok()?;
        for receiver in &mut receivers {
            let log = receiver.wait_ok(Duration::from_secs(20))?;
            let report: Value = serde_json::from_str(log.trim_start_matches("ready").trim())?;
            assert_eq!(report["intact"], 5, "{report}");
            assert_eq!(report["corrupt"], 0, "{report}");
        }
        Ok(())
    });
}

#[test]
fn storm_is_limited() {
    scenario("storm_is_limited", |lab| {
        let mesh = Mesh::new(lab, &["a", "b"], &segment())?;
        mesh.ping_all()?;
        let [a, b] = mesh.nodes.as_slice() else { unreachable!("two names were given") };
        let probe = env!("CARGO_BIN_EXE_mesh-lab-probe");
        a.host().run("ip").args(["route", "add", "255.255.255.255", "dev", "mesh0"]).ok()?;
        let storm = a
            .host()
            .run(probe)
            .args(["udp-send", "--to", "255.255.255.255:9", "--count", "200000", "--size", "64"])
            .ok()?;
        let sent: Value = serde_json::from_str(&storm.stdout)?;
        let status = wait_until("the storm to be counted as dropped", Duration::from_secs(5), || {
            let status = a.status()?;
            Ok((lab::drops(&status, "storm") > 0).then_some(status))
        })?;
        let dropped = lab::drops(&status, "storm");
        assert!(dropped > sent["sent"].as_u64().unwrap_or(0) / 2, "only {dropped} dropped of {sent}");
        // Unicast goes on.
        a.ping_address(&b.ipv4()?)
    });
}
