//! What a step came to.

use crate::domain::{CallError, ProxyFault, UnavailableReason};

/// A step, in the order in which they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckStep {
    /// The files and the environment.
    Configuration,
    /// The PC/SC service.
    Pcscd,
    /// Whether this user may use it.
    PcscAccess,
    /// The readers.
    Readers,
    /// The outbox, and the daemon that holds it.
    Outbox,
    /// From a name to addresses.
    Dns,
    /// TCP.
    Tcp,
    /// The proxy in between.
    Proxy,
    /// TLS and the server's certificates.
    Tls,
    /// This machine's clock against the server's.
    Clock,
    /// Ticket or token.
    Credentials,
    /// Whether CM's REST API is switched on.
    ApiEnabled,
    /// Whether CM lets the station in.
    Authentication,
    /// Whether the account may do what it needs to.
    Authorization,
    /// Whether it is CM that answers.
    CmResponse,
    /// What the account sees.
    OpenRequests,
}

impl CheckStep {
    /// Every step.
    pub const ALL: [Self; 16] = [
        Self::Configuration,
        Self::Pcscd,
        Self::PcscAccess,
        Self::Readers,
        Self::Outbox,
        Self::Dns,
        Self::Tcp,
        Self::Proxy,
        Self::Tls,
        Self::Clock,
        Self::Credentials,
        Self::ApiEnabled,
        Self::Authentication,
        Self::Authorization,
        Self::CmResponse,
        Self::OpenRequests,
    ];

    /// Its name in output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Pcscd => "pcscd",
            Self::PcscAccess => "pcsc-access",
            Self::Readers => "readers",
            Self::Outbox => "outbox",
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Clock => "clock",
            Self::Credentials => "credentials",
            Self::ApiEnabled => "api-enabled",
            Self::Authentication => "authentication",
            Self::Authorization => "authorization",
            Self::CmResponse => "cm-response",
            Self::OpenRequests => "open-requests",
        }
    }
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckStatus {
    /// Well.
    Ok,
    /// Well, but somebody should look at it.
    Warning,
    /// Badly.
    Failed(FailureClass),
    /// It was not taken.
    Skipped,
}

/// What kind of badly, as exit codes tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
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
pub struct CheckResult {
    /// Which step.
    pub step: CheckStep,
    /// How it ended.
    pub verdict: CheckStatus,
    /// What was seen.
    pub detail: String,
    /// What somebody can do about it.
    pub remedy: Option<String>,
}

impl CheckResult {
    pub(super) fn good(step: CheckStep, words: impl Into<String>) -> Self {
        Self { step, verdict: CheckStatus::Ok, detail: words.into(), remedy: None }
    }

    pub(super) fn warning(
        step: CheckStep,
        words: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let remedy = Some(remedy.into());
        Self { step, verdict: CheckStatus::Warning, detail: words.into(), remedy }
    }

    /// A step that ended badly.
    pub fn failed(
        step: CheckStep,
        grade: FailureClass,
        words: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let remedy = Some(remedy.into());
        Self { step, verdict: CheckStatus::Failed(grade), detail: words.into(), remedy }
    }

    pub(super) fn skipped(step: CheckStep, why: &str) -> Self {
        Self { step, verdict: CheckStatus::Skipped, detail: why.to_owned(), remedy: None }
    }

    /// A step that ended with what a call to CM would end with.
    pub(super) fn of_call(step: CheckStep, error: &CallError) -> Self {
        let (grade, remedy) = match error {
            CallError::Unavailable { reason, .. } => (grade(*reason), reason.remedy()),
            CallError::Failed { .. } => (FailureClass::Broken, "look at the server's event log"),
            CallError::Refused { .. } => (FailureClass::Refused, "see CM's message above"),
            CallError::UnexpectedResponse { .. } => {
                (FailureClass::Broken, "check that cm.url points to CM")
            }
        };
        Self::failed(step, grade, error.detail(), remedy)
    }
}

const fn grade(reason: UnavailableReason) -> FailureClass {
    match reason {
        UnavailableReason::Credentials
        | UnavailableReason::Unauthorized
        | UnavailableReason::ClientCertificate(_)
        | UnavailableReason::Proxy(ProxyFault::AuthRequired) => FailureClass::Refused,
        UnavailableReason::Unreachable
        | UnavailableReason::Timeout
        | UnavailableReason::Proxy(ProxyFault::Unreachable | ProxyFault::ConnectRejected)
        | UnavailableReason::Tls(_)
        | UnavailableReason::RequestTooLarge
        | UnavailableReason::ApiDisabled
        | UnavailableReason::MethodNotAllowed
        | UnavailableReason::Busy
        | UnavailableReason::ServerError
        | UnavailableReason::NotCm => FailureClass::Unreachable,
    }
}
