//! A relay that is not there at `up`, or is not the one that the pin names.

use std::time::Duration;

use lab::{Daemon, DaemonOptions, Mesh, MeshOptions, Relay, Underlay, scenario};

#[test]
fn relay_down_at_up_is_said_and_awaited() {
    scenario("relay_down_at_up_is_said_and_awaited", |lab| {
        let mut mesh = Mesh::new(lab, &["laptop", "pi"], &MeshOptions::default())?;
        mesh.ping_all()?;
        for node in &mesh.nodes {
            node.ctl(&["down"])?.success()?;
        }
        mesh.relay.stop()?;
        let laptop = &mesh.nodes[0];
        let output = laptop.ctl(&["up", "--timeout", "2"])?;
        assert!(matches!(output.code, Some(7 | 8)), "{:?} {} {}", output.code, output.stdout, output.stderr);
        let relay = mesh.relay.host().address().to_string();
        assert!(output.stderr.contains(&relay), "does not name the relay: {}", output.stderr);
        let status = laptop.status()?;
        assert!(status.reason().contains(&relay), "does not say what it waits for: {}", status.0);
        mesh.nodes[1].ctl(&["up", "--no-wait"])?;

        mesh.relay.launch()?;
        for node in &mesh.nodes {
            node.wait_for_status("the relay connection", Duration::from_secs(35), |status| {
                status.relay_state() == "connected"
            })?;
        }
        mesh.ping_all()
    });
}

#[test]
fn join_without_a_relay_changes_nothing() {
    scenario("join_without_a_relay_changes_nothing", |lab| {
        let mut mesh = Mesh::new(lab, &["laptop"], &MeshOptions::default())?;
        let ticket = mesh.nodes[0].invite(&[])?;
        mesh.relay.stop()?;
        let pi = mesh.stranger(lab, "pi")?;
        let output = pi.try_join(&ticket, &["--timeout", "3"])?;
        assert!(matches!(output.code, Some(1 | 7)), "{:?} {} {}", output.code, output.stdout, output.stderr);
        assert!(output.stderr.contains(&mesh.relay.host().address().to_string()), "{}", output.stderr);
        // The relay appears, and the same ticket is as good as before.
        mesh.relay.launch()?;
        pi.join(&ticket)?;
        mesh.nodes.push(pi);
        mesh.ping_all()
    });
}

#[test]
fn wrong_pin_is_refused() {
    scenario("wrong_pin_is_refused", |lab| {
        let public = lab.public(Underlay::V4)?;
        let relay = Relay::start(lab, &public.host("relay")?)?;
        let daemon = Daemon::start(lab, &public.host("laptop")?, &DaemonOptions::default())?;
        let wrong = relay.url_with_pin(&"a".repeat(52));
        let output = daemon.ctl(&["up", "--new", "home", "--relay", &wrong, "--timeout", "5"])?;
        assert_ne!(output.code, Some(0), "{}", output.stdout);
        let text = output.stderr.to_lowercase();
        assert!(text.contains("pin") || text.contains("certificate"), "does not say why: {text}");
        let daemon = Daemon::start(lab, &public.host("other")?, &DaemonOptions::default())?;
        for word in ["wss://203.0.113.1:8443", "ws://203.0.113.1#x", "wss://203.0.113.1:8443#short"] {
            daemon.ctl(&["up", "--new", "home", "--relay", word])?.exits(2)?;
        }
        assert_eq!(daemon.status()?.state(), "unenrolled");
        Ok(())
    });
}
