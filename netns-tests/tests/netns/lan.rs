//! Nodes on one switch find each other with neither relay nor coordinator, and strangers on it learn and change nothing.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Capture, Daemon, DaemonOptions, Lab, Mesh, MeshOptions, Recording, drops, scenario, wait_until};
use mesh_wire::lan::{MESSAGE, PORT};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt};
use serde_json::Value;

use crate::udp::interface_is_up;

const PROBE: &str = env!("CARGO_BIN_EXE_mesh-lab-probe");

#[test]
fn neighbours_meet_without_relay_and_coordinator_over_ipv4() {
    scenario("neighbours_meet_without_relay_and_coordinator_over_ipv4", |lab| neighbours_meet(lab, false));
}

#[test]
fn neighbours_meet_without_relay_and_coordinator_over_ipv6() {
    scenario("neighbours_meet_without_relay_and_coordinator_over_ipv6", |lab| neighbours_meet(lab, true));
}

fn neighbours_meet(lab: &Lab, ipv6: bool) -> Result<()> {
    let mut mesh = network(lab, &["coordinator", "laptop", "pi"], ipv6)?;
    mesh.ping_all()?;
    let capture = Capture::start(lab, mesh.switch.bridge(), "br0", &format!("udp port {PORT}"))?;
    alone(&mut mesh)?;
    let [laptop, pi] = &mesh.nodes[1..] else { unreachable!("three names were given") };
    let start = Instant::now();
    first_ping(laptop, pi, Duration::from_secs(20))?;
    let took = start.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    for (from, to) in [(laptop, pi), (pi, laptop)] {
        from.ping_address(&to.ipv6()?)?;
        // The first packet may have been quicker than the answer to the peer's question.
        let status =
            from.wait_for_status("a path on the local network", Duration::from_secs(5), |status| {
                status
                    .peer(to.name())
                    .is_ok_and(|peer| peer["path"] == "direct" && kind_in_use(peer) == "lan")
            })?;
        assert_ne!(status.relay_state(), "connected");
        let why = from.ctl(&["why", to.name()])?.success()?.stdout;
        assert!(why.contains(" lan "), "{why}");
        // Who asks to come up is told what is missing.
        let up = from.ctl(&["up", "--timeout", "15"])?.exits(8)?;
        assert!(up.stderr.contains("without the relay"), "{}", up.stderr);
        let text = from.ctl(&["status"])?.exits(8)?.stdout;
        assert!(text.contains("degraded"), "{text}");
    }
    nothing_is_said_in_clear(&mesh, &capture.stop()?)
}

#[test]
fn node_that_comes_later_or_moves_is_found() {
    scenario("node_that_comes_later_or_moves_is_found", |lab| {
        let mut mesh = network(lab, &["coordinator", "laptop", "pi"], false)?;
        mesh.ping_all()?;
        mesh.nodes[2].stop()?;
        mesh.relay.kill()?;
        mesh.nodes[0].kill()?;
        mesh.nodes[1].stop()?;
        mesh.nodes[1].launch()?;
        interface_is_up(&mesh.nodes[1])?;
        mesh.nodes[2].launch()?;
        interface_is_up(&mesh.nodes[2])?;
        let [laptop, pi] = &mesh.nodes[1..] else { unreachable!("three names were given") };
        first_ping(laptop, pi, Duration::from_secs(20))?;
        // Another address of the same network, and no word from any server.
        pi.host().shell("ip -4 addr flush dev eth0; ip addr add 203.0.113.77/24 dev eth0").ok()?;
        let moved = |status: &lab::Status| {
            let endpoint = status.peer(pi.name()).map(|peer| peer["endpoint"].clone()).unwrap_or_default();
            endpoint.as_str().is_some_and(|at| at.starts_with("203.0.113.77:") || at.starts_with("[fe80:"))
        };
        let _pings = laptop.host().run("ping").args(["-n", "-i", "0.2", &pi.ipv4()?]).spawn("moving")?;
        laptop.wait_for_status("the new address", Duration::from_secs(30), moved)?;
        first_ping(laptop, pi, Duration::from_secs(5))
    });
}

#[test]
fn link_local_addresses_are_enough() {
    scenario("link_local_addresses_are_enough", |lab| {
        let mut mesh = network(lab, &["coordinator", "laptop", "pi"], false)?;
        mesh.ping_all()?;
        for node in &mesh.nodes {
            node.host().shell("ip -4 addr flush dev eth0").ok()?;
        }
        alone(&mut mesh)?;
        let [laptop, pi] = &mesh.nodes[1..] else { unreachable!("three names were given") };
        first_ping(laptop, pi, Duration::from_secs(20))?;
        let status = laptop.status()?;
        let peer = status.peer(pi.name())?;
        assert!(peer["endpoint"].as_str().is_some_and(|at| at.starts_with("[fe80:")), "{peer}");
        Ok(())
    });
}

#[test]
fn port_is_shared_with_another_program() {
    scenario("port_is_shared_with_another_program", |lab| {
        let mut mesh = network(lab, &["coordinator", "laptop", "pi"], false)?;
        mesh.ping_all()?;
        let [laptop, pi] = &mesh.nodes[1..] else { unreachable!("three names were given") };
        // As avahi and systemd-resolved have it: every address, and open to others.
        let other = laptop.host().enter(shared_socket)?;
        let to = SocketAddr::new(laptop.host().address(), PORT);
        let sender = pi.host().enter(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
        alone(&mut mesh)?;
        let [laptop, pi] = &mesh.nodes[1..] else { unreachable!("three names were given") };
        first_ping(laptop, pi, Duration::from_secs(20))?;
        for number in 0..100_u8 {
            sender.send_to(&[number], to)?;
        }
        let mut alone = 0;
        other.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut buffer = [0; 2048];
        while alone < 100 {
            let length =
                other.recv(&mut buffer).context("what was sent to this machine alone did not come")?;
            alone += u32::from(length == 1);
        }
        Ok(())
    });
}

#[test]
fn switched_off_nobody_is_told_or_found() {
    scenario("switched_off_nobody_is_told_or_found", |lab| {
        let daemon = DaemonOptions { direct: true, ..DaemonOptions::default() };
        let mut mesh = Mesh::new(
            lab,
            &["coordinator", "laptop", "pi"],
            &MeshOptions { daemon, ..MeshOptions::default() },
        )?;
        let capture = Capture::start(lab, mesh.switch.bridge(), "br0", &format!("udp port {PORT}"))?;
        alone(&mut mesh)?;
        let [laptop, pi] = &mesh.nodes[1..] else { unreachable!("three names were given") };
        let found = first_ping(laptop, pi, Duration::from_secs(5));
        assert!(found.is_err(), "they met without relay and announcements");
        assert_eq!(capture.stop()?.packets, 0);
        Ok(())
    });
}

#[test]
fn stranger_on_the_switch_changes_nothing() {
    scenario("stranger_on_the_switch_changes_nothing", |lab| {
        let mut mesh = network(lab, &["coordinator", "laptop", "pi"], false)?;
        mesh.ping_all()?;
        let stranger = mesh.switch.host("stranger")?;
        let own = stranger.address().to_string();
        let capture = Capture::start(lab, &stranger, "eth0", &format!("udp port {PORT}"))?;
        alone(&mut mesh)?;
        let messages = lab.path("announcements")?;
        let recorded = {
            let [laptop, pi] = &mesh.nodes[1..] else { unreachable!("three names were given") };
            first_ping(laptop, pi, Duration::from_secs(20))?;
            let recorded = capture.stop()?;
            let lines: BTreeSet<String> = announcements(&recorded).map(hex).collect();
            assert!(lines.len() >= 2, "{} announcements", lines.len());
            fs::write(&messages, lines.into_iter().collect::<Vec<_>>().join("\n"))?;
            recorded
        };
        assert!(!recorded.datagrams.is_empty());
        let before = [1, 2].map(|node| mesh.nodes[node].status());
        // What the nodes say meanwhile, and whatever they send to the stranger.
        let said = Capture::start(
            lab,
            &stranger,
            "eth0",
            &format!("udp and (port {PORT} or dst host {own}) and not src host {own}"),
        )?;
        let words = ["lan-flood", "--from", &own, "--seconds", "12", "--messages"];
        let used = mesh.nodes[1].process()?.cpu_seconds()?;
        let mut flood =
            stranger.run(PROBE).args(words).args([&messages.display().to_string()]).spawn("flood")?;
        let [laptop, pi] = &mesh.nodes[1..] else { unreachable!("three names were given") };
        for _ in 0..5 {
            laptop.ping_address(&pi.ipv4()?)?;
        }
        // One that starts in the middle of it is found as ever.
        mesh.nodes[2].stop()?;
        mesh.nodes[2].launch()?;
        interface_is_up(&mesh.nodes[2])?;
        let [laptop, pi] = &mesh.nodes[1..] else { unreachable!("three names were given") };
        first_ping(pi, laptop, Duration::from_secs(15))?;
        assert!(flood.is_running()?, "it was found after the flood");
        let report: Value = serde_json::from_str(flood.wait_ok(Duration::from_secs(30))?.trim())?;
        assert!(report["sent"].as_u64().context("no count")? > 10_000, "{report}");
        let used = mesh.nodes[1].process()?.cpu_seconds()? - used;
        assert!(used < 4.0, "{used} s of processor time in 12 s: {report}");
        assert!(mesh.nodes[1].process()?.peak_rss_kib()? < 64 * 1024);
        println!("{report}, {used} s of processor time");
        let said = said.stop()?;
        let [laptop, pi] = &mesh.nodes[1..] else { unreachable!("three names were given") };
        let to_stranger =
            said.datagrams.iter().filter(|datagram| datagram.to.ip() == stranger.address()).count();
        assert_eq!(to_stranger, 0, "the stranger was answered");
        // Each says something once a second at most, a farewell and three questions apart.
        for node in [laptop, pi] {
            let count =
                said.datagrams.iter().filter(|datagram| datagram.from.ip() == node.host().address()).count();
            assert!((1..=40).contains(&count), "{} said {count} things", node.name());
        }
        let status = laptop.status()?;
        assert!(
            drops(&status, "lan_unsealed") > 0 && drops(&status, "lan_rate") > 0,
            "{}",
            status.0["counters"]
        );
        let known = |status: &lab::Status| -> Result<BTreeSet<String>> {
            let remotes = status.peer("pi")?["direct"]["remotes"].as_array().context("no addresses")?.clone();
            Ok(remotes.iter().filter_map(|remote| remote["address"].as_str().map(str::to_owned)).collect())
        };
        let [first, _] = before;
        let addresses = |all: BTreeSet<String>| -> BTreeSet<String> {
            all.iter().filter_map(|one| one.rsplit_once(':').map(|(ip, _)| ip.to_owned())).collect()
        };
        assert_eq!(addresses(known(&status)?), addresses(known(&first?)?), "addresses were added");
        for node in &mut mesh.nodes[1..] {
            assert!(node.process()?.is_running()?);
        }
        Ok(())
    });
}

fn network<'lab>(lab: &'lab Lab, names: &[&str], ipv6_underlay: bool) -> Result<Mesh<'lab>> {
    let daemon = DaemonOptions { direct: true, lan: true, ..DaemonOptions::default() };
    Mesh::new(lab, names, &MeshOptions { ipv6_underlay, daemon })
}

/// Ends relay and coordinator, and starts the other two anew.
fn alone(mesh: &mut Mesh<'_>) -> Result<()> {
    mesh.relay.kill()?;
    mesh.nodes[0].kill()?;
    for node in &mut mesh.nodes[1..] {
        node.stop()?;
    }
    for node in &mut mesh.nodes[1..] {
        node.launch()?;
    }
    mesh.nodes[1..].iter().try_for_each(interface_is_up)
}

/// Pings until the first answer.
fn first_ping(from: &Daemon, to: &Daemon, limit: Duration) -> Result<()> {
    let address = to.ipv4()?;
    wait_until(&format!("a ping from {} to {}", from.name(), to.name()), limit, || {
        let ping = from.host().run("ping").args(["-n", "-c", "1", "-W", "1", &address]).output()?;
        Ok((ping.code == Some(0)).then_some(()))
    })
}

/// A socket on the port of multicast DNS that other programs may use too.
fn shared_socket() -> Result<UdpSocket> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    bind(socket.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, PORT))?;
    Ok(socket.into())
}

/// How the address in use was found.
fn kind_in_use(peer: &Value) -> String {
    let remotes = peer["direct"]["remotes"].as_array().cloned().unwrap_or_default();
    let used = remotes.iter().find(|remote| remote["address"] == peer["endpoint"]);
    used.and_then(|remote| remote["kind"].as_str()).unwrap_or_default().to_owned()
}

fn announcements(recording: &Recording) -> impl Iterator<Item = &[u8]> {
    recording
        .datagrams
        .iter()
        .map(|datagram| &datagram.payload[..])
        .filter(|payload| payload.len() == MESSAGE)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Looks for every name and id, as text and as bytes.
fn nothing_is_said_in_clear(mesh: &Mesh<'_>, recording: &Recording) -> Result<()> {
    let heard = announcements(recording).count();
    ensure!(heard >= 2, "only {heard} announcements were captured");
    let file = fs::read(recording.file())?;
    let mut secrets: Vec<Vec<u8>> = Vec::new();
    for node in &mesh.nodes[1..] {
        let status = node.status()?;
        let ids = [&status.0["node"]["node_id"], &status.0["network"]["net_id"]];
        for id in ids.map(|id| id.as_str().unwrap_or_default()) {
            assert_eq!(id.len(), 52, "an id of 32 bytes");
            secrets.extend([id.as_bytes().to_vec(), id.to_uppercase().into_bytes(), base32(id)]);
        }
        let name = status.0["network"]["name"].as_str().context("no name")?;
        let software = status.0["version"].as_str().context("no version")?;
        for text in [node.name(), name, "shadowmesh", software] {
            secrets.push(text.as_bytes().to_vec());
        }
        for address in status.addresses()? {
            secrets.push(address.to_string().into_bytes());
        }
    }
    for secret in secrets {
        // The first half of an id is enough to know it.
        let part = &secret[..secret.len().min(16)];
        let found = file.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part));
        assert!(!found, "{} was said", String::from_utf8_lossy(&secret));
    }
    // And no two messages are the same, nor is the sealed part of any two.
    let sealed: Vec<&[u8]> =
        announcements(recording).map(|payload| &payload[payload.len() - 100..]).collect();
    let different: BTreeSet<_> = sealed.iter().collect();
    assert!(different.len() * 3 >= sealed.len(), "{} of {} differ", different.len(), sealed.len());
    Ok(())
}

/// The bytes of an id.
fn base32(text: &str) -> Vec<u8> {
    let mut bits = (0_u32, 0_u32);
    let mut bytes = Vec::new();
    for digit in text.bytes() {
        let value = match digit {
            b'a'..=b'z' => digit - b'a',
            _ => digit - b'2' + 26,
        };
        bits = (bits.0 << 5 | u32::from(value), bits.1 + 5);
        if bits.1 >= 8 {
            bits.1 -= 8;
            bytes.extend((bits.0 >> bits.1).to_be_bytes().last());
            bits.0 &= (1 << bits.1) - 1;
        }
    }
    bytes
}
