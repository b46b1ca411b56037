//! What the daemon knows of paths to a peer without the relay.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The search for a path without the relay, and what it found out so far.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DirectStatus {
    /// This node looks for such paths: `direct` of its configuration.
    pub enabled: bool,
    /// A search goes on.
    pub searching: bool,
    /// Seconds until traffic begins the next search; absent while it would begin one at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_search_s: Option<u64>,
    /// Where this node's UDP sockets are bound.
    #[serde(default)]
    pub sockets: Vec<SocketAddr>,
    /// How this node's NAT maps.
    #[serde(default)]
    pub own_mapping: NatMapping,
    /// How the peer's NAT maps, as it says.
    #[serde(default)]
    pub peer_mapping: NatMapping,
    /// Where this node may be reached, as it tells its peers.
    #[serde(default)]
    pub own: Vec<OwnAddress>,
    /// Where the peer may be reached, and what came of trying.
    #[serde(default)]
    pub remotes: Vec<RemoteAddress>,
    /// Challenges to ports that nobody named: those that a NAT which counts gives out next, or any.
    #[serde(default)]
    pub guesses: u64,
    /// Guessing ports many times at once; absent where the NATs of the two do not call for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub birthday: Option<BirthdayStatus>,
}

/// What came of guessing ports from many sockets, or many ports (the birthday paradox).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct BirthdayStatus {
    /// This node guesses: `birthday` of its configuration.
    pub enabled: bool,
    /// It goes on.
    pub active: bool,
    /// How often it began.
    #[serde(default)]
    pub attempts: u32,
    /// How often it led to a path.
    #[serde(default)]
    pub found: u32,
    /// Seconds until it may begin again, after attempts without a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_s: Option<u64>,
    /// How likely one attempt leads to a path, from 0 to 1.
    #[serde(default)]
    pub chance: f64,
}

/// How a NAT maps a socket to its public address (RFC 4787, section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NatMapping {
    /// There is none.
    None,
    /// The same for every destination.
    Independent,
    /// Another one for each destination, which is also called symmetric, with ports in sequence.
    Sequential,
    /// Another one for each destination, with ports in no order.
    Dependent,
    /// It was not found out, or is one that this version does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

impl NatMapping {
    /// Tells whether destinations see different ports.
    #[must_use]
    pub const fn is_dependent(self) -> bool {
        matches!(self, Self::Sequential | Self::Dependent)
    }
}

/// How a node came to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressKind {
    /// It is on one of its interfaces.
    Host,
    /// A router keeps it open on request.
    Mapped,
    /// A STUN server saw it.
    Reflexive,
    /// It stands in the configuration.
    Configured,
    /// It was found on a local network, by its sealed announcement.
    Lan,
    /// Frames came from there, though nobody had said so.
    Seen,
    /// A kind that this version does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

impl fmt::Display for AddressKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Mapped => "mapped",
            Self::Reflexive => "reflexive",
            Self::Configured => "configured",
            Self::Lan => "lan",
            Self::Seen => "seen",
            Self::Unknown => "unknown",
        })
    }
}

/// An address of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnAddress {
    /// The address.
    pub address: SocketAddr,
    /// How the node came to it.
    #[serde(default)]
    pub kind: AddressKind,
}

/// An address of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RemoteAddress {
    /// The address.
    pub address: SocketAddr,
    /// How the peer came to it.
    #[serde(default)]
    pub kind: AddressKind,
    /// Agents of ICE of both nodes agreed on it; it carries frames only once a full challenge was answered, as any other.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ice: bool,
    /// Challenges that went there: sealed probes that only the peer can answer.
    #[serde(default)]
    pub sent: u32,
    /// Seconds since the last one went there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sent_s: Option<u64>,
    /// Seconds since one was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_answer_s: Option<u64>,
    /// Seconds since a long one was answered; only then data goes there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_full_answer_s: Option<u64>,
    /// The longest packet that it was shown to carry in one piece, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Datagrams are handed to the kernel one by one, which is slower: those that it was to cut apart itself did not arrive.
    #[serde(default)]
    pub single: bool,
    /// The shortest round trip seen, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
}
