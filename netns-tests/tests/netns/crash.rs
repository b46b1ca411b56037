//! A daemon that ends: by order, and by force under traffic.

use std::path::Path;
use std::time::{Duration, Instant};

use lab::{Daemon, DaemonOptions, Mesh, MeshOptions, Relay, Underlay, scenario, wait_until};

#[test]
fn stop_restores_routes_and_devices() {
    scenario("stop_restores_routes_and_devices", |lab| {
        let public = lab.public(Underlay::Both)?;
        let relay = Relay::start(lab, &public.host("relay")?)?;
        for tap in [false, true] {
            let host = public.host(if tap { "tap" } else { "tun" })?;
            let before = host.network_state()?;
            let options = DaemonOptions { tap, ..DaemonOptions::default() };
            let mut daemon = Daemon::start(lab, &host, &options)?;
            assert_eq!(host.network_state()?, before, "a daemon that is not enrolled changes nothing");
            daemon.up_new("home", &relay.url(), "laptop")?;
            assert_ne!(host.network_state()?, before);
            daemon.ctl(&["down"])?.success()?;
            assert_eq!(host.network_state()?, before, "down restores everything");
            daemon.ctl(&["up"])?.success()?;
            assert_ne!(host.network_state()?, before);
            daemon.stop()?;
            assert_eq!(host.network_state()?, before, "the end of the daemon restores everything");
            assert!(!Path::new(&daemon.socket()).exists(), "the socket is left behind");
        }
        Ok(())
    });
}

#[test]
fn killed_daemon_comes_back() {
    scenario("killed_daemon_comes_back", |lab| {
        let mut mesh = Mesh::new(lab, &["laptop", "pi"], &MeshOptions::default())?;
        mesh.ping_all()?;
        let (laptop_host, address) = (mesh.nodes[0].host().clone(), mesh.nodes[1].ipv4()?);
        let pi_host = mesh.nodes[1].host().clone();
        let mut traffic =
            laptop_host.run("ping").args(["-n", "-O", "-i", "0.02", "-W", "1", &address]).spawn("ping")?;
        traffic.wait_for_log("bytes from", Duration::from_secs(5))?;
        let running = pi_host.network_state()?;
        let pi = &mut mesh.nodes[1];
        pi.kill()?;
        wait_until("the interface to go", Duration::from_secs(3), || {
            Ok((!pi_host.has_interface("mesh0")?).then_some(()))
        })?;
        let left = pi_host.network_state()?.to_string();
        assert!(!left.contains("mesh0") && !left.contains(&address), "left behind: {left}");

        let start = Instant::now();
        pi.launch()?;
        let log_start = traffic.log()?.len();
        wait_until("a ping after the restart", Duration::from_secs(15), || {
            Ok(traffic.log()?.get(log_start..).is_some_and(|log| log.contains("bytes from")).then_some(()))
        })?;
        let outage = start.elapsed();
        assert!(outage < Duration::from_secs(3), "traffic came back after {outage:?}");
        assert_eq!(pi_host.network_state()?, running, "the same interface, addresses and routes as before");
        mesh.ping_all()
    });
}

#[test]
fn killed_coordinator_still_admits() {
    scenario("killed_coordinator_still_admits", |lab| {
        let mut mesh = Mesh::new(lab, &["laptop", "pi"], &MeshOptions::default())?;
        let ticket = mesh.nodes[0].invite(&["--name", "late"])?;
        mesh.nodes[0].kill()?;
        mesh.nodes[0].launch()?;
        let late = mesh.stranger(lab, "late")?;
        late.join(&ticket)?;
        mesh.nodes.push(late);
        mesh.ping_all()
    });
}
