//! The connection to CM: name, TCP, proxy, TLS, clock; then what CM responds.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpStream;

use super::{CheckResult, CheckStep, FailureClass, ResultSink, skip};
use crate::cm::{CmClient, ConnectionCheck, PeerCertificate, ServerStream, TlsHandshake};
use crate::domain::{CallError, CredentialsView, Problem, UnavailableReason};

const EXPIRY_WARNING: Duration = Duration::from_hours(30 * 24);

/// The difference of clocks that Kerberos allows (RFC 4120 section 8.2), and OAuth's assertions too.
const SKEW_LIMIT: Duration = Duration::from_mins(5);

/// A clock that is set by the network differs less.
const SKEW_WARNING: Duration = Duration::from_secs(30);

/// The steps after the connection.
const CM_STEPS: [CheckStep; 6] = [
    CheckStep::Credentials,
    CheckStep::ApiEnabled,
    CheckStep::Authentication,
    CheckStep::Authorization,
    CheckStep::CmResponse,
    CheckStep::OpenRequests,
];

/// Checks the connection to CM, then the credentials and the response to one call.
pub(crate) async fn check_cm(cm: &CmClient, report: ResultSink<'_>) {
    if !check_connection(cm, report).await {
        return skip(&CM_STEPS, "CM was not reached", report);
    }
    if let Err(error) = cm.acquire_credentials().await {
        report(CheckResult::of_call(CheckStep::Credentials, &error));
        let [_, steps @ ..] = CM_STEPS;
        return skip(&steps, "there are no credentials", report);
    }
    report(credentials(&cm.authenticator()));
    call_results(&cm.open_requests().await).into_iter().for_each(report);
}

/// Checks up to the first failure; true if there is none.
async fn check_connection(cm: &CmClient, report: ResultSink<'_>) -> bool {
    let check = match cm.connection_check() {
        Ok(check) => check,
        Err(Problem { what, remedy }) => {
            let class = FailureClass::Configuration;
            report(CheckResult::failed(CheckStep::Dns, class, what, remedy));
            let steps = [CheckStep::Tcp, CheckStep::Proxy, CheckStep::Tls, CheckStep::Clock];
            skip(&steps, "the connection settings are invalid", report);
            return false;
        }
    };
    let Some(stream) = connect(&check, report).await else {
        let steps = [CheckStep::Proxy, CheckStep::Tls, CheckStep::Clock];
        skip(&steps, "there is no connection", report);
        return false;
    };
    let Some(stream) = check_proxy(&check, stream, report).await else {
        skip(&[CheckStep::Tls, CheckStep::Clock], "the proxy rejected the connection", report);
        return false;
    };
    if !check_tls(&check, stream, report).await {
        skip(&[CheckStep::Clock], "there is no TLS", report);
        return false;
    }
    check_clock(cm, report).await
}

/// Reports the success, or the error of a call.
fn succeeds<T>(
    step: CheckStep,
    result: Result<T, CallError>,
    detail: impl FnOnce(&T) -> String,
    report: ResultSink<'_>,
) -> Option<T> {
    match result {
        Ok(value) => {
            report(CheckResult::ok(step, detail(&value)));
            Some(value)
        }
        Err(error) => {
            report(CheckResult::of_call(step, &error));
            None
        }
    }
}

async fn connect(check: &ConnectionCheck, report: ResultSink<'_>) -> Option<TcpStream> {
    let hop = check.first_hop();
    let addresses = check.resolve(&hop).await;
    let resolved = |addresses: &Vec<SocketAddr>| resolved(&hop.host, addresses);
    let Some(addresses) = succeeds(CheckStep::Dns, addresses, resolved, report) else {
        skip(&[CheckStep::Tcp], "there is no address", report);
        return None;
    };
    let connected = |(_, address): &(TcpStream, SocketAddr)| format!("connected to {address}");
    let stream = check.connect(&addresses).await;
    succeeds(CheckStep::Tcp, stream, connected, report).map(|(stream, _)| stream)
}

async fn check_proxy(
    check: &ConnectionCheck,
    stream: TcpStream,
    report: ResultSink<'_>,
) -> Option<ServerStream> {
    let proxy = check.proxy();
    let detail = proxy.map_or("none".to_owned(), |proxy| format!("connected through {proxy}"));
    succeeds(CheckStep::Proxy, check.open_tunnel(stream).await, |_| detail, report)
}

async fn check_tls(check: &ConnectionCheck, stream: ServerStream, report: ResultSink<'_>) -> bool {
    if !check.is_encrypted() {
        report(CheckResult::ok(CheckStep::Tls, "not used: cm.url is loopback"));
        return true;
    }
    let TlsHandshake { chain, version } = check.handshake(stream).await;
    let own = chain.first().map(describe);
    report(match &version {
        Err(error) => {
            let mut result = CheckResult::of_call(CheckStep::Tls, error);
            result.detail.extend(own.map(|own| format!("; the server has {own}")));
            result
        }
        Ok(version) => {
            let detail = format!("{version} with {}", own.unwrap_or_default());
            let soon = Timestamp::now() + EXPIRY_WARNING;
            match chain.iter().find(|certificate| certificate.not_after < soon) {
                Some(PeerCertificate { subject, not_after, .. }) => CheckResult::warning(
                    CheckStep::Tls,
                    format!("{detail}; {subject} expires at {not_after:.0}"),
                    "renew the certificate",
                ),
                None => CheckResult::ok(CheckStep::Tls, detail),
            }
        }
    });
    version.is_ok()
}

fn describe(certificate: &PeerCertificate) -> String {
    let PeerCertificate { subject, issuer, not_after, .. } = certificate;
    format!("{subject} by {issuer}, valid until {not_after:.0}")
}

async fn check_clock(cm: &CmClient, report: ResultSink<'_>) -> bool {
    let server_time = match cm.server_time().await {
        Ok(server_time) => server_time,
        Err(error) => {
            report(CheckResult::of_call(CheckStep::Clock, &error));
            return false;
        }
    };
    // Tickets and assertions depend on the clock.
    let matters = matches!(cm.authenticator().method.as_str(), "negotiate" | "oauth2");
    report(match server_time {
        Some(server_time) => skew(Timestamp::now(), server_time, matters),
        None => CheckResult::skipped(CheckStep::Clock, "the server does not send its time"),
    });
    true
}

/// The server sends whole seconds, and its response took some time.
fn skew(here: Timestamp, there: Timestamp, matters: bool) -> CheckResult {
    let by = here.duration_since(there).unsigned_abs();
    let side = if here > there { "ahead of" } else { "behind" };
    let detail = format!("{} s {side} the server", by.as_secs());
    let remedy = "correct this machine's clock; enable NTP (timedatectl set-ntp true)";
    if by > SKEW_LIMIT && matters {
        CheckResult::failed(CheckStep::Clock, FailureClass::Refused, detail, remedy)
    } else if by > SKEW_WARNING {
        CheckResult::warning(CheckStep::Clock, detail, remedy)
    } else {
        CheckResult::ok(CheckStep::Clock, detail)
    }
}

fn resolved(host: &str, addresses: &[SocketAddr]) -> String {
    let all: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
    let all = all.join(", ");
    if host.trim_matches(['[', ']']) == all {
        format!("{host} is an address")
    } else {
        format!("{host} resolves to {all}")
    }
}

fn credentials(view: &CredentialsView) -> CheckResult {
    let mut detail = view.method.clone();
    detail.extend(view.identity.as_ref().map(|identity| format!(" as {identity}")));
    detail.extend(view.valid_until.map(|at| format!(", valid until {at:.0}")));
    let step = CheckStep::Credentials;
    match &view.renewal_error {
        Some(error) => CheckResult::warning(
            step,
            format!("{detail}; renewal failed: {error}"),
            UnavailableReason::Credentials.remedy(),
        ),
        None => CheckResult::ok(step, detail),
    }
}

/// The steps that one call tests: those that it passed, the one that failed, those after it.
fn call_results(call: &Result<usize, CallError>) -> Vec<CheckResult> {
    let end = call.as_ref().err().map(failed_step);
    let visible = match call {
        Ok(1) => "1 open request is visible to this account".to_owned(),
        Ok(count) => format!("{count} open requests are visible to this account"),
        Err(_) => String::new(),
    };
    let steps = [
        (CheckStep::ApiEnabled, "CM's REST API is enabled"),
        (CheckStep::Authentication, "the account is authenticated"),
        (CheckStep::Authorization, "the account is authorized to list requests"),
        (CheckStep::CmResponse, "the response is from CM"),
        (CheckStep::OpenRequests, visible.as_str()),
    ];
    // Another server's response says nothing about CM.
    let not_cm =
        matches!(call, Err(CallError::Unavailable { reason: UnavailableReason::NotCm, .. }));
    let mut failed = false;
    let result = |(step, passed): (CheckStep, &str)| match call {
        _ if failed => CheckResult::skipped(step, "an earlier step failed"),
        Err(error) if end == Some(step) => {
            failed = true;
            failure(step, error)
        }
        Err(_) if not_cm => CheckResult::skipped(step, "the response is not from CM"),
        Ok(_) | Err(_) => CheckResult::ok(step, passed),
    };
    steps.into_iter().map(result).collect()
}

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
    let (class, remedy) = match error {
        CallError::Failed { http_status: 404, .. } => {
            (FailureClass::Unreachable, UnavailableReason::ApiDisabled.remedy())
        }
        CallError::Refused { http_status: 403, .. } => (
            FailureClass::Refused,
            "grant the station's account the CM permissions listed in docs/configure.md",
        ),
        CallError::Unavailable { .. }
        | CallError::Failed { .. }
        | CallError::Refused { .. }
        | CallError::UnexpectedResponse { .. } => return CheckResult::of_call(step, error),
    };
    CheckResult::failed(step, class, error.detail(), remedy)
}

#[cfg(test)]
mod tests {
    use super::super::CheckStatus;
    use super::*;

    fn statuses(asked: &Result<usize, CallError>) -> Vec<(CheckStep, CheckStatus)> {
        call_results(asked).into_iter().map(|result| (result.step, result.status)).collect()
    }

    fn unavailable(reason: UnavailableReason) -> CallError {
        CallError::Unavailable { reason, detail: "x".to_owned(), retry_after: None }
    }

    #[test]
    fn success_response_passes_every_step() {
        let statuses = statuses(&Ok(3));
        assert_eq!(statuses.len(), 5);
        assert!(statuses.iter().all(|(_, status)| *status == CheckStatus::Ok));
        assert!(call_results(&Ok(3))[4].detail.starts_with("3 open requests"));
    }

    #[test]
    fn other_server_skips_earlier_steps() {
        let results = call_results(&Err(unavailable(UnavailableReason::NotCm)));
        let statuses = results.iter().map(|result| result.status).collect::<Vec<_>>();
        let failed = CheckStatus::Failed(FailureClass::Unreachable);
        let skipped = CheckStatus::Skipped;
        assert_eq!(statuses, [skipped, skipped, skipped, failed, skipped]);
    }

    #[test]
    fn error_fails_its_step_and_skips_later_ones() {
        let refused =
            CallError::Refused { http_status: 403, detail: "no".to_owned(), correlation_id: None };
        let missing = CallError::Failed {
            http_status: 404,
            detail: "404".to_owned(),
            correlation_id: None,
            retry_after: None,
        };
        for (error, step, class) in [
            (missing, CheckStep::ApiEnabled, FailureClass::Unreachable),
            (
                unavailable(UnavailableReason::Unauthorized),
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
                unavailable(UnavailableReason::ServerError),
                CheckStep::ApiEnabled,
                FailureClass::Unreachable,
            ),
        ] {
            let statuses = statuses(&Err(error));
            let at = statuses.iter().position(|(known, _)| *known == step).unwrap();
            assert_eq!(statuses[at].1, CheckStatus::Failed(class));
            assert!(statuses[..at].iter().all(|(_, status)| *status == CheckStatus::Ok));
            assert!(statuses[at + 1..].iter().all(|(_, status)| *status == CheckStatus::Skipped));
        }
    }

    fn clock_status(here: &str) -> CheckStatus {
        skew(here.parse().unwrap(), "2026-03-01T12:00:00Z".parse().unwrap(), true).status
    }

    #[test]
    fn clock_may_differ_by_seconds_not_by_minutes() {
        assert_eq!(clock_status("2026-03-01T12:00:02Z"), CheckStatus::Ok);
        assert_eq!(clock_status("2026-03-01T11:59:30Z"), CheckStatus::Ok);
        assert_eq!(clock_status("2026-03-01T12:01:00Z"), CheckStatus::Warning);
        assert_eq!(
            clock_status("2026-03-01T11:54:59Z"),
            CheckStatus::Failed(FailureClass::Refused)
        );
    }

    #[test]
    fn address_needs_no_resolution() {
        let address = |text: &str| vec![text.parse().unwrap()];
        assert_eq!(resolved("[::1]", &address("[::1]:443")), "[::1] is an address");
        assert_eq!(resolved("cm", &address("192.0.2.1:443")), "cm resolves to 192.0.2.1");
    }

    #[test]
    fn unneeded_clock_is_only_a_warning() {
        let there = "2026-03-01T12:00:00Z".parse().unwrap();
        let far = skew("2026-03-01T18:00:00Z".parse().unwrap(), there, false);
        assert_eq!(far.status, CheckStatus::Warning);
    }

    #[test]
    fn skew_reports_its_direction() {
        let there = "2026-03-01T12:00:00Z".parse().unwrap();
        let detail = |here: &str| skew(here.parse().unwrap(), there, true).detail;
        assert_eq!(detail("2026-03-01T12:00:40Z"), "40 s ahead of the server");
        assert_eq!(detail("2026-03-01T11:59:20Z"), "40 s behind the server");
    }
}
