//! Keys that are replaced under traffic: nothing is lost, nothing comes twice, nothing changes.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Daemon, KeyLog, SecretKind, scenario, session_with, udp_settings, wait_until};
use serde_json::Value;

use crate::keyed::{HANDSHAKE, Pair, REKEY};
use crate::udp::meet;

const PROBE: &str = env!("CARGO_BIN_EXE_mesh-lab-probe");
/// Keys that traffic has to outlive.
const REKEYS: usize = 7;

#[test]
fn nothing_is_lost_over_rekeys_through_the_relay() {
    scenario("nothing_is_lost_over_rekeys_through_the_relay", |lab| {
        traffic_outlives_its_keys(&Pair::new(lab, |_, _| Ok(String::new()))?, "relay")
    });
}

#[test]
fn nothing_is_lost_over_rekeys_over_udp() {
    scenario("nothing_is_lost_over_rekeys_over_udp", |lab| {
        let mut pair = Pair::new(lab, udp_settings)?;
        pair.mesh.relay.kill()?;
        traffic_outlives_its_keys(&pair, "direct")
    });
}

fn traffic_outlives_its_keys(pair: &Pair<'_>, path: &str) -> Result<()> {
    let [laptop, pi] = pair.mesh.nodes.as_slice() else { unreachable!("a pair is two") };
    meet(laptop, pi)?;
    laptop.wait_for_status("the path and the exporter in the keys", Duration::from_secs(20), |status| {
        status.peer("pi").is_ok_and(|peer| peer["path"] == path)
            && session_with(status, "pi").is_ok_and(|session| session["exporter_mixed"] == true)
    })?;
    pair.mesh.ping_all()?;
    let address = pi.ipv4()?;
    let mut datagrams = receiver(pi, "udp-receive", &["--limit-s", "180"], &format!("{address}:5001"))?;
    let mut stream = receiver(pi, "tcp-receive", &[], &format!("{address}:5000"))?;
    // The rate of the datagrams and the length of the stream are such that both last longer than the keys.
    let seconds = (REKEY * u32::try_from(REKEYS + 1)? + HANDSHAKE).as_secs();
    let count = (seconds * RATE).to_string();
    let rate = RATE.to_string();
    let to = format!("{address}:5001");
    let words = ["udp-send", "--to", &to, "--count", &count, "--size", "1200", "--rate", &rate];
    let mut sender = laptop.host().run(PROBE).args(words).spawn("udp-send")?;
    let count_of_pings = (seconds * 100).to_string();
    let words = ["-n", "-q", "-i", "0.01", "-W", "10", "-c", &count_of_pings, &address];
    let mut pings = laptop.host().run("ping").args(words).spawn("ping-flood")?;
    let to = format!("{address}:5000");
    let bytes = seconds * STREAM_RATE;
    let [length, rate] = [bytes, STREAM_RATE].map(|number| number.to_string());
    let words = ["tcp-send", "--to", &to, "--bytes", &length, "--rate", &rate];
    let mut upload = laptop.host().run(PROBE).args(words).spawn("tcp-send")?;

    let (rekeys, handshakes) = watch(pair, &mut || Ok(sender.is_running()? && upload.is_running()?))?;
    ensure!(rekeys >= REKEYS, "{rekeys} rekeys while the traffic ran");
    ensure!(handshakes >= 1, "no handshake while the traffic ran");
    let limit = Duration::from_secs(60);
    let sent = document(&sender.wait_ok(limit)?)?;
    upload.wait_ok(limit)?;
    let stream = document(&stream.wait_ok(limit)?)?;
    ensure!(stream["intact"] == true && stream["received"] == bytes, "{stream}");
    let log = pings.wait_ok(limit)?;
    ensure!(log.contains(", 0% packet loss") && !log.contains("duplicates"), "{log}");
    let received = document(&datagrams.wait_ok(limit)?)?;
    ensure!(
        sent["refused"] == 0 && received["intact"] == sent["sent"],
        "{sent} sent, {received} received; {}; {}",
        laptop.status()?.0["counters"],
        pi.status()?.0["counters"],
    );
    ensure!(received["doubled"] == 0 && received["corrupt"] == 0, "{received}");
    Ok(())
}

/// Counts rekeys and handshakes while something goes on.
fn watch(pair: &Pair<'_>, goes_on: &mut impl FnMut() -> Result<bool>) -> Result<(usize, usize)> {
    let laptop = &pair.mesh.nodes[0];
    let before = exchanges(&pair.logs[0]);
    let ages = || -> Result<[u64; 2]> {
        let status = laptop.status()?;
        let session = session_with(&status, "pi")?;
        ensure!(session["exporter_mixed"] == true, "packets went without the exporter: {session}");
        let age = |key: &str| session[key].as_u64().with_context(|| format!("no {key}: {session}"));
        Ok([age("key_age_s")?, age("handshake_age_s")?])
    };
    let (mut last, mut rekeys, mut handshakes) = (ages()?, 0, 0);
    wait_until("the end of the traffic", Duration::from_secs(180), || {
        let ages = ages()?;
        rekeys += usize::from(ages[0] < last[0]);
        handshakes += usize::from(ages[1] < last[1]);
        ensure!(ages[0] <= (REKEY * 3).as_secs(), "keys of {} s are in use", ages[0]);
        last = ages;
        Ok((!goes_on()?).then_some(()))
    })?;
    let made = exchanges(&pair.logs[0]).difference(&before).count();
    ensure!(made >= rekeys, "{rekeys} rekeys with {made} private keys");
    Ok((rekeys, handshakes))
}

/// The private keys that a node made, one for each rekey and handshake.
fn exchanges(log: &KeyLog) -> BTreeSet<Vec<u8>> {
    let records = log.records().into_iter().filter(|record| record.kind == SecretKind::Dh);
    records.map(|record| record.secret).collect()
}

fn receiver(on: &Daemon, command: &str, words: &[&str], bind: &str) -> Result<lab::Process> {
    let mut process =
        on.host().run(PROBE).args([command, "--bind", bind]).args(words.iter().copied()).spawn(command)?;
    process.wait_for_log("ready", Duration::from_secs(5))?;
    Ok(process)
}

fn document(log: &str) -> Result<Value> {
    Ok(serde_json::from_str(log.trim_end().lines().last().unwrap_or_default())?)
}

/// Datagrams per second, well below what a busy machine carries.
const RATE: u64 = 500;
/// Bytes per second of the stream.
const STREAM_RATE: u64 = 2_000_000;
