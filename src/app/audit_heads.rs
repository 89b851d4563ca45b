//! Has the audit trail's head logged at the start and once a day, besides every 1,000 lines.

use std::time::Duration;

use crate::outbox::Outbox;
use crate::telemetry::ErrorChain;

const DAY: Duration = Duration::from_hours(24);

/// Until the next try, where the outbox could not be read.
const HOUR: Duration = Duration::from_hours(1);

/// Logs heads for as long as the outbox is there.
pub(super) async fn log(outbox: Outbox) {
    loop {
        let rest = match outbox.log_head().await {
            Ok(()) => DAY,
            Err(error) => {
                tracing::debug!(error = %ErrorChain(&error), "Audit trail head is not known");
                HOUR
            }
        };
        tokio::time::sleep(rest).await;
    }
}
