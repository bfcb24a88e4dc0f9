//! What is said about a process. A notice about any process but the present one changes nothing, and of several
//! notices of one death the first counts.

use super::super::advance::stopped_for;
use super::super::event::{AfterExit, EndingWhy, Fact, Happened};
use super::super::handover::{self, runs_again};
use super::super::input::{Decision, Effect, ProcessInput};
use super::super::outcome::{CancelWhy, RunOutcome};
use super::super::process::{begun_elsewhere, by_policy};
use super::super::spec::{AfterLoss, HangPolicy};
use super::super::state::{Life, RunState, Session, Status};
use super::{end_run, stop_process};
use crate::diagnosis::report::Failure;
use crate::diagnosis::{FailureReport, NextStep};
use crate::id::{Attempt, ProcessKey, ReportId, RunId};
use crate::runtime::restart::{Ended, EndedHow};
use crate::runtime::{ExitReport, Program, StopStep, StopWhy};
use crate::time::Now;

pub(super) fn decide(session: &Session, process: ProcessKey, what: ProcessInput, now: Now) -> Decision {
    if process != session.process() {
        return Decision::none();
    }
    let mut decision = Decision::none();
    if let Some(happened) = session.runtime.noticed(process, &what) {
        decision = decision.happened(now.wall, happened);
    }
    match what {
        ProcessInput::Spawned { .. }
        | ProcessInput::Ready
        | ProcessInput::Responsive
        | ProcessInput::Stopping { .. } => decision,
        ProcessInput::Unresponsive(_) if decision.is_none() => decision,
        ProcessInput::Unresponsive(_) => unresponsive(session, decision, now),
        ProcessInput::RunFinished { run, attempt, outcome, execution_count } => {
            run_finished(session, run, attempt, outcome, execution_count, now)
        }
        ProcessInput::InputRequested { run, prompt, password, attended } => {
            input_requested(session, run, prompt, password, attended, now)
        }
        ProcessInput::Exited { report, id } => exited(session, *report, id, now),
        ProcessInput::Drained(evidence) => {
            let drained = session.runtime.drains(process, session.present_report(), *evidence);
            drained.map_or_else(Decision::none, |drained| Decision::none().happened(now.wall, drained))
        }
    }
}

/// Whether this attempt is running, and if so, whether it is being ended.
fn running(session: &Session, id: RunId, attempt: Attempt) -> Option<Option<EndingWhy>> {
    let run = session.runs.get(&id).filter(|run| run.attempt == attempt)?;
    match &run.state {
        RunState::Running { ending, .. } => Some(ending.map(|(why, _)| why)),
        RunState::Queued | RunState::Ended(_) => None,
    }
}

fn run_finished(
    session: &Session,
    id: RunId,
    attempt: Attempt,
    outcome: RunOutcome,
    execution_count: Option<u32>,
    now: Now,
) -> Decision {
    let Some(ending) = running(session, id, attempt) else { return Decision::none() };
    let is_stopping = matches!(session.runtime.status, Status::Stopping { .. });
    let is_drained = stopped_for(session) == CancelWhy::NodeDrained;
    let outcome = match (ending, outcome) {
        // The exception is that of the interrupt with which a stop begins.
        (None, RunOutcome::Raised { .. })
            if is_drained && session.runs.get(&id).is_some_and(|run| runs_again(session, run)) =>
        {
            return Decision::none().happened(now.wall, Happened::RunWaitsAgain { run: id });
        }
        (None, RunOutcome::Raised { .. }) if is_stopping => {
            RunOutcome::Cancelled { why: stopped_for(session) }
        }
        (None, outcome) => outcome,
        (Some(_), RunOutcome::Succeeded) => RunOutcome::Succeeded,
        (Some(why), _) => ended_as(session, why),
    };
    Decision::none().fact(Fact::RunEnded { run: id, outcome, report: None, execution_count, at: now.wall })
}

/// The outcome of a run that was being ended and did end.
pub(in super::super) fn ended_as(session: &Session, why: EndingWhy) -> RunOutcome {
    match why {
        EndingWhy::Cancelled => RunOutcome::Cancelled { why: CancelWhy::User },
        EndingWhy::TimedOut => RunOutcome::TimedOut { limit_ms: session.run_limit_ms().unwrap_or_default() },
        EndingWhy::NobodyToAsk => RunOutcome::Raised {
            ename: "InputRefused".to_owned(),
            evalue:
                "the program asked for input and nobody was attached who could answer; run it attached to a \
                     terminal, or give the value as a parameter"
                    .to_owned(),
        },
    }
}

fn input_requested(
    session: &Session,
    run: RunId,
    prompt: String,
    password: bool,
    attended: bool,
    now: Now,
) -> Decision {
    if session.running != Some(run) || session.ending().is_some() || !session.is_up() {
        return Decision::none();
    }
    let asked = Decision::none().happened(now.wall, Happened::QuestionAsked { run, prompt, password });
    if attended {
        return asked;
    }
    asked.and(end_run(session, run, EndingWhy::NobodyToAsk, now))
}

fn unresponsive(session: &Session, decision: Decision, now: Now) -> Decision {
    match session.spec.on_hang {
        HangPolicy::Report => decision,
        HangPolicy::Interrupt => decision.effect(Effect::Interrupt(session.process())),
        HangPolicy::Restart => decision.and(stop_process(session, StopWhy::Hung, StopStep::Term, now)),
    }
}

/// The one death: cause, what it interrupts, what follows.
fn exited(session: &Session, mut exit: ExitReport, id: ReportId, now: Now) -> Decision {
    let Some((phase, stop_why)) = session.runtime.ends(session.running.is_some()) else {
        return Decision::none();
    };
    // The shim knows what the process was at; where the shim itself is gone, nobody but the session does.
    if exit.evidence.shim_lost.is_some() || exit.evidence.node_lost.is_some() {
        exit.evidence.phase = phase;
    }
    let is_displaced = exit.evidence.is_displaced() || stop_why == Some(StopWhy::Drain);
    let process = exit.process;
    let ended = Ended::of(&exit);
    let (then, next) = what_follows(session, ended, stop_why, is_displaced, now);
    let status = exit.status;
    // What waits for the process after a restart loses nothing.
    let restarts = matches!(then, AfterExit::Restart { .. } | AfterExit::Rest);
    let keeps_queue = is_displaced && handover::keeps_queue(session) && session.life == Life::Open;
    let is_lost = |run: &RunId| !keeps_queue && (!restarts || session.waits_for_present(*run));
    let lost = session.queue.iter().copied().filter(is_lost);
    let interrupted: Vec<RunId> = session.running.into_iter().chain(lost).collect();
    let report = is_failure(session, &exit, ended, stop_why, &interrupted).then(|| {
        let mut failure = Failure::of_exit(id, session.spec.id, &subject(session), exit);
        failure.interrupted_names = interrupted.iter().map(|run| name(session, *run)).collect();
        failure.interrupted = interrupted;
        failure.next = next;
        Box::new(FailureReport::build(failure))
    });
    Decision::none().happened(now.wall, Happened::RuntimeExited { process, status, report, then })
}

/// An end is a failure unless it is what was wanted: a command that ends with code 0, or a stop that interrupts
/// nothing.
fn is_failure(
    session: &Session,
    exit: &ExitReport,
    ended: Ended,
    stop: Option<StopWhy>,
    interrupted: &[RunId],
) -> bool {
    match ended.how {
        EndedHow::Abnormal => true,
        EndedHow::Normal => !session.is_command(),
        EndedHow::Asked => {
            !interrupted.is_empty() && exit.pid.is_some() && !matches!(stop, Some(StopWhy::Finished))
        }
    }
}

fn what_follows(
    session: &Session,
    mut ended: Ended,
    stop: Option<StopWhy>,
    is_displaced: bool,
    now: Now,
) -> (AfterExit, NextStep) {
    match session.life {
        Life::Closing(_) | Life::Saving(_) | Life::Closed { .. } => {
            return (AfterExit::Stay, NextStep::Nothing);
        }
        Life::Open => {}
    }
    if stop == Some(StopWhy::Restart) {
        return (
            AfterExit::Restart { after_ms: 0, nth: 0 },
            NextStep::Restart { after_ms: 0, nth: 1, of: 1 },
        );
    }
    if let Some(StopWhy::Eviction | StopWhy::Rest) = stop {
        return (AfterExit::Rest, NextStep::Nothing);
    }
    if is_displaced {
        return elsewhere(session);
    }
    // In an open session a person ended a run that did not react. Of a kernel nobody wished the end.
    if stop == Some(StopWhy::User) && !session.is_command() {
        ended.how = EndedHow::Abnormal;
    }
    by_policy(session.spec.restart, &session.runtime.history, ended, stop, now)
}

/// What follows when the session goes on on another node.
fn elsewhere(session: &Session) -> (AfterExit, NextStep) {
    let is_cancelled = matches!(session.ending(), Some((EndingWhy::Cancelled, _)));
    if session.is_command() {
        return match handover::begins_again(session) && !is_cancelled {
            true => begun_elsewhere(),
            false => (AfterExit::Stay, NextStep::Nothing),
        };
    }
    match session.spec.on_node_loss.kernel {
        AfterLoss::Restart => begun_elsewhere(),
        AfterLoss::Leave => (AfterExit::Rest, NextStep::Nothing),
    }
}

/// A run, as people call it: cells and runs are counted from 1.
fn name(session: &Session, id: RunId) -> String {
    let Some(run) = session.runs.get(&id) else { return id.to_string() };
    match (run.new.cell, session.is_command()) {
        (Some(cell), _) => format!("cell {}", cell + 1),
        (None, true) => "the command".to_owned(),
        (None, false) => format!("run {}", run.index + 1),
    }
}

/// What died, in the user's words.
fn subject(session: &Session) -> String {
    match &session.spec.launch.program {
        Program::Kernel { name, .. } => format!("kernel {name}"),
        Program::OfNotebook { kernel, .. } => {
            format!("kernel {}", kernel.as_deref().unwrap_or("of the notebook"))
        }
        Program::Runner { name, .. } => format!("runner {name}"),
        Program::Command { argv } => {
            let word = argv.first().map_or("command", String::as_str);
            format!("command {}", word.rsplit('/').next().unwrap_or(word))
        }
    }
}
