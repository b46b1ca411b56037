//! Why there is no connection to the relay.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mesh_wire::relay::ErrorCode;
use mesh_wire::{Pin, WireError};

use crate::dial::DialError;

/// Why an attempt failed or a connection ended. Its text is for people and holds the cause.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The configuration names no pin.
    #[error("the relay's address has no pin; add \"#PIN\" as the relay prints it at its start")]
    PinMissing,
    /// The relay shows another certificate than the pinned one.
    #[error(
        "the relay's certificate has the pin {found}, not {expected}: it is another relay, or its key was changed"
    )]
    PinMismatch {
        /// From the address.
        expected: Pin,
        /// From the certificate.
        found: Pin,
    },
    /// The host name has no address.
    #[error("the name \"{host}\" could not be resolved ({source})")]
    Resolve {
        /// As configured.
        host: String,
        /// From the resolver.
        #[source]
        source: io::Error,
    },
    /// No TCP connection; the last address that was tried.
    #[error("no connection to {address} ({source})")]
    Connect {
        /// Address and port.
        address: SocketAddr,
        /// From the kernel.
        #[source]
        source: io::Error,
    },
    /// Connecting and authenticating took too long.
    #[error("the relay did not answer in time")]
    Timeout,
    /// TLS failed for another reason than the pin.
    #[error("TLS with the relay failed ({0})")]
    Tls(#[source] io::Error),
    /// The WebSocket upgrade was refused, or the framing broke.
    #[error("no relay answers there ({0})")]
    WebSocket(String),
    /// The relay sent what no relay of this version sends.
    #[error("the relay does not speak this protocol ({0})")]
    Protocol(#[from] WireError),
    /// The relay refused this client, or ended the connection with a reason.
    #[error("the relay refused: {text}")]
    Auth {
        /// Stable meaning.
        code: ErrorCode,
        /// The relay's words.
        text: String,
    },
    /// The node's own keys could not sign.
    #[error("the node's keys could not sign ({0})")]
    Identity(String),
    /// A newer connection with the same keys took over.
    #[error("another connection with the same keys took over; does a copy of this node run elsewhere?")]
    Replaced,
    /// The relay announced a restart.
    #[error("the relay restarts")]
    Restarting {
        /// Shortest wait before the next attempt.
        min: Duration,
        /// Longest wait.
        max: Duration,
    },
    /// Three heartbeats stayed unanswered, or frames and one question after them.
    #[error("the relay fell silent")]
    Silent,
    /// The kernel took no byte for too long.
    #[error("the connection to the relay is stuck")]
    Stalled,
    /// The relay dropped messages about other nodes, because this side reads too slowly.
    #[error("the relay dropped messages because this node reads too slowly")]
    Overflow,
    /// The relay closed the connection without a reason.
    #[error("the relay closed the connection")]
    Closed,
    /// The connection broke.
    #[error("the connection to the relay broke ({0})")]
    Broken(#[source] io::Error),
}

/// The stable part of a [`RelayError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayErrorKind {
    /// No pin is configured.
    PinMissing,
    /// Another certificate than the pinned one.
    PinMismatch,
    /// The host name has no address.
    Unresolved,
    /// Nothing listens on the port.
    Refused,
    /// The address does not answer or has no route.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// TLS failed.
    Tls,
    /// What answers is no relay of this version.
    Protocol,
    /// The relay refused this client.
    Auth(ErrorCode),
    /// The node's own keys could not sign.
    Identity,
    /// A newer connection with the same keys took over.
    Replaced,
    /// The relay restarts and asks to wait between these two.
    Restarting {
        /// Shortest wait.
        min: Duration,
        /// Longest wait.
        max: Duration,
    },
    /// The connection ended, broke, stalled or fell silent.
    Closed,
}

impl RelayError {
    /// Returns the stable part.
    #[must_use]
    pub fn kind(&self) -> RelayErrorKind {
        match self {
            Self::PinMissing => RelayErrorKind::PinMissing,
            Self::PinMismatch { .. } => RelayErrorKind::PinMismatch,
            Self::Resolve { .. } => RelayErrorKind::Unresolved,
            Self::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
                RelayErrorKind::Refused
            }
            Self::Connect { .. } => RelayErrorKind::Unreachable,
            Self::Timeout => RelayErrorKind::Timeout,
            Self::Tls(_) => RelayErrorKind::Tls,
            Self::WebSocket(_) | Self::Protocol(_) => RelayErrorKind::Protocol,
            Self::Auth { code, .. } => RelayErrorKind::Auth(*code),
            Self::Identity(_) => RelayErrorKind::Identity,
            Self::Replaced => RelayErrorKind::Replaced,
            Self::Restarting { min, max } => RelayErrorKind::Restarting { min: *min, max: *max },
            Self::Silent | Self::Stalled | Self::Overflow | Self::Closed | Self::Broken(_) => {
                RelayErrorKind::Closed
            }
        }
    }

    /// Makes an error out of RESTARTING.
    pub(super) fn restarting(min_ms: u32, max_ms: u32) -> Self {
        Self::Restarting {
            min: Duration::from_millis(min_ms.into()),
            max: Duration::from_millis(max_ms.into()),
        }
    }

    /// Tells whether the relay closes the connection after this code.
    pub(super) fn ends_connection(code: ErrorCode) -> bool {
        match code {
            ErrorCode::Version
            | ErrorCode::BadMessage
            | ErrorCode::BadSignature
            | ErrorCode::NotAdmitted
            | ErrorCode::NetworkNotServed
            | ErrorCode::Replaced
            | ErrorCode::TooLarge
            | ErrorCode::Busy => true,
            ErrorCode::ControlOverflow
            | ErrorCode::TooManyHandles
            | ErrorCode::NotPermitted
            | ErrorCode::StaleRoster
            | ErrorCode::RosterNotKept
            | ErrorCode::Other(_) => false,
        }
    }

    /// Makes an error out of what the relay said before it closed.
    pub(super) fn from_relay(code: ErrorCode, text: &str) -> Self {
        if code == ErrorCode::Replaced {
            return Self::Replaced;
        }
        Self::Auth { code, text: text.chars().filter(|c| !c.is_control()).collect() }
    }
}

impl From<DialError> for RelayError {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Resolve { host, source } => Self::Resolve { host, source },
            DialError::Connect { address, source } => Self::Connect { address, source },
        }
    }
}

impl From<tokio_tungstenite::tungstenite::Error> for RelayError {
    fn from(error: tokio_tungstenite::tungstenite::Error) -> Self {
        use tokio_tungstenite::tungstenite::Error;
        match error {
            Error::ConnectionClosed | Error::AlreadyClosed => Self::Closed,
            Error::Io(error) => Self::Broken(error),
            Error::Tls(_)
            | Error::Capacity(_)
            | Error::Protocol(_)
            | Error::WriteBufferFull(_)
            | Error::Utf8(_)
            | Error::AttackAttempt
            | Error::Url(_)
            | Error::Http(_)
            | Error::HttpFormat(_) => Self::WebSocket(error.to_string()),
        }
    }
}
