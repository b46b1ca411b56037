//! Figures of the tunnel beside a plain link and beside other tunnels, measured in one go.
//!
//! Every round measures each thing on all of them directly after each other, so that all see the same machine; the report
//! shows medians over the rounds, and ratios to the best other tunnel.

mod figures;
mod growth;
mod load;
mod plot;
mod profile;
mod readme;
mod subject;
mod traffic;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;
use serde_json::json;

use crate::arena::{Arena, Host, Process, wait_until};
use crate::programs::{Relay, ctl, overlay_addresses, start_daemon, start_relay, status};
use crate::{isolate, packages, say, workspace, write_json};

use figures::{Figures, LOSS, machine};
use subject::{Kind, Subject};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Write the figures to a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw what compares as bars.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Renew the table and the picture in the README.
    #[arg(long)]
    readme: bool,
    /// How often everything is measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds per transfer.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Only the links, not the idle daemons and clients.
    #[arg(long)]
    links_only: bool,
    /// Only these, in place of all that can be had.
    #[arg(long, value_name = "SUBJECT", value_delimiter = ',', value_enum)]
    only: Vec<Kind>,
    /// In place of figures, write what the processors do during a transfer over the first of `--only` (else the direct
    /// path): a table of functions and a flame graph.
    #[arg(long, value_name = "DIR")]
    profile: Option<PathBuf>,
    /// In place of the comparison, measure nodes whose networks have so many members, each beside a network of two.
    #[arg(
        long,
        value_name = "MEMBERS,…",
        num_args = 0..=1,
        require_equals = true,
        value_delimiter = ',',
        default_missing_value = "10,100,1000",
        value_parser = clap::value_parser!(u32).range(3..=4000),
        conflicts_with_all = ["links_only", "only", "plot", "profile", "readme"],
    )]
    growth: Option<Vec<u32>>,
}

/// Measures and reports.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !isolate::is_inside() {
        packages::ensure_installed(&[packages::BUILD, packages::NAMESPACES, packages::TRAFFIC])?;
        workspace::build(&workspace::PROGRAMS)?;
    }
    if let Some(sizes) = &arguments.growth {
        return growth::run(sizes, arguments);
    }
    let clients =
        if arguments.links_only { None } else { Some(workspace::build_example(CLIENTS.0, CLIENTS.1)?) };
    let handshake = workspace::build_example("mesh-session", "handshake-cost")?;
    isolate::ensure_root_of_networks()?;
    let mut arena = Arena::new(NAME)?;
    let relay_host = arena.host("relay")?;
    let relay = start_relay(&relay_host, RELAY_LIMITS)?;
    if let Some(dir) = &arguments.profile {
        let kind = arguments.only.first().copied().unwrap_or(Kind::Direct);
        let subject = kind.start(&mut arena, &relay)?;
        return profile::run(&subject, &relay, dir).map(|()| ExitCode::SUCCESS);
    }
    let mut figures = Figures::default();
    figures.add("meshrelay RSS without clients", "MiB", None, load::rss_mib(relay.process.pid())?);
    let (mut subjects, mut absent) = start_all(arguments, &mut arena, &relay)?;
    for round in 1..=arguments.rounds {
        say::line(&format!("round {round} of {}", arguments.rounds));
        measure((&mut subjects, &mut absent), &relay, arguments.seconds, &mut figures)?;
        figures.add("CPU of a full handshake, both sides", "ms", None, load::printed_figure(&handshake)?);
    }
    for subject in subjects.iter().filter(|subject| !subject.programs.is_empty()) {
        let memory: f64 = subject.pids().into_iter().map(load::rss_mib).sum::<Result<f64>>()?;
        let each = memory / subject.programs.len() as f64;
        figures.add("RSS of each daemon after load", "MiB", Some(subject.kind), each);
    }
    drop(subjects);
    let near = arena.host("near")?;
    let daemon = start_daemon(&near, false)?;
    ctl(&near, &["up", "--new", "bench", "--relay", &relay.url, "--name", "near"], None)?;
    for round in 1..=arguments.rounds {
        let newcomer = arena.host(&format!("new{round}"))?;
        let other = time_to_first_ping(&near, &newcomer, &mut figures)?;
        cost_of_coming_up((&near, &daemon), (&newcomer, &other), &mut figures)?;
    }
    drop(daemon);
    if let Some(program) = clients {
        load::idle_peers(&mut arena, &relay, &mut figures)?;
        load::idle_clients(&relay_host, &mut arena, &relay, &program, &mut figures)?;
    }
    report(arguments, &figures, &absent)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the figures and writes the files that were asked for.
fn report(arguments: &Arguments, figures: &Figures, absent: &[String]) -> Result<()> {
    let machine = machine();
    let rounds = match arguments.rounds {
        1 => "one round".to_owned(),
        rounds => format!("medians of {rounds} rounds"),
    };
    let title = format!("{}; {rounds}", machine.summary());
    say::heading(&title);
    say::table(&figures.rows());
    for verdict in figures.verdicts() {
        say::line(&verdict);
    }
    for reason in absent {
        say::line(&format!("not measured: {reason}"));
    }
    let svg = plot::svg(&title, &figures.panels());
    if let Some(path) = &arguments.plot {
        fs::write(path, &svg).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if arguments.readme {
        let introduction = format!(
            "One run on one machine that holds both ends: {title} of {} s; inner MTU {} everywhere.",
            arguments.seconds,
            subject::MTU
        );
        readme::renew(&introduction, &figures.markdown(), &svg)?;
    }
    let document = json!({
        "schema": "shadowmesh.bench/2",
        "machine": machine.document(),
        "rounds": arguments.rounds,
        "figures": figures.document(),
        "absent": absent,
    });
    write_json(arguments.json.as_ref(), &document)?;
    Ok(())
}

/// Starts what is to be measured; the names of what cannot be had come with the reason.
fn start_all(arguments: &Arguments, arena: &mut Arena, relay: &Relay) -> Result<(Vec<Subject>, Vec<String>)> {
    let (mut subjects, mut absent) = (Vec::new(), Vec::new());
    for kind in Kind::value_variants().iter().copied() {
        if !arguments.only.is_empty() && !arguments.only.contains(&kind) {
            continue;
        }
        match kind.start(arena, relay) {
            Ok(subject) => subjects.push(subject),
            Err(error) if kind.is_rival() => absent.push(format!("{}: {error:#}", kind.name())),
            Err(error) => return Err(error),
        }
    }
    for reason in &absent {
        say::line(&format!("not measured: {reason}"));
    }
    Ok((subjects, absent))
}

/// One round: each measurement on everything. Another program that fails is left out from then on.
fn measure(
    (subjects, absent): (&mut Vec<Subject>, &mut Vec<String>),
    relay: &Relay,
    seconds: u32,
    figures: &mut Figures,
) -> Result<()> {
    // Processor time and gigabytes of all transfers together.
    let mut costs: Vec<(Kind, f64, f64)> = Vec::new();
    for (name, streams, reverse) in TCP {
        on_each((subjects, absent), |subject| {
            let (before, passed) = (busy(subject, relay)?, subject.passed()?);
            let result =
                traffic::tcp(&subject.near, &subject.far, &subject.address, seconds, streams, reverse)?;
            subject.has_its_path()?;
            subject.carried(result.gigabytes * 1e9, passed)?;
            figures.add(name, figures::TCP_RATE, Some(subject.kind), result.mbit_s);
            costs.push((subject.kind, busy(subject, relay)? - before, result.gigabytes));
            Ok(())
        })?;
    }
    for subject in subjects.iter().filter(|subject| !subject.programs.is_empty()) {
        let own = costs.iter().filter(|(kind, ..)| *kind == subject.kind);
        let (used, moved) = own.fold((0.0, 0.0), |sum, (_, used, moved)| (sum.0 + used, sum.1 + moved));
        figures.add("CPU per GB of TCP, both ends", "s", Some(subject.kind), used / moved);
    }
    for (name, size) in [("UDP 1372 B received", 1372), ("UDP 64 B received", 64)] {
        on_each((subjects, absent), |subject| {
            // What exceeds the inner MTU would be fragmented.
            let size = if subject.kind == Kind::Plain { size } else { size.min(1372) };
            let result = traffic::udp(&subject.near, &subject.far, &subject.address, seconds, size)?;
            figures.add(name, "packets/s", Some(subject.kind), result.received);
            let loss = format!("{} loss", name.trim_end_matches(" received"));
            figures.add(&loss, LOSS, Some(subject.kind), result.loss);
            Ok(())
        })?;
    }
    for (state, loaded) in [("idle", false), ("under TCP load", true)] {
        on_each((subjects, absent), |subject| {
            let result = traffic::latency(&subject.near, &subject.far, &subject.address, loaded)?;
            let name = |what: &str| format!("RTT {state}, {what}");
            figures.add(&name("median"), "ms", Some(subject.kind), result.median);
            figures.add(&name("p99"), "ms", Some(subject.kind), result.p99);
            figures.add(&name("pings lost"), LOSS, Some(subject.kind), result.loss);
            Ok(())
        })?;
    }
    Ok(())
}

/// Measures each in turn. A failure of ours ends it; of another program it is told, and the program is left out.
fn on_each(
    (subjects, absent): (&mut Vec<Subject>, &mut Vec<String>),
    mut measure: impl FnMut(&Subject) -> Result<()>,
) -> Result<()> {
    let mut result = Ok(());
    subjects.retain(|subject| {
        if result.is_err() {
            return true;
        }
        let Err(error) = measure(subject) else { return true };
        let name = subject.kind.name();
        if subject.kind.is_rival() {
            say::line(&format!("not measured any more: {name}: {error:#}"));
            absent.push(format!("{name}, later: {error:#}"));
            return false;
        }
        result = Err(error.context(format!("measuring \"{name}\"")));
        true
    });
    result
}

/// Seconds of processor time that the programs of a subject used so far, the relay's too where it carries the traffic.
fn busy(subject: &Subject, relay: &Relay) -> Result<f64> {
    let ends: f64 = subject.pids().into_iter().map(load::cpu_seconds).sum::<Result<f64>>()?;
    let relay = if matches!(subject.kind, Kind::Relay | Kind::RelayUdp) {
        load::cpu_seconds(relay.process.pid())?
    } else {
        0.0
    };
    Ok(ends + relay)
}

/// Comes up again as a member and pings; counts the processor time of both daemons until the reply.
///
/// It is more than a handshake: the interface, the relay connection with its signatures and the requests are in it.
fn cost_of_coming_up(near: (&Host, &Process), far: (&Host, &Process), figures: &mut Figures) -> Result<()> {
    let address = overlay_addresses(near.0)?.0;
    ctl(far.0, &["down"], None)?;
    let used = || {
        Ok::<_, anyhow::Error>(load::cpu_milliseconds(near.1.pid())? + load::cpu_milliseconds(far.1.pid())?)
    };
    let before = used()?;
    let start = Instant::now();
    ctl(far.0, &["up"], None)?;
    far.0.run(&["ping", "-n", "-c", "1", "-W", "5", &address])?;
    figures.add("up again until the first ping", "s", None, start.elapsed().as_secs_f64());
    figures.add("CPU of both meshd for that, handshake included", "ms", None, used()? - before);
    Ok(())
}

/// Joins with a ticket and pings; the time counts from the call of `meshctl up`.
fn time_to_first_ping(coordinator: &Host, newcomer: &Host, figures: &mut Figures) -> Result<Process> {
    let daemon = start_daemon(newcomer, false)?;
    let address = overlay_addresses(coordinator)?.0;
    let ticket = ctl(coordinator, &["invite"], None)?;
    let start = Instant::now();
    ctl(newcomer, &["up", "--ticket-file", "-", "--name", &newcomer.name], Some(&ticket))?;
    figures.add("meshctl up with a ticket", "s", None, start.elapsed().as_secs_f64());
    wait_until("the first ping", Duration::from_secs(10), || {
        let ping = newcomer.command(&["ping", "-n", "-c", "1", "-W", "1", &address]).output()?;
        Ok(ping.status.success().then_some(()))
    })?;
    figures.add("up with a ticket until the first ping", "s", None, start.elapsed().as_secs_f64());
    anyhow::ensure!(status(newcomer)?["state"] == "up", "the newcomer is not up");
    Ok(daemon)
}

const NAME: &str = "bench";

/// All clients of the measurement come from one address; the transfer is bounded by the machine alone.
const RELAY_LIMITS: &str = "clients_per_address = 2000\nnew_clients_per_second = 0\nbytes_per_second = 0";

/// The package and the example that holds many connections to a relay.
const CLIENTS: (&str, &str) = ("mesh-netns-tests", "relay-clients");

/// Name, number of streams, whether the far end sends.
const TCP: [(&str, u32, bool); 4] = [
    ("TCP, 1 stream", 1, false),
    ("TCP, 1 stream, back", 1, true),
    ("TCP, 4 streams", 4, false),
    ("TCP, 4 streams, back", 4, true),
];
