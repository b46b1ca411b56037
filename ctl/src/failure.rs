//! Why a verb ends before it is done.

use std::error::Error;
use std::io;

use mesh_control::ClientError;

use crate::exit::Exit;

/// One line for people, a code for programs, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// The code of the daemon's refusal, or one of our own.
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// Whoever read our output has gone: there is nobody to tell.
    pub(crate) quiet: bool,
}

impl Failure {
    pub(crate) fn new(exit: Exit, code: &'static str, message: impl Into<String>) -> Self {
        Self { exit, code, message: message.into(), hint: None, quiet: false }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::Api(error) => error.code.as_str(),
            ClientError::Denied { .. } => "not_permitted",
            ClientError::NotRunning { .. }
            | ClientError::Connect { .. }
            | ClientError::Broken { .. }
            | ClientError::Timeout { .. }
            | ClientError::TooLarge { .. }
            | ClientError::NotMeshd { .. } => "daemon_unreachable",
        };
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(source) = cause {
            message.push_str(&format!(": {source}"));
            cause = source.source();
        }
        Self { exit: Exit::from(&error), code, message, hint: error.hint(), quiet: false }
    }
}

/// Only writing to stdout fails this way.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let quiet = error.kind() == io::ErrorKind::BrokenPipe;
        let exit = if quiet { Exit::Done } else { Exit::Failed };
        Self { quiet, ..Self::new(exit, "output", format!("failed to write the output: {error}")) }
    }
}
