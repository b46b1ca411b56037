//! Requests with their answers, and the two small reading answers.

use std::net::IpAddr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::status::{NetworkStatus, NodeState, NodeStatus, PathKind, Readiness, RelayStatus};
use crate::document::Document;
use crate::secret::SecretText;
use crate::time::Timestamp;

/// The answer to `GET /v1/version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The version of the program.
    pub version: String,
    /// The protocol that peers and relays speak with it, `mesh/1`.
    pub protocol: String,
    /// The version of this API, the first part of every route.
    pub api: String,
}

impl Document for Version {
    const SCHEMA: &'static str = "shadowmesh.version/1";
}

/// The answer to `GET /v1/id`: who this node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Id {
    /// The hash of the node's public keys, base32.
    pub node_id: String,
    /// The node's name, once enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The network's name, once enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The hash of the network's root keys, base32, once enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net_id: Option<String>,
    /// A short form of the node's public keys for people to compare.
    pub public_key_fingerprint: String,
}

impl Document for Id {
    const SCHEMA: &'static str = "shadowmesh.id/1";
}

/// The body of `POST /v1/up`.
///
/// The answer comes when enrolment or creation and the interface are done or have failed; whether data passes follows
/// in events. Asking again for what is the case already succeeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum UpRequest {
    /// Makes a network, with this node as its coordinator.
    New {
        /// The network's name.
        network_name: String,
        /// The relay as `wss://host[:port]#PIN`.
        relay: String,
        /// This node's name; the host name otherwise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node_name: Option<String>,
        /// Where IPv4 addresses come from; chosen by the daemon otherwise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ipv4_pool: Option<Ipv4Net>,
    },
    /// Joins the network of a ticket.
    Join {
        /// The ticket.
        ticket: SecretText,
        /// This node's name, unless the ticket fixes one; the host name otherwise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node_name: Option<String>,
    },
    /// Comes up again in the network that the node belongs to.
    Resume {},
}

impl Document for UpRequest {
    const SCHEMA: &'static str = "shadowmesh.up_request/1";
}

/// The answer to `POST /v1/up`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpAnswer {
    /// How far the node is.
    pub state: NodeState,
    /// Whether the request changed anything; false when the node was up already.
    pub changed: bool,
    /// The network.
    pub network: NetworkStatus,
    /// This node in it.
    pub node: NodeStatus,
    /// Whether data passes, and what it waits for otherwise.
    pub ready: Readiness,
}

impl Document for UpAnswer {
    const SCHEMA: &'static str = "shadowmesh.up/1";
}

/// The answer to `POST /v1/down`, which takes no body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownAnswer {
    /// How far the node is.
    pub state: NodeState,
    /// Whether the request changed anything; false when the node was down already.
    pub changed: bool,
}

impl Document for DownAnswer {
    const SCHEMA: &'static str = "shadowmesh.down/1";
}

/// The body of `POST /v1/ping`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PingRequest {
    /// The peer by name, node id or overlay address.
    pub peer: String,
    /// How long to wait for the answer, in milliseconds; [`PingRequest::DEFAULT_TIMEOUT_MS`] unless given, and at most
    /// [`PingRequest::MAX_TIMEOUT_MS`].
    #[serde(default = "default_ping_timeout_ms")]
    pub timeout_ms: u64,
    /// The path that the echo takes; the one in use unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<PingVia>,
    /// Bytes of the sealed message, from [`PingRequest::MIN_SIZE`] to [`PingRequest::MAX_SIZE`]; as short as can be unless
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u16>,
}

/// A path that a ping may be sent over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PingVia {
    /// The relay.
    Relay,
    /// A direct path.
    Direct,
}

impl PingRequest {
    /// Long enough for a handshake over a slow relay.
    pub const DEFAULT_TIMEOUT_MS: u64 = 5_000;
    /// No request occupies the daemon for longer than a minute.
    pub const MAX_TIMEOUT_MS: u64 = 60_000;
    /// The shortest message whose length can be chosen.
    pub const MIN_SIZE: u16 = 28;
    /// The longest message that a frame carries.
    pub const MAX_SIZE: u16 = 9_000;
}

impl Document for PingRequest {
    const SCHEMA: &'static str = "shadowmesh.ping_request/1";
}

fn default_ping_timeout_ms() -> u64 {
    PingRequest::DEFAULT_TIMEOUT_MS
}

/// The answer to `POST /v1/ping`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PingAnswer {
    /// The peer's name.
    pub peer: String,
    /// The overlay address that people know it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// What carried the answer.
    pub path: PathKind,
    /// The relay of the path, by host name, when the path is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// Bytes of the sealed message that went and came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u16>,
    /// The round trip in milliseconds.
    pub rtt_ms: f64,
}

impl Document for PingAnswer {
    const SCHEMA: &'static str = "shadowmesh.ping/1";
}

/// The body of `POST /v1/invites`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// The name that the invited node gets; its own choice otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The groups that the invited node is put in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// How many nodes the ticket admits.
    #[serde(default = "default_uses")]
    pub uses: u32,
    /// How long the ticket is good for, in seconds.
    #[serde(default = "default_ttl_s")]
    pub ttl_s: u64,
}

impl InviteRequest {
    /// An hour: long enough to walk to the other machine, too short to be found later in a chat.
    pub const DEFAULT_TTL_S: u64 = 3600;
}

impl Default for InviteRequest {
    fn default() -> Self {
        Self { name: None, groups: Vec::new(), uses: default_uses(), ttl_s: default_ttl_s() }
    }
}

impl Document for InviteRequest {
    const SCHEMA: &'static str = "shadowmesh.invite_request/1";
}

fn default_uses() -> u32 {
    1
}

fn default_ttl_s() -> u64 {
    InviteRequest::DEFAULT_TTL_S
}

/// The answer to `POST /v1/invites`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteAnswer {
    /// The ticket. Whoever holds it can join.
    pub ticket: SecretText,
    /// When it stops being good.
    pub expires: Timestamp,
    /// How many nodes it admits.
    pub uses: u32,
}

impl Document for InviteAnswer {
    const SCHEMA: &'static str = "shadowmesh.invite/1";
}

/// The body of `POST /v1/relays`: what the roster is to announce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum RelayRequest {
    /// One relay more.
    Add {
        /// `wss://host[:port]#PIN`.
        relay: String,
    },
    /// One relay less.
    Remove {
        /// `wss://host[:port]`, with the pin or without.
        relay: String,
    },
}

impl Document for RelayRequest {
    const SCHEMA: &'static str = "shadowmesh.relay_request/1";
}

/// The answer to `GET /v1/relays` and to `POST /v1/relays`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Relays {
    /// What the signed roster announces: `wss://host[:port]#PIN`, in order of preference.
    pub announced: Vec<String>,
    /// The relays that this node knows, while it is not down, with the connection to each.
    pub relays: Vec<RelayStatus>,
}

impl Document for Relays {
    const SCHEMA: &'static str = "shadowmesh.relays/1";
}
