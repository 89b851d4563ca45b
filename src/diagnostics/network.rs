//! The way of a packet: name, connection, proxy, TLS, clock.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpStream;

use super::check_result::{CheckResult, CheckStep};
use super::{FailureClass, ResultSink, skip};
use crate::cm::{CmClient, ConnectionCheck, PeerCertificate, ServerStream, TlsHandshake};
use crate::telemetry::ErrorChain;

/// A certificate that ends sooner is told.
const EXPIRY_WARNING: Duration = Duration::from_hours(30 * 24);

/// What Kerberos lets clocks differ by (RFC 4120 section 8.2), and OAuth's assertions too.
const SKEW_LIMIT: Duration = Duration::from_mins(5);

/// A clock that is set by the network does not differ by so much.
const SKEW_WARNING: Duration = Duration::from_secs(30);

/// Goes as far as the way leads; true where it leads to the end.
pub(super) async fn examine(remote: &CmClient, tell: ResultSink<'_>) -> bool {
    let way = match remote.connection_check() {
        Ok(way) => way,
        Err(error) => {
            let words = ErrorChain(&error).to_string();
            let grade = FailureClass::Configuration;
            tell(CheckResult::failed(CheckStep::Dns, grade, words, error.remedy()));
            skip(
                &[CheckStep::Tcp, CheckStep::Proxy, CheckStep::Tls, CheckStep::Clock],
                "the connection settings are invalid",
                tell,
            );
            return false;
        }
    };
    let Some(stream) = connect(&way, tell).await else {
        skip(&[CheckStep::Proxy, CheckStep::Tls, CheckStep::Clock], "there is no connection", tell);
        return false;
    };
    let Some(line) = check_proxy(&way, stream, tell).await else {
        skip(&[CheckStep::Tls, CheckStep::Clock], "the proxy rejected the connection", tell);
        return false;
    };
    if !check_tls(&way, line, tell).await {
        skip(&[CheckStep::Clock], "there is no TLS", tell);
        return false;
    }
    compare_clocks(remote, tell).await
}

async fn connect(way: &ConnectionCheck, tell: ResultSink<'_>) -> Option<TcpStream> {
    let hop = way.first_hop();
    let addresses = match way.resolve(&hop).await {
        Ok(addresses) => addresses,
        Err(error) => {
            tell(CheckResult::of_call(CheckStep::Dns, &error));
            skip(&[CheckStep::Tcp], "there is no address", tell);
            return None;
        }
    };
    tell(CheckResult::good(CheckStep::Dns, resolved(&hop.host, &addresses)));
    match way.connect(&addresses).await {
        Ok((stream, address)) => {
            tell(CheckResult::good(CheckStep::Tcp, format!("connected to {address}")));
            Some(stream)
        }
        Err(error) => {
            tell(CheckResult::of_call(CheckStep::Tcp, &error));
            None
        }
    }
}

async fn check_proxy(
    way: &ConnectionCheck,
    stream: TcpStream,
    tell: ResultSink<'_>,
) -> Option<ServerStream> {
    let words =
        way.proxy().map_or_else(|| "none".to_owned(), |proxy| format!("connected through {proxy}"));
    match way.open_tunnel(stream).await {
        Ok(line) => {
            tell(CheckResult::good(CheckStep::Proxy, words));
            Some(line)
        }
        Err(error) => {
            tell(CheckResult::of_call(CheckStep::Proxy, &error));
            None
        }
    }
}

async fn check_tls(way: &ConnectionCheck, line: ServerStream, tell: ResultSink<'_>) -> bool {
    if !way.is_encrypted() {
        tell(CheckResult::good(CheckStep::Tls, "not used: cm.url is loopback"));
        return true;
    }
    let TlsHandshake { chain, version } = way.handshake(line).await;
    match version {
        Err(error) => {
            let shown = chain.first().map(|own| format!("; it shows {}", describe(own)));
            let mut finding = CheckResult::of_call(CheckStep::Tls, &error);
            finding.detail.push_str(&shown.unwrap_or_default());
            tell(finding);
            false
        }
        Ok(version) => {
            tell(tls_result(version, &chain));
            true
        }
    }
}

fn tls_result(version: &str, chain: &[PeerCertificate]) -> CheckResult {
    let own = chain.first().map(describe).unwrap_or_default();
    let words = format!("{version} with {own}");
    let soon = Timestamp::now() + EXPIRY_WARNING;
    match chain.iter().find(|certificate| certificate.not_after < soon) {
        Some(first) => {
            let words = format!("{words}; {} ends at {:.0}", first.subject, first.not_after);
            CheckResult::warning(CheckStep::Tls, words, "renew the certificate")
        }
        None => CheckResult::good(CheckStep::Tls, words),
    }
}

fn describe(certificate: &PeerCertificate) -> String {
    let PeerCertificate { subject, issuer, not_after, .. } = certificate;
    format!("{subject} by {issuer}, until {not_after:.0}")
}

async fn compare_clocks(remote: &CmClient, tell: ResultSink<'_>) -> bool {
    let there = match remote.server_time().await {
        Ok(there) => there,
        Err(error) => {
            tell(CheckResult::of_call(CheckStep::Clock, &error));
            return false;
        }
    };
    // Tickets and assertions are only good for a clock that is right.
    let matters = matches!(remote.authenticator().method.as_str(), "negotiate" | "oauth2");
    tell(there.map_or_else(
        || CheckResult::skipped(CheckStep::Clock, "the server does not say what time it is"),
        |there| skew(Timestamp::now(), there, matters),
    ));
    true
}

/// The server tells whole seconds, and the answer took its time.
fn skew(here: Timestamp, there: Timestamp, matters: bool) -> CheckResult {
    let by = here.duration_since(there).unsigned_abs();
    let side = if here > there { "ahead of" } else { "behind" };
    let words = format!("{} s {side} the server", by.as_secs());
    let remedy = "correct this machine's clock; enable NTP (timedatectl set-ntp true)";
    if by > SKEW_LIMIT && matters {
        CheckResult::failed(CheckStep::Clock, FailureClass::Refused, words, remedy)
    } else if by > SKEW_WARNING {
        CheckResult::warning(CheckStep::Clock, words, remedy)
    } else {
        CheckResult::good(CheckStep::Clock, words)
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

#[cfg(test)]
mod tests {
    use super::super::CheckStatus;
    use super::*;

    fn verdict(here: &str) -> CheckStatus {
        skew(here.parse().unwrap(), "2026-03-01T12:00:00Z".parse().unwrap(), true).verdict
    }

    #[test]
    fn a_clock_may_be_off_by_seconds_but_not_by_minutes() {
        assert_eq!(verdict("2026-03-01T12:00:02Z"), CheckStatus::Ok);
        assert_eq!(verdict("2026-03-01T11:59:30Z"), CheckStatus::Ok);
        assert_eq!(verdict("2026-03-01T12:01:00Z"), CheckStatus::Warning);
        assert_eq!(verdict("2026-03-01T11:54:59Z"), CheckStatus::Failed(FailureClass::Refused));
    }

    #[test]
    fn an_address_needs_no_resolution() {
        let address = |text: &str| vec![text.parse().unwrap()];
        assert_eq!(resolved("[::1]", &address("[::1]:443")), "[::1] is an address");
        assert_eq!(resolved("cm", &address("192.0.2.1:443")), "cm resolves to 192.0.2.1");
    }

    #[test]
    fn a_clock_that_nothing_depends_on_is_only_warned_about() {
        let there = "2026-03-01T12:00:00Z".parse().unwrap();
        let far = skew("2026-03-01T18:00:00Z".parse().unwrap(), there, false);
        assert_eq!(far.verdict, CheckStatus::Warning);
    }

    #[test]
    fn the_side_on_which_a_clock_is_off_is_told() {
        let there = "2026-03-01T12:00:00Z".parse().unwrap();
        let words = |here: &str| skew(here.parse().unwrap(), there, true).detail;
        assert_eq!(words("2026-03-01T12:00:40Z"), "40 s ahead of the server");
        assert_eq!(words("2026-03-01T11:59:20Z"), "40 s behind the server");
    }
}
