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
//! Anything that is not a success responds with an [`ErrorBody`]. Views, entries and audit lines
//! are the domain's own types: their serde form is the interface.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::{AuditRecord, CardId};
#[cfg(doc)]
use crate::domain::{ChainBatch, ChainPosition, EntryView, StatusView};

/// Which audit lines; without anything, all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Not before this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Before this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card: Option<CardId>,
    /// After the page that gave this as its `next`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Which batch of the audit trail's chain to verify; without anything, the first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyQuery {
    /// After the batch that gave this as its `next`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkQuery {
    pub seq: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditPage {
    /// The lines, the oldest first.
    pub lines: Vec<AuditRecord>,
    /// What to give as `after` for the next page; absent after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// An operator's action was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionResult {
    pub result: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub error: String,
}
