//! What is measured: the plain link, our tunnel in its forms, and the programs that users would take instead.
//!
//! Each has two hosts of its own on the same switch, and an inner MTU of 1400 bytes, so that all see the same machine
//! and segments of the same size. What is not to be had here is named with the reason.

mod rivals;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::arena::{Arena, Host, Process, wait_until};
use crate::programs::{DaemonOptions, Relay, ctl, overlay_addresses, start_daemon_with, status};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// The link between two hosts, without a tunnel.
    Plain,
    /// Our tunnel over UDP.
    Direct,
    /// The same, sealed with ChaCha20-Poly1305 where both ends would take AES.
    Chacha,
    /// Our tunnel as an Ethernet segment, over UDP.
    Tap,
    /// Our tunnel over the relay, by its UDP port.
    RelayUdp,
    /// Our tunnel over the relay, by its WebSocket.
    Relay,
    /// wireguard-go.
    WireguardGo,
    /// Nebula.
    Nebula,
    /// tinc.
    Tinc,
}

/// A way from one host to another, and what carries it.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) kind: Kind,
    pub(crate) near: Host,
    pub(crate) far: Host,
    /// Where the far host is reached.
    pub(crate) address: String,
    /// The programs at the near and the far end, and a relay between them. They end with the value.
    pub(crate) programs: Vec<Process>,
    /// The interface at the near end, whose counters show that the traffic took it.
    pub(crate) interface: String,
}

impl Kind {
    /// The name in tables.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain link",
            Self::Direct => "direct",
            Self::Chacha => "direct, ChaCha20",
            Self::Tap => "direct, TAP",
            Self::RelayUdp => "relay, UDP",
            Self::Relay => "relay, WebSocket",
            Self::WireguardGo => "wireguard-go",
            Self::Nebula => "nebula",
            Self::Tinc => "tinc",
        }
    }

    /// Whether it is another program than ours.
    pub(crate) const fn is_rival(self) -> bool {
        matches!(self, Self::WireguardGo | Self::Nebula | Self::Tinc)
    }

    const fn host(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Direct => "direct",
            Self::Chacha => "chacha",
            Self::Tap => "tap",
            Self::RelayUdp => "udprelay",
            Self::Relay => "relayed",
            Self::WireguardGo => "wg",
            Self::Nebula => "nebula",
            Self::Tinc => "tinc",
        }
    }

    /// Makes the hosts and starts the programs.
    pub(crate) fn start(self, arena: &mut Arena, relay: &Relay) -> Result<Subject> {
        let near = arena.host(&format!("{}1", self.host()))?;
        let far = arena.host(&format!("{}2", self.host()))?;
        match self {
            Self::Plain => {
                let (address, interface) = (far.address.clone(), "eth0".to_owned());
                Ok(Subject { kind: self, near, far, address, programs: Vec::new(), interface })
            }
            Self::Direct | Self::Chacha | Self::Tap | Self::RelayUdp | Self::Relay => {
                self.ours(near, far, relay)
            }
            Self::WireguardGo => rivals::wireguard_go(near, far),
            Self::Nebula => rivals::nebula(near, far),
            Self::Tinc => rivals::tinc(near, far),
        }
    }

    fn ours(self, near: Host, far: Host, relay: &Relay) -> Result<Subject> {
        let options = DaemonOptions {
            direct: !matches!(self, Self::RelayUdp | Self::Relay),
            relay_udp: self == Self::RelayUdp,
            mdns: true,
            tap: self == Self::Tap,
            aes: self != Self::Chacha,
            mtu: MTU,
        };
        let programs = vec![start_daemon_with(&near, &options)?, start_daemon_with(&far, &options)?];
        ctl(&near, &["up", "--new", self.host(), "--relay", &relay.url, "--name", "near"], None)?;
        let ticket = ctl(&near, &["invite", "--name", "far"], None)?;
        ctl(&far, &["up", "--ticket-file", "-"], Some(&ticket))?;
        let address = overlay_addresses(&far)?.0;
        let subject = Subject { kind: self, near, far, address, programs, interface: "mesh0".into() };
        wait_until("the path", Duration::from_secs(15), || {
            subject.near.run(&["ping", "-n", "-c", "1", "-W", "1", &subject.address])?;
            Ok(subject.has_its_path().is_ok().then_some(()))
        })?;
        Ok(subject)
    }
}

impl Subject {
    /// Fails where our tunnel takes another path than the one that is measured.
    pub(crate) fn has_its_path(&self) -> Result<()> {
        let wanted = match self.kind {
            Kind::Direct | Kind::Chacha | Kind::Tap => "direct",
            Kind::RelayUdp | Kind::Relay => "relay",
            Kind::Plain | Kind::WireguardGo | Kind::Nebula | Kind::Tinc => return Ok(()),
        };
        let status = status(&self.near)?;
        let path = &status["peers"][0]["path"];
        if path != wanted {
            bail!("the path of \"{}\" is {path} instead of {wanted}", self.kind.name());
        }
        let over_udp = status["relay"]["udp"] == true;
        if wanted == "relay" && over_udp != (self.kind == Kind::RelayUdp) {
            bail!("frames of \"{}\" take another way to the relay", self.kind.name());
        }
        Ok(())
    }

    /// Bytes that went through the interface of the near end, both ways.
    pub(crate) fn passed(&self) -> Result<f64> {
        let text = self.near.run(&["ip", "-s", "-j", "link", "show", "dev", &self.interface])?;
        let links: Value = serde_json::from_str(&text)?;
        let bytes = |way: &str| links[0]["stats64"][way]["bytes"].as_f64();
        bytes("tx").zip(bytes("rx")).map(|(tx, rx)| tx + rx).context("no counters of the interface")
    }

    /// Process ids of the programs.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.programs.iter().map(Process::pid).collect()
    }
}

/// A program that may be newer than what the system's own packages hold.
fn newest(program: &str, package: &str) -> Result<PathBuf> {
    crate::packages::newest(program, package)
}

/// The inner MTU of all tunnels, in bytes.
pub(crate) const MTU: u16 = 1400;
