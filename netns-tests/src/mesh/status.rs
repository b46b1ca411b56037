//! What `meshctl status --json` says, as far as the scenarios ask.

use std::net::IpAddr;

use anyhow::{Context, Result};
use serde_json::Value;

/// The answer of `meshctl status --json`.
#[derive(Debug, Clone)]
pub struct Status(pub Value);

impl Status {
    /// How far the node is, as `up`.
    pub fn state(&self) -> &str {
        self.0["state"].as_str().unwrap_or("")
    }

    /// What the node waits for; empty when nothing.
    pub fn reason(&self) -> &str {
        self.0["ready"]["reason"].as_str().unwrap_or("")
    }

    /// The overlay addresses of this node, IPv4 first.
    ///
    /// # Errors
    /// The node has none.
    pub fn addresses(&self) -> Result<Vec<IpAddr>> {
        addresses(&self.0["node"])
    }

    /// The first IPv4 address of this node.
    ///
    /// # Errors
    /// The node has none.
    pub fn ipv4(&self) -> Result<String> {
        let found = self.addresses()?.into_iter().find(IpAddr::is_ipv4).context("no IPv4 address")?;
        Ok(found.to_string())
    }

    /// The first IPv6 address of this node.
    ///
    /// # Errors
    /// The node has none.
    pub fn ipv6(&self) -> Result<String> {
        let found = self.addresses()?.into_iter().find(IpAddr::is_ipv6).context("no IPv6 address")?;
        Ok(found.to_string())
    }

    /// The number of members in the roster in use.
    pub fn members(&self) -> u64 {
        self.0["network"]["members"].as_u64().unwrap_or(0)
    }

    /// What is said about one peer.
    ///
    /// # Errors
    /// There is no peer of this name.
    pub fn peer(&self, name: &str) -> Result<&Value> {
        let peers = self.0["peers"].as_array().context("no list of peers")?;
        peers.iter().find(|peer| peer["name"] == name).with_context(|| format!("no peer {name}"))
    }

    /// The names of all peers.
    pub fn peer_names(&self) -> Vec<String> {
        let peers = self.0["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
        peers.iter().filter_map(|peer| peer["name"].as_str()).map(str::to_owned).collect()
    }

    /// Whether the node says that this keeps it from its full speed.
    #[must_use]
    pub fn is_slowed_by(&self, reason: &str) -> bool {
        let found = self.0["slowed_by"].as_array();
        found.is_some_and(|found| found.iter().any(|slowdown| slowdown["reason"] == reason))
    }

    /// Whether frames go to the relay over UDP.
    #[must_use]
    pub fn is_over_udp(&self) -> bool {
        self.0["relay"]["udp"] == true
    }

    /// The connection to the relay: `connected`, `connecting`, `disconnected`.
    pub fn relay_state(&self) -> &str {
        self.0["relay"]["state"].as_str().unwrap_or("")
    }
}

fn addresses(owner: &Value) -> Result<Vec<IpAddr>> {
    let list = owner["addresses"].as_array().context("no addresses")?;
    list.iter()
        .map(|address| {
            let text = address.as_str().context("an address is no text")?;
            text.parse().with_context(|| format!("{text} is no address"))
        })
        .collect()
}

/// How often packets were dropped for a reason whose name contains `reason`.
pub fn drops(status: &Status, reason: &str) -> u64 {
    let Some(counters) = status.0["counters"]["drops"].as_object() else { return 0 };
    counters.iter().filter(|(name, _)| name.contains(reason)).filter_map(|(_, count)| count.as_u64()).sum()
}

/// The session with a peer, once established.
///
/// # Errors
/// There is no such peer, or no session with it.
pub fn session_with<'status>(status: &'status Status, peer: &str) -> Result<&'status Value> {
    let session = &status.peer(peer)?["session"];
    anyhow::ensure!(session.is_object(), "no session with {peer}: {}", status.peer(peer)?);
    Ok(session)
}
