//! Has the audit trail forget what is older than `audit.keep`: at start, once a day, and when the
//! key changes.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::outbox::{Outbox, StoreError};
use crate::telemetry::Chain;

/// How long until it is looked at again.
const DAY: Duration = Duration::from_hours(24);

/// The same, where the disk did not let it be done.
const HOUR: Duration = Duration::from_hours(1);

/// Prunes for as long as somebody may still change how long lines are kept.
pub(super) async fn prune(outbox: Outbox, mut keep: watch::Receiver<Duration>) {
    loop {
        let days = *keep.borrow_and_update();
        let pruned = outbox.prune(days, Timestamp::now()).await;
        let rest = if pruned.is_ok() { DAY } else { HOUR };
        told(pruned);
        match tokio::time::timeout(rest, keep.changed()).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(_)) => return,
        }
    }
}

fn told(pruned: Result<usize, StoreError>) {
    match pruned {
        Ok(0) => tracing::debug!("Audit trail has nothing to prune"),
        Ok(lines) => tracing::info!(lines, "Audit trail pruned"),
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "Audit trail was not pruned; tried again in an hour");
        }
    }
}
