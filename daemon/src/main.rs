//! `meshd`; everything is in the library.

use std::process::ExitCode;

use clap::Parser;
use meshd::config::Flags;

fn main() -> ExitCode {
    match meshd::run(&Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let usage = error.downcast_ref::<meshd::UsageError>().is_some();
            complain(&error);
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}

#[expect(clippy::print_stderr, reason = "the one line that says why the program ends")]
fn complain(error: &anyhow::Error) {
    eprintln!("meshd: {error:#}");
}
