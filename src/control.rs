//! The control interface: HTTP/1.1 with JSON on a Unix socket, and its client.
//!
//! The server knows no state: it hands each request to the daemon's loop and answers with what
//! comes back. Every user may connect; who may look and who may act follows from the groups that the
//! kernel knows of the other end. Who acted is told by name and login. What is counted can also be had on a port of this machine's
//! own, where nothing else can.

use tokio::sync::oneshot;

use crate::domain::{
    AuditRecord, ChainBatch, ChainPosition, EntryId, EntryView, Metrics, StatusView,
};
use crate::wire::control::{AuditQuery, VerifyQuery};

mod access;
mod account_names;
mod client;
mod connection_limits;
mod peer;
mod prometheus;
mod routes;
mod server;

pub(crate) use access::{Access, Groups};
pub(crate) use client::{ControlClient, ControlError};
pub(crate) use peer::own_user;
pub(crate) use server::ControlServer;

/// What somebody asks the daemon for, with the place for the answer.
#[derive(Debug)]
pub(crate) enum ControlRequest {
    /// The state of the daemon.
    Snapshot(oneshot::Sender<StatusView>),
    /// What was counted, and the state.
    Metrics(oneshot::Sender<Metrics>),
    /// Every entry that waits.
    Entries(oneshot::Sender<Vec<EntryView>>),
    /// Something to be done to an entry.
    Act {
        /// Which entry.
        entry: EntryId,
        /// What.
        act: EntryAction,
        /// Who asks.
        by: String,
        /// What came of it.
        reply: oneshot::Sender<Result<(), EntryActionError>>,
    },
    /// Some audit lines.
    Audit(AuditQuery, oneshot::Sender<Result<AuditPageReply, AuditError>>),
    /// The place in the chain of the line with this number.
    Mark(i64, oneshot::Sender<Result<Option<ChainPosition>, AuditError>>),
    /// A piece of the audit trail's chain, looked along.
    Verify(VerifyQuery, oneshot::Sender<Result<ChainBatch, AuditError>>),
}

/// Audit lines, and what the next page begins after.
pub(crate) type AuditPageReply = (Vec<AuditRecord>, Option<String>);

/// What a person can do to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryAction {
    /// Try it now.
    Retry,
    /// Remove it for good.
    Discard,
}

impl EntryAction {
    /// The act in the past tense, for people.
    #[must_use]
    pub(crate) const fn past_participle(self) -> &'static str {
        match self {
            Self::Retry => "retried",
            Self::Discard => "discarded",
        }
    }
}

/// Why there is no page of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuditError {
    /// What it should begin after is no `next` of another page.
    #[error("{0}")]
    BadCursor(String),
    /// The outbox could not be read.
    #[error("cannot read the outbox: {0}")]
    Store(String),
}

/// Why an act was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EntryActionError {
    /// There is no such entry.
    #[error("no such entry")]
    NoSuchEntry,
    /// Try again.
    #[error("the entry is in progress; try again")]
    InProgress,
    /// The outbox could not do it.
    #[error("cannot write the outbox: {0}")]
    Store(String),
}

#[cfg(test)]
mod tests;
