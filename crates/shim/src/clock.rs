//! The present, both ways.

use std::time::Duration;

use outlive_core::time::{Now, Tick, WallTime};
use rustix::time::{ClockId, Timespec, clock_gettime};
use tokio::time::Instant;

/// Monotonic time, which does not count while the machine is suspended, and wall time.
pub(crate) fn now() -> Now {
    let (tick, wall) = (clock_gettime(ClockId::Monotonic), clock_gettime(ClockId::Realtime));
    // Nothing here depends on whether the machine slept.
    Now { tick: Tick(nanos(tick)), wall: WallTime(nanos(wall) / 1_000), slept: Duration::ZERO }
}

/// A deadline for the runtime's timer.
pub(crate) fn instant(deadline: Tick) -> Instant {
    Instant::now() + deadline.since(now().tick)
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn nanos(time: Timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
