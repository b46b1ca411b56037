//! The daemon with short timings, and with every key that it makes told through a pipe.
//!
//! It is `meshd` itself, given other libraries: they compute with those of the configuration and keep nothing.

mod recorder;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use mesh_node::Timings;
use meshd::config::{Config, Flags};
use meshd::supervise::Libraries;

use crate::recorder::{RecordedAead, RecordedPq, Recorder};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    daemon: Flags,
    /// Seconds after which keys in use are replaced.
    #[arg(long)]
    lab_rekey: Option<u64>,
    /// Seconds after which keys neither send nor receive.
    #[arg(long)]
    lab_reject: Option<u64>,
    /// Seconds after which a full handshake replaces a chain of keys.
    #[arg(long)]
    lab_handshake: Option<u64>,
    /// A pipe that takes every key.
    #[arg(long)]
    lab_keys: Option<PathBuf>,
}

#[expect(clippy::print_stderr, reason = "the one line that says why the program ends")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let recorder = match arguments.lab_keys.as_deref().map(Recorder::open).transpose() {
        Ok(recorder) => recorder.map(|recorder| -> &'static Recorder { Box::leak(Box::new(recorder)) }),
        Err(error) => {
            eprintln!("mesh-lab-daemon: {error}");
            return ExitCode::FAILURE;
        }
    };
    match meshd::run_with(&arguments.daemon, |config| libraries(&arguments, recorder, config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mesh-lab-daemon: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn libraries(arguments: &Arguments, recorder: Option<&'static Recorder>, config: &Config) -> Libraries {
    let plain = Libraries::of(config);
    let seconds = |given: Option<u64>, usual| given.map_or(usual, Duration::from_secs);
    let timings = Timings {
        rekey: seconds(arguments.lab_rekey, plain.timings.rekey),
        reject: seconds(arguments.lab_reject, plain.timings.reject),
        handshake: seconds(arguments.lab_handshake, plain.timings.handshake),
        ..plain.timings
    };
    match recorder {
        None => Libraries { timings, ..plain },
        Some(recorder) => Libraries {
            provider: Box::leak(Box::new(RecordedPq::new(plain.provider, recorder))),
            aead: Box::leak(Box::new(RecordedAead::new(plain.aead, recorder))),
            timings,
            ..plain
        },
    }
}
