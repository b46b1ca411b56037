//! The configuration file of the relay.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mesh_wire::NetId;
use serde::Deserialize;

/// Everything that an operator can set. [`Config::default`] is what an empty file means.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// TCP addresses for clients.
    pub listen: Vec<SocketAddr>,
    /// UDP address for the frames of clients.
    pub udp_listen: UdpListen,
    /// UDP addresses that answer STUN binding requests; empty means none.
    pub stun_listen: Vec<SocketAddr>,
    /// TCP address of `/healthz` and `/metrics`; empty text means none.
    #[serde(deserialize_with = "optional_address")]
    pub metrics_listen: Option<SocketAddr>,
    /// Permits a `metrics_listen` that others than this machine can reach.
    pub metrics_public: bool,
    /// Where the relay's own certificate is kept.
    pub state_dir: PathBuf,
    /// Host name or address that users reach the relay by, for the line it prints at its start.
    pub public_host: Option<String>,
    /// PEM file of a certificate chain to use instead of an own certificate.
    pub certificate: Option<PathBuf>,
    /// PEM file of its private key.
    pub key: Option<PathBuf>,
    /// Whether every network is served.
    pub access: Option<Access>,
    /// The networks that are served, with `access = "listed"`.
    #[serde(deserialize_with = "net_ids")]
    pub networks: Option<BTreeSet<NetId>>,
    /// What is logged, in the syntax of `RUST_LOG`.
    pub log: String,
    /// Bounds on clients and their traffic.
    pub limits: Limits,
}

/// Where clients may send frames over UDP, beside their connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub enum UdpListen {
    /// At the first address of `listen`; the relay does without where that is taken.
    #[default]
    AsListen,
    /// At this address.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

impl TryFrom<String> for UdpListen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::Off);
        }
        text.parse().map(Self::At).map_err(|_| {
            format!("expected an address with a port, as [::]:8443, or \"\" for none, found \"{text}\"")
        })
    }
}

/// Who may use the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Every network.
    Open,
    /// The networks listed in `networks`.
    Listed,
}

/// Bounds on clients and their traffic.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Authenticated connections in all.
    pub clients: usize,
    /// Connections in all that did not authenticate yet.
    pub handshakes: usize,
    /// Connections of one IPv4 address or one IPv6 /64.
    pub clients_per_address: usize,
    /// New connections of one address per second; 0 means no limit.
    pub new_clients_per_second: u32,
    /// New connections of one address at once.
    pub new_clients_burst: u32,
    /// Bytes per second taken from one client; 0 means no limit.
    pub bytes_per_second: u32,
    /// Bytes per second taken from one guest; 0 means no limit.
    pub guest_bytes_per_second: u32,
    /// Guests of one network at a time.
    pub guests_per_network: usize,
    /// Guests of one network and one IPv4 address or IPv6 /64.
    pub guests_per_address: usize,
    /// Seconds after which a guest has to come anew.
    pub guest_seconds: u16,
    /// Nodes that one client may be bound to.
    pub handles: u16,
    /// Nodes that one guest may be bound to.
    pub guest_handles: u16,
    /// Such bonds of all clients together; beyond it a client has 64 at most.
    pub handles_total: usize,
    /// Networks whose sealed roster is kept.
    pub rosters: usize,
    /// Bytes of all kept rosters.
    pub roster_bytes: usize,
    /// Seconds of silence after which a client is asked for a sign of life; it is dropped when three such questions stay unanswered.
    pub heartbeat_seconds: u16,
    /// Seconds for TLS, WebSocket and authentication together.
    pub handshake_seconds: u16,
    /// Clients come back after this many milliseconds at least when the relay restarts.
    pub restart_min_ms: u32,
    /// Clients come back after this many milliseconds at most when the relay restarts.
    pub restart_max_ms: u32,
}

/// What is wrong with a configuration. The text is one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path} ({source}); name another file with --config")]
    Read {
        /// As given.
        path: PathBuf,
        /// From the kernel.
        #[source]
        source: std::io::Error,
    },
    /// The text is no TOML, or has a key or value that means nothing.
    #[error("{path}:{line}: {message}; see the example in meshrelay.toml")]
    Syntax {
        /// As given.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Names key and reason.
        message: String,
    },
    /// Values that do not go together, or are out of range.
    #[error("{path}: {message}")]
    Value {
        /// As given.
        path: PathBuf,
        /// Names key, reason and remedy.
        message: String,
    },
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] names file, line and key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(read)?;
        Self::parse(&text, path)
    }

    /// Reads and checks the text of a file; `path` is for the messages.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start).min(text.len());
            let line = text.get(..start).map_or(1, |before| before.matches('\n').count() + 1);
            let key =
                text.lines().nth(line - 1).and_then(|line| line.split_once('=')).map(|(key, _)| key.trim());
            let reason = error.message().lines().collect::<Vec<_>>().join(" ");
            let message = match key {
                Some(key) if !reason.contains(key) => format!("{key}: {reason}"),
                Some(_) | None => reason,
            };
            ConfigError::Syntax { path: path.to_owned(), line, message }
        })?;
        match config.contradiction() {
            Some(message) => Err(ConfigError::Value { path: path.to_owned(), message }),
            None => Ok(config),
        }
    }

    /// Tells whether this network is served.
    #[must_use]
    pub fn serves(&self, net: &NetId) -> bool {
        self.networks.as_ref().is_none_or(|networks| networks.contains(net))
    }

    fn contradiction(&self) -> Option<String> {
        let limits = &self.limits;
        let public = |address: &SocketAddr| !address.ip().to_canonical().is_loopback();
        let message = if self.listen.is_empty() {
            "listen: there is no address; set for example listen = [\"[::]:8443\"]"
        } else if self.certificate.is_some() != self.key.is_some() {
            "certificate, key: set both, or neither for an own certificate"
        } else if self.metrics_listen.as_ref().is_some_and(public) && !self.metrics_public {
            "metrics_listen: others could reach this address; use 127.0.0.1 or [::1], or set metrics_public = true"
        } else if self.access == Some(Access::Open) && self.networks.is_some() {
            "access, networks: an open relay serves every network; set access = \"listed\" or remove networks"
        } else if self.access == Some(Access::Listed) && self.networks.is_none() {
            "networks: with access = \"listed\" it has to name the networks to serve"
        } else if [limits.clients, limits.handshakes, limits.clients_per_address].contains(&0)
            || limits.handles == 0
        {
            "limits: clients, handshakes, clients_per_address and handles have to be at least 1"
        } else if limits.new_clients_burst == 0
            || limits.heartbeat_seconds == 0
            || limits.handshake_seconds == 0
            || limits.guest_seconds == 0
        {
            "limits: new_clients_burst, heartbeat_seconds, handshake_seconds and guest_seconds have to be at least 1"
        } else if limits.restart_min_ms > limits.restart_max_ms {
            "limits: restart_min_ms is above restart_max_ms"
        } else {
            return None;
        };
        Some(message.to_owned())
    }
}

impl Default for Config {
    fn default() -> Self {
        let any = |port| SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), port);
        Self {
            listen: vec![any(8443)],
            udp_listen: UdpListen::AsListen,
            // A client that hears the same from two ports knows that its mapping does not depend on them.
            stun_listen: vec![any(3478), any(3479)],
            metrics_listen: Some(SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), 9464)),
            metrics_public: false,
            state_dir: PathBuf::from("/var/lib/shadowmesh-relay"),
            public_host: None,
            certificate: None,
            key: None,
            access: None,
            networks: None,
            log: "info".to_owned(),
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 10_000,
            handshakes: 1024,
            clients_per_address: 256,
            new_clients_per_second: 20,
            new_clients_burst: 256,
            bytes_per_second: 250_000_000,
            guest_bytes_per_second: 65_536,
            guests_per_network: 64,
            guests_per_address: 8,
            guest_seconds: 120,
            handles: 4096,
            guest_handles: 2,
            handles_total: 500_000,
            rosters: 1024,
            roster_bytes: 64 << 20,
            heartbeat_seconds: 30,
            handshake_seconds: 10,
            restart_min_ms: 250,
            restart_max_ms: 1500,
        }
    }
}

fn optional_address<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    match String::deserialize(from)?.as_str() {
        "" => Ok(None),
        text => {
            text.parse().map(Some).map_err(|_| expected("an address with a port, as 127.0.0.1:9464", text))
        }
    }
}

fn net_ids<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<BTreeSet<NetId>>, D::Error> {
    let ids = Vec::<String>::deserialize(from)?;
    let parse = |id: &String| id.parse().map_err(|_| expected("a network id of 52 characters", id));
    ids.iter().map(parse).collect::<Result<_, _>>().map(Some)
}

fn expected<E: serde::de::Error>(what: &str, found: &str) -> E {
    E::custom(format_args!("expected {what}, found \"{found}\""))
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Listed => "listed",
        })
    }
}

#[cfg(test)]
mod tests;
