//! The owner of everything that a test makes.

use std::cell::{Cell, RefCell};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::host::Host;
use crate::switch::{Switch, Underlay};

/// Namespaces, logs and files of one test.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    namespaces: RefCell<Vec<String>>,
    logs: Cell<u32>,
    dir: TempDir,
}

impl Lab {
    /// Makes an empty laboratory, after sweeping what dead runs left behind.
    ///
    /// # Errors
    /// The machine does not let this process create network namespaces.
    pub fn new(name: &str) -> Result<Self> {
        static SWEEP: Once = Once::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        SWEEP.call_once(sweep_dead_runs);
        let dir = tempfile::Builder::new().prefix("sm-").tempdir().context("cannot make a directory")?;
        // Programs that run as another user reach their own directory in here.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711))?;
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let lab = Self {
            prefix: format!("{PREFIX}{}-{serial}", std::process::id()),
            namespaces: RefCell::default(),
            logs: Cell::new(0),
            dir,
        };
        lab.namespace("probe").with_context(|| format!("cannot start the scenario {name}"))?;
        Ok(lab)
    }

    /// Makes a namespace with nothing but its loopback interface.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn namespace(&self, name: &str) -> Result<Host> {
        let namespace = format!("{}-{name}", self.prefix);
        ip(&["netns", "add", &namespace])?;
        self.namespaces.borrow_mut().push(namespace.clone());
        ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        Ok(Host::new(name, namespace, self.dir.path()))
    }

    /// Makes the public network: a namespace with a bridge that hosts are plugged into.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn public(&self, underlay: Underlay) -> Result<Switch<'_>> {
        Switch::new(self, underlay)
    }

    /// Joins two hosts by a cable whose ends get the names given.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn cable(&self, near: (&Host, &str), far: (&Host, &str)) -> Result<()> {
        ip(&[
            "-n",
            near.0.namespace(),
            "link",
            "add",
            near.1,
            "type",
            "veth",
            "peer",
            "name",
            far.1,
            "netns",
            far.0.namespace(),
        ])?;
        ip(&["-n", near.0.namespace(), "link", "set", near.1, "up"])?;
        ip(&["-n", far.0.namespace(), "link", "set", far.1, "up"])
    }

    /// The scratch directory; it goes away with the laboratory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path in the scratch directory, with the directories above it made.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn path(&self, relative: &str) -> Result<PathBuf> {
        let path = self.dir.path().join(relative);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        Ok(path)
    }

    /// A number that no other call on this laboratory returns.
    pub fn serial(&self) -> u32 {
        let serial = self.logs.get();
        self.logs.set(serial + 1);
        serial
    }

    #[expect(clippy::print_stderr, reason = "the logs explain a failed test")]
    fn print_logs(&self) {
        let Ok(entries) = fs::read_dir(self.dir.path()) else { return };
        let mut logs: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        logs.sort();
        for path in logs.iter().filter(|path| path.extension().is_some_and(|end| end == "log")) {
            let text = fs::read(path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<_> = text.lines().collect();
            eprintln!("---- {} ({} lines)", path.display(), lines.len());
            for line in &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..] {
                eprintln!("{line}");
            }
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
        for namespace in self.namespaces.borrow().iter() {
            remove(namespace);
        }
    }
}

/// Runs `ip` and turns a failure into an error with its message.
pub(crate) fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("cannot run ip; install iproute2")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Kills what still runs in a namespace of ours, then removes its name.
fn remove(namespace: &str) {
    if let Ok(output) = Command::new("ip").args(["netns", "pids", namespace]).output() {
        for pid in String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| line.parse().ok()) {
            // Ended in the meantime is as good as killed.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    let _ = ip(&["netns", "del", namespace]);
}

/// Removes the namespaces of runs whose process is gone.
fn sweep_dead_runs() {
    let Ok(output) = Command::new("ip").args(["netns", "list"]).output() else { return };
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    for namespace in names.lines().filter_map(|line| line.split_whitespace().next()) {
        if owner_of(namespace).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(namespace);
        }
    }
}

/// The process id in a name of ours.
fn owner_of(namespace: &str) -> Option<u32> {
    namespace.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// All namespaces start with this; the id of the owning process follows.
const PREFIX: &str = "sm-";

/// Enough to see the reason, little enough to find it among ten daemons.
const LOG_TAIL_LINES: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_tells_its_owner() {
        assert_eq!(owner_of("sm-4711-0-laptop"), Some(4711));
        assert_eq!(owner_of("sm-demo-pi"), None);
        assert_eq!(owner_of("other"), None);
    }
}
