//! Frames over the relay's UDP port, and over its WebSocket where datagrams do not come through.

use std::time::Duration;

use anyhow::{Context, Result};
use lab::{Daemon, Mesh, MeshOptions, Process, Relay, drops, every_answer, scenario};

use nix::sys::signal::Signal;

use crate::offload::counted;
use crate::transfer::stream;

/// Between two pings, in seconds.
const APART: &str = "0.02";
const LIMIT: Duration = Duration::from_secs(15);

#[test]
fn frames_take_udp_and_fall_back_within_a_second() {
    for ipv6_underlay in [false, true] {
        let name = if ipv6_underlay { "relay_udp_falls_back_v6" } else { "relay_udp_falls_back" };
        scenario(name, |lab| {
            let options = MeshOptions { ipv6_underlay, ..MeshOptions::default() };
            let mesh = Mesh::new(lab, &["anna", "bert"], &options)?;
            let pings = begin(&mesh, "pings-1")?;
            takes_udp(&mesh, true)?;
            let status = mesh.nodes[0].ctl(&["status"])?.success()?.stdout;
            assert!(status.contains(", frames over UDP"), "{status}");
            let before = port_bytes(&mesh.relay)?;
            lab::wait_until("datagrams that the relay passed on", LIMIT, || {
                Ok((port_bytes(&mesh.relay)? > before).then_some(()))
            })?;
            mesh.relay.host().nft(
                "table inet cut { chain in { type filter hook input priority 0; udp dport 8443 drop\n}\n}\n",
            )?;
            takes_udp(&mesh, false)?;
            let outage = end(&mesh, pings)?;
            assert!(outage <= SOON, "nothing for {outage:?} after the cut");
            let pings = begin(&mesh, "pings-2")?;
            mesh.relay.host().nft("delete table inet cut")?;
            takes_udp(&mesh, true)?;
            let back = end(&mesh, pings)?;
            assert!(back <= Duration::from_millis(100), "nothing for {back:?} on the way back");
            Ok(())
        });
    }
}

#[test]
fn path_that_takes_short_datagrams_only_gets_those() {
    scenario("relay_udp_short_datagrams", |lab| {
        let mesh = Mesh::new(lab, &["anna", "bert"], &MeshOptions::default())?;
        mesh.relay.host().nft(
            "table inet cut { chain in { type filter hook input priority 0; udp dport 8443 udp length > 1300 drop\n}\n}\n",
        )?;
        let pings = begin(&mesh, "pings-3")?;
        // It was proven at full length before.
        takes_udp(&mesh, false)?;
        takes_udp(&mesh, true)?;
        // A full packet does not fit and takes the WebSocket.
        let to = mesh.nodes[1].ipv4()?;
        every_answer(mesh.nodes[0].host(), &["-s", "1392", "-M", "do"], (20, "0.05"), &to)?;
        end(&mesh, pings)?;
        Ok(())
    });
}

#[test]
fn node_can_switch_it_off() {
    scenario("relay_udp_off", |lab| {
        let mut options = MeshOptions::default();
        options.daemon.extra = "relay_udp = false\n".into();
        let mesh = Mesh::new(lab, &["anna", "bert"], &options)?;
        let pings = begin(&mesh, "pings-4")?;
        mesh.every_ping(50)?;
        takes_udp(&mesh, false)?;
        assert_eq!(port_bytes(&mesh.relay)?, 0);
        end(&mesh, pings)?;
        Ok(())
    });
}

/// A card or driver that loses whatever it is to cut: what the client hands over at once is longer than any link carries.
#[test]
fn segmentation_that_loses_datagrams_is_given_up_on_the_way_to_the_relay() {
    scenario("relay_udp_broken_segmentation", |lab| {
        let mesh = Mesh::new(lab, &["anna", "bert"], &MeshOptions::default())?;
        let [anna, bert] = &mesh.nodes[..] else { anyhow::bail!("two nodes were asked for") };
        anna.host().nft(
            "table ip broken {
                counter lost { }
                chain out { type filter hook output priority 0; oifname eth0 udp dport 8443 meta length > 1600 counter name lost drop; }
            }",
        )?;
        let pings = begin(&mesh, "pings-5")?;
        takes_udp(&mesh, true)?;
        anna.wait_for_status("what slows it down", LIMIT, |status| status.is_slowed_by("relay_singly"))?;
        stream(anna, bert, &bert.ipv4()?, BYTES)?;
        takes_udp(&mesh, true)?;
        assert!(!bert.status()?.is_slowed_by("relay_singly"), "the other end is sound");
        let text = anna.ctl(&["status"])?.success()?.stdout;
        assert!(text.contains("slowed"), "{text}");
        // Another card, or a driver that was repaired.
        anna.host().nft("delete table ip broken")?;
        anna.wait_for_status("full speed", LIMIT, |status| !status.is_slowed_by("relay_singly"))?;
        end(&mesh, pings)?;
        Ok(())
    });
}

#[test]
fn marks_and_classes_cross_on_the_way_over_the_relay() {
    scenario("relay_udp_marks", |lab| {
        let mut options = MeshOptions::default();
        options.daemon.extra = "copy_dscp = true\n".into();
        let mesh = Mesh::new(lab, &["anna", "bert"], &options)?;
        options.daemon.extra = "relay_udp = false\n".into();
        let carl = Daemon::start(lab, &mesh.switch.host("carl")?, &options.daemon)?;
        carl.join(&mesh.nodes[0].invite(&["--name", "carl"])?)?;
        let pings = begin(&mesh, "pings-6")?;
        takes_udp(&mesh, true)?;
        let (near, far) = (mesh.nodes[0].host(), mesh.nodes[1].host());
        let (bert, relay) = (mesh.nodes[1].ipv4()?, mesh.relay.host());
        let ping = |class: &str, to: &str| {
            // Others than those that go all the time, whose answers come back marked, too.
            let words = ["-n", "-c", "5", "-i", "0.02", "-W", "1", "-s", "99", "-Q", class, to];
            Ok::<_, anyhow::Error>(near.run("ping").args(words).output()?.code == Some(0))
        };
        relay.nft(
            "table ip seen {
                counter class { }
                chain outer { type filter hook input priority 0; udp dport 8443 ip dscp 46 ip ecn ect0 counter name class; }
            }",
        )?;
        far.nft(
            "table ip seen {
                counter capable { }
                counter met { }
                chain outer { type filter hook input priority 0; iifname eth0 udp sport 8443 ip ecn ect0 counter name capable; }
                chain inner { type filter hook input priority 0; iifname mesh0 icmp type echo-request ip length 127 ip ecn ce counter name met; }
            }",
        )?;
        let met = || counted(far, "ip", "seen", "met");
        assert!(ping("0xba", &bert)?);
        assert!(counted(relay, "ip", "seen", "class")? >= 5, "the class on the way to the relay");
        assert!(counted(far, "ip", "seen", "capable")? >= 5, "the relay repeats the mark");
        assert_eq!(met()?, 0);
        // A router before the relay, then one behind it: who understands is told, who does not is not served.
        let busy = |port: &str| {
            format!(
                "table ip busy {{ chain out {{ type route hook output priority 0; oifname eth0 udp {port} 8443 ip ecn set ce; }}\n}}\n"
            )
        };
        for (host, port) in [(near, "dport"), (relay, "sport")] {
            let before = (met()?, drops(&mesh.nodes[1].status()?, "congested"));
            host.nft(&busy(port))?;
            assert!(ping("0x02", &bert)?, "{port}");
            assert!(met()? >= before.0 + 5, "{port}: the mark reached the packet");
            assert!(!ping("0x00", &bert)?, "{port}: what cannot be marked is dropped (RFC 6040, 4.2)");
            assert!(drops(&mesh.nodes[1].status()?, "congested") >= before.1 + 5, "{port}");
            host.nft("delete table ip busy")?;
        }
        // A WebSocket carries no mark, so that the relay drops what has one.
        let carl = carl.ipv4()?;
        assert!(ping("0x02", &carl)?);
        near.nft(&busy("dport"))?;
        assert!(!ping("0x02", &carl)?);
        let counter = "meshrelay_udp_dropped_datagrams_total{reason=\"congested\"} ";
        assert!(metric(&mesh.relay, counter)? >= 5);
        near.nft("delete table ip busy")?;
        end(&mesh, pings)?;
        Ok(())
    });
}

trait Pings {
    fn every_ping(&self, count: u32) -> Result<()>;
}

impl Pings for Mesh<'_> {
    fn every_ping(&self, count: u32) -> Result<()> {
        every_answer(self.nodes[0].host(), &[], (count, "0.05"), &self.nodes[1].ipv4()?)
    }
}

/// Waits until both nodes' frames go over UDP, or neither's.
fn takes_udp(mesh: &Mesh<'_>, udp: bool) -> Result<()> {
    for node in &mesh.nodes {
        node.wait_for_status("the way to the relay", LIMIT, |status| status.is_over_udp() == udp)?;
    }
    Ok(())
}

/// Bytes that the relay passed on from datagram to datagram.
fn port_bytes(relay: &Relay) -> Result<u64> {
    metric(relay, "meshrelay_udp_forwarded_bytes_total ")
}

/// What the relay counts under a name, behind which there is a space.
fn metric(relay: &Relay, name: &str) -> Result<u64> {
    let text = relay.host().run("curl").args(["-s", "http://127.0.0.1:9464/metrics"]).ok()?.stdout;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.context("no such counter")?.parse()?)
}

fn begin(mesh: &Mesh<'_>, log: &str) -> Result<Process> {
    let to = mesh.nodes[1].ipv4()?;
    let mut pings = mesh.nodes[0].host().run("ping").args(["-n", "-i", APART, &to]).spawn(log)?;
    pings.wait_for_log("bytes from", LIMIT)?;
    Ok(pings)
}

/// The longest time without an answer, once answers come again.
fn end(mesh: &Mesh<'_>, mut pings: Process) -> Result<Duration> {
    lab::wait_until("answers to pings again", LIMIT, || Ok(mesh.every_ping(5).ok()))?;
    pings.signal(Signal::SIGINT)?;
    let log = pings.wait_ok(LIMIT)?;
    lab::longest_silence(&log, Duration::from_millis(20))
}

/// A second, and half of one for a loaded machine.
const SOON: Duration = Duration::from_millis(1500);

/// What a TCP stream carries.
const BYTES: u64 = 20_000_000;
