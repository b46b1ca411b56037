//! Where things are, and building them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask is a folder of the repository").to_owned()
}

/// A cargo command in the root of the repository.
pub(crate) fn cargo(words: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(words).current_dir(root());
    command
}

/// Where the release binaries are.
pub(crate) fn release_dir() -> PathBuf {
    match env::var_os("SHADOWMESH_BIN_DIR") {
        Some(dir) => dir.into(),
        None => target_dir().join("release"),
    }
}

/// The programs that users run.
pub(crate) const PROGRAMS: [&str; 3] = ["meshd", "meshrelay", "meshctl"];

/// Builds programs in release mode.
pub(crate) fn build(packages: &[&str]) -> Result<()> {
    if env::var_os("SHADOWMESH_BIN_DIR").is_some() {
        return Ok(());
    }
    let mut words = vec!["build", "--release", "--locked"];
    for package in packages {
        words.extend(["-p", package]);
    }
    let status = cargo(&words).status().context("cannot run cargo")?;
    ensure!(status.success(), "cargo {} failed", words.join(" "));
    Ok(())
}

/// Builds an example of a package in release mode and returns its path.
pub(crate) fn build_example(package: &str, example: &str) -> Result<PathBuf> {
    let words = ["build", "--release", "--locked", "-p", package, "--example", example];
    let status = cargo(&words).status().context("cannot run cargo")?;
    ensure!(status.success(), "cargo {} failed", words.join(" "));
    Ok(target_dir().join("release/examples").join(example))
}

fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}
