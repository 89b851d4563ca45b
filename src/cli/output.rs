//! How a command runs and ends: its output, its errors, its exit code.

use std::fmt;
use std::io::{self, StdoutLock, Write};
use std::process::ExitCode;

use serde::Serialize;

use crate::control::ControlError;
use crate::domain::{CallError, Problem, ProxyFault, UnavailableReason};
use crate::telemetry::{clean_json, escape_control_chars};

/// Runs a future to its end, on a runtime of its own.
pub(super) fn block_on<T>(
    work: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    // A DNS lookup can block its thread for a minute.
    runtime.shutdown_background();
    result
}

/// Standard output: text, or JSON with `--json`.
pub(super) struct Output {
    to: StdoutLock<'static>,
    json: bool,
}

impl Output {
    pub(super) fn stdout(json: bool) -> Self {
        Self { to: io::stdout().lock(), json }
    }

    pub(super) const fn is_json(&self) -> bool {
        self.json
    }

    /// Prints one line of text, with control characters escaped.
    pub(super) fn line(&mut self, line: &str) -> io::Result<()> {
        self.bytes(format!("{}\n", escape_control_chars(line)).as_bytes())
    }

    /// Prints one object on one line.
    pub(super) fn object(&mut self, value: &impl Serialize) -> io::Result<()> {
        let json = serde_json::to_string(value)?;
        self.bytes(format!("{}\n", clean_json(&json)).as_bytes())
    }

    /// Prints the value as indented JSON, or the lines of text.
    pub(super) fn value(
        &mut self,
        value: &impl Serialize,
        text: impl FnOnce() -> Vec<String>,
    ) -> io::Result<()> {
        if self.json {
            let json = serde_json::to_string_pretty(value)?;
            return self.bytes(format!("{}\n", clean_json(&json)).as_bytes());
        }
        text().iter().try_for_each(|line| self.line(line))
    }

    /// Prints bytes unchanged.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)?;
        self.to.flush()
    }
}

/// Prints a line on standard error, beside the data on standard output.
#[expect(clippy::print_stderr, reason = "the one place that writes there")]
pub(super) fn print_notice(text: &str) {
    eprintln!("cardbridge: {}", escape_control_chars(text));
}

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Success = 0,
    Failure = 1,
    /// Invalid arguments or configuration.
    Usage = 2,
    /// pcscd, CM or the daemon is unreachable.
    Unreachable = 3,
    /// Access was denied, or CM refused the call.
    Refused = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed, and its exit code.
#[derive(Debug)]
pub(super) struct CommandError {
    exit: Exit,
    error: anyhow::Error,
}

impl CommandError {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, error: anyhow::Error::msg(message.into()) }
    }

    /// The exit code follows from the error's type.
    pub(super) fn of(error: anyhow::Error) -> Self {
        if let Some(call) = error.downcast_ref::<CallError>() {
            let remedy = call.unavailable_reason().map(|reason| format!("\n{}", reason.remedy()));
            return Self::new(exit_of_call(call), format!("{call}{}", remedy.unwrap_or_default()));
        }
        if let Some(Problem { what, remedy }) = error.downcast_ref() {
            return Self::new(Exit::Usage, format!("{what}\n{remedy}"));
        }
        let exit = error.downcast_ref().map_or(Exit::Failure, exit_of_control);
        Self { exit, error }
    }

    /// Prints the error on standard error, in as many lines as it has.
    pub(super) fn report(self) -> ExitCode {
        // The reader of the output closed it: `cardbridge audit | head`.
        let io = self.error.downcast_ref::<io::Error>();
        if io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            return Exit::Success.into();
        }
        self.to_string().lines().for_each(print_notice);
        self.exit.into()
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for CommandError {
    fn from(error: E) -> Self {
        Self::of(error.into())
    }
}

const fn exit_of_control(error: &ControlError) -> Exit {
    match error {
        ControlError::NotRunning(..) | ControlError::Timeout | ControlError::Cut => {
            Exit::Unreachable
        }
        ControlError::NotAllowed(_) | ControlError::Forbidden(_) => Exit::Refused,
        ControlError::NotFound(_) | ControlError::Refused(_) | ControlError::Protocol(_) => {
            Exit::Failure
        }
    }
}

const fn exit_of_call(error: &CallError) -> Exit {
    match error {
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
        CallError::Failed { .. } | CallError::UnexpectedResponse { .. } => Exit::Failure,
    }
}
