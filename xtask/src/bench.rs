//! Figures of the tunnel beside a plain link, measured in one go.
//!
//! Every round measures the plain link and the tunnel directly after each other, so that both see the same machine;
//! the report shows medians over the rounds and their ratio.

mod figures;
mod load;
mod traffic;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use crate::arena::{Arena, Host, Process, wait_until};
use crate::programs::{Relay, ctl, overlay_addresses, start_daemon, start_relay, status};
use crate::{isolate, packages, say, workspace, write_json};

use figures::{Figures, machine};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Write the figures to a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How often everything is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds per transfer.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Only the links, not the idle daemons and clients.
    #[arg(long)]
    links_only: bool,
}

/// Measures and reports.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !isolate::is_inside() {
        packages::ensure_installed(&[packages::BUILD, packages::NAMESPACES, packages::TRAFFIC])?;
        workspace::build(&workspace::PROGRAMS)?;
    }
    let clients =
        if arguments.links_only { None } else { Some(workspace::build_example(CLIENTS.0, CLIENTS.1)?) };
    let handshake = workspace::build_example("mesh-session", "handshake-cost")?;
    isolate::ensure_root_of_networks()?;
    let mut figures = Figures::default();
    let mut arena = Arena::new(NAME)?;
    let relay_host = arena.host("relay")?;
    let (near, far) = (arena.host("near")?, arena.host("far")?);
    let relay = start_relay(&relay_host, RELAY_LIMITS)?;
    figures.add("meshrelay RSS without clients", "MiB", None, Some(load::rss_mib(relay.process.pid())?));
    let daemons = [start_daemon(&near, false)?, start_daemon(&far, false)?];
    ctl(&near, &["up", "--new", "bench", "--relay", &relay.url, "--name", "near"], None)?;
    let ticket = ctl(&near, &["invite", "--name", "far"], None)?;
    ctl(&far, &["up", "--ticket-file", "-"], Some(&ticket))?;
    figures.add("meshd RSS idle, 1 peer", "MiB", None, Some(load::rss_mib(daemons[0].pid())?));
    let links = Links {
        plain: far.address.clone(),
        tunnel: overlay_addresses(&far)?.0,
        near: &near,
        far: &far,
        relay: &relay,
        daemons: &daemons,
        seconds: arguments.seconds,
    };
    for round in 1..=arguments.rounds {
        say::line(&format!("round {round} of {}", arguments.rounds));
        links.measure(&mut figures)?;
        figures.add(
            "CPU of a full handshake, both sides",
            "ms",
            None,
            Some(load::printed_figure(&handshake)?),
        );
        let newcomer = arena.host(&format!("new{round}"))?;
        let daemon = time_to_first_ping(&near, &newcomer, &mut figures)?;
        cost_of_coming_up((&near, &daemons[0]), (&newcomer, &daemon), &mut figures)?;
    }
    figures.add("meshd RSS after load", "MiB", None, Some(load::rss_mib(daemons[0].pid())?));
    drop(daemons);
    if let Some(program) = clients {
        load::idle_peers(&mut arena, &relay, &mut figures)?;
        load::idle_clients(&relay_host, &mut arena, &relay, &program, &mut figures)?;
    }
    let machine = machine();
    say::heading(&format!("{}; medians of {} rounds", machine.summary(), arguments.rounds));
    say::table(&figures.rows());
    let document = json!({
        "schema": "shadowmesh.bench/1",
        "machine": machine.document(),
        "rounds": arguments.rounds,
        "figures": figures.document(),
    });
    write_json(arguments.json.as_ref(), &document)?;
    Ok(ExitCode::SUCCESS)
}

/// The two ways between two hosts.
#[derive(Debug)]
struct Links<'arena> {
    plain: String,
    tunnel: String,
    near: &'arena Host,
    far: &'arena Host,
    relay: &'arena Relay,
    daemons: &'arena [Process; 2],
    seconds: u32,
}

impl Links<'_> {
    /// One round: each measurement on the plain link, then through the tunnel.
    fn measure(&self, figures: &mut Figures) -> Result<()> {
        let (near, far, seconds) = (self.near, self.far, self.seconds);
        let ends = [&self.plain, &self.tunnel];
        for (name, streams, reverse) in TCP {
            let mut rates = [0.0; 2];
            for (rate, address) in rates.iter_mut().zip(ends) {
                let before = self.busy()?;
                let result = traffic::tcp(near, far, address, seconds, streams, reverse)?;
                *rate = result.mbit_s;
                if *address == self.tunnel {
                    self.costs(figures, name, &before, &result)?;
                }
            }
            figures.add(name, "Mbit/s", Some(rates[0]), Some(rates[1]));
        }
        for (name, size) in [("UDP 1372 B received", 1372), ("UDP 64 B received", 64)] {
            let mut results = Vec::new();
            for address in ends {
                results.push(traffic::udp(near, far, address, seconds, size)?);
            }
            figures.add(name, "packets/s", Some(results[0].received), Some(results[1].received));
            let loss = format!("{} loss", name.trim_end_matches(" received"));
            figures.add(&loss, "%", Some(results[0].loss), Some(results[1].loss));
        }
        for (state, loaded) in [("idle", false), ("under TCP load", true)] {
            let mut results = Vec::new();
            for address in ends {
                results.push(traffic::latency(near, far, address, loaded)?);
            }
            figures.add(
                &format!("RTT {state}, median"),
                "ms",
                Some(results[0].median),
                Some(results[1].median),
            );
            figures.add(&format!("RTT {state}, p99"), "ms", Some(results[0].p99), Some(results[1].p99));
            let loss = format!("RTT {state}, pings lost");
            figures.add(&loss, "%", Some(results[0].loss), Some(results[1].loss));
        }
        Ok(())
    }

    /// What everybody used so far.
    fn busy(&self) -> Result<Busy> {
        let pids = [self.daemons[0].pid(), self.daemons[1].pid(), self.relay.process.pid()];
        let mut programs = [0.0; 3];
        let mut threads = BTreeMap::new();
        for ((seconds, pid), who) in programs.iter_mut().zip(pids).zip(WHO) {
            *seconds = load::cpu_seconds(pid)?;
            for (path, (name, seconds)) in load::thread_seconds(pid)? {
                threads.insert(path, (format!("{name} of {who}"), seconds));
            }
        }
        Ok(Busy { programs, threads, machine: load::machine_seconds()?, at: Instant::now() })
    }

    /// What a transfer cost, for the plainest of them.
    fn costs(&self, figures: &mut Figures, name: &str, before: &Busy, result: &traffic::Tcp) -> Result<()> {
        if name != TCP[0].0 {
            return Ok(());
        }
        let after = self.busy()?;
        let seconds = (after.at - before.at).as_secs_f64();
        for (index, who) in WHO.into_iter().enumerate() {
            let used = after.programs[index] - before.programs[index];
            figures.add(&format!("CPU per GB, {who}"), "s", None, Some(used / result.gigabytes));
            figures.add(
                &format!("CPU of {who} meanwhile"),
                "% of a core",
                None,
                Some(100.0 * used / seconds),
            );
        }
        let used =
            |path: &PathBuf, total: f64| total - before.threads.get(path).map_or(0.0, |(_, start)| *start);
        let busiest = after.threads.iter().map(|(path, (name, total))| (used(path, *total), name));
        if let Some((used, name)) = busiest.max_by(|one, other| one.0.total_cmp(&other.0)) {
            let title = format!("CPU of the busiest thread ({name})");
            figures.add(&title, "% of a core", None, Some(100.0 * used / seconds));
        }
        let (busy, idle) = (after.machine.0 - before.machine.0, after.machine.1 - before.machine.1);
        figures.add("CPU of the whole machine meanwhile", "%", None, Some(100.0 * busy / (busy + idle)));
        Ok(())
    }
}

/// Processor time used up to a moment.
#[derive(Debug)]
struct Busy {
    /// In the order of [`WHO`], in seconds.
    programs: [f64; 3],
    /// Name and seconds of every thread of theirs.
    threads: BTreeMap<PathBuf, (String, f64)>,
    /// Busy and idle seconds of all cores.
    machine: (f64, f64),
    at: Instant,
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
    figures.add("up again until the first ping", "s", None, Some(start.elapsed().as_secs_f64()));
    figures.add("CPU of both meshd for that, handshake included", "ms", None, Some(used()? - before));
    Ok(())
}

/// Joins with a ticket and pings; the time counts from the call of `meshctl up`.
fn time_to_first_ping(coordinator: &Host, newcomer: &Host, figures: &mut Figures) -> Result<Process> {
    let daemon = start_daemon(newcomer, false)?;
    let address = overlay_addresses(coordinator)?.0;
    let ticket = ctl(coordinator, &["invite"], None)?;
    let start = Instant::now();
    ctl(newcomer, &["up", "--ticket-file", "-", "--name", &newcomer.name], Some(&ticket))?;
    figures.add("meshctl up with a ticket", "s", None, Some(start.elapsed().as_secs_f64()));
    wait_until("the first ping", Duration::from_secs(10), || {
        let ping = newcomer.command(&["ping", "-n", "-c", "1", "-W", "1", &address]).output()?;
        Ok(ping.status.success().then_some(()))
    })?;
    figures.add("up with a ticket until the first ping", "s", None, Some(start.elapsed().as_secs_f64()));
    anyhow::ensure!(status(newcomer)?["state"] == "up", "the newcomer is not up");
    Ok(daemon)
}

const NAME: &str = "bench";
const WHO: [&str; 3] = ["sending meshd", "receiving meshd", "meshrelay"];

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
