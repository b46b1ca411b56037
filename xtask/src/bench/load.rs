//! What the programs cost while they have nothing to do.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use super::figures::Figures;
use crate::arena::{Arena, Host, wait_until};
use crate::programs::{Relay, ctl, overlay_addresses, start_daemon, status};

/// Measures a daemon that has sessions with ten peers and nothing to send.
pub(crate) fn idle_peers(arena: &mut Arena, relay: &Relay, figures: &mut Figures) -> Result<()> {
    let first = arena.host("idle0")?;
    let mut daemons = vec![start_daemon(&first, false)?];
    ctl(&first, &["up", "--new", "idle", "--relay", &relay.url, "--name", "idle0"], None)?;
    let ticket = ctl(&first, &["invite", "--uses", "10"], None)?;
    for number in 1..=10 {
        let host = arena.host(&format!("idle{number}"))?;
        daemons.push(start_daemon(&host, false)?);
        ctl(&host, &["up", "--ticket-file", "-", "--name", &host.name], Some(&ticket))?;
        let address = overlay_addresses(&host)?.0;
        first.run(&["ping", "-n", "-c", "1", "-W", "5", &address])?;
    }
    let peers = status(&first)?["peers"].as_array().map_or(0, Vec::len);
    anyhow::ensure!(peers == 10, "{peers} peers instead of 10");
    let pid = daemons[0].pid();
    let before = cpu_seconds(pid)?;
    // The measurement is what happens during this minute: nothing.
    thread::sleep(IDLE);
    let used = cpu_seconds(pid)? - before;
    figures.add("meshd RSS idle, 10 peers", "MiB", None, rss_mib(pid)?);
    figures.add("meshd CPU idle, 10 peers", "% of a core", None, 100.0 * used / IDLE.as_secs_f64());
    Ok(())
}

/// Measures a relay with a thousand authenticated clients that say nothing.
pub(crate) fn idle_clients(
    host: &Host,
    arena: &mut Arena,
    relay: &Relay,
    program: &Path,
    figures: &mut Figures,
) -> Result<()> {
    let pid = relay.process.pid();
    let before = rss_mib(pid)?;
    let clients = arena.host("clients")?;
    let words = [&program.display().to_string(), "--relay", &relay.url, "--count", "1000"];
    let mut process = clients.spawn("relay-clients", &words)?;
    wait_until("a thousand clients", Duration::from_secs(120), || {
        process.check_running()?;
        Ok(process.log().contains("ready").then_some(()))
    })?;
    let address = format!("{}:", host.address);
    let connections = clients.run(&["ss", "-H", "-nt", "state", "established"])?;
    let count = connections.lines().filter(|line| line.contains(&address)).count();
    anyhow::ensure!(count >= 1000, "{count} connections instead of 1000");
    figures.add("meshrelay RSS before them", "MiB", None, before);
    figures.add("meshrelay RSS, 1000 idle clients", "MiB", None, rss_mib(pid)?);
    Ok(())
}

/// Runs a program whose only output is one number.
pub(crate) fn printed_figure(program: &Path) -> Result<f64> {
    let output =
        Command::new(program).output().with_context(|| format!("cannot run {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().with_context(|| format!("{} printed no figure: {text}", program.display()))
}

/// Seconds of processor time that a process used so far, in itself and in the kernel.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = text.rsplit_once(')').context("no name in /proc/PID/stat")?;
    let ticks: f64 = fields.split_whitespace().skip(11).take(2).filter_map(|v| v.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS_PER_SECOND)
}

/// Processor time that a process used so far, also in threads that have ended, in milliseconds by the scheduler's clock.
///
/// Finer than [`cpu_seconds`], which counts hundredths of a second.
pub(crate) fn cpu_milliseconds(pid: u32) -> Result<f64> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid)?)).context("no clock of the process")?;
    Ok(Duration::from(clock.now()?).as_secs_f64() * 1e3)
}

/// Resident memory of a process in MiB.
pub(crate) fn rss_mib(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kib: f64 =
        line.split_whitespace().nth(1).and_then(|v| v.parse().ok()).context("VmRSS is no number")?;
    Ok(kib / 1024.0)
}

/// Long enough that one hundredth of a second of processor time is 0.02 %.
const IDLE: Duration = Duration::from_secs(60);

/// `USER_HZ` of the `/proc` interface, fixed at 100 on every Linux architecture that Debian ships.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_threads_count() {
        let pid = std::process::id();
        let before = cpu_milliseconds(pid).unwrap();
        let worked = thread::spawn(move || {
            let mut used = 0.0;
            while used < 20.0 {
                used = cpu_milliseconds(pid).unwrap() - before;
            }
            used
        });
        let worked = worked.join().unwrap();
        assert!(cpu_milliseconds(pid).unwrap() - before >= worked);
    }
}
