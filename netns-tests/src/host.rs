//! One namespace: commands, addresses, links, firewall.

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use crate::namespace::ip;
use crate::process::Process;
use crate::wait::wait_until;

/// A host of the laboratory. Cheap to clone; the laboratory owns the namespace.
#[derive(Debug, Clone)]
pub struct Host {
    name: String,
    namespace: String,
    logs_dir: PathBuf,
    underlay: Option<IpAddr>,
}

impl Host {
    pub(crate) fn new(name: &str, namespace: String, logs_dir: &Path) -> Self {
        Self { name: name.into(), namespace, logs_dir: logs_dir.into(), underlay: None }
    }

    pub(crate) fn set_underlay(&mut self, address: IpAddr) {
        self.underlay = Some(address);
    }

    /// The name within the laboratory.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name that `ip netns` knows.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The address on the public network.
    ///
    /// # Panics
    /// The host is not plugged into the public network.
    pub fn address(&self) -> IpAddr {
        self.underlay.expect("hosts of a switch have an address")
    }

    /// Prepares a command in this namespace; nothing runs yet.
    pub fn run(&self, program: &str) -> Run<'_> {
        Run { host: self, words: vec![program.into()], input: None, limit: Duration::from_secs(60) }
    }

    /// Runs a line of shell in this namespace.
    pub fn shell(&self, line: &str) -> Run<'_> {
        self.run("bash").args(["-c", &format!("set -eu -o pipefail; {line}")])
    }

    /// Adds an address to an interface, usable at once.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn add_address(&self, interface: &str, address: IpAddr, prefix: u8) -> Result<()> {
        let address = format!("{address}/{prefix}");
        let mut words = vec!["-n", &self.namespace, "addr", "add", &address, "dev", interface];
        if address.contains(':') {
            words.push("nodad");
        }
        ip(&words)
    }

    /// Calls `body` on a thread that lives in this namespace: the sockets it makes belong here.
    ///
    /// # Errors
    /// The namespace cannot be entered, or `body` failed.
    ///
    /// # Panics
    /// When `body` does.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let file = File::open(format!("/run/netns/{}", self.namespace)).context("no such namespace")?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&file, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
                body()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Loads rules for `nft` in this namespace.
    ///
    /// # Errors
    /// `nft` refused them.
    pub fn nft(&self, rules: &str) -> Result<()> {
        self.run("nft").args(["-f", "-"]).input(rules).ok().map(drop)
    }

    /// Links, addresses and routes, without what changes by itself (statistics, lifetimes).
    ///
    /// # Errors
    /// `ip` failed or printed something else than JSON.
    pub fn network_state(&self) -> Result<Value> {
        // An address whose duplicates are still looked for changes by itself, and gets a route then (RFC 4862, section 5.4).
        wait_until("addresses that are tentative no longer", Duration::from_secs(10), || {
            let tentative = self.run("ip").args(["-6", "addr", "show", "tentative"]).ok()?.stdout;
            Ok(tentative.trim().is_empty().then_some(()))
        })?;
        let mut state = serde_json::Map::new();
        for (key, words) in [
            ("addresses", vec!["-j", "addr"]),
            ("routes4", vec!["-j", "route", "show", "table", "all"]),
            ("routes6", vec!["-j", "-6", "route", "show", "table", "all"]),
            ("rules4", vec!["-j", "rule"]),
            ("rules6", vec!["-j", "-6", "rule"]),
        ] {
            let text = self.run("ip").args(words).ok()?.stdout;
            let text = if text.trim().is_empty() { "[]" } else { text.trim() };
            let mut value: Value = serde_json::from_str(text).context("ip printed no JSON")?;
            forget_what_changes(&mut value);
            state.insert(key.into(), value);
        }
        Ok(state.into())
    }

    /// What `ss` shows in this namespace: one line per listening or bound TCP and UDP socket.
    ///
    /// # Errors
    /// `ss` failed.
    pub fn open_ports(&self) -> Result<Vec<String>> {
        let output = self.run("ss").args(["-H", "-lntu"]).ok()?;
        Ok(output.stdout.lines().map(str::to_owned).collect())
    }

    /// Whether an interface exists.
    ///
    /// # Errors
    /// `ip` could not be run.
    pub fn has_interface(&self, name: &str) -> Result<bool> {
        Ok(self.run("ip").args(["link", "show", "dev", name]).output()?.code == Some(0))
    }
}

/// A command to run in a namespace.
#[derive(Debug)]
pub struct Run<'host> {
    host: &'host Host,
    words: Vec<String>,
    input: Option<String>,
    limit: Duration,
}

impl Run<'_> {
    /// Adds arguments.
    #[must_use]
    pub fn args<I>(mut self, arguments: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.words.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Gives text on the standard input.
    #[must_use]
    pub fn input(mut self, text: &str) -> Self {
        self.input = Some(text.into());
        self
    }

    /// Ends the command after this time with exit code 124; a minute unless told.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs the command and returns what it printed, whatever its exit code.
    ///
    /// # Errors
    /// The command could not be started.
    pub fn output(self) -> Result<Output> {
        let line = self.words.join(" ");
        let limit = format!("{}", self.limit.as_secs_f64());
        let mut command = Command::new("timeout");
        command.args(["--kill-after=2", &limit, "ip", "netns", "exec", self.host.namespace()]);
        command.args(&self.words).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().with_context(|| format!("cannot run {line}"))?;
        if let Some(text) = &self.input {
            let mut stdin = child.stdin.take().expect("the standard input is piped");
            // A program that ends without reading its input tells more by its exit code than by this error.
            let _ = stdin.write_all(text.as_bytes());
        }
        let output = child.wait_with_output().with_context(|| format!("cannot wait for {line}"))?;
        Ok(Output {
            line: format!("{}$ {line}", self.host.name()),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs the command and fails unless its exit code is 0.
    ///
    /// # Errors
    /// The command could not be started or failed.
    pub fn ok(self) -> Result<Output> {
        self.output()?.success()
    }

    /// Starts the command in the background, with its output in the log `name`.
    ///
    /// # Errors
    /// The command could not be started.
    pub fn spawn(self, name: &str) -> Result<Process> {
        let log_path = self.host.logs_dir.join(format!("{}-{name}.log", self.host.name()));
        let log = File::options().create(true).append(true).open(&log_path)?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.host.namespace()]).args(&self.words);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let line = self.words.join(" ");
        let child = command.spawn().with_context(|| format!("cannot start {line}"))?;
        Ok(Process::new(format!("{}$ {line}", self.host.name()), child, log_path))
    }
}

/// What a command printed, and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command, for messages.
    pub line: String,
    /// The exit code; nothing when a signal ended it.
    pub code: Option<i32>,
    /// The standard output.
    pub stdout: String,
    /// The standard error.
    pub stderr: String,
}

impl Output {
    /// Passes the output on if the exit code is 0.
    ///
    /// # Errors
    /// It is not; the message holds the command and what it printed.
    pub fn success(self) -> Result<Self> {
        self.exits(0)
    }

    /// Passes the output on if the exit code is `code`.
    ///
    /// # Errors
    /// It is not; the message holds the command and what it printed.
    pub fn exits(self, code: i32) -> Result<Self> {
        if self.code != Some(code) {
            let ended = self.code.map_or("a signal".into(), |code| format!("exit code {code}"));
            bail!(
                "{} ended with {ended} instead of {code}: {}{}",
                self.line,
                self.stdout.trim_end(),
                if self.stderr.is_empty() { String::new() } else { format!(" / {}", self.stderr.trim_end()) }
            );
        }
        Ok(self)
    }
}

/// Removes the fields of `ip -j` that change while nothing is changed.
fn forget_what_changes(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(forget_what_changes),
        Value::Object(fields) => {
            for key in ["valid_life_time", "preferred_life_time", "expires", "ifindex", "link_index", "used"]
            {
                fields.remove(key);
            }
            fields.values_mut().for_each(forget_what_changes);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
