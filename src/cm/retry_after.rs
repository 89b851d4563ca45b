//! `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};

/// The longest wait that is obeyed: one answer must not stop a station for longer.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);

/// The shortest wait of which a message names the way past it.
const MIN_REPORTED: Duration = Duration::from_mins(1);

/// A message about an answer that asks for a long wait, with the command that does not wait.
pub(super) fn with_retry_after(detail: String, wait: Option<Duration>) -> String {
    match wait.filter(|wait| *wait >= MIN_REPORTED) {
        Some(wait) => {
            let wait = humantime::format_duration(Duration::from_secs(wait.as_secs()));
            format!("{detail}; asked to wait {wait}: `cardbridge outbox retry ID` does not wait")
        }
        None => detail,
    }
}

/// How long the server asks to wait, at most an hour; `None` where it does not say so readably.
///
/// A date is taken by the server's own clock, where the answer tells what that shows.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = text(headers, &RETRY_AFTER)?;
    let wait = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a very long time.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let now = date(headers).unwrap_or(now);
        Duration::try_from(read_date(text)?.duration_since(now)).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// What time it is where the answer comes from (RFC 9110 section 6.6.1).
pub(super) fn date(headers: &HeaderMap) -> Option<Timestamp> {
    text(headers, &DATE).and_then(read_date)
}

/// A date in the one form that RFC 9110 section 5.6.7 lets servers write.
fn read_date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let text = headers.get(name)?.to_str().ok()?.trim();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-03-01T12:00:00Z";

    fn wait(retry: &str, date: Option<&str>) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, retry.parse().unwrap());
        if let Some(date) = date {
            headers.insert(DATE, date.parse().unwrap());
        }
        retry_after(&headers, NOW.parse().unwrap()).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds_are_obeyed_up_to_an_hour() {
        assert_eq!(wait("0", None), Some(0));
        assert_eq!(wait(" 120 ", None), Some(120));
        assert_eq!(wait("3600", None), Some(3600));
        for long in ["3601", "86400", "31536000", "18446744073709551616", &"9".repeat(300)] {
            assert_eq!(wait(long, None), Some(3600), "{long}");
        }
    }

    #[test]
    fn a_date_is_obeyed_up_to_an_hour_and_a_past_one_means_now() {
        assert_eq!(wait("Sun, 01 Mar 2026 12:01:30 GMT", None), Some(90));
        assert_eq!(wait("Sun, 01 Mar 2026 11:00:00 GMT", None), Some(0));
        assert_eq!(wait("Mon, 01 Mar 2027 12:00:00 GMT", None), Some(3600));
        assert_eq!(wait("Thu, 31 Dec 9998 23:59:59 GMT", None), Some(3600));
    }

    #[test]
    fn a_date_is_taken_by_the_servers_own_clock() {
        let served = Some("Sun, 01 Mar 2026 13:00:00 GMT");
        assert_eq!(wait("Sun, 01 Mar 2026 13:00:10 GMT", served), Some(10));
        assert_eq!(wait("Sun, 01 Mar 2026 12:00:10 GMT", Some("today")), Some(10));
    }

    #[test]
    fn a_long_wait_is_told_with_the_command_that_does_not_wait() {
        let told = |seconds| with_retry_after("503".to_owned(), Some(Duration::from_secs(seconds)));
        assert_eq!(told(59), "503");
        assert_eq!(with_retry_after("503".to_owned(), None), "503");
        let words = "503; asked to wait 1h: `cardbridge outbox retry ID` does not wait";
        assert_eq!(told(3600), words);
    }

    #[test]
    fn what_cannot_be_read_is_not_obeyed() {
        for text in ["soon", "-5", "1.5", "", "12:00"] {
            assert_eq!(wait(text, None), None, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), NOW.parse().unwrap()), None);
    }
}
