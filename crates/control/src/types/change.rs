//! A change of the path to a peer.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::status::PathKind;

/// Frames to a peer took another path.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PathChange {
    /// The path before.
    pub from: PathKind,
    /// Its address, when it was direct.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_endpoint: Option<SocketAddr>,
    /// The path that was taken.
    pub to: PathKind,
    /// Its address, when it is direct.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_endpoint: Option<SocketAddr>,
    /// Why.
    pub reason: PathReason,
}

/// Why frames took another path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathReason {
    /// A direct path was proved.
    Found,
    /// A better direct path was proved.
    Better,
    /// Nothing was answered over the path before.
    Silent,
    /// The path before carries short frames only.
    ShortOnly,
    /// The relay does not reach the peer any more.
    RelayLost,
    /// A handshake came through over the new path.
    Handshake,
    /// A connection by WSS with the peer itself stands.
    Connected,
    /// The connection by WSS ended.
    Closed,
    /// The session over the direct path ended, or the peer was started anew.
    Ended,
    /// A reason that this version does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

impl fmt::Display for PathReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Found => "a direct path was proved",
            Self::Better => "a better direct path was proved",
            Self::Silent => "the direct path did not answer any more",
            Self::ShortOnly => "the direct path carried short frames only",
            Self::RelayLost => "the relay did not reach the peer any more",
            Self::Handshake => "a handshake came through over it",
            Self::Connected => "a connection with the peer itself was made",
            Self::Closed => "the connection with the peer itself ended",
            Self::Ended => "the session over the direct path ended",
            Self::Unknown => "for a reason that this version does not know",
        })
    }
}
