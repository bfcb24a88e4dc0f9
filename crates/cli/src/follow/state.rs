//! States in words.

use outlive_core::diagnosis::CauseCode;
use outlive_core::runtime::{StopStep, StopWhy};
use outlive_protocol::http::{RuntimeState, SessionState, SessionView};

use crate::terminal;

/// A session's state in one word.
pub const fn session(state: SessionState) -> &'static str {
    match state {
        SessionState::Working => "working",
        SessionState::Idle => "idle",
        SessionState::Succeeded => "succeeded",
        SessionState::Failed => "failed",
        SessionState::Stopped => "stopped",
        SessionState::Unknown => "unknown",
    }
}

/// A runtime's state in a few words.
pub fn runtime(state: &RuntimeState) -> String {
    match state {
        RuntimeState::Down => "down".to_owned(),
        RuntimeState::Launching => "launching".to_owned(),
        RuntimeState::Idle => "idle".to_owned(),
        RuntimeState::Busy => "busy".to_owned(),
        RuntimeState::Unresponsive { .. } => "unresponsive".to_owned(),
        RuntimeState::Stopping { .. } => "stopping".to_owned(),
        RuntimeState::Exited { status, cause } => match cause {
            Some(CauseCode::KilledByOperator) => "stopped".to_owned(),
            Some(cause) if !matches!(cause, CauseCode::ExitCode | CauseCode::Signal) => cause.to_string(),
            Some(_) | None => status.to_string(),
        },
        RuntimeState::Backoff { .. } => "restarting".to_owned(),
        RuntimeState::GaveUp { .. } => "gave up".to_owned(),
        RuntimeState::Unknown => "unknown".to_owned(),
    }
}

/// Of an open session whose runtime has ended: how, and what starts it again.
pub fn ended(session: &SessionView) -> Option<String> {
    let state = &session.runtime.state;
    let is_over = matches!(state, RuntimeState::Exited { .. } | RuntimeState::GaveUp { .. });
    (is_over && session.closed_at.is_none()).then(|| {
        let (name, id) = (terminal::one_line(&session.runtime.name), crate::select::short(session.id));
        format!("{name} has ended ({}): `outlive restart {id}` starts it again", runtime(state))
    })
}

/// What somebody who waits wants to know about the runtime; empty when all is well.
pub fn trouble(session: &SessionView) -> String {
    match &session.runtime.state {
        RuntimeState::Unresponsive { detail } => {
            format!("{} does not answer ({})", session.runtime.name, terminal::one_line(detail))
        }
        RuntimeState::Backoff { after_ms } => {
            format!("{} is started again in {}", session.runtime.name, terminal::span(after_ms * 1_000))
        }
        RuntimeState::GaveUp { reason } => {
            format!("{} is not started again: {}", session.runtime.name, terminal::one_line(reason))
        }
        RuntimeState::Stopping { why: StopWhy::User, step } => {
            let how = match step {
                StopStep::Ask => "asked to end",
                StopStep::Term => "told to end (SIGTERM)",
                StopStep::Kill => "being killed",
            };
            format!("{} is {how}", session.runtime.name)
        }
        RuntimeState::Down
        | RuntimeState::Launching
        | RuntimeState::Idle
        | RuntimeState::Busy
        | RuntimeState::Stopping { .. }
        | RuntimeState::Exited { .. }
        | RuntimeState::Unknown => String::new(),
    }
}
