//! Developer commands: `cargo xtask demo`, `test`, `bench`, `fuzz`, `models`, `nat-matrix`, `package`.
//!
//! - `demo` and `bench` make an [`arena`]: network namespaces with the real programs in them.
//! - `packages` installs what a command needs, or says what is missing.
//! - `isolate` gives an ordinary user namespaces of his own.
//! - `interrupt` removes what was made when Ctrl-C ends a command.

mod arena;
mod bench;
mod checks;
mod demo;
mod fuzz;
mod interrupt;
mod isolate;
mod models;
mod nat_matrix;
mod package;
mod packages;
mod programs;
mod say;
mod serve;
mod workspace;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Developer commands of ShadowMesh")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the whole journey on this machine, in network namespaces.
    Demo(demo::Arguments),
    /// Run every check: format, lints, tests, documents, dependencies, namespaces, packages.
    Test(checks::Arguments),
    /// Measure the tunnel beside a plain link.
    Bench(bench::Arguments),
    /// Run the symbolic models of the protocol and compare their verdicts with the expected ones.
    Models(models::Arguments),
    /// Let two nodes meet from behind every pair of kinds of NAT, and print how it went.
    NatMatrix(nat_matrix::Arguments),
    /// Give invented input to everything that reads bytes from outside.
    Fuzz(fuzz::Arguments),
    /// Build the packages and install them in a clean system.
    Package,
    /// Serve a small web page until killed.
    #[command(hide = true)]
    Serve {
        /// Where to listen.
        #[arg(long)]
        bind: SocketAddr,
        /// The size of the page in bytes.
        #[arg(long)]
        bytes: usize,
        /// What the page starts with.
        #[arg(long)]
        title: String,
    },
}

fn main() -> ExitCode {
    let result = run(Arguments::parse().command);
    match result {
        Ok(code) => code,
        Err(error) => {
            interrupt::wait_if_ending();
            say::problem(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    interrupt::watch()?;
    match command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Test(arguments) => checks::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Models(arguments) => models::run(&arguments),
        Command::NatMatrix(arguments) => nat_matrix::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Package => package::run().map(|()| ExitCode::SUCCESS),
        Command::Serve { bind, bytes, title } => serve::run(bind, bytes, &title).map(|()| ExitCode::SUCCESS),
    }
}

/// Where a command writes its figures, if asked to.
fn write_json(path: Option<&PathBuf>, document: &serde_json::Value) -> Result<()> {
    use anyhow::Context;
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(document)?;
    std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}
