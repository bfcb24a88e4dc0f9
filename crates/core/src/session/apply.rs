//! The only thing that changes a session.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{AfterExit, Fact, Happened, NewRun, SessionEvent};
use super::handover::{HandOver, remember};
use super::outcome::{CancelWhy, RunOutcome};
use super::spec::{StartWhen, Trust};
use super::state::{Claiming, Ended, Life, Question, Run, RunState, Session, Status, Wanted};
use crate::diagnosis::FailureReport;
use crate::id::{ProcessKey, RunId};
use crate::limits::REPORTS_REMEMBERED_MAX;
use crate::time::WallTime;

/// Folds one fact into the session. Total: a fact that fits nothing changes nothing but the generation.
pub fn apply(session: &mut Session, fact: &Fact) {
    session.generation = session.generation.next();
    match fact {
        Fact::Journal(SessionEvent { at, what }) => happened(session, *at, what),
        Fact::RunOpened { run, attempt, base: _, at } => {
            let process = session.process();
            unqueue(session, *run);
            session.running = Some(*run);
            if let Some(run) = session.runs.get_mut(run) {
                run.state = RunState::Running { process, ending: None };
                run.attempt = *attempt;
                run.interrupted = false;
                run.started_at = Some(*at);
            }
        }
        Fact::RunEnded { run, outcome, report: _, execution_count, at } => {
            run_ended(session, *run, outcome, *execution_count, *at);
        }
        // Of groups.
        Fact::RunTold { .. } | Fact::RunCheckpointed { .. } => {}
    }
}

/// Nearly always the first.
fn unqueue(session: &mut Session, run: RunId) {
    if session.queue.front() == Some(&run) {
        session.queue.pop_front();
    } else {
        session.queue.retain(|queued| *queued != run);
    }
    if session.dropped.front().is_some_and(|(dropped, _)| *dropped == run) {
        session.dropped.pop_front();
    } else {
        session.dropped.retain(|(dropped, _)| *dropped != run);
    }
}

fn run_ended(session: &mut Session, id: RunId, outcome: &RunOutcome, count: Option<u32>, at: WallTime) {
    unqueue(session, id);
    if session.running == Some(id) {
        session.running = None;
    }
    answered(session, id);
    if let Some(run) = session.runs.get_mut(&id).filter(|run| !matches!(run.state, RunState::Ended(_))) {
        session.ended.count(outcome);
        run.state = RunState::Ended(outcome.clone());
        run.execution_count = count.or(run.execution_count);
        run.ended_at = Some(at);
    }
    take_along(session, id);
}

/// A run that failed takes along those that were queued with it, and a cell that raised or took too long all cells
/// that wait, as a kernel does with its own queue. What waits when a process ends is settled with that end.
fn take_along(session: &mut Session, id: RunId) {
    let is_alive =
        matches!(session.runtime.status, Status::Launching | Status::Ready(_) | Status::Stopping { .. });
    let Some(run) = session.runs.get(&id).filter(|run| is_alive && run.takes_along()) else { return };
    let stopped =
        matches!(run.state, RunState::Ended(RunOutcome::Raised { .. } | RunOutcome::TimedOut { .. }));
    let (batch, cells) = (run.batch, stopped && run.new.is_cell());
    let present = session.runtime.incarnation;
    let goes_along = |run: &Run| run.from <= present && (run.batch == batch || cells && run.new.is_cell());
    drop_waiting(session, CancelWhy::EarlierFailure, goes_along);
}

/// These will not be run. `advance` settles them, so that a crash in between leaves none behind.
fn drop_waiting(session: &mut Session, why: CancelWhy, which: impl Fn(&Run) -> bool) {
    let waiting = session.queue.iter().copied();
    let dropped = waiting.filter(|id| session.runs.get(id).is_some_and(&which)).map(|id| (id, why));
    session.dropped = dropped.collect();
}

fn happened(session: &mut Session, at: WallTime, what: &Happened) {
    match what {
        Happened::Created(spec) => *session = Session::new((**spec).clone()),
        Happened::RunsQueued(runs) => queue(session, at, runs),
        Happened::RunsQueuedInParts { part, is_last, runs } => {
            queue_part(session, at, (*part, *is_last), runs);
        }
        Happened::RuntimeLaunching(_) | Happened::RestartDue => session.runtime.follow(at, what),
        Happened::RuntimeSpawned { process, .. }
        | Happened::RuntimeReady(process)
        | Happened::RuntimeUnresponsive { process, .. }
        | Happened::RuntimeRecovered(process)
        | Happened::RuntimeStopping { process, .. } => {
            if *process == session.process() {
                session.runtime.follow(at, what);
            }
        }
        Happened::RuntimeExited { process, report, then, .. } => {
            if *process == session.process() {
                session.reports.extend(report.as_deref().cloned());
                let too_many = session.reports.len().saturating_sub(REPORTS_REMEMBERED_MAX);
                session.reports.drain(..too_many);
                session.question = None;
                session.runtime.follow(at, what);
                if let (AfterExit::Restart { nth, .. }, None) = (then, &session.runtime.displaced) {
                    session.runtime.history.restarted(at, *nth);
                }
            }
        }
        Happened::RuntimeDrained { process, report } => drained(session, at, *process, report.as_deref()),
        Happened::TakenOver(takeover) => {
            remember(&mut session.takeovers, takeover);
            session.runtime.lost(takeover.evidence());
        }
        Happened::HandOverAsked { grace_ms } => {
            session.hand_over = Some(HandOver { since: at, grace_ms: *grace_ms });
        }
        Happened::RunWaitsAgain { run } => waits_again(session, *run),
        Happened::RunsForgotten { runs, ended } => forget(session, runs, *ended),
        Happened::RestartAsked => session.runtime.start_asked(),
        Happened::Interrupted => interrupted(session),
        Happened::RestAsked => rest_asked(session, at),
        Happened::RunEnding { run, why } => {
            if let Some(Run { state: RunState::Running { ending, .. }, .. }) = session.runs.get_mut(run) {
                *ending = Some((*why, at));
            }
            answered(session, *run);
        }
        Happened::QuestionAsked { run, prompt, password } => {
            session.question = Some(Question { run: *run, prompt: prompt.clone(), password: *password });
        }
        Happened::QuestionAnswered { run } => answered(session, *run),
        Happened::PathClaimed { path, sha256 } => {
            session.claiming = Some(Claiming { path: path.clone(), sha256: sha256.clone() });
        }
        Happened::PathReleased { path } => {
            session.claiming.take_if(|claiming| claiming.path == *path);
        }
        Happened::PathChanged { path, why: _ } => {
            // A file that is renamed while its notebook is being saved elsewhere leaves that claim alone.
            session.claiming.take_if(|claiming| claiming.path == *path);
            session.path = Some(path.clone());
        }
        Happened::TrustChanged(trust) => trust_changed(session, *trust),
        Happened::Group(_) => {}
        Happened::Closing(why) => {
            session.life = Life::Closing(*why);
            if let Status::Backoff { .. } = session.runtime.status {
                session.runtime.enter(at, Status::Down);
            }
        }
        Happened::Settled => {
            if let Life::Closing(why) = session.life {
                session.life = Life::Saving(why);
            }
        }
        Happened::Closed { save_problem } => closed(session, at, save_problem.as_ref()),
    }
}

/// It goes before all others, to the next process.
fn waits_again(session: &mut Session, id: RunId) {
    session.running.take_if(|running| *running == id);
    answered(session, id);
    let from = session.runtime.incarnation.next();
    let Some(run) = session.runs.get_mut(&id).filter(|run| matches!(run.state, RunState::Running { .. }))
    else {
        return;
    };
    (run.state, run.from) = (RunState::Queued, from);
    session.queue.push_front(id);
}

/// Of a run whose end has left the log, the fold knows only that it was queued, or begun.
fn forget(session: &mut Session, runs: &[RunId], ended: Ended) {
    let runs: BTreeSet<RunId> = runs.iter().copied().collect();
    session.queue.retain(|id| !runs.contains(id));
    session.dropped.retain(|(id, _)| !runs.contains(id));
    session.order.retain(|id| !runs.contains(id));
    session.runs.retain(|id, _| !runs.contains(id));
    session.question.take_if(|question| runs.contains(&question.run));
    session.running.take_if(|running| runs.contains(running));
    session.ended = ended;
}

fn interrupted(session: &mut Session) {
    drop_waiting(session, CancelWhy::Interrupted, |_| true);
    if let Some(run) = session.running.and_then(|id| session.runs.get_mut(&id)) {
        run.interrupted = true;
    }
}

/// A start that waited for somebody to vouch for the notebook, and nothing else has started it.
fn trust_changed(session: &mut Session, trust: Trust) {
    session.trust = trust;
    if let (Trust::Trusted, StartWhen::AtOnce, 0) = (trust, session.spec.start, session.runtime.incarnation.0)
    {
        session.runtime.wanted = Wanted::Up;
    }
}

fn closed(session: &mut Session, at: WallTime, save_problem: Option<&String>) {
    let (Life::Closing(why) | Life::Saving(why) | Life::Closed { why, .. }) = session.life else { return };
    session.life = Life::Closed { why, at, save_problem: save_problem.cloned() };
}

/// The run's question, if there is one, has gone.
fn answered(session: &mut Session, run: RunId) {
    session.question.take_if(|question| question.run == run);
}

fn rest_asked(session: &mut Session, at: WallTime) {
    drop_waiting(session, CancelWhy::Stopped, |_| true);
    session.runtime.rest_asked(at);
}

/// Runs come in parts; the last queues them all.
fn queue_part(session: &mut Session, at: WallTime, (part, is_last): (u32, bool), runs: &[NewRun]) {
    if part == 0 {
        session.arriving.clear();
    }
    session.arriving.extend_from_slice(runs);
    if is_last {
        let all = std::mem::take(&mut session.arriving);
        queue(session, at, &all);
    }
}

/// Runs queued while a restart is under way wait for the process after the present one. What waits already is run
/// once, as it was asked for last: in its place, unless something that was asked for before it now stands behind it.
fn queue(session: &mut Session, at: WallTime, runs: &[NewRun]) {
    let batch = session.batches;
    session.batches += 1;
    let from = match session.runtime.status {
        Status::Ready(_) | Status::Launching if session.hand_over.is_none() => session.runtime.incarnation,
        Status::Ready(_)
        | Status::Launching
        | Status::Down
        | Status::Stopping { .. }
        | Status::Draining { .. }
        | Status::Exited(_)
        | Status::Backoff { .. }
        | Status::GaveUp { .. } => session.runtime.incarnation.next(),
    };
    if !runs.is_empty() {
        session.runtime.wanted = Wanted::Up;
    }
    let places: BTreeMap<RunId, usize> = if runs.iter().any(|new| session.runs.contains_key(&new.id)) {
        session.queue.iter().enumerate().map(|(place, id)| (*id, place)).collect()
    } else {
        BTreeMap::new()
    };
    let (mut behind, mut moved, mut last) = (Vec::new(), BTreeSet::new(), 0);
    for new in runs {
        if let Some(run) = session.runs.get_mut(&new.id) {
            let Some(place) = places.get(&new.id) else { continue };
            run.new = new.clone();
            run.batch = batch;
            run.from = run.from.max(from);
            if behind.is_empty() && *place >= last {
                last = *place;
            } else if moved.insert(new.id) {
                behind.push(new.id);
            }
            continue;
        }
        let index = session.queued;
        session.queued = index.saturating_add(1);
        let run = Run {
            new: new.clone(),
            index,
            batch,
            from,
            state: RunState::Queued,
            attempt: crate::id::Attempt(0),
            execution_count: None,
            queued_at: at,
            interrupted: false,
            started_at: None,
            ended_at: None,
        };
        session.order.push(new.id);
        session.runs.insert(new.id, run);
        behind.push(new.id);
    }
    if !moved.is_empty() {
        session.queue.retain(|id| !moved.contains(id));
    }
    session.queue.extend(behind);
}

fn drained(session: &mut Session, at: WallTime, process: ProcessKey, report: Option<&FailureReport>) {
    if process != session.process() || !matches!(session.runtime.status, Status::Draining { .. }) {
        return;
    }
    if let (Some(report), Some(last)) = (report, session.reports.last_mut())
        && last.id == report.id
    {
        *last = report.clone();
    }
    session.runtime.drained(at, session.life == Life::Open);
}
