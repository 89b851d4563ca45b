//! Has the audit trail forget what is older than `audit.keep`: at start, once CM said what day it is,
//! once a day, and when the key changes.
//!
//! The clock on the wall alone makes nothing old: one that is ahead for one start would cost the trail.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;

use super::clock;
use crate::outbox::{Outbox, StoreError};
use crate::telemetry::ErrorChain;

/// How long until it is looked at again.
const DAY: Duration = Duration::from_hours(24);

/// The same, where the disk did not let it be done.
const HOUR: Duration = Duration::from_hours(1);

/// The last date that CM told, and when that came.
pub(super) type CmDate = Option<(Timestamp, Instant)>;

/// Prunes for as long as somebody may still change how long lines are kept.
pub(super) async fn prune(
    outbox: Outbox,
    mut keep: watch::Receiver<Duration>,
    mut dates: watch::Receiver<CmDate>,
) {
    let mut witness = clock::witness();
    loop {
        let days = *keep.borrow_and_update();
        let told = *dates.borrow_and_update();
        if let Some((date, at)) = told {
            witness.observe(date, at);
        }
        let (wall, now) = (Timestamp::now(), Instant::now());
        let reached = witness.reached(wall, now);
        tracing::debug!(%wall, %reached, told = told.is_some(), "Audit trail is looked through");
        let pruned = outbox.prune(days, reached).await;
        let rest = if pruned.is_ok() { DAY } else { HOUR };
        report(pruned);
        let first_date = async {
            // Every answer of CM's has one; only the first changes what is known for the day.
            if told.is_some() || dates.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = first_date => {}
            changed = keep.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

fn report(pruned: Result<usize, StoreError>) {
    match pruned {
        Ok(0) => tracing::debug!("No audit lines to prune"),
        Ok(lines) => tracing::info!(lines, "Audit lines pruned"),
        Err(error) => {
            tracing::warn!(error = %ErrorChain(&error), "Audit pruning failed; next attempt in 1 h");
        }
    }
}
