//! A group as it goes on: what its runners print, what becomes of them and of their tasks. The output of a task is
//! shown by itself (`outlive task attach`): several run at a time.

use outlive_protocol::http::{RunState, RunView, StreamEvent};

use super::members::Said;
use super::notebook;
use super::screen::{Raw, Screen};
use super::watch::Watch;
use crate::failure::Failure;
use crate::report;
use crate::select::short_run;
use crate::terminal::{self, Paint};

/// The screen of a group.
pub struct Group {
    said: Said,
    paint: Paint,
}

impl Group {
    /// On standard output and standard error.
    pub fn new() -> Self {
        Self { said: Said::default(), paint: Paint::err() }
    }
}

impl Screen for Group {
    fn show(&mut self, event: &StreamEvent, watch: &Watch) -> Result<(), Failure> {
        match event {
            StreamEvent::Session { session } => {
                if let Some(group) = &session.group {
                    self.said.changes(group, None, self.paint).into_iter().for_each(terminal::talk);
                }
                Ok(())
            }
            StreamEvent::Run { run } => {
                if let Some(line) = line(run, self.paint) {
                    terminal::talk(line);
                }
                Ok(())
            }
            StreamEvent::Output { run: None, .. } => Raw::streams().show(event, watch),
            StreamEvent::Report { report } if report::is_news(report) => {
                terminal::error_bytes(format!("\n{}\n", report::text(report, self.paint)).as_bytes());
                Ok(())
            }
            StreamEvent::Output { .. }
            | StreamEvent::Report { .. }
            | StreamEvent::Reset { .. }
            | StreamEvent::Gap { .. }
            | StreamEvent::End { .. }
            | StreamEvent::Problem { .. }
            | StreamEvent::PathChanged { .. }
            | StreamEvent::Stalled { .. }
            | StreamEvent::Unknown => Ok(()),
        }
    }
}

/// `task 1a2b3c4d chat ok 0.4 s`, when it begins and when it has ended.
fn line(run: &RunView, paint: Paint) -> Option<String> {
    let id = short_run(run.id);
    let (task, member) = match &run.task {
        Some(view) => (view.task.as_str(), view.member.as_deref()),
        None => (run.source.as_str(), None),
    };
    let task = terminal::one_line(task);
    match &run.state {
        RunState::Running => {
            let member = member.map(|member| format!(" runs on {}", terminal::one_line(member)));
            Some(format!("task {id} {task}{}", member.unwrap_or_else(|| " runs".to_owned())))
        }
        RunState::Ended { outcome } => {
            let (ink, word) = notebook::in_words(run, outcome);
            let took = match (run.started_at, run.ended_at) {
                (Some(start), Some(end)) => format!(" {}", terminal::span(end.0.saturating_sub(start.0))),
                (_, _) => String::new(),
            };
            Some(format!("task {id} {task} {}{took}", paint.text(ink, word)))
        }
        RunState::Queued | RunState::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn run(state: Value) -> RunView {
        serde_json::from_value(json!({
            "id": "1a2b3c4d-0000-4000-8000-000000000000", "session": uuid::Uuid::nil(), "index": 0, "cell": null,
            "source": "chat", "state": state, "attempt": 1, "head": 1, "execution_count": null, "queued_at": 0,
            "started_at": 1_000_000, "ended_at": 1_400_000,
            "task": {"task": "chat", "key": "k", "idempotent": false, "member": "llm-0"},
        }))
        .expect("a run")
    }

    #[test]
    fn tasks_begin_and_end_on_a_line_each() {
        let said = |state| line(&run(state), Paint::OFF);
        assert_eq!(said(json!({"state": "running"})).as_deref(), Some("task 1a2b3c4d chat runs on llm-0"));
        let ended = json!({"state": "ended", "outcome": outlive_core::session::RunOutcome::Succeeded});
        assert_eq!(said(ended).as_deref(), Some("task 1a2b3c4d chat ok 0.4 s"));
        assert_eq!(said(json!({"state": "queued"})), None);
    }
}
