//! Header fields of responses: `Retry-After`, `Date` and content codings.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::header::{CONTENT_ENCODING, DATE, HeaderMap, HeaderName, RETRY_AFTER};

use crate::domain::Problem;

/// One response must not stop a station for longer.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);

/// A message about a longer wait names the command that does not wait.
const MIN_REPORTED: Duration = Duration::from_mins(1);

/// A message about a response with `Retry-After`.
pub(super) fn with_retry_after(detail: String, wait: Option<Duration>) -> String {
    match wait.filter(|wait| *wait >= MIN_REPORTED) {
        Some(wait) => {
            let wait = humantime::format_duration(Duration::from_secs(wait.as_secs()));
            format!("{detail}; asked to wait {wait}: `cardbridge outbox retry ID` does not wait")
        }
        None => detail,
    }
}

/// `Retry-After` (RFC 9110 section 10.2.3), at most an hour; `None` where it is missing or unreadable.
/// A date is compared with the server's clock if the response has a date.
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

/// The server's clock (RFC 9110 section 6.6.1).
pub(super) fn date(headers: &HeaderMap) -> Option<Timestamp> {
    text(headers, &DATE).and_then(read_date)
}

/// A date in the form that servers must send (RFC 9110 section 5.6.7).
fn read_date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()
}

/// A field with some text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let text = headers.get(name)?.to_str().ok()?.trim();
    (!text.is_empty()).then_some(text)
}

/// The longest name of a coding in a message, in characters.
const MAX_NAME: usize = 40;

/// The first bytes of compressed data: RFC 1952, RFC 8878, bzip2, xz, LZ4, and compress(1). Brotli has
/// none.
const MAGIC: &[(&[u8], &str)] = &[
    (&[0x1F, 0x8B], "gzip"),
    (&[0x28, 0xB5, 0x2F, 0xFD], "zstd"),
    (b"BZh", "bzip2"),
    (&[0xFD, b'7', b'z', b'X', b'Z', 0], "xz"),
    (&[0x04, 0x22, 0x4D, 0x18], "lz4"),
    (&[0x1F, 0x9D], "compress"),
];

/// The content coding of the header fields (RFC 9110 section 8.4); `None` for `identity`.
///
/// Every call asks for `identity`, and nothing is decoded. A proxy that compresses anyway is reported.
pub(super) fn content_coding(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(CONTENT_ENCODING).iter();
    let names = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let names = names.map(|name| name.trim_ascii().to_ascii_lowercase());
    let mut codings: Vec<_> = names
        .filter(|name| !name.is_empty() && name != b"identity")
        .map(|name| shown(&name))
        .collect();
    codings.dedup();
    (!codings.is_empty()).then(|| codings.join(", ").chars().take(MAX_NAME).collect())
}

/// The coding of a body by its first bytes.
pub(super) fn sniff_coding(body: &[u8]) -> Option<&'static str> {
    let known = MAGIC.iter().find(|(magic, _)| body.starts_with(magic)).map(|(_, name)| *name);
    known.or_else(|| is_zlib(body).then_some("deflate"))
}

/// Whether it begins by RFC 1950 section 2.2, and continues unlike text: `x^` is text, too.
fn is_zlib(body: &[u8]) -> bool {
    let [method, flags, rest @ ..] = body else { return false };
    let header = u16::from_be_bytes([*method, *flags]);
    let start = rest.get(..rest.len().min(64)).unwrap_or_default();
    let is_odd = |byte: &u8| !byte.is_ascii_graphic() && !byte.is_ascii_whitespace();
    method & 0x8F == 8 && header.is_multiple_of(31) && start.iter().any(is_odd)
}

/// The problem of a compressed response.
pub(super) fn compressed(coding: &str) -> Problem {
    Problem::new(
        format!("the response is compressed ({coding}), although the call asks for identity"),
        "switch compression off for this server in the proxy or web server",
    )
}

/// A token (RFC 9110 section 5.6.2); anything else is `unknown`.
fn shown(name: &[u8]) -> String {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(byte);
    if name.len() <= MAX_NAME && name.iter().all(is_token) {
        String::from_utf8_lossy(name).into_owned()
    } else {
        "unknown".to_owned()
    }
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
    fn long_wait_names_the_retry_command() {
        let reported =
            |seconds| with_retry_after("503".to_owned(), Some(Duration::from_secs(seconds)));
        assert_eq!(reported(59), "503");
        assert_eq!(with_retry_after("503".to_owned(), None), "503");
        let expected = "503; asked to wait 1h: `cardbridge outbox retry ID` does not wait";
        assert_eq!(reported(3600), expected);
    }

    #[test]
    fn what_cannot_be_read_is_not_obeyed() {
        for text in ["soon", "-5", "1.5", "", "12:00"] {
            assert_eq!(wait(text, None), None, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), NOW.parse().unwrap()), None);
    }

    fn named(lines: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CONTENT_ENCODING, line.parse().unwrap());
        }
        content_coding(&headers)
    }

    #[test]
    fn each_coding_but_identity_is_named() {
        for (lines, name) in [
            (&["gzip"][..], "gzip"),
            (&["GZip"], "gzip"),
            (&[" x-gzip "], "x-gzip"),
            (&["br"], "br"),
            (&["deflate", "gzip"], "deflate, gzip"),
            (&["identity, zstd"], "zstd"),
            (&["aws-chunked"], "aws-chunked"),
            (&["<script>"], "unknown"),
        ] {
            assert_eq!(named(lines).as_deref(), Some(name), "{lines:?}");
        }
        for none in [&[][..], &["identity"], &["Identity, "], &[""]] {
            assert_eq!(named(none), None, "{none:?}");
        }
        assert_eq!(named(&["x".repeat(500).as_str()]).as_deref(), Some("unknown"));
    }

    #[test]
    fn compressed_data_is_known_by_its_first_bytes_and_text_is_none() {
        assert_eq!(sniff_coding(&[0x1F, 0x8B, 8, 0]), Some("gzip"));
        for flags in [0x01, 0x5E, 0x9C, 0xDA] {
            assert_eq!(sniff_coding(&[0x78, flags, 0xAB, 0x56]), Some("deflate"));
        }
        assert_eq!(sniff_coding(&[0x58, 0x85, 0xAB, 0x56]), Some("deflate"));
        assert_eq!(sniff_coding(&[0x28, 0xB5, 0x2F, 0xFD, 0]), Some("zstd"));
        for text in [&b""[..], b"x", b"x^2", b"x^2 and more of it\r\n", b"{}", b"(abc)", b"BZ"] {
            assert_eq!(sniff_coding(text), None, "{text:?}");
        }
    }
}
