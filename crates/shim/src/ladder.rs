//! The stop ladder: ask, SIGTERM, SIGKILL, each with its deadline. Pure; the driver does what it says.

use std::time::Duration;

use outlive_core::diagnosis::evidence::StopEvidence;
use outlive_core::runtime::stop::StopLadder;
use outlive_core::runtime::{StopStep, StopWhy};
use outlive_core::time::Tick;

/// A stop that is under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stopping {
    why: StopWhy,
    step: StopStep,
    next_at: Option<Tick>,
}

impl Stopping {
    /// Begins at a rung.
    pub(crate) fn begin(why: StopWhy, step: StopStep, ladder: StopLadder, now: Tick) -> Self {
        Self { why, step, next_at: patience(step, ladder).map(|wait| now + wait) }
    }

    /// Skips to a harder rung; the reason stays that of the first wish. Whether there was anything to skip.
    pub(crate) fn harden(&mut self, step: StopStep, ladder: StopLadder, now: Tick) -> bool {
        if step <= self.step {
            return false;
        }
        *self = Self::begin(self.why, step, ladder, now);
        true
    }

    /// The next rung, when its time has come.
    pub(crate) fn expire(&mut self, ladder: StopLadder, now: Tick) -> Option<StopStep> {
        if now < self.next_at? {
            return None;
        }
        let next = match self.step {
            StopStep::Ask => StopStep::Term,
            StopStep::Term | StopStep::Kill => StopStep::Kill,
        };
        *self = Self::begin(self.why, next, ladder, now);
        Some(next)
    }

    pub(crate) const fn next_deadline(&self) -> Option<Tick> {
        self.next_at
    }

    pub(crate) const fn why(&self) -> StopWhy {
        self.why
    }

    pub(crate) const fn evidence(&self) -> StopEvidence {
        StopEvidence { why: self.why, step: self.step }
    }
}

fn patience(step: StopStep, ladder: StopLadder) -> Option<Duration> {
    match step {
        StopStep::Ask => Some(Duration::from_millis(ladder.ask_ms)),
        StopStep::Term => Some(Duration::from_millis(ladder.term_ms)),
        StopStep::Kill => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LADDER: StopLadder = StopLadder { ask_ms: 10, term_ms: 5 };
    const MS: u64 = 1_000_000;

    #[test]
    fn each_rung_has_its_time() {
        // A9
        let mut stopping = Stopping::begin(StopWhy::User, StopStep::Ask, LADDER, Tick(0));
        assert_eq!(stopping.expire(LADDER, Tick(9 * MS)), None);
        assert_eq!(stopping.expire(LADDER, Tick(10 * MS)), Some(StopStep::Term));
        assert_eq!(stopping.expire(LADDER, Tick(14 * MS)), None);
        assert_eq!(stopping.expire(LADDER, Tick(15 * MS)), Some(StopStep::Kill));
        assert_eq!(stopping.next_deadline(), None);
    }

    #[test]
    fn a_harder_wish_skips_and_a_softer_one_changes_nothing() {
        let mut stopping = Stopping::begin(StopWhy::Eviction, StopStep::Ask, LADDER, Tick(0));
        assert!(stopping.harden(StopStep::Kill, LADDER, Tick(1)));
        assert!(!stopping.harden(StopStep::Ask, LADDER, Tick(2)));
        assert_eq!(stopping.evidence(), StopEvidence { why: StopWhy::Eviction, step: StopStep::Kill });
    }
}
