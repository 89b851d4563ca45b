//! The JSON of the control interface: HTTP/1.1 on a Unix socket.
//!
//! | Request | Answer |
//! |---|---|
//! | `GET /v1/status` | [`StatusView`] |
//! | `GET /v1/outbox` | an array of [`EntryView`], the oldest first |
//! | `GET /v1/outbox/{id}` | [`EntryView`] |
//! | `POST /v1/outbox/{id}/retry`, `POST /v1/outbox/{id}/discard` | [`ActionResult`] |
//! | `GET /v1/audit?since=&until=&card=&after=&limit=` | [`AuditPage`], the oldest first |
//! | `GET /v1/audit/mark?seq=` | [`ChainPosition`] of the line with that number; 404 where there is none |
//! | `GET /v1/audit/verify?after=` | [`ChainBatch`]: some thousand lines, and where to go on |
//!
//! Anything that is not a success answers with a [`ErrorBody`]. Snapshots, entries and audit lines
//! are the domain's own types: their serde form is the interface.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::{AuditRecord, CardId};
#[cfg(doc)]
use crate::domain::{ChainBatch, ChainPosition, EntryView, StatusView};

/// Which audit lines are wanted; nothing: all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Not before this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Before this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// About this card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card: Option<CardId>,
    /// After the page that gave this as its `next`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// No more than this many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Which piece of the audit trail's chain is to be looked along; nothing: the first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyQuery {
    /// After the piece that gave this as its `next`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Which line's place in the chain is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkQuery {
    /// The line's number.
    pub seq: i64,
}

/// Some audit lines, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditPage {
    /// The lines, the oldest first.
    pub lines: Vec<AuditRecord>,
    /// What to give as `after` for the next page; absent after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A wish was fulfilled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionResult {
    /// What was done.
    pub result: String,
}

/// A wish was not fulfilled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// Why, in words.
    pub error: String,
}
