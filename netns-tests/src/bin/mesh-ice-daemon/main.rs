//! The daemon with agents of another library: `meshd` itself, whose `path_finder = "ice"` is then `webrtc-ice`.

use std::process::ExitCode;

use clap::Parser;
use mesh_ice::Webrtc;
use meshd::config::Flags;
use meshd::supervise::Libraries;

#[expect(clippy::print_stderr, reason = "the one line that says why the program ends")]
fn main() -> ExitCode {
    let flags = Flags::parse();
    match meshd::run_with(&flags, |config| Libraries { ice: &Webrtc, ..Libraries::of(config) }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mesh-ice-daemon: {error:#}");
            ExitCode::FAILURE
        }
    }
}
