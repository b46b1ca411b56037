//! Namespaces joined by a switch, with everything that runs in them.
//!
//! Names are `sm-NAME-HOST`. Dropping an [`Arena`] kills its processes by their ids and removes the namespaces, unless
//! it is kept. What a killed run left behind goes when the next arena of the same name is made.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::interrupt;

/// The public network and its hosts.
#[derive(Debug)]
pub(crate) struct Arena {
    name: String,
    dir: PathBuf,
    next: u8,
    kept: bool,
}

/// One host of the arena.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// The name that people read.
    pub(crate) name: String,
    /// The name that `ip netns` knows.
    pub(crate) namespace: String,
    /// The address on the public network.
    pub(crate) address: String,
    /// Files of this host: configuration, state, logs.
    pub(crate) dir: PathBuf,
}

impl Arena {
    /// Makes the public network.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let dir = Path::new(DIR).join(name);
        if let Some(pid) = owner(&dir)
            && Path::new(&format!("/proc/{pid}")).exists()
        {
            bail!("process {pid} runs \"{name}\" already; wait for it or end it");
        }
        if dir.join(KEPT).exists() {
            bail!("\"{name}\" is still up; enter it, or remove it with: cargo xtask {name} --clean");
        }
        remove(name);
        interrupt::protect(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        fs::write(dir.join(OWNER), std::process::id().to_string())?;
        let arena = Self { name: name.into(), dir, next: 1, kept: false };
        let switch = arena.namespace("public");
        ip(&["netns", "add", &switch])?;
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0"])?;
        ip(&["-n", &switch, "link", "set", "br0", "up"])?;
        Ok(arena)
    }

    /// Makes a host with an address on the public network.
    pub(crate) fn host(&mut self, name: &str) -> Result<Host> {
        let (namespace, switch) = (self.namespace(name), self.namespace("public"));
        let number = self.next;
        self.next = number.checked_add(1).context("the network 203.0.113.0/24 is full")?;
        let (address, port) = (format!("203.0.113.{number}"), format!("p{number}"));
        ip(&["netns", "add", &namespace])?;
        ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        let link = ["link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns", &switch];
        ip(&[&["-n", &namespace][..], &link].concat())?;
        ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"])?;
        ip(&["-n", &namespace, "addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
        ip(&["-n", &namespace, "link", "set", "eth0", "up"])?;
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir)?;
        Ok(Host { name: name.into(), namespace, address, dir })
    }

    /// Leaves everything in place when the value is dropped.
    pub(crate) fn keep(mut self) -> Result<()> {
        fs::write(self.dir.join(KEPT), "")?;
        fs::remove_file(self.dir.join(OWNER))?;
        interrupt::forget(&self.name);
        self.kept = true;
        Ok(())
    }

    fn namespace(&self, host: &str) -> String {
        format!("sm-{}-{host}", self.name)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if !self.kept {
            remove(&self.name);
            interrupt::forget(&self.name);
        }
    }
}

impl Host {
    /// Prepares a command in this namespace.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).args(words).stdin(Stdio::null());
        command.env("SHADOWMESH_SOCKET", self.dir.join("meshd.sock"));
        command
    }

    /// Runs a command and returns what it printed; fails unless it succeeds.
    pub(crate) fn run(&self, words: &[&str]) -> Result<String> {
        let output = self.command(words).output().with_context(|| format!("cannot run {}", words[0]))?;
        checked(&words.join(" "), &output)
    }

    /// Starts a command in the background with its output in a log.
    pub(crate) fn spawn(&self, log: &str, words: &[&str]) -> Result<Process> {
        let log_path = self.dir.join(format!("{log}.log"));
        let file = File::create(&log_path)?;
        let mut command = self.command(words);
        command.stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {}", words[0]))?;
        Ok(Process { name: words[0].into(), child: Some(child), log_path })
    }
}

/// A program in the background, killed when the value is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Option<Child>,
    log_path: PathBuf,
}

impl Process {
    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// What it printed so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log_path).unwrap_or_default()).into_owned()
    }

    /// Fails if the program ended.
    pub(crate) fn check_running(&mut self) -> Result<()> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            bail!("{} ended ({status}): {}", self.name, self.log().trim_end());
        }
        Ok(())
    }

    /// Lets the program go on after this process ends.
    pub(crate) fn release(mut self) {
        self.child = None;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Ended in the meantime is as good as killed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Calls `probe` until it returns a value, or fails after `limit`.
pub(crate) fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if start.elapsed() >= limit {
            bail!("waited {limit:?} in vain for {what}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Removes the arena of a name with all that runs in it. Harmless when there is none.
pub(crate) fn remove(name: &str) {
    let prefix = format!("sm-{name}-");
    let names = Command::new("ip").args(["netns", "list"]).output();
    let names = names.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let ours =
        names.lines().filter_map(|line| line.split_whitespace().next()).filter(|n| n.starts_with(&prefix));
    for namespace in ours {
        if let Ok(pids) = Command::new("ip").args(["netns", "pids", namespace]).output() {
            for pid in String::from_utf8_lossy(&pids.stdout).lines().filter_map(|line| line.parse().ok()) {
                // Ended in the meantime is as good as killed.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        let _ = ip(&["netns", "del", namespace]);
    }
    let _ = fs::remove_dir_all(Path::new(DIR).join(name));
}

/// What a command printed; an error with it unless the command succeeded.
pub(crate) fn checked(line: &str, output: &Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{line} failed ({}): {}{}", output.status, text.trim_end(), errors.trim_end());
    }
    Ok(text)
}

fn ip(words: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(words).output().context("cannot run ip")?;
    checked(&format!("ip {}", words.join(" ")), &output).map(drop)
}

fn owner(dir: &Path) -> Option<u32> {
    fs::read_to_string(dir.join(OWNER)).ok()?.trim().parse().ok()
}

/// Only root, or the root of a private `/run`, writes here.
const DIR: &str = "/run/shadowmesh-xtask";
const OWNER: &str = "pid";
const KEPT: &str = "kept";
