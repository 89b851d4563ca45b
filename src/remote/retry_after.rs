//! `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};

/// The longest wait that is obeyed: a longer one is a mistake, or the server's last word.
const LONGEST: Duration = Duration::from_hours(24);

/// How long the server asks to wait, at most a day; `None` where it does not say so readably.
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
    Some(wait.min(LONGEST))
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
    fn seconds_are_obeyed_up_to_a_day() {
        assert_eq!(wait("0", None), Some(0));
        assert_eq!(wait(" 120 ", None), Some(120));
        assert_eq!(wait("86401", None), Some(86_400));
        assert_eq!(wait("99999999999999999999999", None), Some(86_400));
    }

    #[test]
    fn a_date_is_obeyed_up_to_a_day_and_a_past_one_means_now() {
        assert_eq!(wait("Sun, 01 Mar 2026 12:01:30 GMT", None), Some(90));
        assert_eq!(wait("Sun, 01 Mar 2026 11:00:00 GMT", None), Some(0));
        assert_eq!(wait("Mon, 01 Mar 2027 12:00:00 GMT", None), Some(86_400));
    }

    #[test]
    fn a_date_is_taken_by_the_servers_own_clock() {
        let served = Some("Sun, 01 Mar 2026 13:00:00 GMT");
        assert_eq!(wait("Sun, 01 Mar 2026 13:00:10 GMT", served), Some(10));
        assert_eq!(wait("Sun, 01 Mar 2026 12:00:10 GMT", Some("today")), Some(10));
    }

    #[test]
    fn what_cannot_be_read_is_not_obeyed() {
        for text in ["soon", "-5", "1.5", "", "12:00"] {
            assert_eq!(wait(text, None), None, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), NOW.parse().unwrap()), None);
    }
}
