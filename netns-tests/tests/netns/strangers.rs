//! Those who do not belong to the network: on the ports, and on the same relay.

use std::time::Duration;

use anyhow::{Context, Result};
use lab::{Daemon, DaemonOptions, Mesh, MeshOptions, Relay, RelayOptions, scenario};
use serde_json::Value;

const PROBE: &str = env!("CARGO_BIN_EXE_mesh-lab-probe");

#[test]
fn garbage_on_every_port_is_ignored() {
    scenario("garbage_on_every_port_is_ignored", |lab| {
        let mut mesh = Mesh::new(lab, &["laptop", "pi"], &MeshOptions::default())?;
        mesh.ping_all()?;
        // The daemon listens on nothing.
        for node in &mesh.nodes {
            assert_eq!(node.host().open_ports()?, Vec::<String>::new(), "open ports on {}", node.name());
        }
        let stranger = mesh.switch.host("stranger")?;
        let relay = mesh.relay.host().address();
        let udp = report(&stranger, &["junk-udp", "--to", &format!("{relay}:{}", Relay::STUN_PORT)])?;
        assert_eq!(udp["replies"], 0, "the relay answers junk: {udp}");
        let tcp =
            report(&stranger, &["junk-tcp", "--to", &format!("{relay}:{}", Relay::PORT), "--count", "100"])?;
        assert_eq!(tcp["closed"], tcp["connections"], "junk holds connections open: {tcp}");
        let node = mesh.nodes[0].host().address();
        for port in [Relay::PORT, Relay::STUN_PORT, 41641, 51820] {
            let udp = report(&stranger, &["junk-udp", "--to", &format!("{node}:{port}"), "--count", "200"])?;
            assert_eq!(udp["replies"], 0, "a node answers on port {port}: {udp}");
        }
        assert!(mesh.relay.process()?.is_running()?, "the relay fell over");
        for node in &mut mesh.nodes {
            assert!(node.process()?.is_running()?, "a daemon fell over");
        }
        mesh.ping_all()
    });
}

fn report(host: &lab::Host, words: &[&str]) -> Result<Value> {
    let output = host.run(PROBE).args(words.iter().copied()).limit(Duration::from_secs(60)).ok()?;
    serde_json::from_str(&output.stdout).context("no report")
}

#[test]
fn two_networks_on_one_relay_do_not_meet() {
    scenario("two_networks_on_one_relay_do_not_meet", |lab| {
        let mesh = Mesh::new(lab, &["a1", "a2"], &MeshOptions::default())?;
        let b1 = mesh.stranger(lab, "b1")?;
        b1.up_new("home", &mesh.relay.url(), "b1")?;
        let b2 = mesh.stranger(lab, "b2")?;
        b2.join(&b1.invite(&["--name", "b2"])?)?;
        mesh.ping_all()?;
        b1.ping_address(&b2.ipv4()?)?;
        let a1 = &mesh.nodes[0];
        assert_eq!(a1.status()?.peer_names(), ["a2"]);
        assert_eq!(b1.status()?.peer_names(), ["b2"]);
        // Neither by name nor by id nor by address.
        let foreign_id = b1.json(&["id"])?["node_id"].as_str().context("no node id")?.to_owned();
        a1.ctl(&["ping", "b1"])?.exits(6)?;
        a1.ctl(&["ping", &foreign_id])?.exits(6)?;
        let before = b1.status()?.0["counters"]["rx_packets"].clone();
        let unreachable = a1
            .host()
            .run("ping")
            .args(["-n", "-c", "3", "-i", "0.1", "-W", "1", "-I", "mesh0", &b1.ipv6()?])
            .output()?;
        assert_ne!(unreachable.code, Some(0), "{}", unreachable.stdout);
        assert_eq!(b1.status()?.0["counters"]["rx_packets"], before);
        Ok(())
    });
}

#[test]
fn limited_relay_refuses_other_networks() {
    scenario("limited_relay_refuses_other_networks", |lab| {
        let public = lab.public(lab::Underlay::V4)?;
        let options = RelayOptions {
            extra: format!("networks = [\"{}\"]\n", "a".repeat(52)),
            ..RelayOptions::default()
        };
        let relay = Relay::with(lab, &public.host("relay")?, &options)?;
        let daemon = Daemon::start(lab, &public.host("laptop")?, &DaemonOptions::default())?;
        let words = ["up", "--new", "home", "--relay", &relay.url(), "--name", "laptop", "--timeout", "5"];
        let output = daemon.ctl(&words)?;
        assert_ne!(output.code, Some(0), "{}", output.stdout);
        assert!(output.stderr.contains("refuse") || output.stderr.contains("serve"), "{}", output.stderr);
        Ok(())
    });
}
