//! What it means when there is no whole answer at all.
//!
//! The client's own error says only that sending failed; the truth is at the end of the chain of
//! causes.

use std::error::Error;
use std::io;
use std::iter;
use std::time::Duration;

use reqwest::Url;

use super::away;
use crate::domain::{AwayReason, CallError};
use crate::wire::cm;

/// The other end, for messages.
pub(super) struct Peer {
    /// Host and port.
    name: String,
    connect_timeout: Duration,
}

/// How far the exchange was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing of the answer was there.
    Head,
    /// Its status and headers were.
    Body,
}

impl Peer {
    pub(super) fn new(base: &Url, connect_timeout: Duration) -> Self {
        let host = base.host_str().unwrap_or_default();
        let port = base.port_or_known_default().unwrap_or_default();
        Self { name: format!("{host}:{port}"), connect_timeout }
    }

    /// Sorts an error of the client's.
    pub(super) fn error(&self, error: &reqwest::Error, phase: Phase) -> CallError {
        let (reason, what) = self.sort(error, phase);
        let cause = causes(error).last().map(ToString::to_string).unwrap_or_default();
        away(reason, cm::plain(&format!("{what}: {cause}")))
    }

    fn sort(&self, error: &reqwest::Error, phase: Phase) -> (AwayReason, String) {
        let name = &self.name;
        if find::<rustls::Error>(error).is_some() {
            return (AwayReason::Tls, format!("no TLS with {name}"));
        }
        // Of the client's own timeouts only the one for the connection is set.
        if error.is_timeout() {
            let within = self.connect_timeout;
            return (AwayReason::Unreachable, format!("no connection to {name} within {within:?}"));
        }
        let cut = matches!(find::<io::Error>(error), Some(io) if io.kind() == io::ErrorKind::UnexpectedEof)
            || find::<hyper::Error>(error).is_some_and(hyper::Error::is_incomplete_message);
        match phase {
            Phase::Body if cut => (AwayReason::NotCm, "the answer was cut short".to_owned()),
            Phase::Head if error.is_connect() => {
                (AwayReason::Unreachable, format!("no connection to {name}"))
            }
            _ if find::<hyper::Error>(error).is_some_and(hyper::Error::is_parse) => {
                (AwayReason::NotCm, format!("{name} does not speak HTTP"))
            }
            Phase::Head | Phase::Body => {
                (AwayReason::Unreachable, format!("the connection to {name} broke"))
            }
        }
    }
}

/// An error and its causes, the deepest last.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| {
        // An I/O error made of another error does not name that one as its source.
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        }
    })
}

fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    causes(error).find_map(|cause| cause.downcast_ref())
}
