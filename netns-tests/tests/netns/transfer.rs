//! Large transfers in both directions, every byte compared.

use std::time::Duration;

use anyhow::Result;
use lab::{Daemon, Mesh, MeshOptions, scenario};
use serde_json::Value;

const PROBE: &str = env!("CARGO_BIN_EXE_mesh-lab-probe");

#[test]
fn half_a_gigabyte_over_tcp_both_ways() {
    scenario("half_a_gigabyte_over_tcp_both_ways", |lab| {
        let mesh = Mesh::new(lab, &["laptop", "pi"], &MeshOptions::default())?;
        let [laptop, pi] = mesh.nodes.as_slice() else { unreachable!("two names were given") };
        stream(laptop, pi, &pi.ipv4()?, BYTES)?;
        stream(pi, laptop, &format!("[{}]", laptop.ipv6()?), BYTES)
    });
}

/// Sends so many bytes over TCP, all of which have to arrive as they were.
pub(crate) fn stream(from: &Daemon, to: &Daemon, address: &str, bytes: u64) -> Result<()> {
    let target = format!("{address}:5000");
    let mut receiver = to.host().run(PROBE).args(["tcp-receive", "--bind", &target]).spawn("tcp-receive")?;
    let log_start = receiver.log()?.rfind('}').map_or(0, |end| end + 1);
    lab::wait_until("the receiver", Duration::from_secs(5), || {
        Ok(receiver.log()?[log_start..].contains("ready").then_some(()))
    })?;
    from.host()
        .run(PROBE)
        .args(["tcp-send", "--to", &target, "--bytes", &bytes.to_string()])
        .limit(Duration::from_secs(180))
        .ok()?;
    let log = receiver.wait_ok(Duration::from_secs(10))?;
    let report = last_document(&log)?;
    assert_eq!(report["received"], bytes, "{report}");
    assert_eq!(report["intact"], true, "{report}");
    Ok(())
}

#[test]
fn datagrams_arrive_intact_both_ways() {
    scenario("datagrams_arrive_intact_both_ways", |lab| {
        let mesh = Mesh::new(lab, &["laptop", "pi"], &MeshOptions::default())?;
        mesh.ping_all()?;
        let [laptop, pi] = mesh.nodes.as_slice() else { unreachable!("two names were given") };
        // As fast as the sender can: loss is allowed, a wrong byte is not.
        for (from, to) in [(laptop, pi), (pi, laptop)] {
            let report = blast(from, to, &["--count", "100000", "--size", "1372"])?;
            assert_eq!(report["corrupt"], 0, "{report}");
            assert_eq!(report["doubled"], 0, "{report}");
            assert!(report["intact"].as_u64() > Some(1000), "{report}");
        }
        // At a rate that any link carries, and with fragments. The receiver's own socket holds a dozen large
        // datagrams, which is what one in a hundred stands for on a busy machine.
        for size in ["64", "1372", "8000"] {
            let report = blast(laptop, pi, &["--count", "1000", "--size", size, "--rate", "250"])?;
            assert!(report["intact"].as_u64() >= Some(990), "{size} bytes: {report}");
            assert_eq!(report["corrupt"], 0, "{report}");
        }
        Ok(())
    });
}

/// Sends datagrams and returns the receiver's report.
pub(crate) fn blast(from: &Daemon, to: &Daemon, words: &[&str]) -> Result<Value> {
    let target = format!("{}:5001", to.ipv4()?);
    let mut receiver = to.host().run(PROBE).args(["udp-receive", "--bind", &target]).spawn("udp-receive")?;
    lab::wait_until("the receiver", Duration::from_secs(5), || {
        let ports = to.host().open_ports()?;
        Ok(ports.iter().any(|line| line.contains(&target)).then_some(()))
    })?;
    from.host().run(PROBE).args(["udp-send", "--to", &target]).args(words.iter().copied()).ok()?;
    last_document(&receiver.wait_ok(Duration::from_secs(70))?)
}

fn last_document(log: &str) -> Result<Value> {
    Ok(serde_json::from_str(log.trim_end().lines().last().unwrap_or_default())?)
}

const BYTES: u64 = 500_000_000;
