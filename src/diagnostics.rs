//! `check`: every step from the configuration to CM's response, each with a remedy.
//!
//! The steps come in the order in which a card's entry takes them: the readers and the outbox of
//! this machine, then the connection to CM. A step that depends on a failed one is skipped.
//! Nothing is changed, here or at CM.

use strum::{IntoStaticStr, VariantArray};

use crate::domain::{CallError, ProxyFault, UnavailableReason};

mod cm;
mod local;

pub(crate) use cm::check_cm;
pub(crate) use local::check_station;

/// Takes each result when it is known: some steps take seconds.
pub(crate) type ResultSink<'a> = &'a mut dyn FnMut(CheckResult);

/// The steps, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub(crate) enum CheckStep {
    Configuration,
    Pcscd,
    PcscAccess,
    Readers,
    Outbox,
    Dns,
    Tcp,
    Proxy,
    Tls,
    Clock,
    Credentials,
    ApiEnabled,
    Authentication,
    Authorization,
    /// Whether the response is from CM.
    CmResponse,
    /// How many of CM's open requests the account can see.
    OpenRequests,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub(crate) enum CheckStatus {
    Ok,
    Warning,
    Failed(FailureClass),
    Skipped,
}

/// The exit code of a failed step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureClass {
    /// Something on this machine, or at the server, does not work.
    Broken,
    Configuration,
    Unreachable,
    /// Access was denied, or CM refused the call.
    Refused,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckResult {
    pub(crate) step: CheckStep,
    pub(crate) status: CheckStatus,
    pub(crate) detail: String,
    pub(crate) remedy: Option<String>,
}

impl CheckResult {
    pub(crate) fn ok(step: CheckStep, detail: impl Into<String>) -> Self {
        Self { step, status: CheckStatus::Ok, detail: detail.into(), remedy: None }
    }

    fn skipped(step: CheckStep, reason: &str) -> Self {
        Self { status: CheckStatus::Skipped, ..Self::ok(step, reason) }
    }

    pub(crate) fn warning(
        step: CheckStep,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let remedy = Some(remedy.into());
        Self { status: CheckStatus::Warning, remedy, ..Self::ok(step, detail) }
    }

    pub(crate) fn failed(
        step: CheckStep,
        class: FailureClass,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { status: CheckStatus::Failed(class), ..Self::warning(step, detail, remedy) }
    }

    /// A step that failed as a call to CM would.
    fn of_call(step: CheckStep, error: &CallError) -> Self {
        let (class, remedy) = match error {
            CallError::Unavailable { reason, .. } => {
                let is_refusal = matches!(
                    reason,
                    UnavailableReason::Credentials
                        | UnavailableReason::Unauthorized
                        | UnavailableReason::ClientCertificate(_)
                        | UnavailableReason::Proxy(ProxyFault::AuthRequired)
                );
                let class =
                    if is_refusal { FailureClass::Refused } else { FailureClass::Unreachable };
                (class, reason.remedy())
            }
            CallError::Failed { .. } => (FailureClass::Broken, "see the server's event log"),
            CallError::Refused { .. } => (FailureClass::Refused, "see CM's message above"),
            CallError::UnexpectedResponse { .. } => {
                (FailureClass::Broken, "check that cm.url points to CM")
            }
        };
        Self::failed(step, class, error.detail(), remedy)
    }
}

/// Reports steps as skipped.
pub(crate) fn skip(steps: &[CheckStep], reason: &str, report: ResultSink<'_>) {
    for step in steps {
        report(CheckResult::skipped(*step, reason));
    }
}
