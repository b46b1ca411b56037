//! The Debian packages that a command needs.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::geteuid;

use crate::say;

/// A program and the package that holds it.
pub(crate) type Need = (&'static str, &'static str);

/// What every command with namespaces needs.
pub(crate) const NAMESPACES: &[Need] = &[
    ("ip", "iproute2"),
    ("ss", "iproute2"),
    ("ping", "iputils-ping"),
    ("mount", "mount"),
    ("unshare", "util-linux"),
];

/// What the demonstration and the measurements run.
pub(crate) const TRAFFIC: &[Need] = &[("curl", "curl"), ("iperf3", "iperf3")];

/// What the scenarios in namespaces run beyond that.
pub(crate) const SCENARIOS: &[Need] = &[
    ("curl", "curl"),
    ("iperf3", "iperf3"),
    ("tcpdump", "tcpdump"),
    ("nft", "nftables"),
    ("arping", "iputils-arping"),
    ("setpriv", "util-linux"),
    ("ssh", "openssh-client"),
    ("sshd", "openssh-server"),
    ("sha256sum", "coreutils"),
    ("chown", "coreutils"),
    ("miniupnpd", "miniupnpd-nftables"),
];

/// What builds the packages and makes the clean system.
pub(crate) const PACKAGING: &[Need] =
    &[("debootstrap", "debootstrap"), ("zstd", "zstd"), ("python3", "python3-minimal"), ("dpkg-deb", "dpkg")];

/// What the programs are built with beside the Rust toolchain.
pub(crate) const BUILD: &[Need] = &[("cc", "build-essential")];

/// Installs what is missing when root, and otherwise says what is.
pub(crate) fn ensure_installed(needs: &[&[Need]]) -> Result<()> {
    let mut missing: Vec<&str> = needs
        .iter()
        .flat_map(|group| group.iter())
        .filter(|(program, _)| !exists(program))
        .map(|need| need.1)
        .collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !geteuid().is_root() || !exists("apt-get") {
        bail!("missing programs; install them with: sudo apt-get install {list}");
    }
    say::line(&format!("installing {list}"));
    // The list of packages may be stale or absent on a fresh machine; then the second attempt succeeds.
    if !apt_get(&[&["install"], missing.as_slice()].concat())? {
        apt_get(&["update"])?;
        ensure!(apt_get(&[&["install"], missing.as_slice()].concat())?, "apt-get could not install {list}");
    }
    Ok(())
}

fn apt_get(words: &[&str]) -> Result<bool> {
    let status = Command::new("apt-get")
        .args(["-qq", "-y", "--no-install-recommends"])
        .args(words)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(Stdio::null())
        .status()
        .context("cannot run apt-get")?;
    Ok(status.success())
}

/// Whether a program can be found, also where only root looks for it.
pub(crate) fn exists(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].into_iter().map(Into::into))
        .any(|dir| Path::new(&dir).join(program).is_file())
}
