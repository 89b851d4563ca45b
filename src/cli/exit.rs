//! Exit codes, and failures that carry theirs.

use std::process::ExitCode;
use std::{fmt, io};

use crate::app;
use crate::control::ControlError;
use crate::domain::{CallError, ProxyFault, UnavailableReason};

use super::text::escape_control_chars;

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// What was asked for is done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// The arguments or the configuration are bad.
    Usage = 2,
    /// pcscd, CM or the daemon is not reachable.
    Unreachable = 3,
    /// Permission, credentials, or CM said no.
    Refused = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked to, and the code that it ends with.
#[derive(Debug)]
pub(super) struct CommandError {
    exit: Exit,
    error: anyhow::Error,
}

impl CommandError {
    pub(super) fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into() }
    }

    pub(super) fn message(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, error: anyhow::Error::msg(message.into()) }
    }

    /// Tells it on standard error, in as many lines as it has.
    #[expect(clippy::print_stderr, reason = "the last words of the program")]
    pub(super) fn report(self) -> ExitCode {
        if !self.is_broken_pipe() {
            for line in format!("{:#}", self.error).lines() {
                eprintln!("cardbridge: {}", escape_control_chars(line));
            }
            return self.exit.into();
        }
        Exit::Done.into()
    }

    /// Whoever read the output has seen enough: `cardbridge audit | head`.
    fn is_broken_pipe(&self) -> bool {
        let io = self.error.downcast_ref::<io::Error>();
        io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        Self::new(Exit::Failed, error)
    }
}

impl From<ControlError> for CommandError {
    fn from(error: ControlError) -> Self {
        let exit = match &error {
            ControlError::NotRunning(..) | ControlError::Timeout | ControlError::Cut => {
                Exit::Unreachable
            }
            ControlError::NotAllowed(_) | ControlError::Forbidden(_) => Exit::Refused,
            ControlError::NotFound(_) | ControlError::Refused(_) | ControlError::Protocol(_) => {
                Exit::Failed
            }
        };
        Self::new(exit, error)
    }
}

impl From<app::CmSetupError> for CommandError {
    fn from(error: app::CmSetupError) -> Self {
        Self::message(Exit::Usage, error.to_string())
    }
}

impl From<CallError> for CommandError {
    fn from(error: CallError) -> Self {
        let exit = match &error {
            CallError::Unavailable {
                reason:
                    UnavailableReason::Unauthorized
                    | UnavailableReason::Credentials
                    | UnavailableReason::ClientCertificate(_)
                    | UnavailableReason::Proxy(ProxyFault::AuthRequired),
                ..
            }
            | CallError::Refused { .. } => Exit::Refused,
            CallError::Unavailable { .. } => Exit::Unreachable,
            CallError::Failed { .. } | CallError::UnexpectedResponse { .. } => Exit::Failed,
        };
        let remedy = error.unavailable_reason().map(|reason| format!("\n{}", reason.remedy()));
        Self::message(exit, format!("{error}{}", remedy.unwrap_or_default()))
    }
}
