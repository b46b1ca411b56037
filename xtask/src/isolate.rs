//! Namespaces for those who are not root.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

/// Set in the process that lives in its own user, network and mount namespaces.
const INSIDE: &str = "SHADOWMESH_XTASK_ISOLATED";

/// Returns at once for root. Otherwise runs this same command again inside fresh namespaces, where it is root over its
/// own networks, and does not return.
pub(crate) fn ensure_root_of_networks() -> Result<()> {
    if env::var_os(INSIDE).is_some() {
        return prepare_inside();
    }
    if geteuid().is_root() {
        return Ok(());
    }
    check_possible()?;
    let words: Vec<OsString> = env::args_os().skip(1).collect();
    let error = command(&words)?.exec();
    Err(error).context("cannot run unshare")
}

/// Fails with the reason where an ordinary user cannot make the namespaces.
pub(crate) fn check_possible() -> Result<()> {
    let attempt = Command::new("unshare").args(WORDS).arg("true").output().context("cannot run unshare")?;
    if !attempt.status.success() {
        bail!(
            "this kernel does not let ordinary users make network namespaces ({}); run it as root",
            String::from_utf8_lossy(&attempt.stderr).trim()
        );
    }
    if let Err(error) = File::options().read(true).write(true).open("/dev/net/tun") {
        bail!("cannot open /dev/net/tun ({error}); run it as root, or: sudo chmod 666 /dev/net/tun");
    }
    Ok(())
}

/// This program with other words, to be run inside fresh namespaces.
pub(crate) fn command<S: AsRef<OsStr>>(words: &[S]) -> Result<Command> {
    let program = env::current_exe().context("cannot find this program")?;
    let mut command = Command::new("unshare");
    command.args(WORDS).arg(program).args(words).env(INSIDE, "1");
    Ok(command)
}

/// Whether this process lives in namespaces that end with it.
pub(crate) fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

fn prepare_inside() -> Result<()> {
    // `ip netns` keeps its names in /run, which belongs to the real root.
    let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run"]).output()?;
    if !mounted.status.success() {
        bail!("cannot mount a private /run: {}", String::from_utf8_lossy(&mounted.stderr).trim());
    }
    fs::create_dir_all("/run/netns").context("cannot make /run/netns")
}

const WORDS: [&str; 5] = ["--user", "--map-root-user", "--net", "--mount", "--"];
