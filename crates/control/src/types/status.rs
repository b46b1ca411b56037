//! What the daemon says about itself and its peers.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::change::PathChange;
use super::direct::DirectStatus;
use super::wss::{PeerWss, WssStatus};
use crate::document::Document;
use crate::time::Timestamp;

/// The answer to `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// How far this node is.
    pub state: NodeState,
    /// The version of the daemon.
    pub version: String,
    /// The network, once enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkStatus>,
    /// This node in the network, once enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeStatus>,
    /// The connection to the relay that is home, while the node is not down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<RelayStatus>,
    /// All relays of the network, in the order of their list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relays: Vec<RelayStatus>,
    /// Whether data passes, and what it waits for otherwise.
    pub ready: Readiness,
    /// Every other member, ordered by name.
    pub peers: Vec<PeerStatus>,
    /// What went through the interface since the daemon started.
    pub counters: Counters,
    /// The implementations in use.
    pub crypto: CryptoStatus,
    /// What keeps the node from its full speed; nothing is lost by it.
    #[serde(default)]
    pub slowed_by: Vec<Slowdown>,
    /// Where members whose UDP is blocked may connect to this node, where the configuration wants it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wss: Option<WssStatus>,
}

impl Document for Status {
    const SCHEMA: &'static str = "shadowmesh.status/1";
}

/// The answer to `GET /v1/peers`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Peers {
    /// Every other member, ordered by name.
    pub peers: Vec<PeerStatus>,
}

impl Document for Peers {
    const SCHEMA: &'static str = "shadowmesh.peers/1";
}

/// How far the node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It belongs to no network.
    #[default]
    Unenrolled,
    /// It is enrolled and was taken down: no interface, no connection.
    Down,
    /// The interface is being made, or enrolment is under way.
    Starting,
    /// The interface stands, the relay does not answer yet.
    Connecting,
    /// Interface and relay connection stand.
    Up,
    /// A state that this version does not know.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unenrolled => "unenrolled",
            Self::Down => "down",
            Self::Starting => "starting",
            Self::Connecting => "connecting",
            Self::Up => "up",
            Self::Unknown => "unknown",
        })
    }
}

/// The network that the node belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// The network's name.
    pub name: String,
    /// The hash of the network's root keys, base32.
    pub net_id: String,
    /// What this node is in the network.
    pub role: Role,
    /// The version of the roster in use.
    pub roster_version: u64,
    /// The number of members, this node included.
    pub members: u32,
}

/// What a node is in its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Holds the root keys and admits others.
    Coordinator,
    /// Any other node.
    #[default]
    Member,
    /// A role that this version does not know.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Coordinator => "coordinator",
            Self::Member => "member",
            Self::Unknown => "unknown",
        })
    }
}

/// This node in its network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node's name.
    pub name: String,
    /// The hash of the node's public keys, base32.
    pub node_id: String,
    /// The overlay addresses of this node, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// The name of the network interface.
    pub interface: String,
    /// What the interface carries.
    pub mode: Mode,
    /// The MTU of the interface in bytes.
    pub mtu: u16,
}

/// What the interface carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// IP packets.
    #[default]
    Tun,
    /// Ethernet frames.
    Tap,
    /// A mode that this version does not know.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tun => "tun",
            Self::Tap => "tap",
            Self::Unknown => "unknown",
        })
    }
}

/// The connection to a relay.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RelayStatus {
    /// `wss://host:port`; the pin may follow after `#`.
    pub url: String,
    /// How far the connection is.
    pub state: RelayState,
    /// Why the last attempt failed, until one succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Since when it is in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// How long connecting and authenticating took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_ms: Option<u64>,
    /// This node's address as the relay sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_address: Option<SocketAddr>,
    /// Until the next attempt, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_in_ms: Option<u64>,
    /// Whether frames take UDP instead of the TLS connection; while none flow they take neither.
    #[serde(default)]
    pub udp: bool,
    /// Peers reach this node there.
    #[serde(default)]
    pub home: bool,
    /// It is kept connected in case that home is lost.
    #[serde(default)]
    pub warm: bool,
    /// It is connected and does not answer; frames take another relay until it does.
    #[serde(default)]
    pub suspect: bool,
    /// The shortest of the latest round trips over the authenticated connection, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// Where this node knows it from.
    #[serde(default)]
    pub source: RelaySource,
}

/// Where a node knows a relay from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelaySource {
    /// The signed roster announces it.
    Roster,
    /// The node joined there, and the roster announces none.
    Ticket,
    /// The node's own configuration names it.
    Config,
    /// A source that this version does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

impl fmt::Display for RelaySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Roster => "roster",
            Self::Ticket => "ticket",
            Self::Config => "config",
            Self::Unknown => "unknown",
        })
    }
}

/// How far the connection to the relay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayState {
    /// Not connected; the next attempt has its time.
    #[default]
    Disconnected,
    /// An attempt is under way.
    Connecting,
    /// Connected and authenticated.
    Connected,
    /// A state that this version does not know.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for RelayState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disconnected => "disconnected",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Unknown => "unknown",
        })
    }
}

/// Whether data passes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Readiness {
    /// A sealed packet went to at least one peer and back since the node came up.
    pub data_passed: bool,
    /// There is no other member to exchange data with.
    pub only_member: bool,
    /// What it waits for, as a person would say it: `the relay relay.example to answer`. Empty when nothing.
    pub reason: String,
}

/// One other member.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The peer's name.
    pub name: String,
    /// The hash of the peer's public keys, base32.
    pub node_id: String,
    /// The peer's overlay addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// The groups that the roster puts it in.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Whether the peer is connected to the relay; absent while unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub online: Option<bool>,
    /// What carries the frames to it.
    pub path: PathKind,
    /// The relay of the path, by host name, when the path is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// The relays of the list at which the peer says it is, its home first; empty until it said so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub home_relays: Vec<String>,
    /// The peer's end of the path, when it is direct, over UDP or WSS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// How often the path changed since the daemon came up.
    #[serde(default)]
    pub path_changes: u64,
    /// The last change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_path_change: Option<PathChange>,
    /// Seconds since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_path_change_s: Option<u64>,
    /// The longest packet that the path carries in one piece, in bytes, when it is direct; what is longer is cut, or its sender told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_mtu: Option<u16>,
    /// What is known of paths without the relay, while there is a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct: Option<DirectStatus>,
    /// Where the peer says that members may connect to it by WSS; absent until it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wss: Option<PeerWss>,
    /// The program that the peer says it runs, with its version; absent until it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software: Option<String>,
    /// How far the session is.
    pub state: PeerState,
    /// The session, once established.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionStatus>,
    /// Why the last attempt failed, until one succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl Document for PeerStatus {
    const SCHEMA: &'static str = "shadowmesh.peer/1";
}

/// What carries the frames to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathKind {
    /// Nothing yet.
    #[default]
    None,
    /// A relay.
    Relay,
    /// A direct path over UDP.
    Direct,
    /// A connection by TCP, TLS and WebSocket with the peer itself.
    DirectWss,
    /// A path that this version does not know.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Relay => "relay",
            Self::Direct => "direct",
            Self::DirectWss => "direct-wss",
            Self::Unknown => "unknown",
        })
    }
}

/// How far the session with a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// No session, and nothing asked for one.
    #[default]
    Idle,
    /// A handshake is under way.
    Handshaking,
    /// A session stands.
    Established,
    /// The peer is not connected to the relay.
    Offline,
    /// A state that this version does not know.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Handshaking => "handshaking",
            Self::Established => "established",
            Self::Offline => "offline",
            Self::Unknown => "unknown",
        })
    }
}

/// The session with a peer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SessionStatus {
    /// The algorithms, as `ML-KEM-1024+X25519/ML-DSA-87+Ed25519/ChaCha20-Poly1305`.
    pub suite: String,
    /// Seconds since the last handshake finished.
    pub handshake_age_s: u64,
    /// How old the keys in use are, in seconds; they are replaced under traffic without a handshake.
    #[serde(default)]
    pub key_age_s: u64,
    /// Whether the keys in use also hang on the QUIC connection with the peer, beside the handshake.
    #[serde(default)]
    pub exporter_mixed: bool,
    /// The last measured round trip in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// Payload bytes received.
    pub rx_bytes: u64,
    /// Payload bytes sent.
    pub tx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Seconds since the last authentic frame; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_received_s: Option<u64>,
}

/// What went through the interface, and what did not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Packets written to the interface.
    pub rx_packets: u64,
    /// Packets read from the interface.
    pub tx_packets: u64,
    /// Bytes written to the interface.
    pub rx_bytes: u64,
    /// Bytes read from the interface.
    pub tx_bytes: u64,
    /// Packets dropped, by reason; reasons that never occurred may be absent.
    #[serde(default)]
    pub drops: BTreeMap<String, u64>,
    /// What each thread of the packet path did; nothing while the node is down.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub threads: Vec<ThreadCounters>,
}

/// What one thread of the packet path did since the node came up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ThreadCounters {
    /// The processor that it is bound to, where there are several threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// Packets of the interface that it took; long ones count once.
    pub packets: u64,
    /// Sealed frames that its UDP sockets received.
    pub frames: u64,
    /// Packets and frames of these that it gave to another thread.
    pub passed: u64,
    /// Locks that it took of the queues between the threads.
    pub locks: u64,
}

/// Something that keeps the node from its full speed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Slowdown {
    /// What it is, for programs: `udp_room`, `single_packets`, `relay_singly`, or one that this version does not know.
    pub reason: String,
    /// The same for people, with what to do.
    pub detail: String,
}

/// The implementations in use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CryptoStatus {
    /// The provider of key exchange and signatures: `aws-lc` or `pqcrypto`.
    pub provider: String,
    /// The implementation that seals frames: `aws-lc` or `chacha20poly1305`.
    pub aead: String,
}
