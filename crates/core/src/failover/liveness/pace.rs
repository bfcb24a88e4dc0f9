//! How patient nodes are with each other.

use std::time::Duration;

use crate::limits::{CLUSTER_BEAT_MS, CLUSTER_SUSPECT_MS, CLUSTER_WIDE_BEAT_MS, CLUSTER_WIDE_SUSPECT_MS};

/// How often nodes beat, and for how long one may be silent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Between two beats.
    pub beat: Duration,
    /// Silence after which a node that did not answer either is dead.
    pub suspect: Duration,
}

impl Pace {
    /// Within a machine room.
    pub const LAN: Self = Self {
        beat: Duration::from_millis(CLUSTER_BEAT_MS),
        suspect: Duration::from_millis(CLUSTER_SUSPECT_MS),
    };
    /// Over a wide area.
    pub const WIDE: Self = Self {
        beat: Duration::from_millis(CLUSTER_WIDE_BEAT_MS),
        suspect: Duration::from_millis(CLUSTER_WIDE_SUSPECT_MS),
    };

    /// The most that one wait of the loop counts for: more than one beat is a stall, in which nothing was heard.
    pub(super) fn step(self) -> Duration {
        self.beat * 3 / 2
    }

    /// A standstill of this length is one after which nothing is taken for granted.
    pub(super) fn standstill(self) -> Duration {
        self.suspect * 2
    }

    /// Our own last beat must be younger than this for a verdict. When we are cut off, the last beat of another may be
    /// one beat older than our own: it is silent for `suspect` when we are for `suspect - beat`.
    pub(super) fn fresh(self) -> Duration {
        (self.suspect - self.beat) * 4 / 5
    }

    /// Who has missed a beat surely.
    pub(super) fn missed(self) -> Duration {
        self.beat * 2
    }

    /// How long one may be silent after its connection was seen to end, before it is dead: it may connect again.
    pub(super) fn disconnected(self) -> Duration {
        self.beat * 2
    }
}
