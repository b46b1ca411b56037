//! Two nodes at places of their own, which have to find each other.

use std::cell::Cell;
use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{Daemon, DaemonOptions, Relay};
use crate::host::Host;
use crate::namespace::Lab;
use crate::process::Process;
use crate::switch::Switch;
use crate::traffic::every_answer;
use crate::wait::wait_until;

/// Two nodes and the relay that both know by name. The second one joined by a ticket of the first.
#[derive(Debug)]
pub struct Pair {
    /// On a host of its own, reached over both families where the public network has both.
    pub relay: Relay,
    /// The nodes.
    pub nodes: [Daemon; 2],
    /// Each run of pings has a log of its own.
    runs: Cell<u32>,
}

/// How long it took from the first packet on.
#[derive(Debug, Clone, Copy)]
pub struct Contact {
    /// To the first answer to a ping.
    pub answered: Duration,
    /// To the moment at which both ends said that their path is direct, where they did.
    pub direct: Option<Duration>,
    /// To the moment at which it was left at the relay: neither end looked any further, or the time was over.
    pub left: Option<Duration>,
    /// UDP datagrams that both hosts sent meanwhile, STUN, challenges and frames.
    pub datagrams: u64,
}

impl Pair {
    /// Starts a relay on the public network, which has IPv4 at least, and a daemon on each host.
    ///
    /// # Errors
    /// Any program failed.
    pub fn new(lab: &Lab, public: &Switch<'_>, hosts: [&Host; 2]) -> Result<Self> {
        Self::of(lab, public, hosts, Default::default())
    }

    /// The same with daemons of one's own, which look for direct paths and find the relay by its name.
    ///
    /// # Errors
    /// Any program failed.
    pub fn of(
        lab: &Lab,
        public: &Switch<'_>,
        hosts: [&Host; 2],
        options: [DaemonOptions; 2],
    ) -> Result<Self> {
        let relay = Relay::start(lab, &public.host("relay")?)?;
        let IpAddr::V4(v4) = relay.host().address() else { anyhow::bail!("the relay has no IPv4 address") };
        let names = lab.path("hosts")?;
        fs::write(&names, format!("{v4} {RELAY_NAME}\n{} {RELAY_NAME}\n", Switch::ipv6_beside(v4)))?;
        // `ip netns exec` gave the program mounts of its own.
        let wrapper = format!("mount --bind {} /etc/hosts; exec \"$@\"", names.display());
        let options =
            options.map(|options| DaemonOptions { direct: true, wrapper: Some(wrapper.clone()), ..options });
        let first = Daemon::start(lab, hosts[0], &options[0])?;
        first.up_new("home", &relay.url_with_name(RELAY_NAME), hosts[0].name())?;
        let second = Daemon::start(lab, hosts[1], &options[1])?;
        second.join(&first.invite(&["--name", hosts[1].name()])?)?;
        Ok(Self { relay, nodes: [first, second], runs: Cell::new(0) })
    }

    /// Starts the second daemon anew, so that it has neither sessions nor paths, and waits until it may send.
    ///
    /// # Errors
    /// It did not come up again.
    pub fn forget(&mut self) -> Result<()> {
        let node = &mut self.nodes[1];
        node.stop()?;
        node.launch()?;
        node.wait_for_status("the relay", PATIENCE, |status| status.relay_state() == "connected")?;
        wait_until(&format!("the interface of {}", node.name()), PATIENCE, || {
            let words = ["-o", "addr", "show", "dev", node.interface(), "up"];
            let link = node.host().run("ip").args(words).output()?;
            Ok(link.stdout.contains("inet").then_some(()))
        })
    }

    /// Pings from the second node to the first until the path between them is direct or neither end looks for one any
    /// more, for `limit` at most.
    ///
    /// # Errors
    /// No ping was answered.
    pub fn contact(&self, limit: Duration) -> Result<Contact> {
        let before = self.datagrams()?;
        let start = Instant::now();
        let mut pings = self.pings("0.05")?;
        pings.wait_for_log("bytes from", limit)?;
        let answered = start.elapsed();
        let (direct, after) = wait_until("a direct path or the end", limit + PATIENCE, || {
            let sides = self.sides()?;
            let direct = sides.iter().all(|side| side["path"] == "direct");
            let elapsed = start.elapsed();
            let over = elapsed >= limit || sides.iter().all(has_given_up);
            Ok((direct || over).then_some((direct, elapsed)))
        })?;
        let datagrams = self.datagrams()? - before;
        let (direct, left) = if direct { (Some(after), None) } else { (None, Some(after)) };
        Ok(Contact { answered, direct, left, datagrams })
    }

    /// The same, but the path has to become direct; says after what time it was.
    ///
    /// # Errors
    /// No ping was answered, or the path is still not direct after `limit`.
    pub fn meet(&self, limit: Duration) -> Result<Duration> {
        let contact = self.contact(limit)?;
        let [first, second] = &self.nodes;
        contact.direct.with_context(|| {
            format!("{} and {} found no direct path in {limit:?}: {contact:?}", first.name(), second.name())
        })
    }

    /// Pings each way while the relay's process is held, so that nothing passes over it.
    ///
    /// # Errors
    /// A ping was not answered.
    pub fn prove_direct(&mut self) -> Result<()> {
        self.relay.process()?.signal(Signal::SIGSTOP)?;
        let proved = self.every_ping("0.02", 5);
        self.relay.process()?.signal(Signal::SIGCONT)?;
        proved
    }

    /// UDP datagrams that both hosts have sent.
    fn datagrams(&self) -> Result<u64> {
        let mut sum = 0;
        for node in &self.nodes {
            let text = node
                .host()
                .run("nstat")
                .args(["-a", "-s", "-z", "UdpOutDatagrams", "Udp6OutDatagrams"])
                .ok()?;
            let figures =
                text.stdout.lines().filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
            sum += figures.sum::<u64>();
        }
        Ok(sum)
    }

    /// Waits until both ends say that their path is of this kind.
    ///
    /// # Errors
    /// One of them does not.
    pub fn wait_for_path(&self, kind: &str, limit: Duration) -> Result<()> {
        let [first, second] = &self.nodes;
        for (node, peer) in [(second, first), (first, second)] {
            node.wait_for_status(&format!("the path \"{kind}\""), limit, |status| {
                status.peer(peer.name()).is_ok_and(|peer| peer["path"] == kind)
            })?;
        }
        Ok(())
    }

    /// What each end says of the other.
    fn sides(&self) -> Result<[Value; 2]> {
        let [first, second] = &self.nodes;
        let side =
            |node: &Daemon, peer: &Daemon| Ok::<_, anyhow::Error>(node.status()?.peer(peer.name())?.clone());
        Ok([side(first, second)?, side(second, first)?])
    }

    /// What both ends say of their path.
    ///
    /// # Errors
    /// One of them has no peer.
    pub fn paths(&self) -> Result<[String; 2]> {
        let [first, second] = &self.nodes;
        let path = |node: &Daemon, peer: &Daemon| -> Result<String> {
            Ok(node.status()?.peer(peer.name())?["path"].as_str().unwrap_or_default().to_owned())
        };
        Ok([path(first, second)?, path(second, first)?])
    }

    /// Starts pings without end from the second node to the first, so many seconds apart.
    ///
    /// # Errors
    /// They could not be started.
    pub fn pings(&self, apart: &str) -> Result<Process> {
        let address = self.nodes[0].ipv4()?;
        let words = ["-n", "-i", apart, &address];
        let run = self.runs.get();
        self.runs.set(run + 1);
        self.nodes[1].host().run("ping").args(words).spawn(&format!("ping-{run}"))
    }

    /// Sends pings each way, and fails unless every one is answered once.
    ///
    /// # Errors
    /// An answer is missing, or came twice.
    pub fn every_ping(&self, apart: &str, count: u32) -> Result<()> {
        let [first, second] = &self.nodes;
        for (node, peer) in [(first, second), (second, first)] {
            every_answer(node.host(), &[], (count, apart), &peer.ipv4()?)
                .with_context(|| format!("pings from {}", node.name()))?;
        }
        Ok(())
    }
}

/// A search was there and found nothing, ports are not guessed, and the next search is some time away.
fn has_given_up(side: &Value) -> bool {
    let direct = &side["direct"];
    side["path"] == "relay"
        && direct["searching"] == false
        && direct["next_search_s"].as_u64().is_some_and(|seconds| seconds > 0)
        && direct["birthday"]["active"] != true
}

/// The relay's name: each end finds it over the family that it has.
const RELAY_NAME: &str = "relay.lab";

/// Ample on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(10);
