//! How a refusal crosses the socket.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::document::Document;

/// The stable reason of a refusal. Clients match on this and show the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// This node belongs to no network.
    NotEnrolled,
    /// The node is enrolled but was taken down.
    Down,
    /// The caller of the socket may not do this.
    NotPermitted,
    /// No member has this name or id.
    UnknownPeer,
    /// The other side did not answer in time.
    Timeout,
    /// The path that was asked for does not exist.
    NoPath,
    /// The request cannot be understood: field, value, route, method or size.
    BadRequest,
    /// This node belongs to a network already, and the request names another.
    AlreadyEnrolled,
    /// The ticket does not parse, or was edited.
    TicketDamaged,
    /// The ticket is past its time.
    TicketExpired,
    /// The ticket has no uses left.
    TicketUsed,
    /// The ticket belongs to another network, or its coordinator does not know it.
    TicketForeign,
    /// The ticket is good, but the node name it stands for is taken.
    TicketNameTaken,
    /// The relay does not answer.
    RelayUnreachable,
    /// The relay shows another certificate than the pin demands.
    RelayPinMismatch,
    /// The relay answers and declines to serve this network.
    RelayRefused,
    /// The address pool overlaps a route of this machine.
    PoolOverlap,
    /// The network interface could not be made or configured.
    Interface,
    /// A file of the state directory is damaged; nothing was changed.
    StateDamaged,
    /// State could not be stored: disk full, read-only, not permitted.
    Storage,
    /// Only the coordinator of the network can do this.
    NotCoordinator,
    /// Too many requests at once.
    Busy,
    /// The daemon is at fault.
    Internal,
    /// It works in part only.
    Degraded,
    /// A code that this version does not know.
    #[serde(other)]
    Unknown,
}

impl ErrorCode {
    /// Every code that a daemon of this version may send.
    pub const ALL: [Self; 24] = [
        Self::NotEnrolled,
        Self::Down,
        Self::NotPermitted,
        Self::UnknownPeer,
        Self::Timeout,
        Self::NoPath,
        Self::BadRequest,
        Self::AlreadyEnrolled,
        Self::TicketDamaged,
        Self::TicketExpired,
        Self::TicketUsed,
        Self::TicketForeign,
        Self::TicketNameTaken,
        Self::RelayUnreachable,
        Self::RelayPinMismatch,
        Self::RelayRefused,
        Self::PoolOverlap,
        Self::Interface,
        Self::StateDamaged,
        Self::Storage,
        Self::NotCoordinator,
        Self::Busy,
        Self::Internal,
        Self::Degraded,
    ];

    /// The text of the code in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotEnrolled => "not_enrolled",
            Self::Down => "down",
            Self::NotPermitted => "not_permitted",
            Self::UnknownPeer => "unknown_peer",
            Self::Timeout => "timeout",
            Self::NoPath => "no_path",
            Self::BadRequest => "bad_request",
            Self::AlreadyEnrolled => "already_enrolled",
            Self::TicketDamaged => "ticket_damaged",
            Self::TicketExpired => "ticket_expired",
            Self::TicketUsed => "ticket_used",
            Self::TicketForeign => "ticket_foreign",
            Self::TicketNameTaken => "ticket_name_taken",
            Self::RelayUnreachable => "relay_unreachable",
            Self::RelayPinMismatch => "relay_pin_mismatch",
            Self::RelayRefused => "relay_refused",
            Self::PoolOverlap => "pool_overlap",
            Self::Interface => "interface",
            Self::StateDamaged => "state_damaged",
            Self::Storage => "storage",
            Self::NotCoordinator => "not_coordinator",
            Self::Busy => "busy",
            Self::Internal => "internal",
            Self::Degraded => "degraded",
            Self::Unknown => "unknown",
        }
    }

    /// The HTTP status that goes with the code (RFC 9110 section 15, 507 from RFC 4918).
    pub fn http_status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::NotPermitted => 403,
            Self::UnknownPeer => 404,
            Self::NotEnrolled
            | Self::Down
            | Self::AlreadyEnrolled
            | Self::TicketNameTaken
            | Self::PoolOverlap
            | Self::NotCoordinator => 409,
            Self::TicketDamaged | Self::TicketExpired | Self::TicketUsed | Self::TicketForeign => 422,
            Self::Interface | Self::StateDamaged | Self::Internal | Self::Unknown => 500,
            Self::RelayUnreachable | Self::RelayPinMismatch | Self::RelayRefused => 502,
            Self::Busy | Self::Degraded | Self::NoPath => 503,
            Self::Timeout => 504,
            Self::Storage => 507,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal: what failed and why, and what to do about it where that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The reason, for programs.
    pub code: ErrorCode,
    /// One line for people: what failed and why.
    pub message: String,
    /// One line for people: what to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ApiError {
    /// A refusal without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// The same refusal with a line about what to do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Document for ApiError {
    const SCHEMA: &'static str = "shadowmesh.error/1";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_serialise_as_their_text() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert_eq!(serde_json::from_value::<ErrorCode>(code.as_str().into()).unwrap(), code);
        }
    }

    #[test]
    fn code_of_a_newer_daemon_is_unknown() {
        assert_eq!(serde_json::from_str::<ErrorCode>("\"moon_phase\"").unwrap(), ErrorCode::Unknown);
    }

    #[test]
    fn every_code_has_an_error_status() {
        assert!(ErrorCode::ALL.iter().all(|code| (400..600).contains(&code.http_status())));
    }
}
