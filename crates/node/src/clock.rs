//! The machine's clocks.

use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use outlive_core::time::{Now, Tick, WallTime};

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
        }
    }

    async fn until(&self, tick: Tick) {
        tokio::time::sleep_until((self.origin + Duration::from_nanos(tick.0)).into()).await;
    }
}
