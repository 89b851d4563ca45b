//! The clocks of this machine, and the witnesses against them.

use std::time::Instant;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::domain::{BootMoment, ClockWitness};
use crate::readers::boot_id;

/// The date before which no copy of this version was built: packages set their own.
const BUILT: &str = match option_env!("SOURCE_DATE_EPOCH") {
    Some(seconds) => seconds,
    // 2026-01-01
    None => "1767225600",
};

/// This moment, counted from the machine's start; nothing where the boot has no id.
pub(super) fn boot_moment() -> Option<BootMoment> {
    let since = clock_gettime(ClockId::Boottime);
    Some(BootMoment { boot: boot_id()?, seconds: u64::try_from(since.tv_sec).unwrap_or_default() })
}

/// A witness that has heard nothing of CM yet.
pub(super) fn witness() -> ClockWitness {
    let built = BUILT.parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    ClockWitness::new(built.unwrap_or(Timestamp::UNIX_EPOCH), Instant::now())
}
