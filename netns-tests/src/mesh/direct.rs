//! A network whose nodes also exchange datagrams directly.

use std::fmt::Write;
use std::net::SocketAddr;

use anyhow::Result;

use super::{Daemon, DaemonOptions, Mesh, Relay};
use crate::host::Host;
use crate::namespace::Lab;
use crate::switch::Underlay;

/// The port that every node of [`Mesh::direct`] listens on.
pub const UDP_PORT: u16 = 4747;

impl<'lab> Mesh<'lab> {
    /// Like [`Mesh::new`], but every node listens on [`UDP_PORT`] and knows the addresses of all the others.
    ///
    /// # Errors
    /// Any program failed.
    pub fn direct(lab: &'lab Lab, names: &[&str], underlay: Underlay) -> Result<Self> {
        let switch = lab.public(underlay)?;
        let relay = Relay::start(lab, &switch.host("relay")?)?;
        let hosts = names.iter().map(|name| switch.host(name)).collect::<Result<Vec<_>>>()?;
        let mut nodes: Vec<Daemon> = Vec::new();
        for host in &hosts {
            let options = DaemonOptions { extra: udp_settings(host, &hosts)?, ..DaemonOptions::default() };
            let daemon = Daemon::start(lab, host, &options)?;
            match nodes.first() {
                None => daemon.up_new("home", &relay.url(), host.name())?,
                Some(coordinator) => daemon.join(&coordinator.invite(&["--name", host.name()])?)?,
            }
            nodes.push(daemon);
        }
        Ok(Self { relay, nodes, switch })
    }
}

/// Where a node of [`Mesh::direct`] on this host receives datagrams.
pub fn udp_address(host: &Host) -> SocketAddr {
    SocketAddr::new(host.address(), UDP_PORT)
}

/// The lines of configuration that make a node of [`Mesh::direct`] on this host, which may be among `all`.
///
/// # Errors
/// Never; the text grows in memory.
pub fn udp_settings(host: &Host, all: &[Host]) -> Result<String> {
    let any = if host.address().is_ipv4() { "0.0.0.0" } else { "[::]" };
    let mut text = format!("udp_listen = [\"{any}:{UDP_PORT}\"]\n[endpoints]\n");
    for other in all.iter().filter(|other| other.name() != host.name()) {
        writeln!(text, "{} = [\"{}\"]", other.name(), udp_address(other))?;
    }
    Ok(text)
}
