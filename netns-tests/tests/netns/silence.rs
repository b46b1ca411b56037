//! A node says nothing to those who know no secret of its network.

use std::time::Duration;

use anyhow::{Context, Result};
use lab::{Capture, Host, Lab, Mesh, Underlay, scenario, session_with, udp_address};
use serde_json::Value;

use crate::udp::{interface_is_up, meet, restart};

const PROBE: &str = env!("CARGO_BIN_EXE_mesh-lab-probe");

#[test]
fn million_datagrams_of_a_stranger_get_no_reply_over_ipv4() {
    scenario("million_datagrams_of_a_stranger_get_no_reply_over_ipv4", |lab| {
        silence(lab, Underlay::V4, 1_000_000)
    });
}

#[test]
fn datagrams_of_a_stranger_get_no_reply_over_ipv6() {
    scenario("datagrams_of_a_stranger_get_no_reply_over_ipv6", |lab| silence(lab, Underlay::V6, 100_000));
}

fn silence(lab: &Lab, underlay: Underlay, count: u64) -> Result<()> {
    let mut mesh = Mesh::direct(lab, &["victim", "friend"], underlay)?;
    mesh.ping_all()?;
    let stranger = mesh.switch.host("stranger")?;
    let (victim, friend) = (&mesh.nodes[0], &mesh.nodes[1]);
    let target = udp_address(victim.host());
    // The host itself speaks to the link: addresses of neighbours, and nothing that a stranger asked for.
    let link = "not arp and not (ip6 and icmp6[0] >= 130 and icmp6[0] <= 143)";
    let known = [mesh.relay.host(), friend.host()].map(|host| format!("not dst host {}", host.address()));
    let filter = format!("src host {} and {link} and {}", target.ip(), known.join(" and "));
    let capture = Capture::start(lab, victim.host(), "eth0", &filter)?;
    let before = Taken::by(victim.host(), underlay)?;
    let session_before = handshake_age(&mesh)?;
    let mut seed = 0;
    let mut taken = 0;
    // What the socket had no room for was not refused by the node, so more is sent until it has seen them all.
    while taken < count {
        seed += 1;
        let (words, text) = (["stranger", "--to", "--count", "--seed"], count.to_string());
        let report = stranger
            .run(PROBE)
            .args([words[0], words[1], &target.to_string(), words[2], &text, words[3], &seed.to_string()])
            .limit(Duration::from_secs(180))
            .ok()?;
        let report: Value = serde_json::from_str(&report.stdout).context("no report")?;
        assert_eq!(report["replies"], 0, "{report}");
        let sent = report["sent"].as_u64().context("no count")?;
        assert!(sent >= count, "{report}");
        taken = Taken::by(victim.host(), underlay)?.0 - before.0;
        assert!(seed < 20, "the node's socket took {taken} datagrams after {seed} times {sent}");
    }
    let recording = capture.stop()?;
    assert_eq!(recording.packets, 0, "the node said something: {:?}", recording.datagrams);
    // Nothing of it disturbed the session, and new ones can be made.
    mesh.ping_all()?;
    let age = handshake_age(&mesh)?;
    assert!(age >= session_before, "a new handshake: {session_before} s, then {age} s");
    assert!(mesh.nodes[0].process()?.is_running()?);
    mesh.relay.kill()?;
    restart(&mut mesh, 1)?;
    interface_is_up(&mesh.nodes[1])?;
    meet(&mesh.nodes[1], &mesh.nodes[0])?;
    mesh.ping_all()
}

fn handshake_age(mesh: &Mesh<'_>) -> Result<f64> {
    let status = mesh.nodes[0].status()?;
    session_with(&status, "friend")?["handshake_age_s"].as_f64().context("no handshake age")
}

/// Datagrams that sockets of a host took in, by its own count.
struct Taken(u64);

impl Taken {
    fn by(host: &Host, underlay: Underlay) -> Result<Self> {
        let key = if underlay == Underlay::V6 { "Udp6InDatagrams" } else { "UdpInDatagrams" };
        let text = host.run("nstat").args(["-asz", key]).ok()?.stdout;
        let line = text.lines().find(|line| line.starts_with(key)).context("no such counter")?;
        Ok(Self(line.split_whitespace().nth(1).context("no figure")?.parse()?))
    }
}
