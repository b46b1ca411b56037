//! The Debian packages that a command needs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
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
    ("dnsmasq", "dnsmasq-base"),
    ("busybox", "busybox"),
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

/// Finds a program in the newest version that the system's own mirror has, which may be of a later release of Debian. It is
/// unpacked beside other caches of the project, not installed; without such a version, the installed one counts.
pub(crate) fn newest(program: &str, package: &str) -> Result<PathBuf> {
    let dir = cache_dir().join("newest").join(package);
    let unpacked = dir.join("usr/bin").join(program);
    if unpacked.is_file() {
        return Ok(unpacked);
    }
    match unpack_newest(&dir, package) {
        Ok(()) if unpacked.is_file() && runs(&unpacked) => return Ok(unpacked),
        Ok(()) => say::line(&format!("the newest {package} does not run here")),
        Err(error) => say::line(&format!("the newest {package} cannot be had: {error:#}")),
    }
    // So that another run does not find half of it.
    let _ = fs::remove_dir_all(&dir);
    let name: &'static str = Box::leak(program.to_owned().into_boxed_str());
    let package: &'static str = Box::leak(package.to_owned().into_boxed_str());
    ensure_installed(&[&[(name, package)]])?;
    Ok(Path::new("/usr/bin").join(program))
}

/// Finds a program of a crate: in the path, or where an earlier call built it, or builds it there with cargo.
pub(crate) fn from_crates(program: &'static str, package: &str) -> Result<PathBuf> {
    let (root, target) = (cache_dir().join("tools"), cache_dir().join("tools-target"));
    let built = root.join("bin").join(program);
    if exists(program) {
        return Ok(program.into());
    }
    if !built.is_file() {
        say::line(&format!("building {package}"));
        let status = Command::new("cargo")
            .args(["install", "--quiet", "--locked", "--root"])
            .arg(&root)
            .arg(package)
            .env("CARGO_TARGET_DIR", &target)
            .status()
            .context("cannot run cargo")?;
        // It is not needed again, whether or not something came of it.
        let _ = fs::remove_dir_all(&target);
        ensure!(status.success(), "cargo cannot install {package}");
    }
    ensure!(runs(&built), "{} does not run here", built.display());
    Ok(built)
}

fn runs(program: &Path) -> bool {
    // Not "--help": wireguard-go takes that for the name of an interface, and stays in the background.
    let status = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    // A library that is too old ends it by a code of the loader.
    status.is_ok_and(|status| status.code().is_some_and(|code| code < 126))
}

fn unpack_newest(dir: &Path, package: &str) -> Result<()> {
    let mirror = Command::new("apt-get")
        .args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian"])
        .output()
        .context("cannot run apt-get")?;
    let mirror = String::from_utf8_lossy(&mirror.stdout).lines().next().unwrap_or_default().to_owned();
    ensure!(!mirror.is_empty(), "apt-get knows no mirror of Debian");
    fs::create_dir_all(dir.join("lists/partial"))?;
    fs::create_dir_all(dir.join("cache/archives/partial"))?;
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    fs::write(dir.join("sources.list"), format!("deb [signed-by={keyring}] {mirror} testing main\n"))?;
    let path = |name: &str| dir.join(name).display().to_string();
    let options = [
        format!("-oDir::Etc::sourcelist={}", path("sources.list")),
        "-oDir::Etc::sourceparts=/dev/null".to_owned(),
        format!("-oDir::State::lists={}", path("lists")),
        format!("-oDir::Cache={}", path("cache")),
        "-oAPT::Sandbox::User=root".to_owned(),
        "-qq".to_owned(),
    ];
    let apt = |words: &[&str]| -> Result<()> {
        let status = Command::new("apt-get").args(&options).args(words).current_dir(dir).status()?;
        ensure!(status.success(), "apt-get {} failed", words.join(" "));
        Ok(())
    };
    apt(&["update"])?;
    apt(&["download", package])?;
    let archive = fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("no package was downloaded")?;
    let status = Command::new("dpkg-deb").arg("-x").arg(archive).arg(dir).status()?;
    ensure!(status.success(), "dpkg-deb failed");
    Ok(())
}

/// Where what was downloaded stays for the next run.
fn cache_dir() -> PathBuf {
    let home = env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    env::var_os("SHADOWMESH_CACHE").map_or_else(|| home.join(".cache/shadowmesh"), PathBuf::from)
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
