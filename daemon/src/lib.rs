//! The ShadowMesh daemon: joins deciding (`mesh-node`, `mesh-session`) and doing (`mesh-net`, `mesh-tun`).
//!
//! Map: `config.rs` what it is told; `state.rs` what survives a restart; `supervise.rs` which task runs, the order of
//! start and stop; `engine.rs` the packet path; `handshakes.rs` the thread beside it; `enrol.rs` joining a network; `coordinator.rs` letting others join;
//! `lan.rs` members on the same local network; `door.rs` where members connect to this node; `relays.rs` which relay carries what; `ice.rs` paths found by ICE; `interface.rs` the device; `api.rs` the socket; `status.rs` what people see; `memory.rs` what keeps keys in memory.

pub mod api;
pub mod config;
pub mod coordinator;
pub mod direct;
pub mod door;
pub mod engine;
pub mod enrol;
pub mod handshakes;
pub mod ice;
pub mod interface;
pub mod lan;
mod memory;
mod netcheck;
pub mod relays;
pub mod roster_seal;
pub mod state;
pub mod status;
pub mod supervise;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::CommandFactory;
use mesh_control::{ApiError, ErrorCode};
use mesh_net::{RelayError, RelayErrorKind};
use mesh_wire::RelayUrl;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::config::{Config, Flags};
use crate::state::StateDir;
use crate::supervise::{Libraries, Supervisor};

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// One line that says what failed, why and what to do.
pub fn run(flags: &Flags) -> anyhow::Result<()> {
    run_with(flags, Libraries::of)
}

/// The same with other [`Libraries`] than the configuration can name.
///
/// # Errors
/// As [`run`].
pub fn run_with(flags: &Flags, libraries: impl FnOnce(&Config) -> Libraries) -> anyhow::Result<()> {
    if let Some(dir) = &flags.man {
        return write_man(dir);
    }
    let config = Config::load(flags).map_err(|error| error.context(UsageError))?;
    if flags.check_config {
        return Ok(());
    }
    start_log(&config.log)?;
    memory::protect();
    let libraries = libraries(&config);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    finish(runtime, serve(config, libraries))
}

/// Runs the future. A name that the system still resolves cannot be cancelled; it does not hold up the end for long.
fn finish<T>(runtime: tokio::runtime::Runtime, future: impl Future<Output = T>) -> T {
    let result = runtime.block_on(future);
    runtime.shutdown_timeout(LAST_TASKS);
    result
}

/// For what still runs when everything was stopped in order.
const LAST_TASKS: Duration = Duration::from_secs(1);

/// Marks an error as one of usage or configuration, which has an exit code of its own.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("meshd cannot start")]
pub struct UsageError;

async fn serve(config: Config, libraries: Libraries) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let _signals = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(stop_on_signal(stop.clone())?));
    let rights = api::Rights::new(config.operator.as_deref())?;
    let state = Arc::new(StateDir::open(&config.state_dir, config.provider)?);
    let (supervisor, handle) = Supervisor::with_libraries(config.clone(), state, libraries)?;
    let listener = api::bind(&config.socket, Some(&config.group))?;
    let api = tokio::spawn(api::serve(listener, Arc::new(handle), rights, stop.clone()));
    let api = tokio_util::task::AbortOnDropHandle::new(api);
    // Without systemd there is nobody to notify.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    tracing::info!("meshd is ready");
    supervisor.run(stop.clone()).await;
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    stop.cancel();
    api.await.context("the API task failed")?;
    Ok(())
}

fn stop_on_signal(stop: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        stop.cancel();
    })
}

fn start_log(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)
        .with_context(|| {
            format!("log = \"{filter}\" is no log filter; use error, warn, info, debug or trace")
        })
        .map_err(|error| error.context(UsageError))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    Ok(())
}

fn write_man(dir: &std::path::Path) -> anyhow::Result<()> {
    let manual = clap_mangen::Man::new(Flags::command()).section("8");
    let mut page = Vec::new();
    manual.render(&mut page)?;
    let path = dir.join("meshd.8");
    std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes an error and its causes on one line.
#[must_use]
pub fn one_line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line
}

/// Returns how a relay's refusal reads to people, when trying again is of no use.
#[must_use]
pub fn relay_error(relay: &RelayUrl, reason: &RelayError) -> Option<ApiError> {
    let kind = reason.kind();
    if !enrol::is_final(kind) {
        return None;
    }
    let message = format!("relay {relay}: {reason}");
    let pin = matches!(kind, RelayErrorKind::PinMismatch | RelayErrorKind::PinMissing);
    Some(if pin {
        ApiError::new(ErrorCode::RelayPinMismatch, message)
            .with_hint("compare with what the relay prints at its start: meshrelay --print-pin")
    } else {
        ApiError::new(ErrorCode::RelayRefused, message)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn stuck_resolver_does_not_hold_up_the_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (started, running) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let (done, ended) = mpsc::channel();
        std::thread::spawn(move || {
            let result = finish(runtime, async move {
                tokio::task::spawn_blocking(move || {
                    started.send(()).unwrap();
                    let _ = released.recv();
                });
                7
            });
            done.send(result).unwrap();
        });
        running.recv().unwrap();
        assert_eq!(ended.recv_timeout(LAST_TASKS + Duration::from_secs(20)), Ok(7));
        drop(release);
    }
}
