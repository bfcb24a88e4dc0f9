//! The machine's clocks.
//!
//! | clock of Linux | is |
//! |---|---|
//! | `CLOCK_MONOTONIC` | deadlines; it stands still while the machine sleeps |
//! | `CLOCK_BOOTTIME` | the same, and goes on: the difference is for how long it slept |
//! | `CLOCK_REALTIME` | records; people and NTP set it |

use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use outlive_core::time::{Now, Tick, WallTime};
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::seams::Clock;

/// Real time.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl Default for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    fn default() -> Self {
        Self { origin: Instant::now() }
    }
}

#[async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clocks")]
    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now {
            tick: Tick::default() + self.origin.elapsed(),
            wall: WallTime(u64::try_from(wall.as_micros()).unwrap_or(u64::MAX)),
            slept: slept(),
        }
    }

    async fn until(&self, tick: Tick) {
        tokio::time::sleep_until((self.origin + Duration::from_nanos(tick.0)).into()).await;
    }
}

/// For how long the machine has slept since it was started.
fn slept() -> Duration {
    // In this order: what goes by between the two looks does not count as sleep.
    let (with, without) = (clock_gettime(ClockId::Boottime), clock_gettime(ClockId::Monotonic));
    duration(with).saturating_sub(duration(without))
}

fn duration(time: Timespec) -> Duration {
    let nanos = u32::try_from(time.tv_nsec).expect("the kernel gives less than a second of nanoseconds");
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), nanos)
}
