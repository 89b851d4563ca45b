//! What CM says: credentials, switched on, let in, allowed, JSON, and what the account sees.

use super::finding::{Finding, Grade, Step};
use super::{Tell, skip};
use crate::cm::CmClient;
use crate::domain::{CallError, CredentialsView, UnavailableReason};

/// The steps that are taken here.
pub(super) const STEPS: &[Step] =
    &[Step::Credentials, Step::SwitchedOn, Step::LetIn, Step::Allowed, Step::Json, Step::Requests];

/// The steps that one question answers, and what it means that each is passed.
const ASKED: [(Step, &str); 4] = [
    (Step::SwitchedOn, "CM's REST API answers"),
    (Step::LetIn, "the account is let in"),
    (Step::Allowed, "the account may list requests"),
    (Step::Json, "it is CM that answers"),
];

pub(super) async fn examine(remote: &CmClient, tell: Tell<'_>) {
    if let Err(error) = remote.acquire_credentials().await {
        tell(Finding::of_call(Step::Credentials, &error));
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

fn obtained(view: &CredentialsView) -> Finding {
    let CredentialsView { method, identity, valid_until, renewal_error: trouble } = view;
    let who = identity.as_ref().map(|who| format!(" as {who}")).unwrap_or_default();
    let until = valid_until.map(|at| format!(", valid until {at:.0}")).unwrap_or_default();
    let words = format!("{method}{who}{until}");
    match trouble {
        Some(trouble) => {
            let words = format!("{words}, but not renewed: {trouble}");
            Finding::warning(Step::Credentials, words, UnavailableReason::Credentials.remedy())
        }
        None => Finding::good(Step::Credentials, words),
    }
}

/// One answer, step by step: what it got past, where it ended, what is not known.
fn findings(asked: &Result<usize, CallError>) -> Vec<Finding> {
    let end = asked.as_ref().err().map(ended_at);
    // What is not CM says nothing about CM's doors.
    let elsewhere =
        matches!(asked, Err(CallError::Unavailable { reason: UnavailableReason::NotCm, .. }));
    let mut findings = Vec::new();
    let mut over = false;
    for (step, passed) in ASKED {
        findings.push(match asked {
            _ if over => Finding::skipped(step, "an earlier step failed"),
            Err(error) if end == Some(step) => {
                over = true;
                failure(step, error)
            }
            Err(_) if elsewhere => Finding::skipped(step, "it is not CM that answers"),
            Ok(_) | Err(_) => Finding::good(step, passed),
        });
    }
    findings.push(match asked {
        Ok(seen) => Finding::good(Step::Requests, visible(*seen)),
        Err(_) => Finding::skipped(Step::Requests, "an earlier step failed"),
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
fn ended_at(error: &CallError) -> Step {
    match error {
        CallError::Unavailable {
            reason:
                UnavailableReason::Unauthorized
                | UnavailableReason::Credentials
                | UnavailableReason::ClientCertificate(_),
            ..
        } => Step::LetIn,
        CallError::Unavailable { reason: UnavailableReason::NotCm, .. }
        | CallError::UnexpectedResponse { .. } => Step::Json,
        CallError::Refused { .. } => Step::Allowed,
        CallError::Unavailable { .. } | CallError::Failed { .. } => Step::SwitchedOn,
    }
}

fn failure(step: Step, error: &CallError) -> Finding {
    match error {
        CallError::Failed { http_status: 404, .. } => Finding::failed(
            step,
            Grade::Unreachable,
            error.detail(),
            UnavailableReason::ApiDisabled.remedy(),
        ),
        CallError::Refused { http_status: 403, .. } => Finding::failed(
            step,
            Grade::Refused,
            error.detail(),
            "give the station's account the permissions of docs/operations.md in CM",
        ),
        CallError::Unavailable { .. }
        | CallError::Failed { .. }
        | CallError::Refused { .. }
        | CallError::UnexpectedResponse { .. } => Finding::of_call(step, error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn verdicts(asked: &Result<usize, CallError>) -> Vec<(Step, Verdict)> {
        findings(asked).into_iter().map(|finding| (finding.step, finding.verdict)).collect()
    }

    fn away(reason: UnavailableReason) -> CallError {
        CallError::Unavailable { reason, detail: "x".to_owned(), retry_after: None }
    }

    #[test]
    fn an_answer_that_is_good_passes_every_step() {
        let verdicts = verdicts(&Ok(3));
        assert_eq!(verdicts.len(), 5);
        assert!(verdicts.iter().all(|(_, verdict)| *verdict == Verdict::Good));
        assert!(findings(&Ok(3))[4].words.starts_with("3 open requests"));
    }

    #[test]
    fn what_is_not_cm_tells_nothing_about_the_steps_before() {
        let findings = findings(&Err(away(UnavailableReason::NotCm)));
        let verdicts = findings.iter().map(|finding| finding.verdict).collect::<Vec<_>>();
        let failed = Verdict::Failed(Grade::Unreachable);
        let skipped = Verdict::Skipped;
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
            (missing, Step::SwitchedOn, Grade::Unreachable),
            (away(UnavailableReason::Unauthorized), Step::LetIn, Grade::Refused),
            (refused, Step::Allowed, Grade::Refused),
            (CallError::UnexpectedResponse { detail: "x".to_owned() }, Step::Json, Grade::Broken),
            (away(UnavailableReason::ServerError), Step::SwitchedOn, Grade::Unreachable),
        ] {
            let verdicts = verdicts(&Err(error));
            let at = verdicts.iter().position(|(known, _)| *known == step).unwrap();
            assert_eq!(verdicts[at].1, Verdict::Failed(grade));
            assert!(verdicts[..at].iter().all(|(_, verdict)| *verdict == Verdict::Good));
            assert!(verdicts[at + 1..].iter().all(|(_, verdict)| *verdict == Verdict::Skipped));
        }
    }
}
