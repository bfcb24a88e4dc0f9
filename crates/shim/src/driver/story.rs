//! What a daemon must know of a process, for one whose log has lost it.
//!
//! A record that was acknowledged is forgotten. When a damaged disk then takes it from the daemon's log, the next
//! daemon says in its Hello that it has less than was acknowledged. It is told the turns of the process's life again,
//! as new records, and where output is missing. What it knew already changes nothing: a daemon that was killed asks so
//! too, when the last records that it was done with were nothing to store.

use std::collections::VecDeque;

use outlive_core::id::Src;
use outlive_core::time::Now;
use outlive_protocol::shim::StateNotice;

use super::Driver;
use crate::kernel::runs::RunKey;

/// How many finished runs are told again. Damage takes the end of a log, most often a few records.
const FINISHED_MAX: usize = 64;

/// The turns of a process's life so far.
#[derive(Default)]
pub(super) struct Story {
    spawned: Option<StateNotice>,
    ready: Option<StateNotice>,
    greeted: Option<StateNotice>,
    entered: Option<StateNotice>,
    finished: VecDeque<StateNotice>,
    exited: Option<StateNotice>,
    drained: Option<StateNotice>,
    /// The last daemon had lost some of it.
    is_retold: bool,
}

impl Story {
    /// Keeps what would have to be told again.
    pub(super) fn note(&mut self, notice: &StateNotice) {
        let place = match notice {
            StateNotice::Spawned { .. } => &mut self.spawned,
            StateNotice::Ready { .. } => &mut self.ready,
            StateNotice::Exited { .. } => &mut self.exited,
            StateNotice::Drained { .. } => &mut self.drained,
            StateNotice::RunFinished { .. } => {
                if self.finished.len() == FINISHED_MAX {
                    self.finished.pop_front();
                }
                return self.finished.push_back(notice.clone());
            }
            // Of the moment, or told in another way: a question by the Welcome, a stop by the end.
            StateNotice::RunStarted { .. }
            | StateNotice::InputRequested { .. }
            | StateNotice::Unresponsive { .. }
            | StateNotice::Responsive
            | StateNotice::Stopping { .. }
            | StateNotice::Checkpointed { .. }
            | StateNotice::Stalled { .. }
            | StateNotice::Violated { .. }
            | StateNotice::Frozen { .. }
            | StateNotice::Thawed
            | StateNotice::Gap { .. } => return,
            StateNotice::Greeted { .. } => &mut self.greeted,
            StateNotice::Entered { .. } => &mut self.entered,
        };
        *place = Some(notice.clone());
    }

    fn turns(&self) -> Vec<StateNotice> {
        let Self { spawned, ready, greeted, entered, finished, exited, drained, .. } = self;
        let begun = spawned.iter().chain(greeted).chain(ready).chain(entered);
        begun.chain(finished).chain(exited).chain(drained).cloned().collect()
    }

    /// How a run ended, when the daemon has lost that and asks for the run again.
    pub(super) fn outcome_lost(&self, (run, attempt): RunKey) -> Option<StateNotice> {
        let lost = outlive_core::session::RunOutcome::Raised {
            ename: "OutcomeLost".to_owned(),
            evalue: "the run has ended, and how it ended was lost with a damaged log".to_owned(),
        };
        self.is_retold.then_some(StateNotice::RunFinished {
            run,
            attempt,
            outcome: lost,
            execution_count: None,
        })
    }
}

impl Driver {
    /// A daemon has stored everything up to `acked`. If that is less than was acknowledged, it is told again.
    pub(super) fn retell(&mut self, acked: Src, now: Now) {
        let acknowledged = self.journal.acknowledged();
        self.story.is_retold = acked < acknowledged;
        if !self.story.is_retold {
            return;
        }
        for notice in self.story.turns() {
            self.record(notice, now);
        }
        let last = self.journal.output_acknowledged();
        if acked < last {
            let reason = format!(
                "output of this process between its records {} and {last} was stored once and is not any more: the \
                 daemon's log was damaged",
                acked.next()
            );
            tracing::warn!(reason);
            let run = self.open_runs().first().map(|(run, _)| *run);
            self.gap_chunk(run, acked, &reason, now);
            self.record(StateNotice::Gap { since: acked, reason }, now);
        }
    }
}
