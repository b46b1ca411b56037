//! What the processors do during a transfer: a table of functions, and a flame graph.

mod flame;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::subject::Subject;
use super::traffic;
use crate::arena::wait_until;
use crate::programs::Relay;
use crate::{packages, say};

/// Runs a transfer beside `perf` and writes `functions.txt` and `flame.svg`.
pub(crate) fn run(subject: &Subject, relay: &Relay, dir: &Path) -> Result<()> {
    packages::ensure_installed(&[&[("perf", "linux-perf")]])?;
    fs::create_dir_all(dir)?;
    let data = dir.join("perf.data").display().to_string();
    let mut recorder = Command::new("perf")
        .args(["record", "-e", "cpu-clock", "-F", "997", "-a", "-g", "-o", &data, "--", "sleep", SECONDS])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run perf")?;
    let transfer = traffic::tcp(&subject.near, &subject.far, &subject.address, 6, 1, false);
    let ended = wait_until("perf to end", Duration::from_secs(30), || Ok(recorder.try_wait()?))?;
    let transfer = transfer?;
    ensure!(ended.success(), "perf failed ({ended})");
    let report = perf(&data, &["report", "--no-children", "-g", "none", "--sort", "comm,dso,sym"])?;
    fs::write(dir.join("functions.txt"), &report)?;
    let stacks = perf(&data, &["script", "-F", "comm,ip,sym"])?;
    fs::write(dir.join("flame.svg"), flame::Node::read(&stacks).svg())?;
    fs::remove_file(&data)?;
    say::heading(&format!("{}: {:.2} Gbit/s", subject.kind.name(), transfer.mbit_s / 1e3));
    let pids: Vec<String> = subject.pids().iter().chain([&relay.process.pid()]).map(u32::to_string).collect();
    say::line(&format!("processes {}", pids.join(", ")));
    for line in report.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).take(25) {
        say::line(line.trim_end());
    }
    say::line(&format!("all of it, and a flame graph, are in {}", dir.display()));
    Ok(())
}

/// Runs `perf` on what was recorded and returns what it prints.
fn perf(data: &str, words: &[&str]) -> Result<String> {
    let output = Command::new("perf").args(words).args(["-i", data]).stderr(Stdio::null()).output()?;
    ensure!(output.status.success(), "perf {} failed", words[0]);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Shorter than the transfer, so that nothing else is in it.
const SECONDS: &str = "4";
