//! A session that goes to another node: given away, or taken over from a node that was lost.
//!
//! ```text
//!  given away:   HandOver ─► nothing new is begun ─► what runs ends, or its grace does ─► stopped, drained ─► can_release
//!  taken over:   TakenOver ─► its process is lost with its node ─► one exit, `node-lost`  ─► goes on by its policy
//! ```
//! In both the memory of a process is gone and the session is not. A command goes on by its restart type: as the next
//! attempt of the same run. What a kernel had run, or was to run, is run again only where [`OnNodeLoss`] says so:
//!
//! - `none`: the run that was interrupted is settled, and what waited for that kernel's memory with it, because it was
//!   queued to find there what is gone. Where nothing had been run in it yet, nothing is gone, and what waits goes on waiting.
//! - `interrupted`: the same run has another attempt, from its beginning, then what waited is run.
//! - `all`: before these, all that had succeeded in that kernel is run again, each as a run of its own.
//!
//! A cancel that was asked before stays one, whatever the policy.

use std::collections::VecDeque;
use std::time::Duration;

use super::event::{Happened, NewRun, OnRaise};
use super::input::Decision;
use super::outcome::RunOutcome;
use super::spec::{AfterLoss, OnNodeLoss, Rerun};
use super::state::{Life, Run, RunState, Session, Status};
use crate::failover::Takeover;
use crate::limits::{QUEUED_RUNS_MAX, TAKEOVERS_REMEMBERED_MAX};
use crate::runtime::RestartType;
use crate::time::{Now, WallTime};

/// A session, or a group, that is to be given to another node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HandOver {
    /// Since when.
    pub since: WallTime,
    /// How long what runs may still take from then on, in milliseconds.
    pub grace_ms: u64,
}

impl HandOver {
    /// For how long what runs is still waited for.
    #[must_use]
    pub const fn left(&self, now: Now) -> Duration {
        now.left(self.since, self.grace_ms)
    }
}

/// Whether the session can be given away now: it is asked to be, has no process and nothing in flight. What waits goes
/// along. To be asked when nothing follows from its state any more.
#[must_use]
pub fn can_release(session: &Session) -> bool {
    let is_down = match session.runtime.status {
        Status::Down | Status::Exited(_) | Status::Backoff { .. } | Status::GaveUp { .. } => true,
        Status::Launching | Status::Ready(_) | Status::Stopping { .. } | Status::Draining { .. } => false,
    };
    // The run of a command that is begun again stays what it is until then.
    let is_quiet = session.running.is_none() || session.is_command();
    session.life == Life::Open
        && session.hand_over.is_some()
        && is_down
        && is_quiet
        && session.dropped.is_empty()
        && session.claiming.is_none()
}

impl Session {
    /// Somebody has claimed it: what its owner before meant to do with it is over.
    pub fn claimed(&mut self) {
        self.hand_over = None;
    }
}

/// Remembers how a session came to its owner.
pub(crate) fn remember(takeovers: &mut VecDeque<Takeover>, takeover: &Takeover) {
    if takeovers.len() == TAKEOVERS_REMEMBERED_MAX {
        takeovers.pop_front();
    }
    takeovers.push_back(takeover.clone());
}

/// What a takeover means for the session is said with it.
pub(super) fn taken_over(session: &Session, mut takeover: Takeover, now: Now) -> Decision {
    takeover.resumed_at = now.wall;
    takeover.resumed = resumed(session);
    Decision::none().happened(now.wall, Happened::TakenOver(Box::new(takeover)))
}

/// What goes on and what does not, for people.
fn resumed(session: &Session) -> Vec<String> {
    let mut lines = Vec::new();
    if session.is_notebook() {
        lines.push("the notebook, with its document and outputs".to_owned());
    }
    let OnNodeLoss { rerun, kernel } = session.spec.on_node_loss;
    let (is_lost, has_run) = (session.runtime.can_be_lost(), session.running.is_some());
    match (is_lost, session.is_command()) {
        (false, _) => {}
        (true, true) if begins_again(session) => lines.push("the command, as its next attempt".to_owned()),
        (true, true) => lines.push("the command is not begun again: its restart type says so".to_owned()),
        (true, false) => {
            lines.push("the memory of its kernel is gone".to_owned());
            if kernel == AfterLoss::Restart {
                lines.push("its kernel, anew".to_owned());
            }
        }
    }
    if is_lost && !session.is_command() {
        if has_run {
            lines.push(match rerun {
                Rerun::None => "what was running is settled".to_owned(),
                Rerun::Interrupted | Rerun::All => "what was running, from its beginning".to_owned(),
            });
        }
        let again = again(session).len();
        if again > 0 {
            lines.push(format!("{again} that had been run, again"));
        }
    }
    match session.queue.len() {
        0 => {}
        waiting if is_lost && !keeps_queue(session) => {
            lines.push(format!("{waiting} that waited are settled"))
        }
        waiting => lines.push(format!("{waiting} that wait")),
    }
    lines
}

/// Whether a command is begun again on another node.
pub(super) fn begins_again(session: &Session) -> bool {
    let by_type = match session.spec.restart.restart {
        RestartType::Permanent | RestartType::Transient => true,
        RestartType::Temporary => session.spec.on_node_loss.rerun > Rerun::None,
    };
    by_type || session.running.is_none()
}

/// Whether what waits for a kernel that is gone with its node is run by the next.
pub(super) fn keeps_queue(session: &Session) -> bool {
    session.spec.on_node_loss.rerun > Rerun::None || !has_computed(session)
}

/// Whether the run that a displaced kernel was at is run again by the next.
pub(super) fn runs_again(session: &Session, run: &Run) -> bool {
    session.spec.on_node_loss.rerun > Rerun::None
        && matches!(run.state, RunState::Running { ending: None, .. })
        && !run.interrupted
}

/// Whether anything was run in the present process, so that its memory holds something.
fn has_computed(session: &Session) -> bool {
    session.runs.values().any(|run| run.started_at.is_some_and(|at| at >= session.runtime.launched_at))
}

/// What the present kernel had run to a good end, to be run again by the next.
fn again(session: &Session) -> Vec<NewRun> {
    if session.spec.on_node_loss.rerun < Rerun::All || session.is_command() {
        return Vec::new();
    }
    let went_well = |run: &&Run| match &run.state {
        RunState::Ended(RunOutcome::Succeeded) => true,
        RunState::Ended(RunOutcome::Raised { .. }) => run.new.on_raise == OnRaise::GoOn,
        RunState::Ended(
            RunOutcome::Failed { .. }
            | RunOutcome::TimedOut { .. }
            | RunOutcome::Unserved { .. }
            | RunOutcome::Cancelled { .. },
        )
        | RunState::Queued
        | RunState::Running { .. } => false,
    };
    let in_this = |run: &&Run| run.started_at.is_some_and(|at| at >= session.runtime.launched_at);
    let mut runs: Vec<&Run> = session.runs.values().filter(in_this).filter(went_well).collect();
    runs.sort_by_key(|run| (run.started_at, run.index));
    let room = QUEUED_RUNS_MAX.saturating_sub(session.queue.len());
    let repeated =
        |run: &Run| NewRun { id: run.new.id.again(session.runtime.incarnation), ..run.new.clone() };
    runs.into_iter().take(room).map(repeated).collect()
}

/// What becomes of the work of a kernel that is gone with its node; nothing when all of it is settled or waits for the next.
pub(super) fn settle_displaced(session: &Session, now: Now) -> Decision {
    if let Some(run) =
        session.running.and_then(|id| session.runs.get(&id)).filter(|run| runs_again(session, run))
    {
        return Decision::none().happened(now.wall, Happened::RunWaitsAgain { run: run.new.id });
    }
    let waiting: Vec<&Run> = session.queue.iter().filter_map(|id| session.runs.get(id)).collect();
    if !keeps_queue(session) {
        return Decision::none();
    }
    let again = again(session);
    let is_new = |run: &NewRun| !session.runs.contains_key(&run.id);
    let waits_for_present = |run: &&Run| run.from <= session.runtime.incarnation;
    if !again.iter().any(is_new) && !waiting.iter().any(waits_for_present) {
        return Decision::none();
    }
    let queue = again.into_iter().filter(is_new).chain(waiting.into_iter().map(|run| run.new.clone()));
    Decision::none().queued(now.wall, queue.collect())
}
