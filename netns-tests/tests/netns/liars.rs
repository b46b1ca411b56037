//! Lies about addresses move no traffic anywhere: those of the relay, whose STUN ports say whatever it likes, and those of a
//! stranger, who answers in its name.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::{
    Capture, DaemonOptions, Host, NatKind, Pair, Process, Relay, UDP_PORT, Underlay, every_answer, scenario,
};
use serde_json::Value;

/// The relay of the roster says that both nodes are at an address of its choice. Behind routers no path is found then; in
/// public one is, since the nodes know their addresses. Neither sends more than short challenges to where the relay says.
#[test]
fn relay_that_lies_about_addresses_gets_challenges_and_nothing_else() {
    for (kind, path) in [(NatKind::PortRestricted, "relay"), (NatKind::None, "direct")] {
        scenario("relay_that_lies_about_addresses_gets_challenges_and_nothing_else", |lab| {
            let public = lab.public(Underlay::V4)?;
            let trap = public.host("trap")?;
            let said = SocketAddr::new(trap.address(), 4444);
            let sites = [public.site("one", kind)?, public.site("two", kind)?];
            let hosts = [sites[0].host("laptop")?, sites[1].host("pi")?];
            let mut pair = Pair::new(lab, &public, [&hosts[0], &hosts[1]])?;
            let _servers = lies(pair.relay.host(), said)?;
            // What they heard of the honest one is past: they ask anew when they start.
            for node in &mut pair.nodes {
                node.stop()?;
            }
            for node in &mut pair.nodes {
                node.launch()?;
            }
            for node in &pair.nodes {
                node.wait_for_status("the relay", LIMIT, |status| status.relay_state() == "connected")?;
            }
            lab::wait_until("a ping", LIMIT, || Ok(pair.every_ping("0.05", 1).ok()))?;
            let capture = Capture::start(lab, &trap, "eth0", "udp port 4444")?;
            carries(&pair)?;
            for (at, node) in pair.nodes.iter().enumerate() {
                node.wait_for_status("the lie", LIMIT, |status| {
                    says(status, pair.nodes[1 - at].name(), said)
                })?;
            }
            carries(&pair)?;
            ensure!(pair.paths()? == [path, path], "{:?}", pair.paths()?);
            let recording = capture.stop()?;
            let longest = recording.datagrams.iter().map(|datagram| datagram.len).max().unwrap_or(0);
            tell(path, recording.packets, longest);
            ensure!(recording.packets > 0, "nobody believed the relay enough to try");
            ensure!(
                recording.packets < CHALLENGES && longest < SHORT,
                "{} packets, of {longest} bytes at most",
                recording.packets
            );
            Ok(())
        });
    }
}

/// Somebody sends answers of STUN in the relay's name all the time, also while the nodes ask.
#[test]
fn forged_answers_of_a_stranger_change_nothing() {
    scenario("forged_answers_of_a_stranger_change_nothing", |lab| {
        let public = lab.public(Underlay::V4)?;
        let (trap, mallory) = (public.host("trap")?, public.host("mallory")?);
        let hosts = [public.host("laptop")?, public.host("pi")?];
        let listen = DaemonOptions {
            extra: format!("udp_listen = [\"0.0.0.0:{UDP_PORT}\"]\n"),
            ..DaemonOptions::default()
        };
        let mut pair = Pair::of(lab, &public, [&hosts[0], &hosts[1]], [listen.clone(), listen])?;
        let said = SocketAddr::new(trap.address(), 4444);
        let mut forgers = forgers(&mallory, &pair, said)?;
        let capture = Capture::start(lab, &trap, "eth0", "udp port 4444")?;
        for _ in 0..2 {
            // A node that starts asks at once.
            pair.forget()?;
            pair.meet(LIMIT)?;
            carries(&pair)?;
        }
        ensure!(pair.paths()? == ["direct", "direct"], "{:?}", pair.paths()?);
        for (at, node) in pair.nodes.iter().enumerate() {
            let status = node.status()?;
            ensure!(
                !says(&status, pair.nodes[1 - at].name(), said),
                "{} believes it: {}",
                node.name(),
                status.0
            );
            let own = &status.peer(pair.nodes[1 - at].name())?["direct"]["own_mapping"];
            ensure!(*own == "none", "{} takes its NAT for {own}", node.name());
        }
        for forger in &mut forgers {
            ensure!(forger.is_running()?, "the forger ended: {}", forger.log()?);
        }
        let recording = capture.stop()?;
        ensure!(recording.packets == 0, "{} packets went to the address of the lie", recording.packets);
        Ok(())
    });
}

/// Has the STUN ports of a relay's host say the same of everybody.
fn lies(relay: &Host, said: SocketAddr) -> Result<Vec<Process>> {
    let mut servers = Vec::new();
    let mut rules = String::new();
    for (port, instead) in [(Relay::STUN_PORT, 9998), (Relay::OTHER_STUN_PORT, 9999)] {
        let words = ["stun-serve", "--bind", &format!("0.0.0.0:{instead}"), "--say", &said.to_string()];
        let mut server = relay.run(PROBE).args(words).spawn(&format!("lies-{instead}"))?;
        server.wait_for_log("ready", Duration::from_secs(5))?;
        servers.push(server);
        rules.push_str(&format!("udp dport {port} redirect to :{instead}\n"));
    }
    relay.nft(&format!(
        "table ip lies {{
            chain prerouting {{
                type nat hook prerouting priority dstnat;
                {rules}
            }}
        }}\n"
    ))?;
    Ok(servers)
}

/// Answers in the name of both STUN ports of the relay, to both nodes.
fn forgers(mallory: &Host, pair: &Pair, said: SocketAddr) -> Result<Vec<Process>> {
    let mut forgers = Vec::new();
    for node in &pair.nodes {
        for port in [Relay::STUN_PORT, Relay::OTHER_STUN_PORT] {
            let to = SocketAddr::new(node.host().address(), UDP_PORT).to_string();
            let from = SocketAddr::new(pair.relay.host().address(), port).to_string();
            let words =
                ["stun-forge", "--to", &to, "--from", &from, "--say", &said.to_string(), "--seconds", "120"];
            let mut forger =
                mallory.run(PROBE).args(words).spawn(&format!("forger-{}-{port}", node.name()))?;
            forger.wait_for_log("ready", Duration::from_secs(5))?;
            forgers.push(forger);
        }
    }
    Ok(forgers)
}

/// Pings of all lengths, for longer than a search takes, every one of which is answered.
fn carries(pair: &Pair) -> Result<()> {
    let [first, second] = &pair.nodes;
    for size in ["56", "1300"] {
        for (node, peer) in [(first, second), (second, first)] {
            every_answer(node.host(), &["-s", size], (40, "0.05"), &peer.ipv4()?)?;
        }
    }
    Ok(())
}

/// A node names this address for itself or for its peer.
fn says(status: &lab::Status, peer: &str, said: SocketAddr) -> bool {
    let direct = status.peer(peer).map(|peer| peer["direct"].clone()).unwrap_or_default();
    let has = |key: &str| {
        let list = direct[key].as_array().cloned().unwrap_or_default();
        list.iter().any(|entry: &Value| entry["address"] == said.to_string())
    };
    has("own") || has("remotes")
}

#[expect(clippy::print_stdout, reason = "the figures are what a reader of the run wants to know")]
fn tell(path: &str, packets: u64, longest: usize) {
    println!("path {path}: the trap got {packets} packets of {longest} bytes at most");
}

const PROBE: &str = env!("CARGO_BIN_EXE_mesh-lab-probe");
/// Two nodes search a few times with some twenty rounds each.
const CHALLENGES: u64 = 300;
/// A sealed challenge has about a hundred bytes, a frame with a ping of the shortest more.
const SHORT: usize = 110;
const LIMIT: Duration = Duration::from_secs(20);
