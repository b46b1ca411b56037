//! A program in the background.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::wait_until;

/// A program in the background; dropping the value kills it.
#[derive(Debug)]
pub struct Process {
    line: String,
    child: Child,
    log_path: PathBuf,
}

impl Process {
    pub(crate) fn new(line: String, child: Child, log_path: PathBuf) -> Self {
        Self { line, child, log_path }
    }

    /// The process id. `ip netns exec` replaces itself, so it is the id of the program.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    pub fn log_path(&self) -> &Path {
        &self.log_path
    }

    /// What it printed so far.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn log(&self) -> Result<String> {
        let bytes =
            fs::read(&self.log_path).with_context(|| format!("cannot read the log of {}", self.line))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits until the log contains `text`, and returns the log; fails early when the program ends without it.
    ///
    /// # Errors
    /// The text did not appear in time, or the program ended.
    pub fn wait_for_log(&mut self, text: &str, limit: Duration) -> Result<String> {
        let line = self.line.clone();
        wait_until(&format!("\"{text}\" in the log of {line}"), limit, || {
            let ended = self.child.try_wait()?;
            let log = self.log()?;
            if log.contains(text) {
                return Ok(Some(log));
            }
            if let Some(status) = ended {
                bail!("{line} ended ({status}) before it printed \"{text}\": {}", log.trim_end());
            }
            Ok(None)
        })
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// The state of the process cannot be read.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).context("process ids fit in 31 bits")?);
        kill(pid, signal).with_context(|| format!("cannot send {signal} to {}", self.line))
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It did not within the limit.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let line = self.line.clone();
        wait_until(&format!("the end of {line}"), limit, || Ok(self.child.try_wait()?))
    }

    /// Waits until it ends, and fails unless it succeeded.
    ///
    /// # Errors
    /// It did not end in time, or failed; the message holds its output.
    pub fn wait_ok(&mut self, limit: Duration) -> Result<String> {
        let status = self.wait(limit)?;
        let log = self.log()?;
        if !status.success() {
            bail!("{} failed ({status}): {}", self.line, log.trim_end());
        }
        Ok(log)
    }

    /// Kills it (`SIGKILL`) and waits for its end.
    ///
    /// # Errors
    /// The process cannot be killed or awaited.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end (`SIGTERM`) and fails unless it does so with exit code 0.
    ///
    /// # Errors
    /// It did not end in time, or not with success.
    pub fn terminate(&mut self, limit: Duration) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        let status = self.wait(limit)?;
        if !status.success() {
            bail!("{} ended with {status} after SIGTERM: {}", self.line, self.log()?.trim_end());
        }
        Ok(())
    }

    /// Seconds of processor time used so far, in the program and in the kernel for it.
    ///
    /// # Errors
    /// `/proc` does not show the process.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let (_, fields) = text.rsplit_once(')').context("no name in /proc/PID/stat")?;
        let ticks: f64 =
            fields.split_whitespace().skip(11).take(2).filter_map(|v| v.parse::<f64>().ok()).sum();
        Ok(ticks / TICKS_PER_SECOND)
    }

    /// Resident memory in KiB.
    ///
    /// # Errors
    /// `/proc` does not show the process.
    pub fn rss_kib(&self) -> Result<u64> {
        self.memory_kib("VmRSS:")
    }

    /// The most resident memory that it ever had, in KiB.
    ///
    /// # Errors
    /// `/proc` does not show the process.
    pub fn peak_rss_kib(&self) -> Result<u64> {
        self.memory_kib("VmHWM:")
    }

    /// Locked memory in KiB, used or not.
    ///
    /// # Errors
    /// `/proc` does not show the process.
    pub fn locked_kib(&self) -> Result<u64> {
        self.memory_kib("VmLck:")
    }

    fn memory_kib(&self, key: &str) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = text.lines().find(|line| line.starts_with(key)).with_context(|| format!("no {key}"))?;
        let figure = line.split_whitespace().nth(1).and_then(|v| v.parse().ok());
        figure.with_context(|| format!("{key} is no number"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended in the meantime is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `USER_HZ` of the `/proc` interface, fixed at 100 on every Linux architecture that Debian ships.
const TICKS_PER_SECOND: f64 = 100.0;
