//! A `meshd` under test, and the `meshctl` that asks it.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::binary;
use super::status::Status;
use crate::host::{Host, Output, Run};
use crate::namespace::Lab;
use crate::process::Process;
use crate::traffic::every_answer;
use crate::wait::wait_until;

/// What differs from the plain daemon.
#[derive(Debug, Clone, Default)]
pub struct DaemonOptions {
    /// Carry Ethernet frames in a network made here; a node that joins does what its network does.
    pub tap: bool,
    /// Look for paths without the relay.
    pub direct: bool,
    /// Look for neighbours on local networks, too.
    pub lan: bool,
    /// The name of the interface; `mesh0` unless told.
    pub interface: Option<String>,
    /// Further lines of TOML at the top level.
    pub extra: String,
    /// Words in front of the program, for other users and hidden files; a line of shell that ends in `exec "$@"`.
    pub wrapper: Option<String>,
    /// Another path of the binary.
    pub program: Option<PathBuf>,
    /// Further words on its command line.
    pub arguments: Vec<String>,
    /// Where the state is kept; a directory of the laboratory unless told.
    pub state_dir: Option<PathBuf>,
}

/// A daemon, running or stopped, with its configuration and state.
#[derive(Debug)]
pub struct Daemon {
    host: Host,
    options: DaemonOptions,
    dir: PathBuf,
    log_name: String,
    process: Option<Process>,
}

impl Daemon {
    /// Starts a daemon and waits until its socket answers.
    ///
    /// # Errors
    /// It did not come up.
    pub fn start(lab: &Lab, host: &Host, options: &DaemonOptions) -> Result<Self> {
        let mut daemon = Self::prepare(lab, host, options)?;
        daemon.launch()?;
        Ok(daemon)
    }

    /// Writes the configuration of a daemon without starting it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn prepare(lab: &Lab, host: &Host, options: &DaemonOptions) -> Result<Self> {
        let serial = lab.serial();
        let dir = lab.path(&format!("{serial}/x"))?.with_file_name("");
        let daemon = Self {
            host: host.clone(),
            options: options.clone(),
            dir,
            log_name: format!("meshd-{serial}"),
            process: None,
        };
        let mut config = String::new();
        if options.tap {
            writeln!(config, "mode = \"tap\"")?;
        }
        writeln!(config, "interface = \"{}\"", daemon.interface())?;
        writeln!(
            config,
            "state_dir = \"{}\"\nsocket = \"{}\"",
            daemon.state_dir().display(),
            daemon.socket()
        )?;
        writeln!(config, "group = \"root\"")?;
        if !options.direct {
            writeln!(config, "direct = false")?;
        }
        if !options.lan {
            // Most scenarios count what nodes send.
            writeln!(config, "mdns = false")?;
        }
        config.push_str(&options.extra);
        fs::write(daemon.config_path(), config)?;
        Ok(daemon)
    }

    /// Starts the program and waits until its socket answers.
    ///
    /// # Errors
    /// It did not come up.
    pub fn launch(&mut self) -> Result<()> {
        let mut process = self.command()?.spawn(&self.log_name)?;
        wait_until("the daemon's socket to answer", Duration::from_secs(10), || {
            anyhow::ensure!(process.is_running()?, "meshd ended: {}", process.log()?.trim_end());
            Ok((self.ctl(&["version"])?.code == Some(0)).then_some(()))
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Runs the program in the foreground, for starts that fail.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn attempt(&self) -> Result<Output> {
        self.command()?.limit(Duration::from_secs(10)).output()
    }

    /// Asks the daemon to end and waits for it.
    ///
    /// # Errors
    /// It did not end with success.
    pub fn stop(&mut self) -> Result<()> {
        self.process.take().context("the daemon does not run")?.terminate(Duration::from_secs(10))
    }

    /// Kills the daemon.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("the daemon does not run")?.kill()
    }

    /// The running program.
    ///
    /// # Errors
    /// It does not run.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the daemon does not run")
    }

    /// Runs `meshctl` with words and waits for its end, whatever its exit code.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn ctl(&self, words: &[&str]) -> Result<Output> {
        self.meshctl(words)?.output()
    }

    /// Prepares `meshctl` with words.
    ///
    /// # Errors
    /// It has not been built.
    pub fn meshctl(&self, words: &[&str]) -> Result<Run<'_>> {
        let program = binary("meshctl")?;
        let socket = self.socket();
        Ok(self
            .host
            .run(&program.display().to_string())
            .args(["--socket", &socket])
            .args(words.iter().copied()))
    }

    /// Runs `meshctl --json` with words and returns its document.
    ///
    /// # Errors
    /// It failed or printed something else than JSON.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let output = self.ctl(&[&["--json"], words].concat())?.success()?;
        serde_json::from_str(&output.stdout).with_context(|| format!("no JSON: {}", output.stdout))
    }

    /// What `meshctl status --json` says.
    ///
    /// # Errors
    /// It failed.
    pub fn status(&self) -> Result<Status> {
        let output = self.ctl(&["--json", "status"])?;
        if !matches!(output.code, Some(0 | 4 | 8)) {
            bail!("{} failed: {} {}", output.line, output.stdout, output.stderr);
        }
        serde_json::from_str(&output.stdout)
            .map(Status)
            .with_context(|| format!("no JSON from status: {} {}", output.stdout, output.stderr))
    }

    /// Waits until the status fulfils a condition.
    ///
    /// # Errors
    /// It did not in time; the message holds the last status.
    pub fn wait_for_status(
        &self,
        what: &str,
        limit: Duration,
        condition: impl Fn(&Status) -> bool,
    ) -> Result<Status> {
        let mut last = String::new();
        let found = wait_until(&format!("{what} on {}", self.name()), limit, || {
            let status = self.status()?;
            if condition(&status) {
                return Ok(Some(status));
            }
            last = status.0.to_string();
            Ok(None)
        });
        found.with_context(|| format!("last status: {last}"))
    }

    /// `meshctl up --new`: makes a network with this node as coordinator.
    ///
    /// # Errors
    /// It failed.
    pub fn up_new(&self, network: &str, relay: &str, name: &str) -> Result<()> {
        self.ctl(&["up", "--new", network, "--relay", relay, "--name", name])?.success().map(drop)
    }

    /// `meshctl invite`: returns the ticket.
    ///
    /// # Errors
    /// It failed.
    pub fn invite(&self, words: &[&str]) -> Result<String> {
        let output = self.ctl(&[&["invite"], words].concat())?.success()?;
        Ok(output.stdout.trim().to_owned())
    }

    /// `meshctl up --ticket-file -` with the ticket on the standard input.
    ///
    /// # Errors
    /// It failed.
    pub fn join(&self, ticket: &str) -> Result<()> {
        self.try_join(ticket, &[])?.success().map(drop)
    }

    /// The same, whatever the exit code, with further words.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn try_join(&self, ticket: &str, words: &[&str]) -> Result<Output> {
        self.meshctl(&["up", "--ticket-file", "-"])?
            .args(words.iter().copied())
            .input(&format!("{ticket}\n"))
            .output()
    }

    /// Pings an overlay address from this host; every answer must come.
    ///
    /// # Errors
    /// An answer is missing.
    pub fn ping_address(&self, address: &str) -> Result<()> {
        every_answer(&self.host, &[], (3, "0.05"), address)
    }

    /// The first overlay IPv4 address.
    ///
    /// # Errors
    /// There is none.
    pub fn ipv4(&self) -> Result<String> {
        self.status()?.ipv4()
    }

    /// The first overlay IPv6 address.
    ///
    /// # Errors
    /// There is none.
    pub fn ipv6(&self) -> Result<String> {
        self.status()?.ipv6()
    }

    /// The host that it runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The name of its host, which is its name in the network unless a test chose another.
    pub fn name(&self) -> &str {
        self.host.name()
    }

    /// The interface of the overlay.
    pub fn interface(&self) -> &str {
        self.options.interface.as_deref().unwrap_or("mesh0")
    }

    /// The control socket.
    pub fn socket(&self) -> String {
        self.dir.join("s").display().to_string()
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.dir.join("meshd.toml")
    }

    /// The state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.options.state_dir.clone().unwrap_or_else(|| self.dir.join("state"))
    }

    /// The directory of configuration, state and socket.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How many UDP sockets are open in its host.
    ///
    /// # Errors
    /// `ss` failed.
    pub fn udp_sockets(&self) -> Result<usize> {
        Ok(self.host.run("ss").args(["-uanH"]).ok()?.stdout.lines().count())
    }

    fn command(&self) -> Result<Run<'_>> {
        let program = match &self.options.program {
            Some(program) => program.clone(),
            None => binary("meshd")?,
        };
        let program = program.display().to_string();
        let config = self.config_path().display().to_string();
        let run = match &self.options.wrapper {
            None => self.host.run(&program).args(["--config", &config]),
            Some(line) => {
                self.host.run("bash").args(["-euc", line, "wrapper", &program, "--config", &config])
            }
        };
        Ok(run.args(self.options.arguments.iter().cloned()))
    }
}
