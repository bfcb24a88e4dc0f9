//! Heartbeats: what core's suspicion says, with what the process did meanwhile.

use outlive_core::diagnosis::evidence::HangEvidence;
use outlive_core::runtime::suspicion::{Heartbeat, Suspicion, Verdict};
use outlive_core::time::Tick;
use outlive_process::ProcStat;

use crate::clock::millis;

/// The pulse of one process.
#[derive(Debug)]
pub(crate) struct Pulse {
    suspicion: Suspicion,
    pid: i32,
    /// Whether a beat has no echo yet.
    is_waiting: bool,
    /// Processor time when the first beat without an echo was sent, in milliseconds.
    cpu_ms: Option<u64>,
}

/// What to do or tell.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    Beat,
    Unresponsive(HangEvidence),
}

impl Pulse {
    pub(crate) fn new(pid: i32) -> Self {
        Self { suspicion: Suspicion::new(Heartbeat::default()), pid, is_waiting: false, cpu_ms: None }
    }

    pub(crate) fn ready(&mut self, now: Tick) {
        self.suspicion.ready(now);
    }

    pub(crate) fn stop(&mut self) {
        self.suspicion.stop();
    }

    /// It, or we, stood still: the count begins anew.
    pub(crate) fn reset(&mut self, now: Tick) {
        self.is_waiting = false;
        self.suspicion.reset(now);
    }

    pub(crate) fn next_deadline(&self) -> Option<Tick> {
        self.suspicion.next_deadline()
    }

    /// The deadline has come. Both kinds of news mean: send a beat now.
    pub(crate) fn expire(&mut self, now: Tick) -> Option<News> {
        let verdict = self.suspicion.expire(now)?;
        let stat = ProcStat::read(self.pid).ok();
        if !std::mem::replace(&mut self.is_waiting, true) {
            self.cpu_ms = stat.map(|stat| stat.cpu_ms);
        }
        match verdict {
            Verdict::Beat => Some(News::Beat),
            Verdict::Unresponsive { silent_ms, misses } => {
                Some(News::Unresponsive(self.hang(silent_ms, misses, stat)))
            }
            Verdict::Responsive { .. } => None,
        }
    }

    /// An echo came; whether it ends a suspicion.
    pub(crate) fn echo(&mut self, now: Tick) -> bool {
        self.is_waiting = false;
        matches!(self.suspicion.echo(now), Some(Verdict::Responsive { .. }))
    }

    /// The silence that is under way, if it is suspect.
    pub(crate) fn silence(&self, now: Tick) -> Option<HangEvidence> {
        let (silent, misses) = self.suspicion.silence(now)?;
        Some(self.hang(millis(silent), misses, ProcStat::read(self.pid).ok()))
    }

    fn hang(&self, silent_ms: u64, misses: u32, stat: Option<ProcStat>) -> HangEvidence {
        HangEvidence {
            silent_ms,
            misses,
            cpu_ms: stat.zip(self.cpu_ms).map(|(stat, before)| stat.cpu_ms.saturating_sub(before)),
            state: stat.map(|stat| stat.state),
        }
    }
}
