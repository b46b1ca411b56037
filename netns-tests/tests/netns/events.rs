//! Whoever listens hears how peers come and go, and which session and path there is to them.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::{Daemon, Mesh, MeshOptions, Process, scenario, wait_until};
use serde_json::Value;

#[test]
fn listener_hears_of_a_peer_that_comes_speaks_and_goes() {
    scenario("listener_hears_of_a_peer_that_comes_speaks_and_goes", |lab| {
        let mut mesh = Mesh::new(lab, &["anna", "bert"], &MeshOptions::default())?;
        mesh.nodes[1].stop()?;
        let mut listener = listen(&mesh.nodes[0])?;
        mesh.nodes[1].launch()?;
        hears(&listener, "bert at the relay", |peer| peer["online"] == true)?;
        mesh.nodes[1].ping_address(&mesh.nodes[0].ipv4()?)?;
        hears(&listener, "a session with bert", |peer| {
            peer["state"] == "established" && peer["path"] == "relay" && peer["session"].is_object()
        })?;
        let before = peers(&listener)?.len();
        mesh.nodes[1].ping_address(&mesh.nodes[0].ipv4()?)?;
        mesh.nodes[1].stop()?;
        hears(&listener, "bert's end", |peer| peer["online"] == false)?;
        let after = peers(&listener)?.len();
        ensure!(after <= before + 6, "{} events for one peer that goes", after - before);
        ensure!(listener.is_running()?, "{}", listener.log()?);
        Ok(())
    });
}

fn listen(node: &Daemon) -> Result<Process> {
    let words = ["-sN", "--unix-socket", &node.socket(), "http://meshd/v1/events"];
    let mut listener = node.host().run("curl").args(words).spawn("events")?;
    listener.wait_for_log("listening", LIMIT)?;
    Ok(listener)
}

/// The status in each `peer` event so far.
fn peers(listener: &Process) -> Result<Vec<Value>> {
    let log = listener.log()?;
    let events =
        log.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data:")?).ok());
    Ok(events.filter(|event| event["kind"] == "peer").map(|event| event["peer"].clone()).collect())
}

fn hears(listener: &Process, what: &str, fits: impl Fn(&Value) -> bool) -> Result<()> {
    wait_until(&format!("an event with {what}"), LIMIT, || {
        let heard = peers(listener)?;
        Ok(heard.iter().any(|peer| peer["name"] == "bert" && fits(peer)).then_some(()))
    })
}

const LIMIT: Duration = Duration::from_secs(20);
