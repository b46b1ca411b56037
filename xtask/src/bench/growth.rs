//! What the size of a network costs one of its nodes: memory, processor time while idle, and the rate of one flow.
//!
//! Every size gets a network of real daemons, and beside it, on the same switch and relay, one of two nodes. The node that
//! is measured is an ordinary member in both; its flow ends at the keeper, the network's coordinator. Live members are
//! daemons with a session that stands; the others have keys and an admission and are away.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::figures::{machine, median, shown};
use super::subject::MTU;
use super::{Arguments, CLIENTS, NAME, RELAY_LIMITS, load, traffic};
use crate::arena::{Arena, Host, Process, wait_until};
use crate::programs::{DaemonOptions, Relay, ctl, start_daemon_with, start_relay, status};
use crate::{isolate, say, workspace, write_json};

/// Measures every size and reports.
pub(super) fn run(sizes: &[u32], arguments: &Arguments) -> Result<ExitCode> {
    let program = workspace::build_example(CLIENTS.0, "members")?;
    isolate::ensure_root_of_networks()?;
    let mut measured = Vec::new();
    for members in sizes {
        measured.push(measure(Size::of(*members), arguments, &program)?);
    }
    let machine = machine();
    say::heading(&format!("{}; medians of {} rounds", machine.summary(), arguments.rounds));
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    rows.extend(measured.iter().map(Growth::row));
    say::table(&rows);
    let document = json!({
        "schema": "shadowmesh.bench.growth/1",
        "machine": machine.document(),
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "sizes": measured.iter().map(Growth::document).collect::<Value>(),
    });
    write_json(arguments.json.as_ref(), &document)?;
    Ok(ExitCode::SUCCESS)
}

/// How large a network is.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// Nodes in the roster.
    members: u32,
    /// Sessions that the measured node holds.
    live: u32,
}

impl Size {
    /// Half of the members are there, but not more than so many daemons as one machine holds; all of a small network.
    fn of(members: u32) -> Self {
        Self { members, live: (members / 2).clamp(10, LIVE_MOST).min(members - 1) }
    }
}

/// Of the network and of the two nodes beside it.
#[derive(Debug, Clone, Copy)]
struct Both<T> {
    network: T,
    pair: T,
}

/// What was measured of one size.
#[derive(Debug)]
struct Growth {
    size: Size,
    /// Sessions whose frames take a direct path.
    direct: usize,
    rss_mib: Both<f64>,
    idle_percent: Both<f64>,
    /// The rate of the flow in each round.
    mbit_s: Vec<Both<f64>>,
}

impl Growth {
    /// The rate by that of the two nodes, the middle one of all rounds.
    fn ratio(&self) -> Option<f64> {
        median(&self.mbit_s.iter().map(|rate| rate.network / rate.pair).collect::<Vec<_>>())
    }

    fn rates(&self) -> Both<Vec<f64>> {
        Both {
            network: self.mbit_s.iter().map(|rate| rate.network).collect(),
            pair: self.mbit_s.iter().map(|rate| rate.pair).collect(),
        }
    }

    fn row(&self) -> Vec<String> {
        let rates = self.rates();
        vec![
            self.size.members.to_string(),
            self.size.live.to_string(),
            self.direct.to_string(),
            shown(Some(self.rss_mib.network)),
            shown(Some(self.rss_mib.pair)),
            shown(Some(self.idle_percent.network)),
            shown(Some(self.idle_percent.pair)),
            shown(median(&rates.network)),
            shown(median(&rates.pair)),
            shown(self.ratio()),
        ]
    }

    fn document(&self) -> Value {
        let rates = self.rates();
        json!({
            "members": self.size.members,
            "live_sessions": self.size.live,
            "direct_sessions": self.direct,
            "rss_mib": { "network": self.rss_mib.network, "two_nodes": self.rss_mib.pair },
            "idle_cpu_percent": { "network": self.idle_percent.network, "two_nodes": self.idle_percent.pair },
            "tcp_mbit_s": {
                "network": { "median": median(&rates.network), "values": rates.network },
                "two_nodes": { "median": median(&rates.pair), "values": rates.pair },
                "ratio": self.ratio(),
            },
        })
    }
}

/// Makes a network of a size and one of two nodes, and measures them in turns.
fn measure(size: Size, arguments: &Arguments, program: &Path) -> Result<Growth> {
    say::line(&format!("{} members, {} sessions", size.members, size.live));
    let mut arena = Arena::new(NAME)?;
    let relay = start_relay(&arena.host("relay")?, RELAY_LIMITS)?;
    let pair = Network::make(&mut arena, &relay, "pair", Size { members: 2, live: 1 }, program)?;
    let network = Network::make(&mut arena, &relay, "net", size, program)?;
    let both = Both { network: &network, pair: &pair };
    let (idle_percent, rss_mib) = idle(both)?;
    let direct = network.check()?;
    let mut mbit_s = Vec::new();
    for round in 1..=arguments.rounds {
        say::line(&format!("round {round} of {}", arguments.rounds));
        network.greet()?;
        // Neither always comes first.
        let first = (round % 2 == 0).then(|| both.pair.flow(arguments.seconds)).transpose()?;
        let of_network = both.network.flow(arguments.seconds)?;
        let of_pair = first.map_or_else(|| both.pair.flow(arguments.seconds), Ok)?;
        network.check()?;
        mbit_s.push(Both { network: of_network, pair: of_pair });
    }
    Ok(Growth { size, direct, rss_mib, idle_percent, mbit_s })
}

/// Shares of a core in percent that the measured nodes use while nobody sends, over the same time, and their memory then.
fn idle(networks: Both<&Network>) -> Result<(Both<f64>, Both<f64>)> {
    let used = || {
        Ok::<_, anyhow::Error>(Both {
            network: load::cpu_milliseconds(networks.network.pid)?,
            pair: load::cpu_milliseconds(networks.pair.pid)?,
        })
    };
    networks.pair.greet()?;
    networks.network.greet()?;
    // Searches for paths and the last keepalives of what was just said.
    thread::sleep(SETTLE);
    let before = used()?;
    // The measurement is what happens during this time: nothing.
    thread::sleep(IDLE);
    let after = used()?;
    // The sessions stood all the time.
    networks.network.check()?;
    networks.pair.check()?;
    let percent = |before: f64, after: f64| (after - before) / 10.0 / IDLE.as_secs_f64();
    let idle =
        Both { network: percent(before.network, after.network), pair: percent(before.pair, after.pair) };
    let memory =
        Both { network: load::rss_mib(networks.network.pid)?, pair: load::rss_mib(networks.pair.pid)? };
    Ok((idle, memory))
}

/// A network of real daemons that are up.
#[derive(Debug)]
struct Network {
    keeper: Host,
    measured: Host,
    /// The daemon of the measured node.
    pid: u32,
    /// Inner addresses of all that are up but the measured node, the keeper's first.
    others: Vec<String>,
    /// They end with the value.
    _programs: Vec<Process>,
}

impl Network {
    /// Enrols all members, then brings up those that are to be there.
    fn make(arena: &mut Arena, relay: &Relay, name: &str, size: Size, program: &Path) -> Result<Self> {
        let keeper = arena.host(&format!("{name}0"))?;
        let mut programs = vec![start_daemon_with(&keeper, &options(true))?];
        ctl(&keeper, &["up", "--new", name, "--relay", &relay.url, "--name", KEEPER], None)?;
        let ticket = ctl(&keeper, &["invite", "--uses", &size.members.to_string()], None)?;
        let mut nodes = Vec::new();
        for number in 1..=size.live {
            let host = arena.host(&format!("{name}{number}"))?;
            programs.push(start_daemon_with(&host, &options(number == 1))?);
            ctl(&host, &["up", "--ticket-file", "-", "--name", &host.name], Some(&ticket))?;
            // Who is down does not hear of everybody who comes after it.
            ctl(&host, &["down"], None)?;
            nodes.push(host);
        }
        let absent = size.members - 1 - size.live;
        if absent > 0 {
            let file = keeper.dir.join("ticket");
            fs::write(&file, &ticket)?;
            let (program, file) = (program.display().to_string(), file.display().to_string());
            let words = [&program, "--ticket-file", &file, "--count", &absent.to_string()];
            arena.host(&format!("{name}-away"))?.run(&words)?;
        }
        for host in &nodes {
            ctl(host, &["up"], None)?;
        }
        let measured = nodes.first().context("nobody is to be measured")?.clone();
        let pid = programs.get(1).map(Process::pid).context("nobody is to be measured")?;
        let others = addresses(&measured, size, &nodes)?;
        let network = Self { keeper, measured, pid, others, _programs: programs };
        network.greet()?;
        wait_until("a direct path to the keeper", Duration::from_secs(15), || {
            network.greet_one(&network.others[0])?;
            Ok(network.is_direct()?.then_some(()))
        })?;
        Ok(network)
    }

    /// Exchanges a packet with every live member, so that its session stands and its keys are in use.
    fn greet(&self) -> Result<()> {
        for address in &self.others {
            wait_until(&format!("{address} to answer"), Duration::from_secs(20), || {
                Ok(self.greet_one(address)?.then_some(()))
            })?;
        }
        Ok(())
    }

    fn greet_one(&self, address: &str) -> Result<bool> {
        let words = ["ping", "-n", "-c", "1", "-W", "2", address];
        Ok(self.measured.command(&words).output()?.status.success())
    }

    /// Fails unless the measured node has a session with everybody who is there; returns how many take a direct path.
    fn check(&self) -> Result<usize> {
        let status = status(&self.measured)?;
        let peers = status["peers"].as_array().context("status shows no peers")?;
        let stands =
            |peer: &&Value| peer["session"]["exporter_mixed"] == true && peer["state"] == "established";
        let standing: Vec<&Value> = peers.iter().filter(stands).collect();
        ensure!(
            standing.len() == self.others.len(),
            "{} sessions stand in place of {}",
            standing.len(),
            self.others.len()
        );
        Ok(standing.iter().filter(|peer| peer["path"] == "direct").count())
    }

    fn is_direct(&self) -> Result<bool> {
        let status = status(&self.measured)?;
        let keeper = status["peers"].as_array().and_then(|peers| peers.iter().find(|p| p["name"] == KEEPER));
        Ok(keeper.is_some_and(|keeper| keeper["path"] == "direct"))
    }

    /// The rate of one flow from the measured node to the keeper in Mbit/s.
    fn flow(&self, seconds: u32) -> Result<f64> {
        let result = traffic::tcp(&self.measured, &self.keeper, &self.others[0], seconds, 1, false)?;
        ensure!(self.is_direct()?, "the flow did not take a direct path");
        Ok(result.mbit_s)
    }
}

/// Inner addresses of all that are up but the measured node, the keeper's first. Fails unless the roster has the size.
fn addresses(measured: &Host, size: Size, nodes: &[Host]) -> Result<Vec<String>> {
    let status = status(measured)?;
    let members = &status["network"]["members"];
    ensure!(*members == size.members, "the roster has {members} members in place of {}", size.members);
    let live: BTreeSet<&str> = nodes.iter().map(|host| host.name.as_str()).collect();
    let peers = status["peers"].as_array().context("status shows no peers")?;
    let named = |wanted: &dyn Fn(&str) -> bool| {
        let peers = peers.iter().filter(|peer| peer["name"].as_str().is_some_and(wanted));
        let addresses = peers.filter_map(|peer| peer["addresses"][0].as_str());
        addresses.map(str::to_owned).collect::<Vec<_>>()
    };
    let others = [named(&|name| name == KEEPER), named(&|name| live.contains(name))].concat();
    let wanted = usize::try_from(size.live)?;
    ensure!(others.len() == wanted, "{} members are known in place of {wanted}", others.len());
    Ok(others)
}

/// Only two look for neighbours: announcements of two hundred daemons to each other would be measured, too.
const fn options(mdns: bool) -> DaemonOptions {
    DaemonOptions { direct: true, relay_udp: true, mdns, tap: false, aes: true, mtu: MTU }
}

const HEAD: [&str; 10] = [
    "members",
    "sessions",
    "direct",
    "RSS MiB",
    "two nodes",
    "idle CPU %",
    "two nodes",
    "TCP Mbit/s",
    "two nodes",
    "ratio",
];

const KEEPER: &str = "keeper";

/// Daemons beside the keeper; a machine with two cores holds so many, and the switch has an address for each.
const LIVE_MOST: u32 = 200;

const SETTLE: Duration = Duration::from_secs(20);

/// With [`SETTLE`] shorter than a session without traffic lasts.
const IDLE: Duration = Duration::from_secs(40);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_sessions_that_fit() {
        let live = |members| Size::of(members).live;
        assert_eq!([3, 10, 100, 1000].map(live), [2, 9, 50, 200]);
    }

    #[test]
    fn ratio_compares_within_a_round() {
        let both = |network, pair| Both { network, pair };
        let growth = Growth {
            size: Size::of(10),
            direct: 9,
            rss_mib: both(1.0, 1.0),
            idle_percent: both(0.0, 0.0),
            mbit_s: vec![both(50.0, 100.0), both(900.0, 1000.0), both(8.0, 10.0)],
        };
        assert_eq!(growth.ratio(), Some(0.8));
    }
}
