//! What is known of one other node. All times are those in which we would have heard it.

use std::time::Duration;

use super::{Pace, Why, reunion};
use crate::id::BootId;
use crate::time::Tick;

/// How many earlier lives of a node are remembered, so that a late beat of one is not taken for a new life.
const EARLIER_MAX: usize = 8;
/// After so many times its limit, a silent node is asked also by those who do not watch it: whoever watches it is
/// perhaps gone too.
const FORSAKEN: u32 = 4;

/// Where a node stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// It is heard.
    Heard,
    /// Somebody who watches it says that it is dead.
    Named,
    /// It was asked whether it is there.
    Asked { at: Duration, why: Why },
    /// It is dead, or has left.
    Gone,
}

/// How long it may be silent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Patience {
    Usual,
    /// We were cut off and have not heard it since: perhaps it was, too.
    Reunion,
}

#[derive(Debug)]
pub(super) struct Other {
    pub(super) boot: BootId,
    earlier: Vec<BootId>,
    pub(super) seq: u64,
    heard: Duration,
    pub(super) heard_at: Tick,
    pub(super) phase: Phase,
    pub(super) patience: Patience,
}

impl Other {
    pub(super) const fn new(boot: BootId, seq: u64, heard: Duration, heard_at: Tick) -> Self {
        let (phase, patience) = (Phase::Heard, Patience::Usual);
        Self { boot, earlier: Vec::new(), seq, heard, heard_at, phase, patience }
    }

    /// It is there. Returns whether it was asked.
    pub(super) const fn is_heard(&mut self, heard: Duration, heard_at: Tick) -> bool {
        let was_asked = matches!(self.phase, Phase::Asked { .. });
        (self.heard, self.heard_at, self.phase, self.patience) =
            (heard, heard_at, Phase::Heard, Patience::Usual);
        was_asked
    }

    /// As far as we know: we may be younger than it, and a boot's id is as old as the clock said that it was made by.
    pub(super) fn is_earlier_life(&self, boot: BootId) -> bool {
        self.earlier.contains(&boot) || boot < self.boot
    }

    /// Its next life.
    pub(super) fn is_reborn(&mut self, boot: BootId, seq: u64, heard: Duration, heard_at: Tick) {
        let mut earlier = std::mem::take(&mut self.earlier);
        if earlier.len() == EARLIER_MAX {
            earlier.remove(0);
        }
        earlier.push(self.boot);
        *self = Self { earlier, ..Self::new(boot, seq, heard, heard_at) };
    }

    pub(super) fn silence(&self, listening: Duration) -> Duration {
        listening - self.heard
    }

    fn limit(&self, pace: Pace) -> Duration {
        match self.patience {
            Patience::Usual => pace.suspect,
            Patience::Reunion => reunion(),
        }
    }

    /// Whether it has been silent for so long that it is asked: early enough for an answer within its limit.
    pub(super) fn is_to_ask(&self, pace: Pace, listening: Duration) -> bool {
        self.phase == Phase::Heard && self.silence(listening) >= self.limit(pace) - pace.beat
    }

    /// Whether nobody seems to watch it.
    pub(super) fn is_forsaken(&self, listening: Duration) -> bool {
        self.silence(listening) >= reunion() * FORSAKEN
    }

    /// Whether it is dead, if our own senses can be trusted.
    pub(super) fn is_due(&self, pace: Pace, listening: Duration) -> bool {
        match self.phase {
            Phase::Heard | Phase::Gone => false,
            Phase::Named | Phase::Asked { .. } => self.dead_in(pace, listening).is_zero(),
        }
    }

    fn dead_in(&self, pace: Pace, listening: Duration) -> Duration {
        let silent = self.limit(pace).saturating_sub(self.silence(listening));
        match self.phase {
            Phase::Asked { at, why: Why::Disconnected } => {
                (at + pace.disconnected()).saturating_sub(listening)
            }
            Phase::Asked { at, .. } => silent.max((at + pace.beat).saturating_sub(listening)),
            Phase::Named | Phase::Heard | Phase::Gone => silent,
        }
    }

    /// After which time there is something to conclude; zero for what waits for something else.
    pub(super) fn due_in(&self, pace: Pace, listening: Duration) -> Duration {
        match self.phase {
            Phase::Heard => (self.limit(pace) - pace.beat).saturating_sub(self.silence(listening)),
            Phase::Named | Phase::Asked { .. } => self.dead_in(pace, listening),
            Phase::Gone => Duration::ZERO,
        }
    }

    pub(super) const fn why(&self) -> Why {
        match self.phase {
            Phase::Asked { why, .. } => why,
            Phase::Heard | Phase::Named | Phase::Gone => Why::Silent,
        }
    }
}
