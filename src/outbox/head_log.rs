//! Says in the log where the audit trail's chain stands: who can write the outbox's file cannot
//! write the journal too, so that a line of the log is a witness (`audit verify --against`).

use rusqlite::Connection;

use super::error::StoreError;
use super::hash_chain::{self, ChainEnd};
use crate::domain::ChainPosition;

/// The head is logged every so many lines.
const EVERY: i64 = 1000;

/// Which head was logged last.
#[derive(Debug, Default)]
pub(super) struct HeadLog {
    /// Its number; none yet: what was there at the start counts as logged.
    logged: Option<i64>,
}

impl HeadLog {
    /// Lines were added: logs the head if it passed a multiple of 1,000, and tells whether.
    pub(super) fn moved(&mut self, conn: &Connection) -> bool {
        let Ok(head) = head(conn) else { return false };
        let passed = |logged: i64| head.seq / EVERY > logged / EVERY;
        let due = passed(self.logged.unwrap_or(head.seq - 1));
        if due {
            log(&head);
        }
        self.logged = Some(head.seq);
        due
    }
}

/// The newest line's place in the chain.
pub(super) fn head(conn: &Connection) -> Result<ChainPosition, StoreError> {
    hash_chain::end(conn, ChainEnd::Head)?.map_err(|damage| StoreError::Lost(Box::new(damage)))
}

/// One line for the head, if there is any.
pub(super) fn log(head: &ChainPosition) {
    if head.seq == 0 {
        return;
    }
    let at = head.at.map(|at| at.to_string());
    tracing::info!(seq = head.seq, chain = head.hash, at, "Audit trail head");
}
