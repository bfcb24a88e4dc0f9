//! The only thing that changes a session.

use super::event::{AfterExit, Fact, Happened, NewRun, SessionEvent};
use super::outcome::RunOutcome;
use super::state::{Claiming, Health, Life, Question, Run, RunState, Session, Status, Wanted};
use crate::diagnosis::FailureReport;
use crate::id::{ProcessKey, RunId};
use crate::runtime::ExitStatus;
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
                run.started_at = Some(*at);
            }
        }
        Fact::RunEnded { run, outcome, report: _, execution_count, at } => {
            run_ended(session, *run, outcome, *execution_count, *at);
        }
    }
}

/// Nearly always the first.
fn unqueue(session: &mut Session, run: RunId) {
    if session.queue.front() == Some(&run) {
        session.queue.pop_front();
    } else {
        session.queue.retain(|queued| *queued != run);
    }
}

fn run_ended(session: &mut Session, id: RunId, outcome: &RunOutcome, count: Option<u32>, at: WallTime) {
    unqueue(session, id);
    if session.running == Some(id) {
        session.running = None;
    }
    answered(session, id);
    if let Some(run) = session.runs.get_mut(&id).filter(|run| !matches!(run.state, RunState::Ended(_))) {
        match outcome {
            RunOutcome::Succeeded => session.ended.succeeded += 1,
            RunOutcome::Raised { .. } | RunOutcome::Failed { .. } | RunOutcome::TimedOut { .. } => {
                session.ended.failed += 1;
            }
            RunOutcome::Cancelled { .. } => session.ended.cancelled += 1,
        }
        run.state = RunState::Ended(outcome.clone());
        run.execution_count = count.or(run.execution_count);
        run.ended_at = Some(at);
    }
}

fn happened(session: &mut Session, at: WallTime, what: &Happened) {
    match what {
        Happened::Created(spec) => *session = Session::new((**spec).clone()),
        Happened::RunsQueued(runs) => queue(session, at, runs),
        Happened::RuntimeLaunching(process) => {
            session.runtime.incarnation = process.incarnation;
            session.runtime.launched_at = at;
            session.runtime.pid = None;
            enter(session, at, Status::Launching);
        }
        Happened::RuntimeSpawned { process, pid } => {
            if *process == session.process() {
                session.runtime.pid = Some(*pid);
            }
        }
        Happened::RuntimeReady(process) => {
            if *process == session.process() && session.runtime.status == Status::Launching {
                enter(session, at, Status::Ready(Health::Responsive));
            }
        }
        Happened::RuntimeUnresponsive { process, hang } => {
            if *process == session.process() {
                enter(session, at, Status::Ready(Health::Unresponsive(hang.clone())));
            }
        }
        Happened::RuntimeRecovered(process) => {
            if *process == session.process() {
                enter(session, at, Status::Ready(Health::Responsive));
            }
        }
        Happened::RuntimeStopping { process, why, step } => {
            if *process == session.process() {
                enter(session, at, Status::Stopping { why: *why, step: *step });
            }
        }
        Happened::RuntimeExited { process, status, report, then } => {
            if *process == session.process() {
                exited(session, at, *status, report.as_deref(), then);
            }
        }
        Happened::RuntimeDrained { process, report } => drained(session, at, *process, report.as_deref()),
        Happened::RestartDue => enter(session, at, Status::Down),
        Happened::RestartAsked => {
            session.runtime.history.reset();
            session.runtime.wanted = Wanted::Up;
            if let Status::Draining { then, .. } = &mut session.runtime.status {
                *then = AfterExit::Restart { after_ms: 0, nth: 0 };
            }
        }
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
            session.claiming = None;
            session.path = Some(path.clone());
        }
        Happened::TrustChanged(trust) => session.trust = *trust,
        Happened::Closing(why) => {
            session.life = Life::Closing(*why);
            if let Status::Backoff { .. } = session.runtime.status {
                enter(session, at, Status::Down);
            }
        }
        Happened::Settled => {
            if let Life::Closing(why) = session.life {
                session.life = Life::Saving(why);
            }
        }
        Happened::Closed { save_problem } => {
            let (Life::Closing(why) | Life::Saving(why) | Life::Closed { why, .. }) = session.life else {
                return;
            };
            session.life = Life::Closed { why, at, save_problem: save_problem.clone() };
        }
    }
}

/// The run's question, if there is one, has gone.
fn answered(session: &mut Session, run: RunId) {
    session.question.take_if(|question| question.run == run);
}

fn enter(session: &mut Session, at: WallTime, status: Status) {
    session.runtime.status = status;
    session.runtime.since = at;
}

/// Runs queued while a restart is under way wait for the process after the present one.
fn queue(session: &mut Session, at: WallTime, runs: &[NewRun]) {
    let batch = session.order.last().and_then(|id| session.runs.get(id)).map_or(0, |run| run.batch + 1);
    let from = match session.runtime.status {
        Status::Ready(_) | Status::Launching => session.runtime.incarnation,
        Status::Down
        | Status::Stopping { .. }
        | Status::Draining { .. }
        | Status::Exited(_)
        | Status::Backoff { .. }
        | Status::GaveUp { .. } => session.runtime.incarnation.next(),
    };
    session.runtime.wanted = Wanted::Up;
    for new in runs {
        // The cell waits already: it is run once, as it was seen last.
        if let Some(run) = session.runs.get_mut(&new.id) {
            run.new = new.clone();
            continue;
        }
        let index = u32::try_from(session.order.len()).unwrap_or(u32::MAX);
        let run = Run {
            new: new.clone(),
            index,
            batch,
            from,
            state: RunState::Queued,
            attempt: crate::id::Attempt(0),
            execution_count: None,
            queued_at: at,
            started_at: None,
            ended_at: None,
        };
        session.order.push(new.id);
        session.queue.push_back(new.id);
        session.runs.insert(new.id, run);
    }
}

fn exited(
    session: &mut Session,
    at: WallTime,
    status: ExitStatus,
    report: Option<&FailureReport>,
    then: &AfterExit,
) {
    session.reports.extend(report.cloned());
    if let AfterExit::Restart { nth, .. } = then {
        session.runtime.history.restarted(at, *nth);
    }
    if *then == AfterExit::Rest {
        session.runtime.wanted = Wanted::Down;
    }
    session.question = None;
    enter(session, at, Status::Draining { status, then: then.clone() });
}

fn drained(session: &mut Session, at: WallTime, process: ProcessKey, report: Option<&FailureReport>) {
    let Status::Draining { status, then } = &session.runtime.status else { return };
    if process != session.process() {
        return;
    }
    let next = match then {
        AfterExit::Restart { after_ms, nth: _ } if session.life == Life::Open => {
            Status::Backoff { after_ms: *after_ms }
        }
        AfterExit::Rest => Status::Down,
        AfterExit::Stay | AfterExit::Restart { .. } => Status::Exited(*status),
        AfterExit::GiveUp { reason } => Status::GaveUp { reason: reason.clone() },
    };
    if let (Some(report), Some(last)) = (report, session.reports.last_mut())
        && last.id == report.id
    {
        *last = report.clone();
    }
    session.runtime.pid = None;
    enter(session, at, next);
}
