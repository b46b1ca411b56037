//! What the daemon tells those who listen.

use serde::{Deserialize, Serialize};

use super::change::PathChange;
use super::status::{NodeState, PeerStatus, Readiness, RelayStatus};
use crate::document::Document;
use crate::error::ErrorCode;
use crate::time::Timestamp;

/// One message of `GET /v1/events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

impl Event {
    /// An event of this moment.
    pub fn now(kind: EventKind) -> Self {
        Self { at: Timestamp::now(), kind }
    }
}

impl Document for Event {
    const SCHEMA: &'static str = "shadowmesh.event/1";
}

/// What happened; `kind` in JSON, with the fields of the variant beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// The node's state or its readiness changed.
    State {
        /// The state.
        state: NodeState,
        /// Whether data passes, and what it waits for otherwise.
        ready: Readiness,
    },
    /// The connection to the relay changed.
    Relay {
        /// The connection.
        relay: RelayStatus,
    },
    /// A peer came, went, or its session or path changed.
    Peer {
        /// The peer.
        peer: Box<PeerStatus>,
    },
    /// Frames to a peer took another path.
    Path {
        /// The peer's name.
        peer: String,
        /// From where to where, and why.
        #[serde(flatten)]
        change: PathChange,
    },
    /// A newer roster is in use.
    Roster {
        /// Its version.
        version: u64,
        /// The number of members, this node included.
        members: u32,
    },
    /// Something that a person should know.
    Notice {
        /// How much it matters.
        level: NoticeLevel,
        /// The reason, for programs, where there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<ErrorCode>,
        /// One line for people.
        message: String,
    },
    /// This listener was too slow and lost events; ask for the status again.
    Lagged {
        /// How many were lost.
        missed: u64,
    },
    /// An event that this version does not know.
    #[serde(other)]
    Unknown,
}

impl EventKind {
    /// The text of the kind in JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::State { .. } => "state",
            Self::Relay { .. } => "relay",
            Self::Peer { .. } => "peer",
            Self::Path { .. } => "path",
            Self::Roster { .. } => "roster",
            Self::Notice { .. } => "notice",
            Self::Lagged { .. } => "lagged",
            Self::Unknown => "unknown",
        }
    }
}

/// How much a notice matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeLevel {
    /// Good to know.
    Info,
    /// Someone should look.
    Warning,
    /// A level that this version does not know.
    #[serde(other)]
    Unknown,
}
