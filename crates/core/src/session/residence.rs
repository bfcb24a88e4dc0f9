//! Whether a session stays in memory, and for how long.
//!
//! ```text
//!            somebody comes                 nobody is there
//!  Watched ◄──────────────── (any) ────────────┬───────────┬──────────────┐
//!                                              ▼           ▼              ▼
//!                                           Working   KeptByKernel   Due(deadline) ─► evicted
//! ```
//! There is nothing else: who is neither watched nor at work nor kept has a deadline. Each state has what ends it: a
//! client that leaves, the process that speaks or a timer, the wish that stops the kernel, the clock.
//! Invariant: `core/tests/residence.rs`, `whoever_stays_has_something_that_wakes_it`.

use std::time::Duration;

use super::state::{Life, Session, Status, Wanted};
use crate::time::Tick;

/// Why a session is in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Residence {
    /// So many are there.
    Watched(u32),
    /// It runs something, waits for something, or is being saved or ended.
    Working,
    /// Nothing runs, but a kernel holds what was computed.
    KeptByKernel,
    /// For nothing; it is evicted then.
    Due(Tick),
}

impl Residence {
    /// When it is evicted.
    #[must_use]
    pub const fn deadline(self) -> Option<Tick> {
        match self {
            Self::Due(deadline) => Some(deadline),
            Self::Watched(_) | Self::Working | Self::KeptByKernel => None,
        }
    }
}

/// A session as far as its staying in memory is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resident {
    /// Why it is there.
    pub residence: Residence,
    /// Since when it executes nothing. Who looks on does not matter for that.
    pub idle_since: Tick,
}

impl Resident {
    /// One that was just made or woken: somebody is at it.
    #[must_use]
    pub const fn new(now: Tick) -> Self {
        Self { residence: Residence::Working, idle_since: now }
    }

    /// Looks again. A deadline stays as long as nothing comes in between.
    #[must_use]
    pub fn look(self, session: &Session, there: u32, now: Tick, idle_timeout: Duration) -> Self {
        let need = need(session);
        let idle_since = if need == Need::Work { now } else { self.idle_since };
        let residence = match (there, need, self.residence) {
            (1.., _, _) => Residence::Watched(there),
            (0, Need::Work, _) => Residence::Working,
            (0, Need::Kernel, _) => Residence::KeptByKernel,
            (0, Need::Nothing, Residence::Due(deadline)) => Residence::Due(deadline),
            (0, Need::Nothing, _) => Residence::Due(now + idle_timeout),
        };
        Self { residence, idle_since }
    }

    /// It could not be evicted when it was due: another deadline.
    #[must_use]
    pub fn postponed(self, now: Tick, idle_timeout: Duration) -> Self {
        Self { residence: Residence::Due(now + idle_timeout), ..self }
    }
}

/// What a session needs to be in memory for, whoever is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// Something goes on.
    Work,
    /// A live kernel without work.
    Kernel,
    /// Nothing. What it holds is in its log.
    Nothing,
}

/// What a session needs to be in memory for.
#[must_use]
pub fn need(session: &Session) -> Need {
    match session.life {
        Life::Open => {}
        Life::Closing(_) | Life::Saving(_) | Life::Closed { .. } => return Need::Work,
    }
    if !session.is_settled() || session.claiming.is_some() {
        return Need::Work;
    }
    match &session.runtime.status {
        Status::Launching | Status::Stopping { .. } | Status::Draining { .. } | Status::Backoff { .. } => {
            Need::Work
        }
        Status::Ready(_) => Need::Kernel,
        // A command is its run: without one it is never started.
        Status::Down if session.runtime.wanted == Wanted::Up && !session.is_command() => Need::Work,
        Status::Down | Status::Exited(_) | Status::GaveUp { .. } => Need::Nothing,
    }
}
