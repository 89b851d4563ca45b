//! Removes secrets from every text from outside that operators or programs read.
//!
//! A server may return what it received: whole or in part, in any encoding and place. So a text is searched
//! in each decoded view of [`views`] for every run of [`RUN`] characters of a secret. Every [`CallError`]
//! of this module passes here.
//!
//! Short-lived secrets are not kept for this, but a keyed hash of each run.

mod views;

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use zeroize::Zeroizing;

use crate::domain::CallError;
use views::{DecodedView, folded_byte};

/// The shortest hidden part of a longer secret, in characters without white space.
const RUN: usize = 12;

/// A shorter secret is not hidden: it is part of too many texts.
const SHORTEST: usize = 4;

/// The longest text, in bytes: no message shows more than 200 characters of it.
const MAX_TEXT: usize = 4 << 10;

/// The most secrets; the oldest is dropped first. The cookies of a call and of its response, 50 each,
/// leave room for others.
const MAX_SECRETS: usize = 128;

/// The most `Authorization` values, and their bytes: a ticket makes one for each call.
const MAX_HEADERS: usize = 256;
const MAX_HEADER_BYTES: usize = 256 << 10;

/// Replaces a secret.
const REDACTED: &str = "[hidden]";

/// The secrets of one client of CM.
#[derive(Default)]
pub(super) struct Redactor {
    hasher: RandomState,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    headers: VecDeque<HeaderValue>,
    secrets: VecDeque<ByteRuns>,
}

/// A secret, as the keyed hashes of its runs.
#[derive(PartialEq, Eq)]
struct ByteRuns {
    /// Of each run.
    length: usize,
    /// Sorted.
    hashes: Vec<u64>,
    /// The beginnings of a secret shorter than a run, the shortest first.
    starts: Vec<u64>,
}

/// The hashes of all runs, and of truncated ones, by their length.
#[derive(Default)]
struct SecretRuns {
    runs: BTreeMap<usize, Vec<u64>>,
    starts: BTreeMap<usize, Vec<u64>>,
}

impl SecretRuns {
    fn add(&mut self, runs: &ByteRuns) {
        self.runs.entry(runs.length).or_default().extend(&runs.hashes);
        for (length, hash) in (SHORTEST..).zip(&runs.starts) {
            self.starts.entry(length).or_default().push(*hash);
        }
    }
}

impl Redactor {
    pub(super) fn learn(&self, secret: &str) {
        self.learn_from(secret.as_bytes(), 0);
    }

    /// `Proxy-Authorization: Basic` (RFC 7617) as it is, and its password. The user name is no secret.
    pub(super) fn learn_basic(&self, header: &HeaderValue) {
        let Some(encoded) = credentials(header) else { return };
        self.learn(encoded);
        let Ok(login) = STANDARD.decode(encoded).map(Zeroizing::new) else { return };
        let colon = login.iter().position(|byte| *byte == b':').unwrap_or(0);
        self.learn_from(&login, colon + 1);
        self.learn_from(login.get(colon + 1..).unwrap_or_default(), 0);
    }

    /// The `Authorization` value of a call.
    pub(super) fn learn_headers(&self, header: &HeaderValue) {
        let mut known = self.known();
        if known.headers.contains(header) {
            return;
        }
        known.headers.push_back(header.clone());
        let bytes = |headers: &VecDeque<HeaderValue>| -> usize {
            headers.iter().map(HeaderValue::len).sum()
        };
        while known.headers.len() > MAX_HEADERS
            || (known.headers.len() > 1 && bytes(&known.headers) > MAX_HEADER_BYTES)
        {
            known.headers.pop_front();
        }
    }

    /// The text without secrets, and no more than its first 4 KiB.
    pub(super) fn redact(&self, text: &str) -> String {
        let text = text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default();
        self.redact_all(text).into_owned()
    }

    /// The whole text without secrets.
    pub(super) fn redact_all<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let wanted = self.wanted();
        if wanted.runs.is_empty() {
            return Cow::Borrowed(text);
        }
        match views::of(text, |view, found| self.search(view, &wanted.runs, found)) {
            Some(mut found) => {
                found.extend(self.truncated_secret(text, &wanted.starts));
                if found.is_empty() {
                    Cow::Borrowed(text)
                } else {
                    Cow::Owned(without(text, found))
                }
            }
            // Too deeply encoded.
            None => Cow::Borrowed(REDACTED),
        }
    }

    /// The error without secrets. An id that is part of a secret is dropped.
    pub(super) fn redact_in(&self, error: CallError) -> CallError {
        let id = |id: Option<String>| id.filter(|id| self.redact(id) == *id);
        match error {
            CallError::Unavailable { reason, detail, retry_after } => {
                CallError::Unavailable { reason, detail: self.redact(&detail), retry_after }
            }
            CallError::Failed { http_status, detail, correlation_id, retry_after } => {
                let (detail, correlation_id) = (self.redact(&detail), id(correlation_id));
                CallError::Failed { http_status, detail, correlation_id, retry_after }
            }
            CallError::Refused { http_status, detail, correlation_id } => {
                let (detail, correlation_id) = (self.redact(&detail), id(correlation_id));
                CallError::Refused { http_status, detail, correlation_id }
            }
            CallError::UnexpectedResponse { detail } => {
                CallError::UnexpectedResponse { detail: self.redact(&detail) }
            }
        }
    }

    /// Remembers the runs that end after byte `from`.
    fn learn_from(&self, secret: &[u8], from: usize) {
        let Some(runs) = self.runs(secret, from) else { return };
        let mut known = self.known();
        known.secrets.retain(|old| *old != runs);
        known.secrets.push_back(runs);
        while known.secrets.len() > MAX_SECRETS {
            known.secrets.pop_front();
        }
    }

    fn runs(&self, secret: &[u8], from: usize) -> Option<ByteRuns> {
        let open = fold(secret.get(..from).unwrap_or_default()).len();
        let secret = fold(secret);
        if secret.len() < SHORTEST || secret.len() == open {
            return None;
        }
        let length = RUN.min(secret.len());
        let runs = secret.windows(length).enumerate();
        let runs = runs.filter(|(at, _)| at + length > open);
        let mut hashes: Vec<_> = runs.map(|(_, run)| self.hasher.hash_one(run)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        let starts = if secret.len() < RUN { SHORTEST..secret.len() } else { 0..0 };
        let starts = starts.filter_map(|end| secret.get(..end));
        let starts = starts.map(|start| self.hasher.hash_one(start)).collect();
        Some(ByteRuns { length, hashes, starts })
    }

    fn wanted(&self) -> SecretRuns {
        let known = self.known();
        let mut wanted = SecretRuns::default();
        for header in &known.headers {
            let Some(token) = credentials(header) else { continue };
            let binary = STANDARD.decode(token).map(Zeroizing::new);
            let forms = [Some(token.as_bytes()), binary.as_ref().ok().map(|bytes| &***bytes)];
            for runs in forms.into_iter().flatten().filter_map(|form| self.runs(form, 0)) {
                wanted.add(&runs);
            }
        }
        known.secrets.iter().for_each(|runs| wanted.add(runs));
        drop(known);
        for hashes in wanted.runs.values_mut() {
            hashes.sort_unstable();
        }
        wanted
    }

    /// The beginning of a secret at the end of a truncated text.
    fn truncated_secret(
        &self,
        text: &str,
        starts: &BTreeMap<usize, Vec<u64>>,
    ) -> Option<Range<usize>> {
        let end = text.strip_suffix('…')?.len();
        starts.iter().rev().find_map(|(length, hashes)| {
            let left = text.get(end.checked_sub(*length)?..end)?;
            let hash = self.hasher.hash_one(&**fold(left.as_bytes()));
            hashes.contains(&hash).then_some(end - length..end)
        })
    }

    /// Adds the places of all secret runs.
    fn search(
        &self,
        view: &DecodedView,
        wanted: &BTreeMap<usize, Vec<u64>>,
        found: &mut Vec<Range<usize>>,
    ) {
        let folded = view.folded();
        for (length, hashes) in wanted {
            for (at, run) in folded.bytes().windows(*length).enumerate() {
                if hashes.binary_search(&self.hasher.hash_one(run)).is_ok() {
                    found.extend(folded.place(at..at + length));
                }
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part after the scheme (RFC 9110 section 11.4).
fn credentials(header: &HeaderValue) -> Option<&str> {
    header.to_str().ok()?.split_once(' ').map(|(_, token)| token)
}

/// The bytes for a comparison.
fn fold(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut folded = Zeroizing::new(Vec::with_capacity(bytes.len()));
    folded.extend(bytes.iter().filter_map(|byte| folded_byte(*byte)));
    folded
}

/// The text with [`REDACTED`] in these places, which may overlap.
fn without(text: &str, mut places: Vec<Range<usize>>) -> String {
    places.sort_unstable_by_key(|place| place.start);
    let (mut shown, mut end) = (String::with_capacity(text.len()), 0);
    let mut open = true;
    for place in places {
        let start = text.floor_char_boundary(place.start);
        if start > end || open {
            shown.push_str(text.get(end..start).unwrap_or_default());
            shown.push_str(REDACTED);
            open = false;
        }
        end = end.max(text.ceil_char_boundary(place.end));
    }
    shown.push_str(text.get(end..).unwrap_or_default());
    shown
}

#[cfg(test)]
mod tests;
