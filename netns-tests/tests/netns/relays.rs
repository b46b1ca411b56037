//! Several relays: which one is home, how nodes with different homes meet, and what the loss of one costs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{
    Daemon, DaemonOptions, Delay, Lab, Process, Relay, StreamServer, Switch, Underlay, scenario, wait_until,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const APART: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(20);

/// Relays and nodes on a public switch; every node knows all relays, in the same order.
struct World<'lab> {
    lab: &'lab Lab,
    switch: Switch<'lab>,
    relays: Vec<Relay>,
    nodes: Vec<Daemon>,
}

impl<'lab> World<'lab> {
    fn new(lab: &'lab Lab, relays: usize) -> Result<Self> {
        let switch = lab.public(Underlay::V4)?;
        let relays: Result<Vec<_>> =
            (0..relays).map(|number| Relay::start(lab, &switch.host(&format!("relay{number}"))?)).collect();
        Ok(Self { lab, switch, relays: relays?, nodes: Vec::new() })
    }

    /// Starts a node with these relays in its configuration. The first one makes the network at the first relay, the others
    /// join.
    fn node(&mut self, name: &str, urls: &[String]) -> Result<()> {
        let host = self.switch.host(name)?;
        self.node_at(name, &host, urls)
    }

    fn node_at(&mut self, name: &str, host: &lab::Host, urls: &[String]) -> Result<()> {
        let extra = format!("relays = {urls:?}\n");
        let daemon = Daemon::start(self.lab, host, &DaemonOptions { extra, ..DaemonOptions::default() })?;
        match self.nodes.first() {
            None => daemon.up_new("home", &self.relays[0].url(), name)?,
            Some(coordinator) => daemon.join(&coordinator.invite(&["--name", name])?)?,
        }
        self.nodes.push(daemon);
        Ok(())
    }

    fn urls(&self) -> Vec<String> {
        self.relays.iter().map(Relay::url).collect()
    }

    /// Waits until a node has its home and its warm relay at these.
    fn wait_for(&self, node: usize, home: usize, warm: usize) -> Result<()> {
        let place = |number: usize| self.relays[number].host().address().to_string();
        let (home, warm) = (place(home), place(warm));
        self.nodes[node].wait_for_status("home and the warm relay", LIMIT, |status| {
            let at = |mark: &str, place: &str| {
                relays(&status.0).iter().any(|relay| {
                    relay[mark] == true
                        && relay["state"] == "connected"
                        && relay["url"].as_str().is_some_and(|url| url.contains(place))
                })
            };
            at("home", &home) && at("warm", &warm)
        })?;
        Ok(())
    }

    /// Waits until every node has a home and a warm relay among these, and says which is the home of the first.
    fn home_and_warm_among(&self, left: &[usize]) -> Result<usize> {
        let place = |relay: &usize| self.relays[*relay].host().address().to_string();
        let among = |status: &lab::Status, mark: &str| {
            let relays = relays(&status.0);
            let mut marked =
                relays.iter().filter(|relay| relay[mark] == true && relay["state"] == "connected");
            let url = marked.next()?["url"].as_str()?.to_owned();
            left.iter().copied().find(|relay| url.contains(&place(relay)))
        };
        let mut home = None;
        for node in self.nodes.iter().rev() {
            let status = node.wait_for_status("a home and a warm relay", LIMIT, |status| {
                among(status, "home").is_some() && among(status, "warm").is_some()
            })?;
            home = among(&status, "home");
        }
        home.context("no home")
    }

    fn wait_for_home(&self, node: usize, home: usize) -> Result<()> {
        let place = self.relays[home].host().address().to_string();
        self.nodes[node].wait_for_status("home", LIMIT, |status| {
            relays(&status.0).iter().any(|relay| {
                relay["home"] == true
                    && relay["state"] == "connected"
                    && relay["url"].as_str().is_some_and(|url| url.contains(&place))
            })
        })?;
        Ok(())
    }

    /// Pings the second node from the first one while `body` runs and until answers came again; returns the longest silence.
    fn silence(&self, log: &str, body: impl FnOnce() -> Result<()>) -> Result<Duration> {
        let to = self.nodes[1].ipv4()?;
        let mut pings = self.nodes[0].host().run("ping").args(["-n", "-i", "0.02", &to]).spawn(log)?;
        pings.wait_for_log("bytes from", LIMIT)?;
        body()?;
        answers_again(&pings)?;
        pings.signal(Signal::SIGINT)?;
        let log = pings.wait_ok(LIMIT)?;
        ensure!(!log.contains("DUP!"), "a packet came twice: {log}");
        lab::longest_silence(&log, APART)
    }
}

fn relays(status: &Value) -> Vec<Value> {
    status["relays"].as_array().cloned().unwrap_or_default()
}

/// Waits for fifty more answers.
fn answers_again(pings: &Process) -> Result<()> {
    let answers = || -> Result<usize> { Ok(pings.log()?.matches("bytes from").count()) };
    let before = answers()?;
    wait_until("answers to pings again", LIMIT, || Ok((answers()? >= before + 50).then_some(())))
}

#[test]
fn loss_of_the_home_relay_costs_less_than_a_second() {
    for freeze in [false, true] {
        let name = if freeze { "relays_failover_frozen" } else { "relays_failover_killed" };
        scenario(name, |lab| {
            let mut world = World::new(lab, 2)?;
            let urls = world.urls();
            world.node("anna", &urls)?;
            world.node("bert", &urls)?;
            world.wait_for(0, 0, 1)?;
            world.wait_for(1, 0, 1)?;
            let mut relay = world.relays.swap_remove(0);
            let silence = world.silence("pings", || {
                if freeze { relay.process()?.signal(Signal::SIGSTOP) } else { relay.kill() }
            })?;
            println!("{name}: longest silence {silence:?}");
            ensure!(silence < SOON, "nothing for {silence:?}");
            // The relay comes back; home stays where it is.
            if freeze {
                relay.process()?.signal(Signal::SIGCONT)?
            } else {
                relay.launch()?
            };
            world.relays.insert(0, relay);
            let back = world.silence("pings-back", || world.wait_for(0, 1, 0))?;
            ensure!(back <= Duration::from_millis(100), "nothing for {back:?} when the relay came back");
            Ok(())
        });
    }
}

#[test]
fn stream_goes_on_over_the_warm_relay() {
    scenario("relays_failover_stream", |lab| {
        let mut world = World::new(lab, 2)?;
        let urls = world.urls();
        world.node("anna", &urls)?;
        world.node("bert", &urls)?;
        world.wait_for(0, 0, 1)?;
        world.wait_for(1, 0, 1)?;
        let to = world.nodes[1].ipv4()?;
        let _server = StreamServer::start(world.nodes[1].host(), &to)?;
        let words = ["-J", "-c", &to, "-t", "6", "-i", "0.1"];
        let mut stream = world.nodes[0].host().run("iperf3").args(words).spawn("stream")?;
        let mut relay = world.relays.swap_remove(0);
        world.silence("pings", || relay.kill())?;
        let report: Value = serde_json::from_str(&stream.wait_ok(LIMIT)?)?;
        let intervals = report["intervals"].as_array().context("no intervals")?;
        let moves = |interval: &Value| interval["sum"]["bytes"].as_u64().is_some_and(|bytes| bytes > 0);
        let still = intervals.split(moves).map(<[Value]>::len).max().unwrap_or(0);
        println!("the stream stood still for {still} tenths of a second");
        let last = intervals.len().saturating_sub(10);
        ensure!(intervals[last..].iter().any(moves), "the stream stands still");
        ensure!(still <= 15, "the stream stood still for {still} tenths of a second");
        Ok(())
    });
}

#[test]
fn nearest_relay_is_home_and_nodes_with_different_homes_meet() {
    scenario("relays_home_by_latency", |lab| {
        let mut world = World::new(lab, 2)?;
        let urls = world.urls();
        world.node("anna", &urls)?;
        // From where bert is, the first relay is far away.
        let host = world.switch.host("bert")?;
        let delay = Delay::start(&host, world.relays[0].host().address(), Relay::PORT, FAR)?;
        let far = world.relays[0].url().replace(&world.relays[0].host().address().to_string(), "127.0.0.1");
        world.node_at("bert", &host, &[far, urls[1].clone()])?;
        world.wait_for(0, 0, 1)?;
        let place = world.relays[1].host().address().to_string();
        let status = world.nodes[1].wait_for_status("the near relay as home", LIMIT, |status| {
            let relays = relays(&status.0);
            let home = relays.iter().find(|relay| relay["home"] == true);
            relays.iter().all(|relay| relay["rtt_ms"].is_number())
                && home.is_some_and(|home| home["url"].as_str().is_some_and(|url| url.contains(&place)))
        })?;
        let rtt = |mark: &str| -> Result<f64> {
            let relay = relays(&status.0).into_iter().find(|relay| relay[mark] == true);
            relay
                .and_then(|relay| relay["rtt_ms"].as_f64())
                .with_context(|| format!("no round trip of {mark}"))
        };
        let (near, far) = (rtt("home")?, rtt("warm")?);
        println!("home {near:.1} ms, warm {far:.1} ms");
        let least = FAR.as_secs_f64() * 2e3;
        ensure!(near < 20.0 && (least..least + 40.0).contains(&far), "home {near} ms, warm {far} ms");
        for (from, to) in [(0, 1), (1, 0)] {
            world.nodes[from].ping_address(&world.nodes[to].ipv4()?)?;
        }
        // Each reaches the other at its home.
        for (node, home) in [(0, 1), (1, 0)] {
            let url = if home == 0 { "wss://127.0.0.1" } else { "wss://203.0.113." };
            world.nodes[node].wait_for_status("the peer at its home", LIMIT, |status| {
                let peer = &status.0["peers"][0];
                peer["home_relays"].as_array().is_some_and(|homes| homes.len() == 2)
                    && peer["relay"] == peer["home_relays"][0]
                    && peer["relay"].as_str().is_some_and(|relay| relay.starts_with(url))
            })?;
        }
        drop(delay);
        Ok(())
    });
}

/// Frames to a node go to its home. When that freezes, both sides find another way, whichever of the homes it is.
#[test]
fn frozen_home_of_one_of_two_costs_little_over_a_second() {
    for frozen in [0, 1] {
        let name = if frozen == 0 {
            "relays_frozen_home_of_the_sender"
        } else {
            "relays_frozen_home_of_the_receiver"
        };
        scenario(name, |lab| {
            let mut world = World::new(lab, 2)?;
            let urls = world.urls();
            world.node("anna", &urls)?;
            // From where bert is, the first relay is far away.
            let host = world.switch.host("bert")?;
            let first = world.relays[0].host().address();
            let _far = Delay::start(&host, first, Relay::PORT, FAR)?;
            let far = world.relays[0].url().replace(&first.to_string(), "127.0.0.1");
            world.node_at("bert", &host, &[far, urls[1].clone()])?;
            world.wait_for(0, 0, 1)?;
            world.wait_for_home(1, 1)?;
            for (from, to) in [(0, 1), (1, 0)] {
                world.nodes[from].ping_address(&world.nodes[to].ipv4()?)?;
                let homes = |status: &lab::Status| {
                    let peer = &status.0["peers"][0];
                    peer["home_relays"].as_array().is_some_and(|homes| homes.len() == 2)
                };
                world.nodes[from].wait_for_status("the homes of the peer", LIMIT, homes)?;
            }
            let mut relay = world.relays.swap_remove(frozen);
            let silence = world.silence("pings", || relay.process()?.signal(Signal::SIGSTOP))?;
            println!("{name}: longest silence {silence:?}");
            ensure!(silence < SOON, "nothing for {silence:?}");
            let thawed = world.silence("pings-thawed", || relay.process()?.signal(Signal::SIGCONT))?;
            ensure!(thawed <= Duration::from_millis(200), "nothing for {thawed:?} when the relay went on");
            Ok(())
        });
    }
}

#[test]
fn third_relay_carries_the_network_when_two_are_lost_in_turn() {
    scenario("relays_three", |lab| {
        let mut world = World::new(lab, 3)?;
        let urls = world.urls();
        world.node("anna", &urls)?;
        world.node("bert", &urls)?;
        let mut left = vec![0, 1, 2];
        for freeze in [false, true] {
            let lost = world.home_and_warm_among(&left)?;
            left.retain(|relay| *relay != lost);
            let mut relays = std::mem::take(&mut world.relays);
            let silence = world.silence(&format!("pings-{lost}"), || {
                if freeze { relays[lost].process()?.signal(Signal::SIGSTOP) } else { relays[lost].kill() }
            })?;
            world.relays = relays;
            println!("relays_three: longest silence {silence:?} at the loss of relay {lost}");
            ensure!(silence < SOON, "nothing for {silence:?} at the loss of relay {lost}");
        }
        for node in 0..2 {
            world.wait_for_home(node, left[0])?;
        }
        world.nodes[1].ping_address(&world.nodes[0].ipv4()?)
    });
}

#[test]
fn announced_relay_is_learnt_and_carries_the_network_alone() {
    scenario("relays_announced", |lab| {
        let mut world = World::new(lab, 2)?;
        world.node("anna", &[])?;
        world.node("bert", &[])?;
        let known = |node: &Daemon| -> Result<usize> { Ok(relays(&node.status()?.0).len()) };
        ensure!(known(&world.nodes[1])? == 1, "{}", world.nodes[1].status()?.0);
        let refused = world.nodes[1].ctl(&["relay", "add", &world.relays[1].url()])?;
        ensure!(
            refused.code == Some(1),
            "a member that is no coordinator changes the relays: {}",
            refused.stderr
        );
        world.nodes[0].ctl(&["relay", "add", &world.relays[1].url()])?.success()?;
        for node in 0..2 {
            world.wait_for(node, 0, 1)?;
        }
        let list = world.nodes[1].ctl(&["relay", "list"])?.success()?.stdout;
        ensure!(list.contains("home") && list.contains("warm") && list.contains("roster"), "{list}");
        world.relays[0].kill()?;
        world.wait_for_home(0, 1)?;
        world.wait_for_home(1, 1)?;
        // A ticket names a relay that is there, and the roster reaches everybody over it.
        world.node("carl", &[])?;
        world.nodes[0].ctl(&["relay", "remove", &world.relays[0].url()])?.success()?;
        for node in &world.nodes {
            wait_until(
                "the roster without the first relay",
                LIMIT,
                || Ok((known(node)? == 1).then_some(())),
            )?;
        }
        world.nodes[2].ping_address(&world.nodes[1].ipv4()?)?;
        let last = world.nodes[0].ctl(&["relay", "remove", &world.relays[1].url()])?;
        ensure!(last.stderr.contains("last relay"), "{}", last.stderr);
        Ok(())
    });
}

#[test]
fn relay_with_another_key_is_not_used() {
    scenario("relays_impostor", |lab| {
        let mut world = World::new(lab, 2)?;
        // The second relay answers with a key that is not the one that was promised.
        let url = world.relays[1].url();
        let pin = url.split('#').nth(1).context("no pin")?;
        let other = if pin.starts_with('a') { "b" } else { "a" };
        let impostor = [world.relays[1].url_with_pin(&format!("{other}{}", &pin[1..]))];
        world.node("anna", &impostor)?;
        world.node("bert", &impostor)?;
        world.wait_for_home(0, 0)?;
        world.nodes[0].ping_address(&world.nodes[1].ipv4()?)?;
        world.nodes[0].wait_for_status("the wrong key", LIMIT, |status| {
            let errors =
                relays(&status.0).into_iter().filter_map(|relay| relay["error"].as_str().map(String::from));
            errors.into_iter().any(|error| error.contains("key"))
        })?;
        Ok(())
    });
}

/// One way of the far relay.
const FAR: Duration = Duration::from_millis(40);
/// A second, and half of one for a loaded machine.
const SOON: Duration = Duration::from_millis(1500);
