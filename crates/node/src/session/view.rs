//! A session's state as clients see it.

use outlive_core::diagnosis::FailureReport;
use outlive_core::diagnosis::evidence::HangEvidence;
use outlive_core::id::{Epoch, Generation, Position, RunId};
use outlive_core::limits::{QUEUE_VIEW_RUNS_MAX, RUN_SOURCE_VIEW_BYTES_MAX};
use outlive_core::log::fold::Fold;
use outlive_core::runtime::Program;
use outlive_core::session::Session;
use outlive_core::session::advance::{Verdict, verdict};
use outlive_core::session::event::OnRaise;
use outlive_core::session::spec::Workload;
use outlive_core::session::state::{Health, Life, Run, RunState as CoreRunState, Status};
use outlive_protocol::http::{
    Question, ReportSummary, RunCounts, RunState, RunView, RuntimeState, RuntimeView, SessionState,
    SessionView,
};

use super::notebook::NotebookFile;

/// Says of a session with a notebook how it stands with the file.
pub fn in_file(view: &mut SessionView, file: &NotebookFile) {
    view.saved = Some(file.state());
    if view.save_problem.is_none() {
        view.save_problem = file.problem().map(str::to_owned);
    }
}

/// The whole session.
#[must_use]
pub fn session(session: &Session, position: Position, peers: u32) -> SessionView {
    let (closed_at, save_problem) = match &session.life {
        Life::Closed { at, save_problem, .. } => (Some(*at), save_problem.clone()),
        Life::Open | Life::Closing(_) | Life::Saving(_) => (None, None),
    };
    let (kind, path) = match &session.spec.workload {
        Workload::Notebook { .. } => ("notebook", session.path.clone()),
        Workload::Command { .. } => ("command", None),
        Workload::Kernel => ("kernel", None),
    };
    SessionView {
        id: session.spec.id,
        generation: session.generation,
        position,
        title: title(session),
        kind: kind.to_owned(),
        untitled: session.is_notebook() && session.path.is_none(),
        saved: None,
        base: base(session, path.as_deref()),
        path,
        trust: session.trust,
        queue: session.queue.iter().take(QUEUE_VIEW_RUNS_MAX).copied().collect(),
        loaded: true,
        created_at: session.spec.created_at,
        closed_at,
        state: state(session),
        runtime: runtime(session),
        runs: RunCounts {
            queued: u32::try_from(session.queue.len()).unwrap_or(u32::MAX),
            running: u32::from(session.running.is_some()),
            succeeded: session.ended.succeeded,
            failed: session.ended.failed,
            cancelled: session.ended.cancelled,
        },
        current: session.running,
        question: session.question.as_ref().map(|question| Question {
            run: question.run,
            prompt: question.prompt.clone(),
            password: question.password,
        }),
        last_report: session.reports.last().map(summary),
        save_problem,
        peers,
        rests_at: None,
        group: None,
        node: None,
    }
}

/// Orders a view behind the one that was shown before: its generation is higher when anything but the position has
/// changed, also where that is not in the log. A session's later owners begin above all that earlier ones have shown.
#[must_use]
pub fn behind(before: Option<&SessionView>, view: SessionView, epoch: Epoch) -> SessionView {
    let own = Generation(epoch.0 << 32 | view.generation.0);
    let generation = before.map_or(own, |before| {
        let same = SessionView { generation: before.generation, position: before.position, ..view.clone() }
            == *before;
        if same { before.generation } else { own.max(Generation(before.generation.0 + 1)) }
    });
    SessionView { generation, ..view }
}

/// Where a notebook's relative assets are.
fn base(session: &Session, path: Option<&str>) -> Option<String> {
    if !session.is_notebook() {
        return None;
    }
    let beside = path.and_then(|path| Some(path.rsplit_once('/')?.0)).map(|folder| match folder {
        "" => "/".to_owned(),
        folder => folder.to_owned(),
    });
    Some(beside.unwrap_or_else(|| session.spec.launch.cwd.clone()))
}

fn title(session: &Session) -> String {
    match (&session.spec.workload, &session.spec.launch.program) {
        (Workload::Notebook { .. }, _) => match &session.path {
            Some(path) => path.rsplit('/').next().unwrap_or(path).to_owned(),
            None => "untitled".to_owned(),
        },
        (_, Program::OfNotebook { kernel, .. }) => kernel.clone().unwrap_or_else(|| "kernel".to_owned()),
        (_, Program::Kernel { display_name, .. }) => display_name.clone(),
        (_, Program::Command { argv }) => argv.join(" "),
        (_, Program::Runner { name, .. }) => name.clone(),
    }
}

fn state(session: &Session) -> SessionState {
    let ended = matches!(session.life, Life::Closed { .. });
    match verdict(session) {
        Verdict::Succeeded if ended => SessionState::Succeeded,
        Verdict::Failed if ended => SessionState::Failed,
        Verdict::Stopped if ended => SessionState::Stopped,
        Verdict::Open if session.is_settled() => SessionState::Idle,
        Verdict::Open | Verdict::Succeeded | Verdict::Failed | Verdict::Stopped => SessionState::Working,
    }
}

fn runtime(session: &Session) -> RuntimeView {
    let name = match &session.spec.launch.program {
        Program::Kernel { display_name, .. } => display_name.clone(),
        Program::OfNotebook { kernel, .. } => kernel.clone().unwrap_or_else(|| "kernel".to_owned()),
        Program::Command { argv } => argv.first().cloned().unwrap_or_default(),
        Program::Runner { name, .. } => name.clone(),
    };
    let work = if session.running.is_some() { Work::Some } else { Work::None };
    let state = runtime_state(&session.runtime.status, work, session.present_report());
    RuntimeView {
        id: session.spec.runtime,
        incarnation: session.runtime.incarnation,
        name,
        state,
        pid: session.runtime.pid,
        since: session.runtime.since,
    }
}

/// Whether a runtime has something to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// It has.
    Some,
    /// It has not.
    None,
}

/// What a runtime is doing; `failure` is that of its present process.
#[must_use]
pub fn runtime_state(status: &Status, work: Work, failure: Option<&FailureReport>) -> RuntimeState {
    match status {
        Status::Down => RuntimeState::Down,
        Status::Launching => RuntimeState::Launching,
        Status::Ready(Health::Responsive) => match work {
            Work::Some => RuntimeState::Busy,
            Work::None => RuntimeState::Idle,
        },
        Status::Ready(Health::Unresponsive(hang)) => RuntimeState::Unresponsive { detail: describe(hang) },
        Status::Stopping { why, step } => RuntimeState::Stopping { why: *why, step: *step },
        Status::Draining { status, .. } | Status::Exited(status) => {
            RuntimeState::Exited { status: *status, cause: failure.map(|report| report.cause().code) }
        }
        Status::Backoff { after_ms } => RuntimeState::Backoff { after_ms: *after_ms },
        Status::GaveUp { reason } => RuntimeState::GaveUp { reason: reason.clone() },
    }
}

/// A failure in a line.
#[must_use]
pub fn summary(report: &FailureReport) -> ReportSummary {
    ReportSummary {
        id: report.id,
        code: report.cause().code,
        summary: report.cause().summary.clone(),
        at: report.at,
    }
}

/// One run.
#[must_use]
pub fn run(session: &Session, fold: &Fold, id: RunId) -> Option<RunView> {
    let run = session.runs.get(&id)?;
    Some(of_run(session, fold, id, run))
}

/// All runs, in the order in which they were queued.
#[must_use]
pub fn runs(session: &Session, fold: &Fold) -> Vec<RunView> {
    session.order.iter().filter_map(|id| self::run(session, fold, *id)).collect()
}

fn of_run(session: &Session, fold: &Fold, id: RunId, run: &Run) -> RunView {
    let mut source = run.new.source.clone();
    if source.len() > RUN_SOURCE_VIEW_BYTES_MAX {
        let cut = (0..=RUN_SOURCE_VIEW_BYTES_MAX).rev().find(|at| source.is_char_boundary(*at)).unwrap_or(0);
        source.truncate(cut);
        source.push('…');
    }
    RunView {
        id,
        session: session.spec.id,
        index: run.index,
        cell: run.new.cell,
        cell_id: run.new.cell_id.clone(),
        source,
        may_raise: run.new.on_raise == OnRaise::GoOn,
        state: match &run.state {
            CoreRunState::Queued => RunState::Queued,
            CoreRunState::Running { .. } => RunState::Running,
            CoreRunState::Ended(outcome) => RunState::Ended { outcome: outcome.clone() },
        },
        attempt: run.attempt,
        head: fold.run(id).map(outlive_core::log::fold::RunFold::head).unwrap_or_default(),
        execution_count: run.execution_count,
        queued_at: run.queued_at,
        started_at: run.started_at,
        ended_at: run.ended_at,
        task: None,
    }
}

/// What a silent process looks like: stopped, spinning or asleep.
fn describe(hang: &HangEvidence) -> String {
    let doing = match hang.state {
        Some('T' | 't') => "stopped by a signal",
        Some('D') => "waiting in a system call",
        Some('R') => "running",
        Some('Z') => "ended",
        Some(_) => "asleep",
        None => "not to be looked at",
    };
    let used = hang.cpu_ms.map(|ms| format!(", {ms} ms of processor time since")).unwrap_or_default();
    format!("no answer for {:.1} s: {doing}{used}", hang.silent_ms as f64 / 1_000.0)
}

#[cfg(test)]
mod tests {
    use outlive_core::id::SessionId;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn view(generation: u64, position: u64, title: &str) -> SessionView {
        let id = SessionId::from_uuid(Uuid::nil());
        let runtime = json!({ "id": id, "incarnation": 1, "name": "k", "state": { "state": "down" }, "pid": null, "since": 0 });
        serde_json::from_value(json!({
            "id": id, "generation": generation, "position": position, "title": title, "kind": "notebook",
            "path": null, "created_at": 1, "closed_at": null, "state": "idle", "runtime": runtime,
            "runs": { "queued": 0, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0 }, "current": null,
            "question": null, "last_report": null, "save_problem": null, "peers": 0,
        }))
        .expect("a view")
    }

    #[test]
    fn whatever_changes_has_a_higher_generation_under_every_owner() {
        let first = behind(None, view(7, 10, "a"), Epoch(1));
        let later = behind(Some(&first), view(7, 11, "a"), Epoch(1));
        assert_eq!(
            (later.generation, later.position),
            (first.generation, Position(11)),
            "nothing has changed"
        );
        let mut last = later;
        for title in ["b", "a", "b"] {
            let next = behind(Some(&last), view(7, 11, title), Epoch(1));
            assert!(next.generation > last.generation, "the log knows nothing of it");
            last = next;
        }
        let fact = behind(Some(&last), view(8, 12, "c"), Epoch(1));
        assert!(fact.generation > last.generation);
        let under_the_next = behind(None, view(8, 13, "c"), Epoch(2));
        assert!(under_the_next.generation > fact.generation);
    }
}
