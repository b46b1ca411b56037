//! `meshctl`, the command line of ShadowMesh: every verb asks `meshd` over its Unix socket.
//!
//! `cli` is what may be typed, `cmd/<verb>` what a verb does, `render` how it looks and the only place that prints,
//! `why` what keeps frames off a direct path, `exit` what the shell gets. Results go to stdout, everything else to stderr.

mod cli;
mod cmd;
mod exit;
mod failure;
mod render;
mod why;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;
use crate::render::Screen;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let screen = Screen::detect(cli.json);
    let exit = match cmd::run(cli, &screen) {
        Ok(exit) => exit,
        Err(failure) => screen.failure(&failure),
    };
    exit.into()
}
