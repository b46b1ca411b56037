//! What is measured: the plain link, our tunnel in its forms, and the programs that users would take instead.
//!
//! Each has two hosts of its own on the same switch, and an inner MTU of 1400 bytes, so that all see the same machine
//! and segments of the same size. What is not to be had here is named with the reason.

mod rivals;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::plot::BarKind;
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
    /// boringtun.
    Boringtun,
    /// GotaTun.
    Gotatun,
    /// Nebula.
    Nebula,
    /// tinc.
    Tinc,
    /// n2n.
    N2n,
    /// OpenVPN.
    Openvpn,
    /// VpnCloud.
    Vpncloud,
    /// Nebula through a relay of its own.
    NebulaRelay,
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
    /// A host between the ends, other than our relay's.
    pub(crate) third: Option<Third>,
}

/// A host that another program runs on beside the two ends.
#[derive(Debug)]
pub(crate) struct Third {
    pub(crate) host: Host,
    /// Whether what the ends send to each other goes through it.
    pub(crate) carries: bool,
}

/// Bytes that went through interfaces, both ways.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passed {
    tunnel: f64,
    third: Option<f64>,
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
            Self::Boringtun => "boringtun",
            Self::Gotatun => "gotatun",
            Self::Nebula => "nebula",
            Self::Tinc => "tinc",
            Self::N2n => "n2n",
            Self::Openvpn => "openvpn",
            Self::Vpncloud => "vpncloud",
            Self::NebulaRelay => "nebula, relayed",
        }
    }

    /// Whether it is another program than ours.
    pub(crate) const fn is_rival(self) -> bool {
        !matches!(self, Self::Plain | Self::Direct | Self::Chacha | Self::Tap | Self::RelayUdp | Self::Relay)
    }

    /// Whether a third host carries what it sends.
    pub(crate) const fn is_relayed(self) -> bool {
        matches!(self, Self::RelayUdp | Self::Relay | Self::NebulaRelay)
    }

    /// The colour of its bars.
    pub(crate) const fn bar(self) -> BarKind {
        if matches!(self, Self::Plain) {
            BarKind::Plain
        } else if self.is_rival() {
            BarKind::Other
        } else {
            BarKind::Ours
        }
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
            Self::Boringtun => "bt",
            Self::Gotatun => "gt",
            Self::Nebula => "nebula",
            Self::Tinc => "tinc",
            Self::N2n => "n2n",
            Self::Openvpn => "ovpn",
            Self::Vpncloud => "vpnc",
            Self::NebulaRelay => "nebrel",
        }
    }

    /// Makes the hosts and starts the programs.
    pub(crate) fn start(self, arena: &mut Arena, relay: &Relay) -> Result<Subject> {
        let near = arena.host(&format!("{}1", self.host()))?;
        let far = arena.host(&format!("{}2", self.host()))?;
        match self {
            Self::Plain => {
                let (address, interface) = (far.address.clone(), "eth0".to_owned());
                Ok(Subject { kind: self, near, far, address, programs: Vec::new(), interface, third: None })
            }
            Self::Direct | Self::Chacha | Self::Tap | Self::RelayUdp | Self::Relay => {
                self.ours(near, far, relay)
            }
            Self::WireguardGo | Self::Boringtun | Self::Gotatun => rivals::wireguard::start(self, near, far),
            Self::Nebula => rivals::nebula::direct(near, far),
            Self::Tinc => rivals::tinc(near, far),
            Self::N2n => rivals::n2n::start(arena, near, far),
            Self::Openvpn => rivals::openvpn::start(near, far),
            Self::Vpncloud => rivals::vpncloud::start(near, far),
            Self::NebulaRelay => rivals::nebula::relayed(arena, near, far),
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
        let subject =
            Subject { kind: self, near, far, address, programs, interface: "mesh0".into(), third: None };
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
        if self.kind == Kind::Plain || self.kind.is_rival() {
            return Ok(());
        }
        let wanted = if self.kind.is_relayed() { "relay" } else { "direct" };
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

    /// What went through the near end's tunnel and a third host so far.
    pub(crate) fn passed(&self) -> Result<Passed> {
        let third = self.third.as_ref().map(|third| bytes_through(&third.host, "eth0"));
        Ok(Passed { tunnel: bytes_through(&self.near, &self.interface)?, third: third.transpose()? })
    }

    /// Fails where so many bytes since then took another way than the one that is measured: a transfer beside it would
    /// measure nothing of it.
    pub(crate) fn carried(&self, bytes: f64, before: Passed) -> Result<()> {
        let now = self.passed()?;
        let name = self.kind.name();
        if now.tunnel - before.tunnel < bytes {
            bail!("the transfer of \"{name}\" did not go through its interface");
        }
        let (Some(third), Some(now), Some(before)) = (&self.third, now.third, before.third) else {
            return Ok(());
        };
        // In and out again; what ends only tell a third host of themselves is little.
        if third.carries && now - before < 2.0 * bytes {
            bail!("the transfer of \"{name}\" did not go through its relay");
        }
        if !third.carries && now - before > bytes / 10.0 {
            bail!("the transfer of \"{name}\" was not direct");
        }
        Ok(())
    }

    /// Process ids of the programs.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.programs.iter().map(Process::pid).collect()
    }
}

fn bytes_through(host: &Host, interface: &str) -> Result<f64> {
    let text = host.run(&["ip", "-s", "-j", "link", "show", "dev", interface])?;
    let links: Value = serde_json::from_str(&text)?;
    let bytes = |way: &str| links[0]["stats64"][way]["bytes"].as_f64();
    bytes("tx").zip(bytes("rx")).map(|(tx, rx)| tx + rx).context("no counters of the interface")
}

/// The inner MTU of all tunnels, in bytes.
pub(crate) const MTU: u16 = 1400;
