//! HELLOs that somebody captured, sent again from many addresses at full speed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::{Capture, Host, Lab, Mesh, Process, StreamServer, Underlay, median, scenario, udp_address};
use serde_json::Value;

use crate::udp::{interface_is_up, meet, restart};

const PROBE: &str = env!("CARGO_BIN_EXE_mesh-lab-probe");

#[test]
fn newcomer_gets_in_while_a_flood_goes_on() {
    scenario("newcomer_gets_in_while_a_flood_goes_on", |lab| {
        let mut target = Target::new(lab)?;
        target.mesh.nodes[2].stop()?;
        let before = target.mesh.nodes[0].process()?.peak_rss_kib()?;
        for round in 0..ROUNDS {
            let mut flood = target.flood(lab, target.port(), 12)?;
            target.mesh.nodes[2].launch()?;
            let newcomer = &target.mesh.nodes[2];
            interface_is_up(newcomer)?;
            let start = Instant::now();
            meet(newcomer, &target.mesh.nodes[0])?;
            let took = start.elapsed();
            assert!(took < Duration::from_secs(2), "round {round}: the handshake took {took:?}");
            assert!(flood.is_running()?, "the flood ended before the handshake");
            report(&mut flood)?;
            target.mesh.nodes[2].stop()?;
        }
        let after = target.mesh.nodes[0].process()?.peak_rss_kib()?;
        assert!(after <= before + GROWTH_KIB, "{before} KiB before, {after} KiB after the flood");
        target.mesh.nodes[2].launch()?;
        target.mesh.ping_all()
    });
}

#[test]
fn transfer_keeps_its_speed_in_a_flood() {
    scenario("transfer_keeps_its_speed_in_a_flood", |lab| {
        let mut target = Target::new(lab)?;
        let before = target.mesh.nodes[0].process()?.peak_rss_kib()?;
        let address = target.mesh.nodes[0].ipv4()?;
        let mut server = StreamServer::start(target.mesh.nodes[0].host(), &address)?;
        let friend = target.mesh.nodes[1].host().clone();
        let (mut baseline, mut flooded) = (Vec::new(), Vec::new());
        // More rounds where the machine is restless.
        while baseline.len() < ROUNDS || (baseline.len() < MOST_ROUNDS && kept(&baseline, &flooded) < SHARE) {
            // The same flood costs the machine the same; at a closed port it costs the node nothing.
            for (port, rates) in [(CLOSED_PORT, &mut baseline), (target.port(), &mut flooded)] {
                let mut flood = target.flood(lab, port, 7)?;
                rates.push(server.measure(&friend, 4)?);
                assert!(flood.is_running()?, "the flood ended before the transfer");
                report(&mut flood)?;
            }
        }
        let after = target.mesh.nodes[0].process()?.peak_rss_kib()?;
        let text = format!("baseline {baseline:.0?}, flooded {flooded:.0?} bit/s, {before} and {after} KiB");
        let share = kept(&baseline, &flooded);
        assert!(share >= SHARE, "{share:.2} of the speed is left: {text}");
        println!("{share:.2} of the speed is left: {text}");
        assert!(after <= before + GROWTH_KIB, "{text}");
        Ok(())
    });
}

#[test]
fn flooded_node_never_sends_more_than_it_got() {
    scenario("flooded_node_never_sends_more_than_it_got", |lab| {
        let target = Target::new(lab)?;
        let node = udp_address(target.mesh.nodes[0].host());
        // What comes in at full speed is more than a capture holds; each source sends one HELLO, which is known.
        let filter = format!("src host {} and src port {} and dst net {SOURCES}", node.ip(), node.port());
        let full_speed: &[&str] = &["--seconds", "5"];
        // At leisure first: a node that is flooded from the start may answer nobody, which would show nothing.
        for speed in [&["--seconds", "2", "--rate", "100"], full_speed] {
            let capture = Capture::start(lab, target.mesh.nodes[0].host(), "eth0", &filter)?;
            let words =
                target.words(target.port()).into_iter().chain(speed.iter().copied().map(str::to_owned));
            let log = target.attacker.run(PROBE).args(words).ok()?.stdout;
            let report: Value = serde_json::from_str(log.trim_end().lines().last().unwrap_or_default())?;
            let recording = capture.stop()?;
            let sources = report["sources"].as_u64().context("no sources")?;
            let each = report["bytes"].as_u64().context("no bytes")? / sources;
            let remotes = recording.exchanges(node);
            assert!(speed == full_speed || !remotes.is_empty(), "no HELLO was answered at all: {report}");
            for (source, exchange) in &remotes {
                assert!(exchange.bytes_out <= each, "{source} sent {each} bytes and got {exchange:?}");
            }
        }
        Ok(())
    });
}

/// What is left of the speed, as a ratio of the medians.
fn kept(baseline: &[f64], flooded: &[f64]) -> f64 {
    median(flooded.to_vec()) / median(baseline.to_vec())
}

/// A node under attack, its friend, a third one, and where the attack comes from.
pub(crate) struct Target<'lab> {
    pub(crate) mesh: Mesh<'lab>,
    pub(crate) attacker: Host,
    /// A capture with HELLOs to the node.
    pub(crate) hellos: PathBuf,
}

impl<'lab> Target<'lab> {
    /// Makes the network, captures HELLOs of the third node, and routes the claimed addresses to the attacker.
    pub(crate) fn new(lab: &'lab Lab) -> Result<Self> {
        let mut mesh = Mesh::direct(lab, &["victim", "friend", "newcomer"], Underlay::V4)?;
        mesh.ping_all()?;
        mesh.relay.kill()?;
        let attacker = mesh.switch.host("attacker")?;
        let victim = mesh.nodes[0].host().clone();
        victim.run("ip").args(["route", "add", SOURCES, "via", &attacker.address().to_string()]).ok()?;
        let filter = format!("dst host {} and udp dst port {}", victim.address(), lab::UDP_PORT);
        let capture = Capture::start(lab, &victim, "eth0", &filter)?;
        for _ in 0..HELLOS {
            restart(&mut mesh, 2)?;
            meet(&mesh.nodes[2], &mesh.nodes[0])?;
        }
        let hellos = capture.stop()?.file().to_path_buf();
        restart(&mut mesh, 1)?;
        meet(&mesh.nodes[1], &mesh.nodes[0])?;
        mesh.ping_all()?;
        Ok(Self { mesh, attacker, hellos })
    }

    /// The port that the node listens on.
    pub(crate) fn port(&self) -> u16 {
        udp_address(self.mesh.nodes[0].host()).port()
    }

    /// Starts the flood at full speed and waits until it goes.
    pub(crate) fn flood(&self, lab: &Lab, port: u16, seconds: u32) -> Result<Process> {
        let words = ["--seconds".to_owned(), seconds.to_string()];
        let mut process = self
            .attacker
            .run(PROBE)
            .args(self.words(port))
            .args(words)
            .spawn(&format!("flood-{}", lab.serial()))?;
        process.wait_for_log("ready", Duration::from_secs(10))?;
        Ok(process)
    }

    /// What every attack on the node has in common.
    pub(crate) fn words(&self, port: u16) -> Vec<String> {
        let to = format!("{}:{port}", self.mesh.nodes[0].host().address());
        let file = self.hellos.display().to_string();
        ["flood", "--to", &to, "--sources", SOURCES, "--from-pcap", &file].map(str::to_owned).to_vec()
    }
}

/// Waits for the end of a flood and returns what it says; it has to deserve the name.
fn report(flood: &mut Process) -> Result<Value> {
    let log = flood.wait_ok(Duration::from_secs(30))?;
    let report: Value = serde_json::from_str(log.trim_end().lines().last().unwrap_or_default())?;
    let rate =
        report["sent"].as_f64().context("no count")? / report["seconds"].as_f64().context("no time")?;
    assert!(rate >= FULL_SPEED, "{rate} datagrams per second are no flood: {report}");
    Ok(report)
}

/// The block for benchmarks (RFC 2544), which nobody else uses.
pub(crate) const SOURCES: &str = "198.18.0.0/15";
/// Nobody listens there.
const CLOSED_PORT: u16 = 4748;
/// How many different HELLOs the attacker has.
const HELLOS: usize = 4;
/// An odd number, for the median.
const ROUNDS: usize = 5;
const MOST_ROUNDS: usize = 11;
/// Full tables: half-open handshakes, messages in parts, buckets of sources, queues, buffers of the sockets.
const GROWTH_KIB: u64 = 32 * 1024;
/// Datagrams per second that the slowest machine in question sends while it also runs the tunnel.
const FULL_SPEED: f64 = 20_000.0;
/// What a transfer keeps of its speed, on two cores, which the flood's sender shares. Receiving a datagram of the flood costs the
/// engine's thread about as much whoever sent it, so that less of a faster transfer is left: with single packets 0.82 to 0.88
/// were measured, with long ones, at 3.6 and 4.1 Gbit/s beside the flood at a closed port, 0.58 and 0.59.
const SHARE: f64 = 0.5;
