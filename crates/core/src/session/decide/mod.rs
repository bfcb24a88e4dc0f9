//! What a session does with each input. Nothing changes here: the facts do that, once they are stored.

mod path;
mod process;
mod wish;

pub(super) use process::ended_as;
pub use wish::effective;

use super::event::{EndingWhy, Happened};
use super::handover;
use super::input::{Decision, Denied, Effect, Input, Timer};
use super::process::Stops;
use super::state::{Life, RunState, Session, Status};
use crate::id::{Attempt, RunId};
use crate::runtime::{StopStep, StopWhy};
use crate::time::Now;

/// Answers one input. What follows from the new state alone is [`super::advance`]'s.
///
/// # Errors
/// [`Denied`] when the input cannot be had; then nothing changes.
pub fn decide(session: &Session, input: Input, now: Now) -> Result<Decision, Denied> {
    match input {
        Input::Queue(runs) => wish::queue(session, runs, now),
        Input::Interrupt => wish::interrupt(session, now),
        Input::Cancel(run) => wish::cancel(session, run, now),
        Input::Answer { run, value } => wish::answer(session, run, value, now),
        Input::Restart(runs) => wish::restart(session, runs, now),
        Input::Stop { why, from } => Ok(wish::stop(session, why, from, now)),
        Input::Rest { why, from } => wish::rest(session, why, from, now),
        Input::ClaimPath { path, sha256 } => path::claim(session, path, sha256, now),
        Input::ReleasePath { path } => Ok(path::release(session, path, now)),
        Input::TakePath { path, why } => path::take(session, path, why, now),
        Input::TakenOver(takeover) => Ok(handover::taken_over(session, *takeover, now)),
        Input::HandOver { grace_ms } => Ok(hand_over(session, grace_ms, now)),
        Input::Trust(trust) => path::trust(session, trust, now),
        Input::Process(process, what) => Ok(process::decide(session, process, what, now)),
        Input::Timer(timer) => Ok(timed_out(session, timer, now)),
        Input::Saved { problem } => Ok(match session.life {
            Life::Saving(_) => Decision::none()
                .happened(now.wall, Happened::Closed { save_problem: problem })
                .effect(Effect::Finish),
            Life::Open | Life::Closing(_) | Life::Closed { .. } => Decision::none(),
        }),
    }
}

/// A timer that ran out after its reason had gone does nothing.
fn timed_out(session: &Session, timer: Timer, now: Now) -> Decision {
    match timer {
        Timer::RunLimit(run, attempt) => match ending_of(session, run, attempt) {
            Some(None) => end_run(session, run, EndingWhy::TimedOut, now),
            Some(Some(_)) | None => Decision::none(),
        },
        Timer::EndingGrace(run, attempt) => match ending_of(session, run, attempt) {
            Some(Some(why)) => stop_process(session, stop_for(why), StopStep::Term, now),
            Some(None) | None => Decision::none(),
        },
        // What follows is `advance`'s.
        Timer::HandOver => Decision::none(),
        Timer::Backoff(incarnation) => match session.runtime.status {
            Status::Backoff { .. } if incarnation == session.runtime.incarnation => {
                Decision::none().happened(now.wall, Happened::RestartDue)
            }
            Status::Backoff { .. }
            | Status::Down
            | Status::Launching
            | Status::Ready(_)
            | Status::Stopping { .. }
            | Status::Draining { .. }
            | Status::Exited(_)
            | Status::GaveUp { .. } => Decision::none(),
        },
    }
}

/// A session that is ending ends here. Asked again, it may take as long as was said first.
fn hand_over(session: &Session, grace_ms: u64, now: Now) -> Decision {
    if session.life != Life::Open || session.hand_over.is_some() {
        return Decision::none();
    }
    Decision::none().happened(now.wall, Happened::HandOverAsked { grace_ms })
}

/// Whether this attempt is running in a process that is up, and if so, whether it is being ended.
fn ending_of(session: &Session, run: RunId, attempt: Attempt) -> Option<Option<EndingWhy>> {
    if !session.is_up() {
        return None;
    }
    let run = session.runs.get(&run).filter(|run| run.attempt == attempt)?;
    match &run.state {
        RunState::Running { ending, .. } => Some(ending.map(|(why, _)| why)),
        RunState::Queued | RunState::Ended(_) => None,
    }
}

/// What the process of a run that is being ended is stopped for.
pub(super) const fn stop_for(why: EndingWhy) -> StopWhy {
    match why {
        EndingWhy::TimedOut => StopWhy::Timeout,
        EndingWhy::Cancelled | EndingWhy::NobodyToAsk => StopWhy::User,
    }
}

/// Ends a running run: a kernel is interrupted and lives on, a command is stopped (by `advance`).
fn end_run(session: &Session, run: RunId, why: EndingWhy, now: Now) -> Decision {
    let decision = Decision::none().happened(now.wall, Happened::RunEnding { run, why });
    if session.is_command() {
        return decision;
    }
    decision.effect(Effect::Interrupt(session.process()))
}

/// Stops the process if there is one to stop; a softer rung than the present one changes nothing.
pub(super) fn stop_process(session: &Session, why: StopWhy, from: StopStep, now: Now) -> Decision {
    let process = session.process();
    match session.runtime.stops(from) {
        Stops::Begins => Decision::none()
            .happened(now.wall, Happened::RuntimeStopping { process, why, step: from })
            .effect(Effect::Stop { process, why, from }),
        Stops::Harder => Decision::none().effect(Effect::Stop { process, why, from }),
        Stops::Not => Decision::none(),
    }
}
