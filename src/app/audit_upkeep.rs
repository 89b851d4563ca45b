//! Upkeep of the audit trail: logs its head, and prunes lines older than `audit.retention`.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::domain::ClockWitness;
use crate::outbox::Outbox;
use crate::telemetry::ErrorChain;

const DAY: Duration = Duration::from_hours(24);

/// How long to wait after a failure.
const HOUR: Duration = Duration::from_hours(1);

/// No copy of this version was built before: packages set their own date.
const BUILT: &str = match option_env!("SOURCE_DATE_EPOCH") {
    Some(seconds) => seconds,
    // 2026-01-01
    None => "1767225600",
};

/// The last date from CM, and when it came.
pub(super) type CmDate = Option<(Timestamp, Instant)>;

/// Logs the head at startup and once a day, besides every 1,000 lines.
pub(super) async fn log_heads(outbox: Outbox) {
    loop {
        let logged = outbox.log_head().await;
        if let Err(error) = &logged {
            tracing::debug!(error = %ErrorChain(error), "Audit trail head is not known");
        }
        tokio::time::sleep(if logged.is_ok() { DAY } else { HOUR }).await;
    }
}

/// Prunes at startup, at CM's first date, once a day, and when the retention changes. This
/// machine's clock alone makes no line old: one that is ahead for one start would cost the trail.
pub(super) async fn prune(
    outbox: Outbox,
    mut retention: watch::Receiver<Duration>,
    mut dates: watch::Receiver<CmDate>,
) {
    let built = BUILT.parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    let mut witness = ClockWitness::new(built.unwrap_or(Timestamp::UNIX_EPOCH), Instant::now());
    loop {
        let keep = *retention.borrow_and_update();
        let date = *dates.borrow_and_update();
        if let Some((date, at)) = date {
            witness.observe(date, at);
        }
        let (wall, now) = (Timestamp::now(), Instant::now());
        let reached = witness.reached(wall, now);
        tracing::debug!(%wall, %reached, confirmed = date.is_some(), "Pruning audit lines");
        let pruned = outbox.prune(keep, reached).await;
        match &pruned {
            Ok(0) => tracing::debug!("No audit lines to prune"),
            Ok(lines) => tracing::info!(lines, "Audit lines pruned"),
            Err(error) => {
                tracing::warn!(error = %ErrorChain(error), "Audit pruning failed; next attempt in 1 h");
            }
        }
        let first_date = async {
            // Every response of CM has a date; only the first one matters within a day.
            if date.is_some() || dates.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep(if pruned.is_ok() { DAY } else { HOUR }) => {}
            () = first_date => {}
            changed = retention.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}
