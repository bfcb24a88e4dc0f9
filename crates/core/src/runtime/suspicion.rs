//! Whether a process hangs: heartbeats sent, echoes received, misses counted. A miss is suspicion, never death.
//!
//! Owned by the shim, which sends the beats and feeds what happens in; pure, on monotonic ticks.
//!
//! ```text
//!            Ready                    k misses in a row
//!  Waiting ────────► Answering ──────────────────────────► Silent
//!     ▲                  ▲ │ an echo ends the misses          │
//!     │ reset            │ └──────────────────────────────────┤ echo: Responsive
//!     └──────────────────┴────────────────────────────────────┘
//! ```
//!
//! When our own deadline comes late by more than [`SUSPENDED_MS`], it was we who stood still (the machine was
//! suspended, the shim stopped): the count starts anew and nobody is accused.

use std::time::Duration;

use crate::limits::{HEARTBEAT_MISSES, HEARTBEAT_PERIOD_MS, HEARTBEAT_TIMEOUT_MS, SUSPENDED_MS};
use crate::time::Tick;

/// The heartbeat's figures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    /// Time between beats.
    pub period: Duration,
    /// How long an echo may take before it counts as missed; not longer than the period.
    pub timeout: Duration,
    /// Misses in a row that raise suspicion; at least 1.
    pub misses: u32,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self {
            period: Duration::from_millis(HEARTBEAT_PERIOD_MS),
            timeout: Duration::from_millis(HEARTBEAT_TIMEOUT_MS),
            misses: HEARTBEAT_MISSES,
        }
    }
}

/// What the shim has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Send a beat now.
    Beat,
    /// Tell that it does not answer, and send a beat now.
    Unresponsive {
        /// How long it has not answered, in milliseconds.
        silent_ms: u64,
        /// Beats missed in a row.
        misses: u32,
    },
    /// Tell that it answers again.
    Responsive {
        /// How long it had not answered, in milliseconds.
        silent_ms: u64,
    },
}

/// The suspicion machine of one process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Suspicion {
    heartbeat: Heartbeat,
    state: State,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    /// Not ready yet, or on its way out: no beats, no suspicion.
    Waiting,
    /// It has answered the last beats, or has missed too few for suspicion.
    Answering(Pulse),
    /// Suspected, and told so.
    Silent(Pulse),
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Pulse {
    /// When it last showed life, or the count was started anew.
    alive_at: Tick,
    /// Misses in a row.
    misses: u32,
    /// What is due next.
    due: Due,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Due {
    /// The next beat.
    Beat(Tick),
    /// The echo of the beat sent at `sent_at` counts as missed.
    Echo { sent_at: Tick, late_at: Tick },
}

impl Due {
    const fn at(self) -> Tick {
        match self {
            Self::Beat(at) | Self::Echo { late_at: at, .. } => at,
        }
    }
}

impl Suspicion {
    /// A machine that waits for [`ready`](Self::ready).
    #[must_use]
    pub const fn new(heartbeat: Heartbeat) -> Self {
        Self { heartbeat, state: State::Waiting }
    }

    /// The process is ready: the first beat is due now. Ignored when beats are under way.
    pub fn ready(&mut self, now: Tick) {
        match self.state {
            State::Waiting => {
                self.state = State::Answering(Pulse { alive_at: now, misses: 0, due: Due::Beat(now) });
            }
            State::Answering(_) | State::Silent(_) => {}
        }
    }

    /// No more beats: the process is being stopped, or has ended.
    pub fn stop(&mut self) {
        self.state = State::Waiting;
    }

    /// Starts the count anew, with a beat due now: the process was frozen on purpose and is thawed, or we ourselves
    /// stood still. One that is suspected stays so until it answers.
    pub fn reset(&mut self, now: Tick) {
        match &mut self.state {
            State::Waiting => {}
            State::Answering(pulse) => *pulse = Pulse { alive_at: now, misses: 0, due: Due::Beat(now) },
            State::Silent(pulse) => (pulse.misses, pulse.due) = (0, Due::Beat(now)),
        }
    }

    /// An echo came, of whichever beat: it lives. Tells [`Verdict::Responsive`] when that is news.
    pub fn echo(&mut self, now: Tick) -> Option<Verdict> {
        let period = self.heartbeat.period;
        let (pulse, suspected) = match &self.state {
            State::Waiting => return None,
            State::Answering(pulse) => (pulse, false),
            State::Silent(pulse) => (pulse, true),
        };
        let due = match pulse.due {
            Due::Beat(at) => Due::Beat(at),
            Due::Echo { sent_at, .. } => Due::Beat(sent_at + period),
        };
        let silent = now.since(pulse.alive_at);
        self.state = State::Answering(Pulse { alive_at: now, misses: 0, due });
        suspected.then(|| Verdict::Responsive { silent_ms: millis(silent) })
    }

    /// When [`expire`](Self::expire) wants to be called; `None` while there is nothing to wait for.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Tick> {
        match &self.state {
            State::Waiting => None,
            State::Answering(pulse) | State::Silent(pulse) => Some(pulse.due.at()),
        }
    }

    /// How long the process has been silent and how many beats it has missed, while it is suspected.
    #[must_use]
    pub fn silence(&self, now: Tick) -> Option<(Duration, u32)> {
        match &self.state {
            State::Waiting | State::Answering(_) => None,
            State::Silent(pulse) => Some((now.since(pulse.alive_at), pulse.misses)),
        }
    }

    /// The deadline has come. A verdict means: send a beat now, and tell what it says. Too early, and nothing
    /// happens.
    pub fn expire(&mut self, now: Tick) -> Option<Verdict> {
        let due = self.next_deadline()?;
        if now < due {
            return None;
        }
        if now.since(due) > Duration::from_millis(SUSPENDED_MS) {
            self.reset(now);
        }
        let Heartbeat { period, timeout, misses: misses_max } = self.heartbeat;
        let (pulse, suspected) = match &mut self.state {
            State::Waiting => return None,
            State::Answering(pulse) => (pulse, false),
            State::Silent(pulse) => (pulse, true),
        };
        if let Due::Echo { sent_at, .. } = pulse.due {
            pulse.misses = pulse.misses.saturating_add(1);
            pulse.due = Due::Beat(sent_at + period);
        }
        let newly_suspected = !suspected && pulse.misses >= misses_max.max(1);
        if !newly_suspected && now < pulse.due.at() {
            return None;
        }
        pulse.due = Due::Echo { sent_at: now, late_at: now + timeout };
        if !newly_suspected {
            return Some(Verdict::Beat);
        }
        let pulse = pulse.clone();
        let verdict =
            Verdict::Unresponsive { silent_ms: millis(now.since(pulse.alive_at)), misses: pulse.misses };
        self.state = State::Silent(pulse);
        Some(verdict)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
