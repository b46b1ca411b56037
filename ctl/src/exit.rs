//! What the shell gets.

use std::process::ExitCode;

use mesh_control::{ClientError, ErrorCode};

/// The exit code of every verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// It was tried and failed.
    Failed,
    /// The command line or the configuration is wrong.
    Usage,
    /// The daemon does not answer.
    Unreachable,
    /// The node is in no network, or down.
    NotUp,
    /// The daemon does not let this user do it.
    NotPermitted,
    /// No peer has this name.
    UnknownPeer,
    /// It did not happen in time.
    Timeout,
    /// It works in part.
    Degraded,
}

impl Exit {
    /// The number, as documented.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::NotUp => 4,
            Self::NotPermitted => 5,
            Self::UnknownPeer => 6,
            Self::Timeout => 7,
            Self::Degraded => 8,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl From<ErrorCode> for Exit {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::BadRequest => Self::Usage,
            ErrorCode::NotEnrolled | ErrorCode::Down => Self::NotUp,
            ErrorCode::NotPermitted => Self::NotPermitted,
            ErrorCode::UnknownPeer => Self::UnknownPeer,
            ErrorCode::Timeout => Self::Timeout,
            ErrorCode::Degraded => Self::Degraded,
            ErrorCode::AlreadyEnrolled
            | ErrorCode::NoPath
            | ErrorCode::TicketDamaged
            | ErrorCode::TicketExpired
            | ErrorCode::TicketUsed
            | ErrorCode::TicketForeign
            | ErrorCode::TicketNameTaken
            | ErrorCode::RelayUnreachable
            | ErrorCode::RelayPinMismatch
            | ErrorCode::RelayRefused
            | ErrorCode::PoolOverlap
            | ErrorCode::Interface
            | ErrorCode::StateDamaged
            | ErrorCode::Storage
            | ErrorCode::NotCoordinator
            | ErrorCode::Busy
            | ErrorCode::Internal
            | ErrorCode::Unknown => Self::Failed,
        }
    }
}

impl From<&ClientError> for Exit {
    fn from(error: &ClientError) -> Self {
        match error {
            ClientError::Api(error) => error.code.into(),
            ClientError::Denied { .. } => Self::NotPermitted,
            ClientError::NotRunning { .. }
            | ClientError::Connect { .. }
            | ClientError::Broken { .. }
            | ClientError::Timeout { .. }
            | ClientError::TooLarge { .. }
            | ClientError::NotMeshd { .. } => Self::Unreachable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_code_has_its_exit_code() {
        for code in ErrorCode::ALL {
            let expected = match code.as_str() {
                "bad_request" => 2,
                "not_enrolled" | "down" => 4,
                "not_permitted" => 5,
                "unknown_peer" => 6,
                "timeout" => 7,
                "degraded" => 8,
                _ => 1,
            };
            assert_eq!(Exit::from(code).code(), expected, "{code}");
        }
    }

    #[test]
    fn daemon_that_does_not_answer_is_unreachable_and_a_closed_door_is_not() {
        let socket = std::path::PathBuf::from("/s");
        let missing = ClientError::NotRunning { socket: socket.clone(), why: "no such file" };
        assert_eq!(Exit::from(&missing).code(), 3);
        assert_eq!(Exit::from(&ClientError::Denied { socket }).code(), 5);
    }
}
