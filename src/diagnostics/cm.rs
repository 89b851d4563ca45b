//! What CM says: credentials, switched on, let in, allowed, JSON, and what the account sees.

use super::check_result::{CheckResult, CheckStep, FailureClass};
use super::{ResultSink, skip};
use crate::cm::CmClient;
use crate::domain::{CallError, CredentialsView, UnavailableReason};

/// The steps that are taken here.
pub(super) const STEPS: &[CheckStep] = &[
    CheckStep::Credentials,
    CheckStep::ApiEnabled,
    CheckStep::Authentication,
    CheckStep::Authorization,
    CheckStep::CmResponse,
    CheckStep::OpenRequests,
];

/// The steps that one question answers, and what it means that each is passed.
const SINGLE_CALL_STEPS: [(CheckStep, &str); 4] = [
    (CheckStep::ApiEnabled, "CM's REST API is enabled"),
    (CheckStep::Authentication, "the account is authenticated"),
    (CheckStep::Authorization, "the account is authorized to list requests"),
    (CheckStep::CmResponse, "the response is from CM"),
];

pub(super) async fn run(remote: &CmClient, tell: ResultSink<'_>) {
    if let Err(error) = remote.acquire_credentials().await {
        tell(CheckResult::of_call(CheckStep::Credentials, &error));
        let asked = STEPS.split_first().map_or(STEPS, |(_, asked)| asked);
        skip(asked, "there are no credentials", tell);
        return;
    }
    tell(obtained(&remote.authenticator()));
    let asked = remote.open_requests().await;
    for finding in findings(&asked) {
        tell(finding);
    }
}

fn obtained(view: &CredentialsView) -> CheckResult {
    let CredentialsView { method, identity, valid_until, renewal_error: trouble } = view;
    let who = identity.as_ref().map(|who| format!(" as {who}")).unwrap_or_default();
    let until = valid_until.map(|at| format!(", valid until {at:.0}")).unwrap_or_default();
    let words = format!("{method}{who}{until}");
    match trouble {
        Some(trouble) => {
            let words = format!("{words}; renewal failed: {trouble}");
            CheckResult::warning(
                CheckStep::Credentials,
                words,
                UnavailableReason::Credentials.remedy(),
            )
        }
        None => CheckResult::good(CheckStep::Credentials, words),
    }
}

/// One answer, step by step: what it got past, where it ended, what is not known.
fn findings(asked: &Result<usize, CallError>) -> Vec<CheckResult> {
    let end = asked.as_ref().err().map(failed_step);
    // What is not CM says nothing about CM's doors.
    let elsewhere =
        matches!(asked, Err(CallError::Unavailable { reason: UnavailableReason::NotCm, .. }));
    let mut findings = Vec::new();
    let mut over = false;
    for (step, passed) in SINGLE_CALL_STEPS {
        findings.push(match asked {
            _ if over => CheckResult::skipped(step, "an earlier step failed"),
            Err(error) if end == Some(step) => {
                over = true;
                failure(step, error)
            }
            Err(_) if elsewhere => CheckResult::skipped(step, "it is not CM that answers"),
            Ok(_) | Err(_) => CheckResult::good(step, passed),
        });
    }
    findings.push(match asked {
        Ok(seen) => CheckResult::good(CheckStep::OpenRequests, visible(*seen)),
        Err(_) => CheckResult::skipped(CheckStep::OpenRequests, "an earlier step failed"),
    });
    findings
}

fn visible(seen: usize) -> String {
    match seen {
        1 => "1 open request is visible to this account".to_owned(),
        _ => format!("{seen} open requests are visible to this account"),
    }
}

/// The step at which an answer ends the way.
fn failed_step(error: &CallError) -> CheckStep {
    match error {
        CallError::Unavailable {
            reason:
                UnavailableReason::Unauthorized
                | UnavailableReason::Credentials
                | UnavailableReason::ClientCertificate(_),
            ..
        } => CheckStep::Authentication,
        CallError::Unavailable { reason: UnavailableReason::NotCm, .. }
        | CallError::UnexpectedResponse { .. } => CheckStep::CmResponse,
        CallError::Refused { .. } => CheckStep::Authorization,
        CallError::Unavailable { .. } | CallError::Failed { .. } => CheckStep::ApiEnabled,
    }
}

fn failure(step: CheckStep, error: &CallError) -> CheckResult {
    match error {
        CallError::Failed { http_status: 404, .. } => CheckResult::failed(
            step,
            FailureClass::Unreachable,
            error.detail(),
            UnavailableReason::ApiDisabled.remedy(),
        ),
        CallError::Refused { http_status: 403, .. } => CheckResult::failed(
            step,
            FailureClass::Refused,
            error.detail(),
            "grant the station's account the CM permissions listed in docs/configure.md",
        ),
        CallError::Unavailable { .. }
        | CallError::Failed { .. }
        | CallError::Refused { .. }
        | CallError::UnexpectedResponse { .. } => CheckResult::of_call(step, error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::CheckStatus;
    use super::*;

    fn verdicts(asked: &Result<usize, CallError>) -> Vec<(CheckStep, CheckStatus)> {
        findings(asked).into_iter().map(|finding| (finding.step, finding.verdict)).collect()
    }

    fn away(reason: UnavailableReason) -> CallError {
        CallError::Unavailable { reason, detail: "x".to_owned(), retry_after: None }
    }

    #[test]
    fn an_answer_that_is_good_passes_every_step() {
        let verdicts = verdicts(&Ok(3));
        assert_eq!(verdicts.len(), 5);
        assert!(verdicts.iter().all(|(_, verdict)| *verdict == CheckStatus::Ok));
        assert!(findings(&Ok(3))[4].detail.starts_with("3 open requests"));
    }

    #[test]
    fn what_is_not_cm_tells_nothing_about_the_steps_before() {
        let findings = findings(&Err(away(UnavailableReason::NotCm)));
        let verdicts = findings.iter().map(|finding| finding.verdict).collect::<Vec<_>>();
        let failed = CheckStatus::Failed(FailureClass::Unreachable);
        let skipped = CheckStatus::Skipped;
        assert_eq!(verdicts, [skipped, skipped, skipped, failed, skipped]);
    }

    #[test]
    fn an_answer_ends_at_its_step_and_what_comes_after_is_not_known() {
        let refused =
            CallError::Refused { http_status: 403, detail: "no".to_owned(), correlation_id: None };
        let missing = CallError::Failed {
            http_status: 404,
            detail: "404".to_owned(),
            correlation_id: None,
            retry_after: None,
        };
        for (error, step, grade) in [
            (missing, CheckStep::ApiEnabled, FailureClass::Unreachable),
            (
                away(UnavailableReason::Unauthorized),
                CheckStep::Authentication,
                FailureClass::Refused,
            ),
            (refused, CheckStep::Authorization, FailureClass::Refused),
            (
                CallError::UnexpectedResponse { detail: "x".to_owned() },
                CheckStep::CmResponse,
                FailureClass::Broken,
            ),
            (
                away(UnavailableReason::ServerError),
                CheckStep::ApiEnabled,
                FailureClass::Unreachable,
            ),
        ] {
            let verdicts = verdicts(&Err(error));
            let at = verdicts.iter().position(|(known, _)| *known == step).unwrap();
            assert_eq!(verdicts[at].1, CheckStatus::Failed(grade));
            assert!(verdicts[..at].iter().all(|(_, verdict)| *verdict == CheckStatus::Ok));
            assert!(verdicts[at + 1..].iter().all(|(_, verdict)| *verdict == CheckStatus::Skipped));
        }
    }
}
