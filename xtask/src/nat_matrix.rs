//! Lets two nodes meet from behind every pair of kinds of NAT, in network namespaces.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::{isolate, packages, say, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How often each pair meets; the table has medians and counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Seconds until a pair without a direct path is left on the relay, unless both ends stop looking before.
    #[arg(long, default_value_t = 12)]
    seconds: u64,
    /// Only pairs with a kind whose name contains this; given twice, only pairs of the two.
    #[arg(long)]
    kind: Vec<String>,
    /// With the kinds that the kernel's own translation makes.
    #[arg(long)]
    linux: bool,
    /// Write every run to a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Prints the table of the README; fails where the laboratory does, not where a pair stays on the relay.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !isolate::is_inside() {
        packages::ensure_installed(&[packages::BUILD, packages::NAMESPACES, packages::SCENARIOS])?;
        say::heading("Building the programs");
        workspace::build(&workspace::PROGRAMS)?;
    }
    let laboratory = workspace::build_example("mesh-netns-tests", "nat-matrix")?;
    isolate::ensure_root_of_networks()?;
    let mut command = Command::new(laboratory);
    command.args(["--runs", &arguments.runs.to_string(), "--seconds", &arguments.seconds.to_string()]);
    for kind in &arguments.kind {
        command.args(["--kind", kind]);
    }
    if arguments.linux {
        command.arg("--linux");
    }
    if let Some(path) = &arguments.json {
        command.arg("--json").arg(path);
    }
    let status = command.status().context("cannot run the laboratory")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
