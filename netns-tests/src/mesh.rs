//! The programs under test: where their binaries are, and a whole network made of them.

mod daemon;
mod direct;
mod pair;
mod relay;
mod status;

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::namespace::Lab;
use crate::switch::{Switch, Underlay};

pub use daemon::{Daemon, DaemonOptions};
pub use direct::{UDP_PORT, udp_address, udp_settings};
pub use pair::{Contact, Pair};
pub use relay::{Relay, RelayOptions};
pub use status::{Status, drops, session_with};

/// Where the binaries under test are, unless they are in `target/release`.
const BIN_DIR: &str = "SHADOWMESH_BIN_DIR";

/// The path of one of the programs under test.
///
/// # Errors
/// It has not been built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let dir = env::var_os(BIN_DIR).map_or_else(
        || {
            let target = env::var_os("CARGO_TARGET_DIR")
                .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
            target.join("release")
        },
        PathBuf::from,
    );
    let path = dir.join(name);
    let path = path.canonicalize().with_context(|| {
        format!("{} is missing; build it with cargo build --release -p {name}", path.display())
    })?;
    Ok(path)
}

/// A network of one relay and several nodes on a public switch, all up.
#[derive(Debug)]
pub struct Mesh<'lab> {
    /// The relay on its own host.
    pub relay: Relay,
    /// The daemons; the first is the coordinator.
    pub nodes: Vec<Daemon>,
    /// What joins the hosts.
    pub switch: Switch<'lab>,
}

/// What kind of network [`Mesh::new`] makes.
#[derive(Debug, Clone, Default)]
pub struct MeshOptions {
    /// Only IPv6 below the tunnel.
    pub ipv6_underlay: bool,
    /// Options of every daemon.
    pub daemon: DaemonOptions,
}

impl<'lab> Mesh<'lab> {
    /// Starts a relay and a daemon per name, makes a network on the first and lets the others join with one ticket each.
    ///
    /// # Errors
    /// Any program failed.
    pub fn new(lab: &'lab Lab, names: &[&str], options: &MeshOptions) -> Result<Self> {
        let underlay = if options.ipv6_underlay { Underlay::V6 } else { Underlay::V4 };
        let switch = lab.public(underlay)?;
        let relay = Relay::start(lab, &switch.host("relay")?)?;
        let mut nodes: Vec<Daemon> = Vec::new();
        for name in names {
            // Whether it is a segment is the network's affair, which those who join learn from it.
            let tap = options.daemon.tap && nodes.is_empty();
            let daemon =
                Daemon::start(lab, &switch.host(name)?, &DaemonOptions { tap, ..options.daemon.clone() })?;
            match nodes.first() {
                None => daemon.up_new("home", &relay.url(), name)?,
                Some(coordinator) => daemon.join(&coordinator.invite(&["--name", name])?)?,
            }
            nodes.push(daemon);
        }
        Ok(Self { relay, nodes, switch })
    }

    /// Starts one more daemon, not enrolled yet.
    ///
    /// # Errors
    /// The daemon failed.
    pub fn stranger(&self, lab: &Lab, name: &str) -> Result<Daemon> {
        Daemon::start(lab, &self.switch.host(name)?, &DaemonOptions::default())
    }

    /// Fails unless every node reaches every other one with `ping` over the overlay, on IPv4 and IPv6.
    ///
    /// # Errors
    /// A ping failed.
    pub fn ping_all(&self) -> Result<()> {
        for from in &self.nodes {
            for to in &self.nodes {
                if from.name() == to.name() {
                    continue;
                }
                for address in to.status()?.addresses()? {
                    from.ping_address(&address.to_string())
                        .with_context(|| format!("{} to {}", from.name(), to.name()))?;
                }
            }
        }
        Ok(())
    }
}
