//! Nodes that know each other's addresses: everything over UDP, with the relay gone.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use lab::{
    Capture, Daemon, Lab, Mesh, StreamServer, Underlay, scenario, session_with, udp_address, wait_until,
};

const PROBE: &str = env!("CARGO_BIN_EXE_mesh-lab-probe");

#[test]
fn two_nodes_without_a_relay_over_ipv4() {
    scenario("two_nodes_without_a_relay_over_ipv4", |lab| two_nodes(lab, Underlay::V4));
}

#[test]
fn two_nodes_without_a_relay_over_ipv6() {
    scenario("two_nodes_without_a_relay_over_ipv6", |lab| two_nodes(lab, Underlay::V6));
}

fn two_nodes(lab: &Lab, underlay: Underlay) -> Result<()> {
    let mut mesh = Mesh::direct(lab, &["laptop", "pi"], underlay)?;
    mesh.ping_all()?;
    mesh.relay.kill()?;
    // Either side, so that both have begun a handshake and both have answered one.
    for restarted in [0, 1] {
        restart(&mut mesh, restarted)?;
        let (node, peer) = (&mesh.nodes[restarted], &mesh.nodes[1 - restarted]);
        meet(node, peer)?;
        mesh.ping_all()?;
        for (from, to) in [(node, peer), (peer, node)] {
            let status = from.status()?;
            assert_ne!(status.peer(to.name())?["path"], "relay", "{}", status.0);
            assert_ne!(status.relay_state(), "connected");
        }
    }
    page(lab, &mesh)?;
    // And every byte between the two hosts is a datagram between the two ports.
    let [laptop, pi] = mesh.nodes.as_slice() else { unreachable!("two names were given") };
    let ends = [udp_address(laptop.host()), udp_address(pi.host())];
    let other = format!("host {} and not (udp port {})", pi.host().address(), ends[0].port());
    let noise = "not arp and not (ip6 and icmp6[0] >= 130 and icmp6[0] <= 143)";
    let capture = Capture::start(lab, laptop.host(), "eth0", &format!("{other} and {noise}"))?;
    let address = pi.ipv4()?;
    let mut server = StreamServer::start(pi.host(), &address)?;
    let rate = server.measure(laptop.host(), 3)?;
    assert!(rate > 10e6, "{rate} bit/s through the tunnel");
    let recording = capture.stop()?;
    assert_eq!(recording.packets, 0, "something else went between the hosts: {:?}", recording.datagrams);
    Ok(())
}

/// Stops a daemon, which forgets its sessions, and starts it again.
pub(crate) fn restart(mesh: &mut Mesh<'_>, place: usize) -> Result<()> {
    let node = &mut mesh.nodes[place];
    node.stop()?;
    node.launch()?;
    node.wait_for_status("its addresses", Duration::from_secs(10), |status| {
        status.addresses().is_ok_and(|addresses| !addresses.is_empty())
    })?;
    interface_is_up(node)
}

/// Waits until packets can be sent into the overlay.
pub(crate) fn interface_is_up(node: &Daemon) -> Result<()> {
    wait_until(&format!("the interface of {}", node.name()), Duration::from_secs(10), || {
        let link =
            node.host().run("ip").args(["-o", "addr", "show", "dev", node.interface(), "up"]).output()?;
        Ok(link.stdout.contains("inet").then_some(()))
    })
}

/// Sends pings until there is a session.
pub(crate) fn meet(node: &Daemon, peer: &Daemon) -> Result<()> {
    let _pings = node
        .host()
        .run("ping")
        .args(["-n", "-i", "0.2", &peer.ipv4()?])
        .spawn(&format!("ping-{}", peer.name()))?;
    let what = format!("a session with {}", peer.name());
    node.wait_for_status(&what, Duration::from_secs(20), |status| session_with(status, peer.name()).is_ok())
        .map(drop)
}

/// Fetches a page of 20 MB with `curl` and compares it.
fn page(lab: &Lab, mesh: &Mesh<'_>) -> Result<()> {
    let [laptop, pi] = mesh.nodes.as_slice() else { unreachable!("two names were given") };
    let (page, copy) = (lab.path("web/page")?, lab.path("web/copy")?);
    laptop.host().shell(&format!("head -c 20000000 /dev/urandom > {}", page.display())).ok()?;
    let mut server = pi
        .host()
        .run(PROBE)
        .args(["http", "--bind", "[::]:80", "--file", &page.display().to_string()])
        .spawn("http")?;
    server.wait_for_log("ready", Duration::from_secs(5))?;
    for host in [pi.ipv4()?, format!("[{}]", pi.ipv6()?)] {
        let url = format!("http://{host}/page");
        laptop
            .host()
            .run("curl")
            .args(["-sSf", "-g", "-o", &copy.display().to_string(), &url])
            .limit(Duration::from_secs(60))
            .ok()?;
        assert!(fs::read(&page)? == fs::read(&copy)?, "the page changed on its way");
        fs::remove_file(&copy)?;
    }
    Ok(())
}
