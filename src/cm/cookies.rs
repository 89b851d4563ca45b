//! The session cookies of one server (RFC 6265), in memory only.
//!
//! They go back to the server that set them while they are valid. Those of a call that ended in 401 or in a
//! redirect are dropped: a stale session must not block the station.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use reqwest::{Request, Url};
use tokio::time::Instant;

use super::redact::Redactor;

/// As many as browsers keep for a site; the oldest is dropped first.
const MAX_COOKIES: usize = 50;

/// The length that RFC 6265 section 6.1 requires clients to support.
const MAX_COOKIE_BYTES: usize = 4096;

/// The longest `Cookie` field: http.sys accepts fields of 16 KiB in all, tickets included.
const MAX_FIELD_BYTES: usize = 4096;

/// A shorter value is no session, and is part of many texts.
const MIN_SECRET: usize = 8;

/// The cookies of one server.
pub(super) struct CookieJar {
    host: String,
    encrypted: bool,
    state: Mutex<JarState>,
    redactor: Arc<Redactor>,
}

#[derive(Default)]
struct JarState {
    cookies: Vec<Cookie>,
    /// Of the last cookie.
    number: u64,
}

/// No `Debug`: it holds a session.
struct Cookie {
    number: u64,
    name: String,
    value: String,
    path: String,
    ends: Option<Instant>,
    /// Whether the response to a login set it last.
    of_login: bool,
}

/// The numbers of the cookies of a call.
pub(super) type SentCookies = Vec<u64>;

impl CookieJar {
    pub(super) fn of(server: &Url, redactor: Arc<Redactor>) -> Self {
        Self {
            host: server.host_str().unwrap_or_default().to_ascii_lowercase(),
            encrypted: server.scheme() == "https",
            state: Mutex::default(),
            redactor,
        }
    }

    fn state(&self) -> MutexGuard<'_, JarState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the valid cookies to a call.
    pub(super) fn put_into(&self, request: &mut Request) -> SentCookies {
        let now = Instant::now();
        let mut state = self.state();
        state.cookies.retain(|cookie| cookie.ends.is_none_or(|ends| ends > now));
        let path = request.url().path();
        let fit: Vec<_> = state.cookies.iter().filter(|cookie| cookie.is_for(path)).collect();
        let pairs: Vec<_> =
            fit.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
        let header = HeaderValue::from_str(&pairs.join("; ")).ok().filter(|_| !fit.is_empty());
        let Some(mut header) = header else { return SentCookies::new() };
        header.set_sensitive(true);
        let sent = fit.iter().map(|cookie| cookie.number).collect();
        // For each call: the redactor may have dropped them for other secrets.
        self.learn(fit.into_iter());
        drop(state);
        request.headers_mut().insert(COOKIE, header);
        sent
    }

    /// Drops the cookies of a failed call, and keeps those that the response sets.
    pub(super) fn take_from(&self, status: u16, headers: &HeaderMap, sent: &SentCookies) {
        let mut state = self.state();
        if status == 401 || (300..=399).contains(&status) {
            state.cookies.retain(|cookie| !sent.contains(&cookie.number));
        }
        let of_login = sent.is_empty() || status == 401;
        if of_login && headers.contains_key(SET_COOKIE) {
            for old in &mut state.cookies {
                old.of_login = false;
            }
        }
        let before = state.number;
        for line in headers.get_all(SET_COOKIE) {
            if let Some(cookie) = line.to_str().ok().and_then(|line| self.read(line)) {
                state.keep(Cookie { of_login, ..cookie });
            }
        }
        self.learn(state.cookies.iter().filter(|cookie| cookie.number > before));
    }

    fn learn<'a>(&self, cookies: impl Iterator<Item = &'a Cookie>) {
        for cookie in cookies.filter(|cookie| cookie.value.len() >= MIN_SECRET) {
            self.redactor.learn(&cookie.value);
        }
    }

    /// Drops the session.
    pub(super) fn clear(&self) {
        self.state().cookies.clear();
    }

    /// A cookie that this server may set; RFC 6265 section 5.2.
    fn read(&self, line: &str) -> Option<Cookie> {
        let mut parts = line.split(';');
        let (name, value) = parts.next()?.split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if name.is_empty() || line.len() > MAX_COOKIE_BYTES || !plain(name) || !plain(value) {
            return None;
        }
        let (name, value) = (name.to_owned(), value.to_owned());
        let path = "/".to_owned();
        let mut cookie = Cookie { number: 0, name, value, path, ends: None, of_login: false };
        let mut max_age = None;
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim();
            match key.trim().to_ascii_lowercase().as_str() {
                "path" if value.starts_with('/') => value.clone_into(&mut cookie.path),
                "domain" if !self.is_within(value) => return None,
                "secure" if !self.encrypted => return None,
                "max-age" => max_age = seconds(value),
                "expires" => cookie.ends = until(value),
                _ => {}
            }
        }
        // Max-Age counts before Expires.
        cookie.ends = max_age.map(|age| Instant::now() + age).or(cookie.ends);
        Some(cookie)
    }

    /// Whether the domain is this server's name or above it.
    fn is_within(&self, domain: &str) -> bool {
        let domain = domain.trim_start_matches('.').to_ascii_lowercase();
        let above = self.host.strip_suffix(&domain);
        domain.is_empty() || above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
    }
}

impl JarState {
    fn keep(&mut self, cookie: Cookie) {
        let same = |old: &Cookie| old.name == cookie.name && old.path == cookie.path;
        let of_login = cookie.of_login || self.cookies.iter().any(|old| same(old) && old.of_login);
        self.cookies.retain(|old| !same(old));
        self.number += 1;
        self.cookies.push(Cookie { number: self.number, of_login, ..cookie });
        self.make_room();
        // The longest path first; of equals the oldest (RFC 6265 section 5.4).
        self.cookies.sort_by_key(|cookie| (std::cmp::Reverse(cookie.path.len()), cookie.number));
    }

    /// Drops the oldest cookies that no login set, then the oldest others.
    fn make_room(&mut self) {
        let length = |cookies: &[Cookie]| cookies.iter().map(Cookie::length).sum::<usize>();
        while self.cookies.len() > MAX_COOKIES || length(&self.cookies) > MAX_FIELD_BYTES {
            let first = self.cookies.iter().min_by_key(|cookie| (cookie.of_login, cookie.number));
            let Some(first) = first.map(|cookie| cookie.number) else { return };
            self.cookies.retain(|cookie| cookie.number != first);
        }
    }
}

impl Cookie {
    /// Its bytes in a `Cookie` field, `name=value; `.
    const fn length(&self) -> usize {
        self.name.len() + 1 + self.value.len() + 2
    }

    fn is_for(&self, path: &str) -> bool {
        let below = path.strip_prefix(&self.path);
        below.is_some_and(|below| {
            below.is_empty() || self.path.ends_with('/') || below.starts_with('/')
        })
    }
}

/// `Max-Age`; zero and less has ended.
fn seconds(text: &str) -> Option<Duration> {
    /// The longest life: the process does not live longer.
    const YEAR: u64 = 366 * 24 * 60 * 60;
    let negative = text.strip_prefix('-');
    if !negative.unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = text.parse().unwrap_or(if negative.is_some() { 0 } else { YEAR });
    Some(Duration::from_secs(seconds.min(YEAR)))
}

/// `Expires`, also with the hyphens of IIS; an unreadable one lasts as long as the session.
fn until(text: &str) -> Option<Instant> {
    let text = text.replace('-', " ");
    let date = rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(&text).ok()?;
    let left = Duration::try_from(date.duration_since(Timestamp::now())).unwrap_or_default();
    Some(Instant::now() + left.min(Duration::from_hours(366 * 24)))
}

#[cfg(test)]
mod tests;
