//! What people and programs ask of a session.

use std::collections::BTreeMap;

use super::super::event::{AfterExit, EndingWhy, Fact, Happened, NewRun};
use super::super::input::{Decision, Denied, Effect};
use super::super::outcome::{CancelWhy, RunOutcome};
use super::super::state::{Health, Life, RunState, Session, Status};
use super::{end_run, stop_process};
use crate::id::RunId;
use crate::limits::QUEUED_RUNS_MAX;
use crate::runtime::{StopStep, StopWhy};
use crate::time::Now;

fn open(session: &Session) -> Result<(), Denied> {
    match session.life {
        Life::Open => Ok(()),
        Life::Closing(_) | Life::Saving(_) | Life::Closed { .. } => Err(Denied::Closed),
    }
}

fn has_room(session: &Session, more: usize) -> Result<(), Denied> {
    let queued = session.queue.len() + more;
    if queued > QUEUED_RUNS_MAX {
        return Err(Denied::QueueFull { queued, max: QUEUED_RUNS_MAX });
    }
    Ok(())
}

/// The runs as they will be queued, with the ids that whoever asks is answered with: a cell that waits already is one
/// run, which keeps its id and gets the newest source. A cell that runs already is queued again.
#[must_use]
pub fn effective(session: &Session, runs: Vec<NewRun>) -> Vec<NewRun> {
    if runs.iter().all(|run| run.cell_id.is_none()) {
        return runs;
    }
    let waiting = session.queue.iter().filter_map(|id| {
        let cell = session.runs.get(id)?.new.cell_id.clone()?;
        Some((cell, *id))
    });
    once_per_cell(runs, waiting.collect())
}

/// A cell that is named twice is one run too, at its first place.
fn once_per_cell(runs: Vec<NewRun>, mut ids: BTreeMap<String, RunId>) -> Vec<NewRun> {
    let mut once: Vec<NewRun> = Vec::with_capacity(runs.len());
    let mut places = BTreeMap::new();
    for mut run in runs {
        if let Some(cell) = &run.cell_id {
            run.id = *ids.entry(cell.clone()).or_insert(run.id);
        }
        match places.get(&run.id) {
            Some(place) => once[*place] = run,
            None => {
                places.insert(run.id, once.len());
                once.push(run);
            }
        }
    }
    once
}

pub(super) fn queue(session: &Session, runs: Vec<NewRun>, now: Now) -> Result<Decision, Denied> {
    open(session)?;
    let runs = effective(session, runs);
    if session.is_command() && !session.order.is_empty() {
        return Err(Denied::CommandOnly);
    }
    has_room(session, runs.iter().filter(|run| !session.runs.contains_key(&run.id)).count())?;
    match &session.runtime.status {
        Status::Exited(status) | Status::Draining { status, then: AfterExit::Stay } => {
            return Err(Denied::RuntimeDown(status.to_string()));
        }
        Status::GaveUp { reason } | Status::Draining { then: AfterExit::GiveUp { reason }, .. } => {
            return Err(Denied::RuntimeDown(reason.clone()));
        }
        Status::Down
        | Status::Launching
        | Status::Ready(_)
        | Status::Stopping { .. }
        | Status::Draining { then: AfterExit::Restart { .. } | AfterExit::Rest, .. }
        | Status::Backoff { .. } => {}
    }
    Ok(if runs.is_empty() { Decision::none() } else { Decision::none().queued(now.wall, runs) })
}

/// What waits goes with what runs, in one fact. The interrupt itself is not repeated by a daemon that comes back: a
/// program that lived on after it would be interrupted again by each of them.
pub(super) fn interrupt(session: &Session, now: Now) -> Result<Decision, Denied> {
    let process = session.process();
    match (&session.runtime.status, session.running) {
        (Status::Ready(Health::Responsive | Health::Unresponsive(_)), Some(_)) => {
            Ok(Decision::none().happened(now.wall, Happened::Interrupted).effect(Effect::Interrupt(process)))
        }
        _ if !session.queue.is_empty() => Ok(Decision::none().happened(now.wall, Happened::Interrupted)),
        (
            Status::Ready(_)
            | Status::Down
            | Status::Launching
            | Status::Stopping { .. }
            | Status::Draining { .. }
            | Status::Exited(_)
            | Status::Backoff { .. }
            | Status::GaveUp { .. },
            _,
        ) => Err(Denied::NothingRuns),
    }
}

pub(super) fn cancel(session: &Session, id: RunId, now: Now) -> Result<Decision, Denied> {
    let run = session.runs.get(&id).ok_or(Denied::NoSuchRun(id))?;
    match &run.state {
        RunState::Queued => Ok(Decision::none().fact(cancelled(id, CancelWhy::User, now))),
        // A command that took too long may be started again; one that was cancelled is not.
        RunState::Running { ending: Some((EndingWhy::TimedOut | EndingWhy::NobodyToAsk, _)), .. }
            if session.is_command() =>
        {
            let (run, why) = (id, EndingWhy::Cancelled);
            Ok(Decision::none().happened(now.wall, Happened::RunEnding { run, why }))
        }
        RunState::Running { ending: Some(_), .. } => Ok(Decision::none()),
        RunState::Running { ending: None, .. } => Ok(end_run(session, id, EndingWhy::Cancelled, now)),
        RunState::Ended(_) => Err(Denied::RunEnded(id)),
    }
}

pub(super) fn answer(session: &Session, run: RunId, value: String, now: Now) -> Result<Decision, Denied> {
    if session.question.as_ref().is_none_or(|question| question.run != run) {
        return Err(Denied::NoQuestion(run));
    }
    Ok(Decision::none().happened(now.wall, Happened::QuestionAnswered { run }).effect(Effect::Answer {
        process: session.process(),
        run,
        value,
    }))
}

/// Settles what waits, stops the process if there is one, and queues `runs` for the next.
pub(super) fn restart(session: &Session, runs: Vec<NewRun>, now: Now) -> Result<Decision, Denied> {
    open(session)?;
    if session.is_command() {
        return Err(Denied::CommandOnly);
    }
    let runs = once_per_cell(runs, BTreeMap::new());
    has_room(session, runs.len())?;
    let mut decision = Decision::none().happened(now.wall, Happened::RestartAsked);
    for queued in &session.queue {
        decision = decision.fact(cancelled(*queued, CancelWhy::Stopped, now));
    }
    match &session.runtime.status {
        Status::Exited(_) | Status::GaveUp { .. } | Status::Backoff { .. } => {
            decision = decision.happened(now.wall, Happened::RestartDue);
        }
        // Whatever it is stopped for, the next one follows.
        Status::Stopping { why: StopWhy::Restart, step: _ } => {}
        Status::Stopping { step, why: _ } => {
            let (process, why, step) = (session.process(), StopWhy::Restart, *step);
            decision = decision.happened(now.wall, Happened::RuntimeStopping { process, why, step });
        }
        Status::Launching | Status::Ready(_) => {
            decision = decision.and(stop_process(session, StopWhy::Restart, StopStep::Ask, now));
        }
        // The wish itself has changed what follows.
        Status::Down | Status::Draining { .. } => {}
    }
    if !runs.is_empty() {
        decision = decision.queued(now.wall, runs);
    }
    Ok(decision)
}

/// Stops the runtime of a session that stays. What waits is settled now, what runs with the process's end; what is
/// asked for later starts it again. A runtime that is down for good stays what it is, and an eviction takes only one
/// that is ready and has nothing to do.
pub(super) fn rest(session: &Session, why: StopWhy, from: StopStep, now: Now) -> Result<Decision, Denied> {
    open(session)?;
    if session.is_command() {
        return Err(Denied::CommandOnly);
    }
    let asked = Decision::none().happened(now.wall, Happened::RestAsked);
    let evicts = why == StopWhy::Eviction;
    match &session.runtime.status {
        _ if evicts && !session.is_settled() => Err(Denied::Works),
        Status::Ready(_) => Ok(asked.and(stop_process(session, why, from, now))),
        Status::Stopping { why: StopWhy::Rest | StopWhy::Eviction, .. } if session.queue.is_empty() => {
            Ok(stop_process(session, why, from, now))
        }
        Status::Down
        | Status::Exited(_)
        | Status::GaveUp { .. }
        | Status::Draining { then: AfterExit::Stay | AfterExit::Rest | AfterExit::GiveUp { .. }, .. }
            if session.queue.is_empty() =>
        {
            Ok(Decision::none())
        }
        // Somebody wants it up.
        Status::Launching | Status::Stopping { .. } | Status::Draining { .. } | Status::Backoff { .. }
            if evicts =>
        {
            Err(Denied::Works)
        }
        Status::Launching => Ok(asked.and(stop_process(session, why, from, now))),
        // Whatever it is stopped for, no other follows.
        Status::Stopping { step, .. } => {
            let (process, step) = (session.process(), *step);
            let rests = asked.happened(now.wall, Happened::RuntimeStopping { process, why, step });
            Ok(rests.and(stop_process(session, why, from, now)))
        }
        Status::Down
        | Status::Draining { .. }
        | Status::Exited(_)
        | Status::Backoff { .. }
        | Status::GaveUp { .. } => Ok(asked),
    }
}

/// Never refused: stopping what has stopped does nothing, and a harder rung overtakes a softer one.
pub(super) fn stop(session: &Session, why: StopWhy, from: StopStep, now: Now) -> Decision {
    match session.life {
        Life::Open => {
            let closing = Decision::none().happened(now.wall, Happened::Closing(why));
            closing.and(stop_process(session, why, from, now))
        }
        Life::Closing(_) => stop_process(session, why, from, now),
        Life::Saving(_) | Life::Closed { .. } => Decision::none(),
    }
}

pub(super) fn cancelled(run: RunId, why: CancelWhy, now: Now) -> Fact {
    Fact::RunEnded {
        run,
        outcome: RunOutcome::Cancelled { why },
        report: None,
        execution_count: None,
        at: now.wall,
    }
}
