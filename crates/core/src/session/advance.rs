//! What follows from a session's state alone.

use std::collections::BTreeMap;
use std::time::Duration;

use super::decide::{ended_as, stop_for, stop_process};
use super::event::{EndingWhy, Fact, Happened, OnRaise};
use super::handover::{keeps_queue, settle_displaced};
use super::input::{Decision, Effect, Timer};
use super::outcome::{CancelWhy, RunOutcome};
use super::spec::{AfterWork, Workload};
use super::state::{Displaced, Life, Run, RunState, Session, Status, Wanted};
use crate::diagnosis::CauseCode;
use crate::id::{Attempt, ProcessKey, RunId, Seq};
use crate::limits::{RUNS_FORGOTTEN_AT_ONCE, RUNS_REMEMBERED_MAX, TIMEOUT_GRACE_MS};
use crate::runtime::{ExitStatus, StopStep, StopWhy};
use crate::time::Now;

/// The next thing that follows from the state, or nothing. Called after every change until it answers nothing;
/// each answer changes the state, so that this ends.
#[must_use]
pub fn advance(session: &Session, now: Now) -> Decision {
    let decision = settle(session, now);
    if !decision.is_none() {
        return decision;
    }
    match session.life {
        Life::Open => {
            let decision = open(session, now);
            if decision.is_none() { forget(session, now) } else { decision }
        }
        Life::Closing(why) => closing(session, why, now),
        Life::Saving(_) | Life::Closed { .. } => Decision::none(),
    }
}

/// What has to be done again after the daemon was away: an effect may have been lost with the daemon that was to
/// carry it out. Every effect is safe to repeat (a shim ignores a run and attempt that it knows).
#[must_use]
pub fn recover(session: &Session) -> Vec<Effect> {
    let process = session.process();
    let mut effects = Vec::new();
    // A process that is on its way out begins nothing any more.
    if session.is_up()
        && let Some((id, run)) = session.running.and_then(|id| Some((id, session.runs.get(&id)?)))
        && let RunState::Running { ending, .. } = run.state
    {
        effects.push(Effect::Execute {
            process,
            run: id,
            attempt: run.attempt,
            code: run.new.source.clone(),
        });
        if ending.is_some() && !session.is_command() {
            effects.push(Effect::Interrupt(process));
        }
    }
    if let Status::Stopping { why, step } = session.runtime.status {
        effects.push(Effect::Stop { process, why, from: step });
    }
    if let Life::Saving(_) = session.life {
        effects.push(Effect::SaveFinally);
    }
    effects
}

/// The deadlines that the state asks for, from now. A timer is armed when it first appears here and disarmed when it
/// does no longer. Those of a run end with the process's end, which has deadlines of its own in the shim.
#[must_use]
pub fn timers(session: &Session, now: Now) -> Vec<(Timer, Duration)> {
    let mut timers = Vec::new();
    if let Status::Backoff { after_ms } = session.runtime.status {
        let timer = Timer::Backoff(session.runtime.incarnation);
        timers.push((timer, now.left(session.runtime.since, after_ms)));
    }
    let running = session.running.filter(|_| session.is_up());
    let running = running.and_then(|id| Some((id, session.runs.get(&id)?)));
    if let Some((id, Run { state: RunState::Running { ending, .. }, attempt, started_at, .. })) = running {
        if let Some(hand_over) = &session.hand_over {
            timers.push((Timer::HandOver, hand_over.left(now)));
        }
        match (ending, session.run_limit_ms()) {
            (Some((_, since)), _) => {
                timers.push((Timer::EndingGrace(id, *attempt), now.left(*since, TIMEOUT_GRACE_MS)));
            }
            (None, Some(ms)) => {
                let since = started_at.unwrap_or(now.wall);
                timers.push((Timer::RunLimit(id, *attempt), now.left(since, ms)));
            }
            (None, None) => {}
        }
    }
    timers
}

fn open(session: &Session, now: Now) -> Decision {
    // A command is ended with its run.
    if let (true, true, Some((why, _))) = (session.is_command(), session.is_up(), session.ending()) {
        return stop_process(session, stop_for(why), StopStep::Ask, now);
    }
    if session.hand_over.is_some() {
        return hand_over(session, now);
    }
    match &session.runtime.status {
        // A command is its run: without one, nothing is left to start.
        Status::Down if session.is_command() && session.is_settled() => finish_when_done(session, now),
        Status::Down if session.runtime.wanted == Wanted::Down && session.queue.is_empty() => {
            finish_when_done(session, now)
        }
        Status::Down => {
            let incarnation = session.runtime.incarnation.next();
            let process = ProcessKey { runtime: session.spec.runtime, incarnation };
            Decision::none()
                .happened(now.wall, Happened::RuntimeLaunching(process))
                .effect(Effect::Launch(process))
        }
        // A crash came between the wish for rest and the stop.
        Status::Launching | Status::Ready(_) if session.runtime.wanted == Wanted::Down => {
            stop_process(session, StopWhy::Rest, StopStep::Ask, now)
        }
        // A command's process begins with its run, so that all its output has one.
        Status::Launching if session.is_command() => {
            let opened = open_again(session, now);
            if opened.is_none() { start_next(session, now) } else { opened }
        }
        Status::Ready(_) => {
            let started = start_next(session, now);
            if started.is_none() { finish_when_done(session, now) } else { started }
        }
        Status::Exited(_) | Status::GaveUp { .. } | Status::Backoff { .. } => finish_when_done(session, now),
        Status::Launching | Status::Stopping { .. } | Status::Draining { .. } => Decision::none(),
    }
}

/// Nothing new is begun; what runs may end by itself as long as it is waited for.
fn hand_over(session: &Session, now: Now) -> Decision {
    let finished = finish_when_done(session, now);
    if !finished.is_none() {
        return finished;
    }
    let is_over = session.hand_over.is_some_and(|hand_over| hand_over.left(now).is_zero());
    match session.runtime.status {
        Status::Launching | Status::Ready(_) if session.running.is_none() || is_over => {
            stop_process(session, StopWhy::Drain, StopStep::Ask, now)
        }
        Status::Launching
        | Status::Ready(_)
        | Status::Down
        | Status::Stopping { .. }
        | Status::Draining { .. }
        | Status::Exited(_)
        | Status::Backoff { .. }
        | Status::GaveUp { .. } => Decision::none(),
    }
}

/// A crash came between the launch of a command's next process and the attempt that it is for.
fn open_again(session: &Session, now: Now) -> Decision {
    let running = session.running.and_then(|id| Some((id, session.runs.get(&id)?)));
    match running {
        Some((id, run)) if matches!(run.state, RunState::Running { process, .. } if process != session.process()) =>
        {
            let (attempt, code) = (run.attempt.next(), run.new.source.clone());
            Decision::none()
                .fact(Fact::RunOpened { run: id, attempt, base: None, at: now.wall })
                .effect(Effect::Execute { process: session.process(), run: id, attempt, code })
        }
        Some(_) | None => Decision::none(),
    }
}

fn start_next(session: &Session, now: Now) -> Decision {
    if session.running.is_some() {
        return Decision::none();
    }
    let Some((id, run)) = session.queue.front().and_then(|id| Some((*id, session.runs.get(id)?))) else {
        return Decision::none();
    };
    let attempt = run.attempt.next();
    let code = run.new.source.clone();
    // What an earlier attempt had said is withdrawn: this one begins anew.
    let base = (run.attempt > Attempt(0)).then_some(Seq(0));
    Decision::none().fact(Fact::RunOpened { run: id, attempt, base, at: now.wall }).effect(Effect::Execute {
        process: session.process(),
        run: id,
        attempt,
        code,
    })
}

/// A session that keeps nothing ends with its work, or when its runtime is gone for good.
fn finish_when_done(session: &Session, now: Now) -> Decision {
    if session.spec.after_work == AfterWork::Keep || !session.is_settled() {
        return Decision::none();
    }
    let mut decision = Decision::none().happened(now.wall, Happened::Closing(StopWhy::Finished));
    if let Status::Ready(_) = session.runtime.status {
        let (process, why, from) = (session.process(), StopWhy::Finished, StopStep::Ask);
        decision = decision
            .happened(now.wall, Happened::RuntimeStopping { process, why, step: from })
            .effect(Effect::Stop { process, why, from });
    }
    decision
}

/// Many at a time, when there are too many. A session that ends with its work says then how all of it went.
fn forget(session: &Session, now: Now) -> Decision {
    let waiting = session.queue.len() + usize::from(session.running.is_some());
    let ended = session.runs.len().saturating_sub(waiting);
    if session.spec.after_work != AfterWork::Keep || ended <= RUNS_REMEMBERED_MAX {
        return Decision::none();
    }
    let has_ended =
        |id: &&RunId| session.runs.get(id).is_some_and(|run| matches!(run.state, RunState::Ended(_)));
    let runs = session.order.iter().filter(has_ended).take(RUNS_FORGOTTEN_AT_ONCE).copied().collect();
    Decision::none().happened(now.wall, Happened::RunsForgotten { runs, ended: session.ended })
}

fn closing(session: &Session, why: StopWhy, now: Now) -> Decision {
    match session.runtime.status {
        // The stop came between a launch and its effect, or before one.
        Status::Launching | Status::Ready(_) => {
            let (process, from) = (session.process(), StopStep::Ask);
            Decision::none()
                .happened(now.wall, Happened::RuntimeStopping { process, why, step: from })
                .effect(Effect::Stop { process, why, from })
        }
        Status::Stopping { .. } | Status::Draining { .. } => Decision::none(),
        Status::Down | Status::Exited(_) | Status::Backoff { .. } | Status::GaveUp { .. } => {
            Decision::none().happened(now.wall, Happened::Settled).effect(Effect::SaveFinally)
        }
    }
}

/// Ends the runs that can no longer run, or begins them again where the policy says so.
fn settle(session: &Session, now: Now) -> Decision {
    if !session.dropped.is_empty() {
        let why: BTreeMap<RunId, CancelWhy> = session.dropped.iter().copied().collect();
        let runs = session.dropped.iter().map(|(id, _)| *id);
        return end_each(runs, |id| RunOutcome::Cancelled { why: why[&id] }, None, now);
    }
    match session.life {
        Life::Open => {}
        Life::Closing(_) | Life::Saving(_) | Life::Closed { .. } => {
            let stopped = |_| RunOutcome::Cancelled { why: CancelWhy::Stopped };
            let decision = end_each(session.queue.iter().copied(), stopped, None, now);
            if !decision.is_none() {
                return decision;
            }
        }
    }
    match &session.runtime.status {
        // Running work waits until all that it wrote is in the log; queued work need not wait.
        Status::Draining { status, .. } if is_displaced(session) => {
            let decision = settle_displaced(session, now);
            if decision.is_none() && !keeps_queue(session) {
                return settle_queued(session, *status, now);
            }
            decision
        }
        Status::Draining { then, status } => {
            let again = session.is_command() && matches!(then, super::event::AfterExit::Restart { .. });
            if again { Decision::none() } else { settle_queued(session, *status, now) }
        }
        Status::Exited(status) => settle_all(session, *status, now),
        Status::GaveUp { .. } => settle_all(session, ExitStatus::Unknown, now),
        Status::Backoff { .. } | Status::Down => settle_lost(session, now),
        Status::Launching | Status::Ready(_) | Status::Stopping { .. } => Decision::none(),
    }
}

/// Whether a kernel is gone because its node is not the session's any more.
fn is_displaced(session: &Session) -> bool {
    session.runtime.displaced.is_some() && session.life == Life::Open && !session.is_command()
}

fn settle_queued(session: &Session, status: ExitStatus, now: Now) -> Decision {
    let queued = session.queue.iter().copied().filter(|run| session.waits_for_present(*run));
    end_each(queued, |id| outcome(session, id, status), session.present_report(), now)
}

fn settle_all(session: &Session, status: ExitStatus, now: Now) -> Decision {
    let runs = session.running.into_iter().chain(session.queue.iter().copied());
    end_each(runs, |id| outcome(session, id, status), session.present_report(), now)
}

/// Before the next process: a command's run is opened again by it, unless somebody has cancelled it; a kernel's
/// memory is gone, so its run is lost.
fn settle_lost(session: &Session, now: Now) -> Decision {
    let Some(run) = session.running else { return Decision::none() };
    let is_cancelled = matches!(session.ending(), Some((EndingWhy::Cancelled, _)));
    if session.is_command() && session.life == Life::Open && !is_cancelled {
        return reopen(session, run, now);
    }
    end_each([run].into_iter(), |id| outcome(session, id, ExitStatus::Unknown), session.present_report(), now)
}

/// A command that is started again goes on in the same run: a new attempt that keeps the output so far. It is
/// opened when the next process is launched; until then it stays what it is.
fn reopen(session: &Session, id: RunId, now: Now) -> Decision {
    let Status::Down = session.runtime.status else { return Decision::none() };
    if session.hand_over.is_some() {
        return Decision::none();
    }
    let Some(run) = session.runs.get(&id) else { return Decision::none() };
    let process =
        ProcessKey { runtime: session.spec.runtime, incarnation: session.runtime.incarnation.next() };
    let attempt: Attempt = run.attempt.next();
    Decision::none()
        .happened(now.wall, Happened::RuntimeLaunching(process))
        .fact(Fact::RunOpened { run: id, attempt, base: None, at: now.wall })
        .effect(Effect::Launch(process))
        .effect(Effect::Execute { process, run: id, attempt, code: run.new.source.clone() })
}

fn end_each(
    runs: impl Iterator<Item = RunId>,
    outcome: impl Fn(RunId) -> RunOutcome,
    report: Option<&crate::diagnosis::FailureReport>,
    now: Now,
) -> Decision {
    runs.fold(Decision::none(), |decision, run| {
        let outcome = outcome(run);
        let report = match outcome {
            RunOutcome::Failed { .. }
            | RunOutcome::Cancelled { why: CancelWhy::Stopped | CancelWhy::NodeDrained } => report,
            RunOutcome::Succeeded
            | RunOutcome::Raised { .. }
            | RunOutcome::TimedOut { .. }
            | RunOutcome::Unserved { .. }
            | RunOutcome::Cancelled {
                why: CancelWhy::User | CancelWhy::EarlierFailure | CancelWhy::Interrupted,
            } => None,
        };
        let report = report.cloned().map(Box::new);
        decision.fact(Fact::RunEnded { run, outcome, report, execution_count: None, at: now.wall })
    })
}

/// How a run ended whose process has.
fn outcome(session: &Session, id: RunId, status: ExitStatus) -> RunOutcome {
    let running = match session.runs.get(&id).map(|run| &run.state) {
        Some(RunState::Running { ending: Some((why, _)), .. }) => return ended_as(session, *why),
        Some(RunState::Running { ending: None, .. }) => true,
        Some(RunState::Queued | RunState::Ended(_)) | None => false,
    };
    let stopped = RunOutcome::Cancelled { why: stopped_for(session) };
    match session.present_report() {
        None if running && session.is_command() && status.is_success() => RunOutcome::Succeeded,
        None => stopped,
        Some(report) if report.cause().code == CauseCode::KilledByOperator => stopped,
        Some(report) => RunOutcome::Failed {
            code: report.cause().code,
            summary: report.cause().summary.clone(),
            report: report.id,
        },
    }
}

/// What is said of work whose process was stopped.
pub(super) const fn stopped_for(session: &Session) -> CancelWhy {
    match (&session.runtime.displaced, &session.runtime.status) {
        (Some(Displaced::Drained), _) | (None, Status::Stopping { why: StopWhy::Drain, .. }) => {
            CancelWhy::NodeDrained
        }
        (Some(Displaced::Lost(_)) | None, _) => CancelWhy::Stopped,
    }
}

/// How a closed session's work went.
#[must_use]
pub fn verdict(session: &Session) -> Verdict {
    let (why, save_problem) = match &session.life {
        Life::Open => return Verdict::Open,
        Life::Closing(why) | Life::Saving(why) => (*why, None),
        Life::Closed { why, save_problem, .. } => (*why, save_problem.as_ref()),
    };
    let tolerant = matches!(session.spec.workload, Workload::Notebook { allow_errors: true, .. });
    let bad = |run: &Run| match &run.state {
        RunState::Ended(
            RunOutcome::Failed { .. } | RunOutcome::TimedOut { .. } | RunOutcome::Unserved { .. },
        ) => true,
        RunState::Ended(RunOutcome::Raised { .. }) => !tolerant && run.new.on_raise == OnRaise::Stop,
        RunState::Ended(RunOutcome::Succeeded | RunOutcome::Cancelled { .. })
        | RunState::Queued
        | RunState::Running { .. } => false,
    };
    let never_ran = !session.reports.is_empty() && session.order.is_empty();
    if session.runs.values().any(bad) || save_problem.is_some() || never_ran {
        Verdict::Failed
    } else if why != StopWhy::Finished {
        Verdict::Stopped
    } else {
        Verdict::Succeeded
    }
}

/// How a session's work went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It has not ended.
    Open,
    /// All of it did what it was asked.
    Succeeded,
    /// Something did not.
    Failed,
    /// Somebody stopped it before its end.
    Stopped,
}
