//! `meshctl up`: two machines that know a ticket and a relay reach each other.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use lab::{Daemon, DaemonOptions, Lab, Mesh, MeshOptions, Relay, Underlay, scenario, session_with};

#[test]
fn two_nodes_over_ipv4() {
    scenario("two_nodes_over_ipv4", |lab| two_nodes(lab, &MeshOptions::default()));
}

#[test]
fn two_nodes_over_ipv6_only() {
    scenario("two_nodes_over_ipv6_only", |lab| {
        two_nodes(lab, &MeshOptions { ipv6_underlay: true, ..MeshOptions::default() })
    });
}

fn two_nodes(lab: &Lab, options: &MeshOptions) -> Result<()> {
    let mesh = Mesh::new(lab, &["laptop", "pi"], options)?;
    mesh.ping_all()?;
    let [laptop, pi] = mesh.nodes.as_slice() else { unreachable!("two names were given") };
    let status = laptop.status()?;
    assert_eq!(status.state(), "up");
    assert_eq!(status.peer("pi")?["path"], "relay");
    let suite = session_with(&status, "pi")?["suite"].as_str().unwrap_or("").to_owned();
    for part in ["ML-KEM-1024", "X25519", "ML-DSA-87", "Ed25519"] {
        assert!(suite.contains(part), "{part} is not in the suite {suite}");
    }
    let answer = pi.ctl(&["--json", "ping", "laptop", "-c", "1"])?.success()?.stdout;
    assert!(answer.contains("rtt_ms"), "no round trip in {answer}");
    pi.ctl(&["ping", "nobody"])?.exits(6)?;
    // Everything that a person looks at works, and asking twice is harmless.
    for words in [&["peers"][..], &["id"], &["version"], &["status"], &["up"]] {
        pi.ctl(words)?.success()?;
    }
    // Bringing it down and up again keeps the membership.
    pi.ctl(&["down"])?.success()?;
    assert!(!pi.host().has_interface(pi.interface())?);
    pi.ctl(&["down"])?.success()?;
    pi.ctl(&["up"])?.success()?;
    mesh.ping_all()
}

#[test]
fn ten_nodes_at_once() {
    scenario("ten_nodes_at_once", |lab| {
        let public = lab.public(Underlay::V4)?;
        let relay = Relay::start(lab, &public.host("relay")?)?;
        let names: Vec<String> = (0..10).map(|number| format!("node{number}")).collect();
        let mut nodes = Vec::new();
        for name in &names {
            nodes.push(Daemon::start(lab, &public.host(name)?, &DaemonOptions::default())?);
        }
        let (first, others) = nodes.split_first().expect("there are ten");
        first.up_new("home", &relay.url(), &names[0])?;
        let ticket = first.invite(&["--uses", "9"])?;
        thread::scope(|scope| {
            let joining: Vec<_> = others
                .iter()
                .map(|node| scope.spawn(|| node.try_join(&ticket, &["--name", node.name()])?.success()))
                .collect();
            joining.into_iter().try_for_each(|thread| thread.join().expect("no panic").map(drop))
        })?;
        for node in &nodes {
            node.wait_for_status("all ten members", Duration::from_secs(10), |status| {
                status.peer_names().len() == 9
            })?;
        }
        Mesh { relay, nodes, switch: public }.ping_all()
    });
}

#[test]
fn daemons_side_by_side_on_one_host() {
    scenario("daemons_side_by_side_on_one_host", |lab| {
        let public = lab.public(Underlay::V4)?;
        let relay = Relay::start(lab, &public.host("relay")?)?;
        let host = public.host("both")?;
        let far = Daemon::start(lab, &public.host("far")?, &DaemonOptions::default())?;
        far.up_new("home", &relay.url(), "far")?;
        let mut near = Vec::new();
        for number in 0..3 {
            let options =
                DaemonOptions { interface: Some(format!("mesh{number}")), ..DaemonOptions::default() };
            let daemon = Daemon::start(lab, &host, &options)?;
            near.push(daemon);
        }
        // Two networks with pools that do not meet, on one machine.
        near[0].join(&far.invite(&["--name", "near"])?)?;
        near[1]
            .ctl(&[
                "up",
                "--new",
                "work",
                "--relay",
                &relay.url(),
                "--name",
                "n1",
                "--ipv4-pool",
                "10.77.0.0/24",
            ])?
            .success()?;
        near[0].ping_address(&far.ipv4()?)?;
        assert!(near[1].ipv4()?.starts_with("10.77.0."));
        near[1].stop()?;
        near[0].ping_address(&far.ipv4()?)?;
        assert_eq!(near[2].status()?.state(), "unenrolled");
        Ok(())
    });
}
