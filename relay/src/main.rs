//! `meshrelay`: arguments, log, signals and exit codes around [`meshrelay::Relay`].

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use meshrelay::{Config, Relay};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Forwards sealed frames between the nodes of ShadowMesh networks. It holds no key of any network.
#[derive(Debug, Parser)]
#[command(name = "meshrelay", version, after_help = EXAMPLES)]
struct Arguments {
    /// Configuration file [default: /etc/shadowmesh/meshrelay.toml, or built-in values if that is missing]
    #[arg(long, value_name = "FILE", env = "SHADOWMESH_RELAY_CONFIG")]
    config: Option<PathBuf>,
    /// Directory of the relay's own certificate, instead of the configured one
    #[arg(long, value_name = "DIR", env = "SHADOWMESH_RELAY_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// Log level or filter, instead of the configured one
    #[arg(long, value_name = "FILTER", env = "SHADOWMESH_RELAY_LOG")]
    log: Option<String>,
    /// Check the configuration and the certificate, change nothing, and exit
    #[arg(long, conflicts_with = "print_pin")]
    check_config: bool,
    /// Print the relay's address with its pin, making the certificate if there is none, and exit
    #[arg(long)]
    print_pin: bool,
    /// Write the manual page into a directory and exit
    #[arg(long, value_name = "DIR", hide = true)]
    man: Option<PathBuf>,
}

/// Where packages put the configuration.
const CONFIG_PATH: &str = "/etc/shadowmesh/meshrelay.toml";
const EXAMPLES: &str = "Examples:
  meshrelay --check-config                        check /etc/shadowmesh/meshrelay.toml
  meshrelay --print-pin                           print wss://HOST:PORT#PIN for \"meshctl up --relay\"
  meshrelay --config relay.toml --state-dir ./st  run a relay of your own beside another

Exit codes: 0 done, 1 failed, 2 usage or configuration.";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(dir) = &arguments.man {
        return report(write_manual(dir), 1);
    }
    let config = match load_config(&arguments) {
        Ok(config) => config,
        Err(error) => return report(Err(error), 2),
    };
    if arguments.check_config {
        return report(check(&config), 2);
    }
    if arguments.print_pin {
        return report(print_url(&config), 1);
    }
    let filter = match EnvFilter::try_new(&config.log) {
        Ok(filter) => filter,
        Err(error) => return report(Err(error).context("log: no filter; use for example log = \"info\""), 2),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    report(run(config), 1)
}

fn load_config(arguments: &Arguments) -> anyhow::Result<Config> {
    let mut config = match &arguments.config {
        Some(path) => Config::load(path)?,
        None if Path::new(CONFIG_PATH).exists() => Config::load(Path::new(CONFIG_PATH))?,
        None => Config::default(),
    };
    if let Some(state_dir) = &arguments.state_dir {
        config.state_dir.clone_from(state_dir);
    }
    if let Some(log) = &arguments.log {
        config.log.clone_from(log);
    }
    Ok(config)
}

fn check(config: &Config) -> anyhow::Result<()> {
    EnvFilter::try_new(&config.log).context("log: no filter; use for example log = \"info\"")?;
    meshrelay::check(config)?;
    say("the configuration is good")
}

fn print_url(config: &Config) -> anyhow::Result<()> {
    say(&meshrelay::public_url(config)?)
}

fn run(config: Config) -> anyhow::Result<()> {
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no threads")?;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let mut interrupted = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        let mut relay = Relay::start(config)?;
        say(&relay.url())?;
        notify(NotifyState::Ready);
        let failure = tokio::select! {
            biased;
            _ = terminated.recv() => None,
            _ = interrupted.recv() => None,
            ended = relay.failed() => Some(ended),
        };
        notify(NotifyState::Stopping);
        tracing::info!("stopping");
        relay.stop().await;
        failure.map_or(Ok(()), |ended| Err(ended.into()))
    })
}

/// Every client takes a file descriptor, and the usual limit of 1024 is far below the configured number of clients.
fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(reason = %error, "the limit of open files could not be raised");
    }
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(reason = %error, "systemd could not be notified");
    }
}

fn write_manual(dir: &Path) -> anyhow::Result<()> {
    let manual = clap_mangen::Man::new(Arguments::command()).section("8");
    let mut page = Vec::new();
    manual.render(&mut page)?;
    let path = dir.join("meshrelay.8");
    std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))
}

/// Prints a line; a reader that went away is no failure.
fn say(line: &str) -> anyhow::Result<()> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot print"),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn report(result: anyhow::Result<()>, failure: u8) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do when even the complaint cannot be written.
            let _ = writeln!(io::stderr(), "meshrelay: {error:#}");
            ExitCode::from(failure)
        }
    }
}
