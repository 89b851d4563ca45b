//! What a step came to.

use crate::domain::{CallError, ProxyFault, UnavailableReason};

/// A step, in the order in which they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The files and the environment.
    Configuration,
    /// The PC/SC service.
    Pcscd,
    /// Whether this user may use it.
    Permission,
    /// The readers.
    Readers,
    /// The outbox, and the daemon that holds it.
    Outbox,
    /// From a name to addresses.
    NameResolution,
    /// TCP.
    Connection,
    /// The proxy in between.
    Proxy,
    /// TLS and the server's certificates.
    Tls,
    /// This machine's clock against the server's.
    Clock,
    /// Ticket or token.
    Credentials,
    /// Whether CM's REST API is switched on.
    SwitchedOn,
    /// Whether CM lets the station in.
    LetIn,
    /// Whether the account may do what it needs to.
    Allowed,
    /// Whether it is CM that answers.
    Json,
    /// What the account sees.
    Requests,
}

impl Step {
    /// Every step.
    pub const ALL: [Self; 16] = [
        Self::Configuration,
        Self::Pcscd,
        Self::Permission,
        Self::Readers,
        Self::Outbox,
        Self::NameResolution,
        Self::Connection,
        Self::Proxy,
        Self::Tls,
        Self::Clock,
        Self::Credentials,
        Self::SwitchedOn,
        Self::LetIn,
        Self::Allowed,
        Self::Json,
        Self::Requests,
    ];

    /// Its name in output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Pcscd => "pcscd",
            Self::Permission => "permission",
            Self::Readers => "readers",
            Self::Outbox => "outbox",
            Self::NameResolution => "name-resolution",
            Self::Connection => "connection",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Clock => "clock",
            Self::Credentials => "credentials",
            Self::SwitchedOn => "switched-on",
            Self::LetIn => "let-in",
            Self::Allowed => "allowed",
            Self::Json => "json",
            Self::Requests => "requests",
        }
    }
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Well.
    Good,
    /// Well, but somebody should look at it.
    Warning,
    /// Badly.
    Failed(Grade),
    /// It was not taken.
    Skipped,
}

/// What kind of badly, as exit codes tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    /// Something on this machine, or at the server, does not work.
    Broken,
    /// The configuration is wrong.
    Configuration,
    /// Something that is needed is not reachable.
    Unreachable,
    /// Permission, credentials, or CM said no.
    Refused,
}

/// What a step came to, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which step.
    pub step: Step,
    /// How it ended.
    pub verdict: Verdict,
    /// What was seen.
    pub words: String,
    /// What somebody can do about it.
    pub remedy: Option<String>,
}

impl Finding {
    pub(super) fn good(step: Step, words: impl Into<String>) -> Self {
        Self { step, verdict: Verdict::Good, words: words.into(), remedy: None }
    }

    pub(super) fn warning(step: Step, words: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into());
        Self { step, verdict: Verdict::Warning, words: words.into(), remedy }
    }

    /// A step that ended badly.
    pub fn failed(
        step: Step,
        grade: Grade,
        words: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let remedy = Some(remedy.into());
        Self { step, verdict: Verdict::Failed(grade), words: words.into(), remedy }
    }

    pub(super) fn skipped(step: Step, why: &str) -> Self {
        Self { step, verdict: Verdict::Skipped, words: why.to_owned(), remedy: None }
    }

    /// A step that ended with what a call to CM would end with.
    pub(super) fn of_call(step: Step, error: &CallError) -> Self {
        let (grade, remedy) = match error {
            CallError::Unavailable { reason, .. } => (grade(*reason), reason.remedy()),
            CallError::Failed { .. } => (Grade::Broken, "look at the server's event log"),
            CallError::Refused { .. } => (Grade::Refused, "see what CM says"),
            CallError::UnexpectedResponse { .. } => {
                (Grade::Broken, "check that cm.url leads to CM and to nothing else")
            }
        };
        Self::failed(step, grade, error.detail(), remedy)
    }
}

const fn grade(reason: UnavailableReason) -> Grade {
    match reason {
        UnavailableReason::Credentials
        | UnavailableReason::Unauthorized
        | UnavailableReason::ClientCertificate(_)
        | UnavailableReason::Proxy(ProxyFault::AuthRequired) => Grade::Refused,
        UnavailableReason::Unreachable
        | UnavailableReason::Timeout
        | UnavailableReason::Proxy(ProxyFault::Unreachable | ProxyFault::ConnectRejected)
        | UnavailableReason::Tls(_)
        | UnavailableReason::RequestTooLarge
        | UnavailableReason::ApiDisabled
        | UnavailableReason::MethodNotAllowed
        | UnavailableReason::Busy
        | UnavailableReason::ServerError
        | UnavailableReason::NotCm => Grade::Unreachable,
    }
}
