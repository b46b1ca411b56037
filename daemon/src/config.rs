//! What `meshd` is told: flags, environment, file, defaults, in this order of precedence.

mod relays;
mod udp;
mod wss;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Parser;
use mesh_session::{AeadKind, ProviderKind};
use mesh_wire::roster::Link;
use mesh_wire::{Pin, RelayUrl};
use serde::Deserialize;

pub use self::wss::Wss;
use crate::engine::MOST_THREADS;

/// Where the configuration stands unless told otherwise; it may be absent there.
pub const DEFAULT_CONFIG: &str = "/etc/shadowmesh/meshd.toml";
const DEFAULT_STATE_DIR: &str = "/var/lib/shadowmesh";
const DEFAULT_GROUP: &str = "shadowmesh";
/// Fits a sealed frame into an IPv6 path of 1500 bytes.
const DEFAULT_MTU: u16 = 1420;
/// A configuration is a page of text; more is a mistake.
const MAX_FILE: u64 = 1024 * 1024;

/// The ShadowMesh daemon: owns the network interface and the keys of this node.
///
/// It does nothing until `meshctl up` tells it which network to create or join; afterwards it comes up by itself.
#[derive(Debug, Clone, Default, Parser)]
#[command(
    name = "meshd",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  meshd                                        as the systemd unit runs it
  meshd --config ./a.toml --state-dir ./a --socket ./a.sock --interface mesh1
                                               a second daemon beside the first one
  SHADOWMESH_LOG=debug meshd                   with more to read

Every option can stand in the configuration file and in the environment; a flag wins over the environment, which
wins over the file."
)]
pub struct Flags {
    /// Configuration file [default: /etc/shadowmesh/meshd.toml, if it exists]
    #[arg(long, value_name = "FILE", env = "SHADOWMESH_CONFIG")]
    pub config: Option<PathBuf>,
    /// Directory of keys and membership [default: /var/lib/shadowmesh]
    #[arg(long, value_name = "DIR", env = "SHADOWMESH_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Unix socket that meshctl talks to [default: /run/shadowmesh/meshd.sock]
    #[arg(long, value_name = "PATH", env = "SHADOWMESH_SOCKET")]
    pub socket: Option<PathBuf>,
    /// Name of the network interface [default: mesh0]
    #[arg(long, value_name = "NAME", env = "SHADOWMESH_INTERFACE")]
    pub interface: Option<String>,
    /// What to log: error, warn, info, debug, trace, or a filter as in RUST_LOG [default: info]
    #[arg(long, value_name = "FILTER", env = "SHADOWMESH_LOG")]
    pub log: Option<String>,
    /// Read the configuration, say whether it is good, and end
    #[arg(long)]
    pub check_config: bool,
    /// Write the man page to a directory, and end
    #[arg(long, value_name = "DIR", hide = true)]
    pub man: Option<PathBuf>,
}

/// The configuration in force.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory of keys and membership.
    pub state_dir: PathBuf,
    /// Unix socket of the control API.
    pub socket: PathBuf,
    /// Name of the network interface.
    pub interface: String,
    /// Packets or frames, for a network created here; none where a joining node takes what its network has.
    pub mode: Option<Mode>,
    /// Largest inner packet in bytes.
    pub mtu: u16,
    /// Whether the kernel may leave checksums and the cutting of long packets to us.
    pub offload: bool,
    /// Threads that move packets, 1 to 16; 0 for as many as are good for the machine.
    pub engine_threads: u16,
    /// Whether datagrams get the DSCP of the packets in them.
    pub copy_dscp: bool,
    /// Group that may read the socket.
    pub group: String,
    /// User beside root who may change things through the socket.
    pub operator: Option<String>,
    /// Log filter.
    pub log: String,
    /// ML-KEM and the signer.
    pub provider: ProviderKind,
    /// ChaCha20-Poly1305.
    pub aead: AeadKind,
    /// Whether AES-256-GCM is offered where the processor has instructions for it.
    pub aes: bool,
    /// Whether to look for paths to peers without the relay.
    pub direct: bool,
    /// What finds paths without the relay.
    pub path_finder: PathFinder,
    /// Whether to guess ports of NATs that give each destination another one, where nothing else leads to such a path.
    pub birthday: bool,
    /// Whether frames go to the relay over UDP where it offers that.
    pub relay_udp: bool,
    /// Relays beside those of the network, with their keys: 4 at most.
    pub relays: Vec<(RelayUrl, Pin)>,
    /// Whether gateways are asked to keep a UDP port open (PCP, NAT-PMP, UPnP).
    pub port_mapping: bool,
    /// Whether members on the same local network are looked for (multicast DNS).
    pub mdns: bool,
    /// Where to take datagrams from peers: at most one address per family, an empty list for no UDP; without a list, every
    /// address of the machine and a port that the kernel chooses.
    pub udp_listen: Option<Vec<SocketAddr>>,
    /// Addresses at which peers can be reached over UDP, by their names: 1 to 8 each, of at most 1024 peers.
    pub endpoints: BTreeMap<String, Vec<SocketAddr>>,
    /// Where members whose UDP is blocked may connect to this node; nowhere without it.
    pub wss: Option<Wss>,
    /// Whether packets wait until the keys of the QUIC connection are mixed into those of the session.
    pub hold_until_mixed: bool,
}

/// What a network carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// IP packets.
    Tun,
    /// Ethernet frames.
    Tap,
}

/// What finds paths to peers without the relay; what proves them is the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathFinder {
    /// Sealed challenges to all addresses of the peer.
    #[default]
    Sealed,
    /// An agent of ICE first (RFC 8445), with peers that have one too.
    Ice,
}

impl From<Mode> for Link {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Tun => Self::Tun,
            Mode::Tap => Self::Tap,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    state_dir: Option<PathBuf>,
    socket: Option<PathBuf>,
    interface: Option<String>,
    mode: Option<Mode>,
    mtu: Option<u16>,
    offload: Option<bool>,
    copy_dscp: Option<bool>,
    engine_threads: Option<EngineThreads>,
    group: Option<String>,
    operator: Option<String>,
    log: Option<String>,
    hold_until_mixed: Option<bool>,
    direct: Option<bool>,
    path_finder: Option<PathFinder>,
    birthday: Option<bool>,
    relay_udp: Option<bool>,
    #[serde(default)]
    relays: relays::Relays,
    port_mapping: Option<bool>,
    mdns: Option<bool>,
    udp_listen: Option<udp::Listen>,
    #[serde(default)]
    endpoints: udp::Endpoints,
    wss: Option<Wss>,
    #[serde(default)]
    crypto: Crypto,
}

/// A number of threads, or "auto".
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum EngineThreads {
    Number(u16),
    Word(String),
}

impl EngineThreads {
    fn number(self) -> anyhow::Result<u16> {
        match self {
            Self::Number(number) if number <= MOST_THREADS => Ok(number),
            Self::Word(word) if word == "auto" => Ok(0),
            Self::Number(number) => {
                bail!(
                    "engine_threads = {number} is more than {MOST_THREADS}; use 1 to {MOST_THREADS}, or \"auto\""
                )
            }
            Self::Word(word) => {
                bail!("engine_threads = \"{word}\" is no number; use 1 to {MOST_THREADS}, or \"auto\"")
            }
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Crypto {
    provider: Option<String>,
    aead: Option<String>,
    aes: Option<bool>,
}

impl Config {
    /// Puts flags and environment (which clap read) over the file over the defaults.
    ///
    /// # Errors
    /// One line that names the file, the key and what is wrong with it.
    pub fn load(flags: &Flags) -> anyhow::Result<Self> {
        let path = flags.config.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG));
        let text = if flags.config.is_some() || path.exists() { read(path)? } else { String::new() };
        Self::parse(flags, &text, path)
    }

    /// Puts flags over the text of a configuration file over the defaults; `path` is for the messages.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(flags: &Flags, text: &str, path: &Path) -> anyhow::Result<Self> {
        Self::merge(flags, read_toml(text, path)?)
            .with_context(|| format!("configuration {} is invalid", path.display()))
    }

    fn merge(flags: &Flags, file: File) -> anyhow::Result<Self> {
        let pick = |flag: &Option<PathBuf>, file: Option<PathBuf>, default: &str| {
            flag.clone().or(file).unwrap_or_else(|| default.into())
        };
        let config = Self {
            state_dir: pick(&flags.state_dir, file.state_dir, DEFAULT_STATE_DIR),
            socket: pick(&flags.socket, file.socket, mesh_control::DEFAULT_SOCKET),
            interface: flags.interface.clone().or(file.interface).unwrap_or_else(|| "mesh0".into()),
            mode: file.mode,
            mtu: file.mtu.unwrap_or(DEFAULT_MTU),
            offload: file.offload.unwrap_or(true),
            copy_dscp: file.copy_dscp.unwrap_or(false),
            engine_threads: file.engine_threads.map_or(Ok(0), EngineThreads::number)?,
            group: file.group.unwrap_or_else(|| DEFAULT_GROUP.into()),
            operator: file.operator,
            log: flags.log.clone().or(file.log).unwrap_or_else(|| "info".into()),
            provider: parse("crypto.provider", file.crypto.provider, "aws-lc")?,
            aead: parse("crypto.aead", file.crypto.aead, "aws-lc")?,
            aes: file.crypto.aes.unwrap_or(true),
            direct: file.direct.unwrap_or(true),
            path_finder: file.path_finder.unwrap_or_default(),
            birthday: file.birthday.unwrap_or(true),
            relay_udp: file.relay_udp.unwrap_or(true),
            relays: file.relays.0,
            port_mapping: file.port_mapping.unwrap_or(true),
            mdns: file.mdns.unwrap_or(true),
            udp_listen: file.udp_listen.map(|listen| listen.0),
            endpoints: file.endpoints.0,
            wss: file.wss,
            hold_until_mixed: file.hold_until_mixed.unwrap_or(true),
        };
        if config.mtu < 1280 || config.mtu > 9000 {
            bail!("mtu = {} is outside of 1280 to 9000; 1420 fits every path of 1500 bytes", config.mtu);
        }
        if config.interface.is_empty() || config.interface.len() > 15 {
            bail!("interface = \"{}\" has to have 1 to 15 characters", config.interface);
        }
        Ok(config)
    }
}

fn parse<T: std::str::FromStr>(key: &str, value: Option<String>, default: &str) -> anyhow::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let value = value.unwrap_or_else(|| default.to_owned());
    value.parse().with_context(|| format!("{key} = \"{value}\""))
}

fn read(path: &Path) -> anyhow::Result<String> {
    let name = path.display();
    let size = fs::metadata(path).with_context(|| format!("cannot read the configuration {name}"))?.len();
    if size > MAX_FILE {
        bail!("configuration {name} has {size} bytes; is it the right file?");
    }
    fs::read_to_string(path).with_context(|| format!("cannot read the configuration {name}"))
}

fn read_toml(text: &str, path: &Path) -> anyhow::Result<File> {
    let name = path.display();
    toml::from_str(text).map_err(|error| {
        let before = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.get(..before).map_or(0, |before| before.matches('\n').count());
        let reason = error.message().replace('\n', " ");
        let key = key_of(text, line);
        let mut words = reason.split(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-' | '.'));
        let key =
            if key.is_empty() || words.any(|word| word == key) { String::new() } else { format!("{key}: ") };
        anyhow::anyhow!("configuration {name}, line {}: {key}{reason}", line + 1)
    })
}

/// The key that a line belongs to; a list may go on for lines after its key, and the title of a table has none.
fn key_of(text: &str, line: usize) -> &str {
    let mut lines: Vec<_> = text.lines().take(line + 1).collect();
    if lines.last().is_some_and(|line| line.trim_start().starts_with('[')) {
        lines.clear();
    }
    lines.iter().rev().find_map(|line| line.split_once('=')).map_or("", |(key, _)| key.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(flags: &Flags, text: &str) -> anyhow::Result<Config> {
        Config::merge(flags, toml::from_str(text)?)
    }

    #[test]
    fn flag_wins_over_file_over_default() {
        let flags = Flags { interface: Some("a".into()), ..Flags::default() };
        let config = merged(&flags, "interface = \"b\"\nsocket = \"/x\"").unwrap();
        assert_eq!(config.interface, "a");
        assert_eq!(config.socket, Path::new("/x"));
        assert_eq!(config.state_dir, Path::new(DEFAULT_STATE_DIR));
        assert_eq!((config.mtu, config.log.as_str()), (1420, "info"));
        assert_eq!(config.path_finder, PathFinder::Sealed);
        let config = merged(&flags, "path_finder = \"ice\"").unwrap();
        assert_eq!(config.path_finder, PathFinder::Ice);
    }

    #[test]
    fn unknown_keys_and_wrong_types_name_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meshd.toml");
        for (text, line, part) in [
            ("interface = \"a\"\ninterfase = \"b\"\n", 2, "interfase"),
            ("mtu = \"big\"\n", 1, "mtu: invalid type"),
            ("mode = \"bridge\"\n", 1, "bridge"),
            ("path_finder = \"turn\"\n", 1, "turn"),
            ("[crypto]\nsecret = 1\n", 2, "secret"),
            ("interface = \n", 1, ""),
        ] {
            fs::write(&path, text).unwrap();
            let flags = Flags { config: Some(path.clone()), ..Flags::default() };
            let message = format!("{:#}", Config::load(&flags).unwrap_err());
            assert!(message.contains(&format!("meshd.toml, line {line}")), "{message}");
            assert!(message.contains(part), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for text in [
            "mtu = 1000",
            "interface = \"\"",
            "interface = \"a-very-long-name\"",
            "[crypto]\naead = \"rot13\"",
        ] {
            assert!(merged(&Flags::default(), text).is_err(), "{text}");
        }
        let config =
            merged(&Flags::default(), "[crypto]\nprovider = \"pqcrypto\"\naead = \"chacha20poly1305\"")
                .unwrap();
        assert_eq!((config.provider, config.aead), (ProviderKind::Pqcrypto, AeadKind::ChaCha20Poly1305));
    }

    #[test]
    fn engine_threads_are_a_number_or_auto() {
        let load = |text: &str| {
            Config::parse(&Flags::default(), text, Path::new("a.toml")).map_err(|error| format!("{error:#}"))
        };
        for (text, number) in [
            ("", 0),
            ("engine_threads = \"auto\"\n", 0),
            ("engine_threads = 0\n", 0),
            ("engine_threads = 16\n", 16),
        ] {
            assert_eq!(load(text).unwrap().engine_threads, number, "{text}");
        }
        for text in ["engine_threads = 17\n", "engine_threads = \"many\"\n"] {
            assert!(load(text).unwrap_err().contains("use 1 to 16"), "{text}");
        }
        assert!(load("engine_threads = -1\n").is_err());
    }

    #[test]
    fn missing_file_is_an_error_when_named() {
        let flags = Flags { config: Some("/nonexistent/meshd.toml".into()), ..Flags::default() };
        assert!(Config::load(&flags).is_err());
    }
}
