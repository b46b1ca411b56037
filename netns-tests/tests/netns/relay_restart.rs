//! A relay that goes away under traffic and comes back.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use lab::{Lab, Mesh, MeshOptions, Relay, scenario, session_with, wait_until};

#[test]
fn restart_keeps_the_sessions() {
    scenario("restart_keeps_the_sessions", |lab| restart(lab, Relay::stop, Duration::ZERO));
}

#[test]
fn kill_keeps_the_sessions() {
    scenario("kill_keeps_the_sessions", |lab| restart(lab, Relay::kill, Duration::ZERO));
}

#[test]
fn long_absence_is_over_soon_after_the_relay_is_back() {
    scenario("long_absence_is_over_soon_after_the_relay_is_back", |lab| {
        restart(lab, Relay::stop, Duration::from_secs(12))
    });
}

/// Ends the relay by `end` under traffic, starts it again when it has been away for at least `absence`, and wants data
/// to flow within three seconds after that, in the same session.
fn restart(lab: &Lab, end: fn(&mut Relay) -> Result<()>, absence: Duration) -> Result<()> {
    let mut mesh = Mesh::new(lab, &["laptop", "pi"], &MeshOptions::default())?;
    mesh.ping_all()?;
    let address = mesh.nodes[1].ipv4()?;
    // Older than what a new handshake during the restart could be taken for.
    let age_before = wait_until("a session of some age", Duration::from_secs(20), || {
        let age = handshake_age(&mesh)?;
        Ok((age >= AGE_S).then_some(age))
    })?;
    let before = now()?;
    let mut traffic = mesh.nodes[0]
        .host()
        .run("ping")
        .args(["-n", "-D", "-O", "-i", "0.02", "-W", "1", &address])
        .spawn("ping")?;
    traffic.wait_for_log("bytes from", Duration::from_secs(5))?;
    end(&mut mesh.relay)?;
    let gone = Instant::now();
    mesh.nodes[0].wait_for_status("the loss of the relay", Duration::from_secs(10), |status| {
        status.relay_state() != "connected"
    })?;
    wait_until("the end of the absence", absence + Duration::from_secs(1), || {
        Ok((gone.elapsed() >= absence).then_some(()))
    })?;
    mesh.relay.launch()?;
    let back = now()?;
    let log_start = traffic.log()?.len();
    let first = wait_until("a ping after the relay is back", Duration::from_secs(20), || {
        Ok(traffic.log()?.get(log_start..).and_then(|log| log.lines().find_map(reply_time)))
    })?;
    let outage = first - back;
    assert!(outage < 3.0, "traffic came back {outage:.2} s after the relay");
    // The age goes on counting, in whole seconds, from the handshake before the restart.
    let elapsed = now()? - before;
    let age_after = handshake_age(&mesh)?;
    assert!(
        age_after + 1.0 >= age_before + elapsed,
        "a new handshake: age {age_before} s before, {age_after} s after {elapsed:.1} s"
    );
    mesh.ping_all()
}

fn handshake_age(mesh: &Mesh<'_>) -> Result<f64> {
    let status = mesh.nodes[0].status()?;
    session_with(&status, "pi")?["handshake_age_s"].as_f64().context("no handshake age")
}

/// The time of a reply in the output of `ping -D`.
fn reply_time(line: &str) -> Option<f64> {
    let (time, rest) = line.strip_prefix('[')?.split_once(']')?;
    rest.contains("bytes from").then(|| time.parse().ok())?
}

fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

/// Well above the outage that a restart may cause.
const AGE_S: f64 = 6.0;
