//! Two kinds of time that must not be mixed: one for deadlines, one for records.

use std::ops::{Add, Sub};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Monotonic time: nanoseconds since an origin that only this process knows. For deadlines; never stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Tick(pub u64);

impl Tick {
    /// How long ago `earlier` was; zero when it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Tick {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Tick {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Wall time: microseconds since 1970-01-01 UTC. For records that people read; never for deadlines.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct WallTime(pub u64);

/// The present, both ways, handed to every decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// For deadlines.
    pub tick: Tick,
    /// For records.
    pub wall: WallTime,
    /// For how long the machine has slept since some moment of this process's life: `tick` does not count that. A clock
    /// that somebody sets changes `wall` and not this.
    pub slept: Duration,
}

impl Now {
    /// What is left of so many milliseconds that began then: never more than all of them, though another node may have
    /// written down since when by a clock that is hours ahead, or ours was set back.
    #[must_use]
    pub const fn left(self, since: WallTime, ms: u64) -> Duration {
        let passed = Duration::from_micros(self.wall.0.saturating_sub(since.0));
        Duration::from_millis(ms).saturating_sub(passed)
    }
}
