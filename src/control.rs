//! The control interface: HTTP/1.1 with JSON on a Unix socket, and its client.
//!
//! The server passes each request to the daemon's loop and returns its reply. Every user may
//! connect; roles follow from the groups that the kernel knows of the other end. Metrics are also
//! served on a local port.

use strum::IntoStaticStr;
use tokio::sync::oneshot;

use crate::domain::{
    AuditRecord, ChainBatch, ChainPosition, EntryId, EntryView, Metrics, StatusView,
};
use crate::wire::control::{AuditQuery, VerifyQuery};

mod access;
mod client;
mod prometheus;
mod routes;
mod server;

pub(crate) use access::{Access, Groups, own_user};
pub(crate) use client::{ControlClient, ControlError};
pub(crate) use server::ControlServer;

/// A request to the daemon's loop, with the channel for its reply.
#[derive(Debug)]
pub(crate) enum ControlRequest {
    Snapshot(oneshot::Sender<StatusView>),
    Metrics(oneshot::Sender<Metrics>),
    Entries(oneshot::Sender<Vec<EntryView>>),
    Act {
        entry: EntryId,
        act: EntryAction,
        /// The operator.
        by: String,
        reply: oneshot::Sender<Result<(), EntryActionError>>,
    },
    Audit(AuditQuery, oneshot::Sender<Result<AuditPageReply, AuditError>>),
    /// The position in the chain of the line with this number.
    Mark(i64, oneshot::Sender<Result<Option<ChainPosition>, AuditError>>),
    /// Verifies a batch of the audit chain.
    Verify(VerifyQuery, oneshot::Sender<Result<ChainBatch, AuditError>>),
}

/// Audit lines, and the cursor of the next page.
pub(crate) type AuditPageReply = (Vec<AuditRecord>, Option<String>);

/// What an operator can do to an entry; its name is the last segment of the route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub(crate) enum EntryAction {
    Retry,
    Discard,
}

impl EntryAction {
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
    #[error("{0}")]
    BadCursor(String),
    #[error("cannot read the outbox: {0}")]
    Store(String),
}

/// Why an action failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EntryActionError {
    #[error("no such entry")]
    NoSuchEntry,
    #[error("the entry is in progress; try again")]
    InProgress,
    #[error("cannot write the outbox: {0}")]
    Store(String),
}

#[cfg(test)]
mod tests;
