//! Why no good answer came.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{ApiError, ErrorCode};

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The daemon refused.
    #[error(transparent)]
    Api(ApiError),
    /// Nobody listens on the socket.
    #[error("meshd is not running ({}: {why})", socket.display())]
    NotRunning {
        /// The path of the socket.
        socket: PathBuf,
        /// What is missing: the file, or somebody who listens on it.
        why: &'static str,
    },
    /// The socket's owner does not let this user in.
    #[error("not permitted to use {}", socket.display())]
    Denied {
        /// The path of the socket.
        socket: PathBuf,
    },
    /// The connection failed before there was an answer.
    #[error("failed to reach meshd on {}", socket.display())]
    Connect {
        /// The path of the socket.
        socket: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The connection broke.
    #[error("meshd on {} closed the connection", socket.display())]
    Broken {
        /// The path of the socket.
        socket: PathBuf,
        /// What HTTP says.
        source: Box<dyn Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("meshd on {} did not answer within {} s", socket.display(), waited.as_secs())]
    Timeout {
        /// The path of the socket.
        socket: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The answer is larger than any of ours.
    #[error("the answer from {} is larger than 8 MiB", socket.display())]
    TooLarge {
        /// The path of the socket.
        socket: PathBuf,
    },
    /// Who answers is no meshd, or one of another major version.
    #[error("{} does not answer as this version of meshd would: {what}", socket.display())]
    NotMeshd {
        /// The path of the socket.
        socket: PathBuf,
        /// What is strange about the answer.
        what: String,
    },
}

impl ClientError {
    /// What the person can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Api(error) => return error.hint.clone(),
            Self::NotRunning { .. } => {
                "start it with \"systemctl start shadowmesh\", or name its socket with --socket"
            }
            Self::Denied { .. } => {
                "use sudo, or join the group that may read: \"usermod -aG shadowmesh USER\", then log in again"
            }
            Self::Broken { .. } => "\"journalctl -u meshd\" tells why",
            Self::Timeout { .. } => "\"systemctl status meshd\" tells how it is; restart it if it hangs",
            Self::TooLarge { .. } => "name the socket of meshd with --socket",
            Self::NotMeshd { .. } => {
                "name the socket of meshd with --socket, or restart meshd after an upgrade"
            }
            Self::Connect { .. } => return None,
        };
        Some(hint.to_owned())
    }

    /// The code of the daemon's refusal.
    pub fn code(&self) -> Option<ErrorCode> {
        if let Self::Api(error) = self { Some(error.code) } else { None }
    }

    pub(super) fn from_connect(socket: PathBuf, source: io::Error) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "io::ErrorKind is open, the rest has one meaning")]
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                Self::NotRunning { socket, why: "no such file" }
            }
            io::ErrorKind::ConnectionRefused => Self::NotRunning { socket, why: "nobody listens there" },
            io::ErrorKind::PermissionDenied => Self::Denied { socket },
            _ => Self::Connect { socket, source },
        }
    }
}
