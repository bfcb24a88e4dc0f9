//! Sessions and runs, as briefly as an agent needs them.

use outlive_core::id::{RunId, SessionId};
use outlive_core::session::spec::Trust;
use outlive_core::session::{CancelWhy, RunOutcome};
use outlive_protocol::http::{Question, RunCounts, RunState, RunView, SavedState, SessionState, SessionView};
use schemars::JsonSchema;
use serde::Serialize;

use crate::outputs::Item;

/// A session.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Session {
    /// Its id, which never changes.
    pub session: SessionId,
    /// What people call it.
    pub title: String,
    /// `notebook`, `command` or `kernel`.
    pub kind: String,
    /// Its notebook's file.
    pub path: Option<String>,
    /// Whether its notebook has no file yet.
    pub untitled: bool,
    /// Whether all of its notebook is in the file: `saved`, `unsaved` (it soon will be), `untitled`, `failing` or
    /// `conflict`.
    pub saved: Option<&'static str>,
    /// Why it cannot be saved now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub save_problem: Option<String>,
    /// Whether somebody has vouched for the notebook.
    pub trust: Trust,
    /// Whether it works, and how it went if it has ended.
    pub state: SessionState,
    /// Its kernel or command.
    pub runtime: Runtime,
    /// How many runs are in which state.
    pub runs: RunCounts,
    /// A question of a program that waits for an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub question: Option<Question>,
    /// The last failure in one sentence; `explain` tells more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
}

/// A kernel or a command.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Runtime {
    /// What it is.
    pub name: String,
    /// `down`, `launching`, `idle`, `busy`, `unresponsive`, `stopping`, `exited`, `backoff` or `gave_up`.
    pub state: String,
    /// The pid of its process.
    pub pid: Option<i32>,
}

impl From<SessionView> for Session {
    fn from(view: SessionView) -> Self {
        let state = serde_json::to_value(&view.runtime.state).expect("a state has string keys");
        let (saved, save_problem) = view.saved.map_or((None, None), saved);
        Self {
            session: view.id,
            title: view.title,
            kind: view.kind,
            path: view.path,
            untitled: view.untitled,
            saved,
            save_problem,
            trust: view.trust,
            state: view.state,
            runtime: Runtime {
                name: view.runtime.name,
                state: state["state"].as_str().unwrap_or("unknown").to_owned(),
                pid: view.runtime.pid,
            },
            runs: view.runs,
            question: view.question,
            last_failure: view.last_report.map(|report| report.summary),
        }
    }
}

impl Session {
    /// For readers.
    pub fn text(&self) -> String {
        let what = match &self.path {
            Some(path) => path.clone(),
            None if self.untitled => "untitled, `save` gives it a path".to_owned(),
            None => self.title.clone(),
        };
        let RunCounts { queued, running, succeeded, failed, cancelled } = self.runs;
        let mut text = format!(
            "session {}: {what}\n  {} is {}; runs: {running} running, {queued} queued, {succeeded} succeeded, {failed} \
             failed, {cancelled} cancelled\n",
            self.session, self.runtime.name, self.runtime.state,
        );
        if let Some(why) = &self.save_problem {
            text.push_str(&format!("  not saved: {why}\n"));
        }
        if let Some(question) = &self.question {
            text.push_str(&format!("  run {} asks its user: {}\n", question.run, question.prompt));
        }
        if let Some(failure) = &self.last_failure {
            text.push_str(&format!("  last failure: {failure}; `explain` tells more\n"));
        }
        text
    }
}

fn saved(state: SavedState) -> (Option<&'static str>, Option<String>) {
    match state {
        SavedState::Saved { .. } => (Some("saved"), None),
        SavedState::Unsaved => (Some("unsaved"), None),
        SavedState::Untitled => (Some("untitled"), None),
        SavedState::Failing { why } => (Some("failing"), Some(why)),
        SavedState::Conflict { why, .. } => (Some("conflict"), Some(why)),
        SavedState::Unknown => (None, None),
    }
}

/// A run.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Run {
    /// Its id, under which its outputs can be asked for at any time.
    pub run: RunId,
    /// The id of the cell that it runs.
    pub cell: Option<String>,
    /// `queued`, `running`, `succeeded`, `raised`, `failed`, `timed_out` or `cancelled`.
    pub state: &'static str,
    /// What ended it, when it did not succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The kernel's count.
    pub execution_count: Option<u32>,
    /// What it runs, at most the first 200 bytes: of a cell its source when it was queued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What it has printed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Vec<Item>>,
    /// What `outputs` takes as `after` to tell only what comes next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl From<&RunView> for Run {
    fn from(view: &RunView) -> Self {
        let (state, why) = match &view.state {
            RunState::Queued => ("queued", None),
            RunState::Running => ("running", None),
            RunState::Ended { outcome } => ended(outcome),
            RunState::Unknown => ("unknown", None),
        };
        Self {
            run: view.id,
            cell: view.cell_id.clone(),
            state,
            why,
            execution_count: view.execution_count,
            source: None,
            outputs: None,
            cursor: None,
        }
    }
}

fn ended(outcome: &RunOutcome) -> (&'static str, Option<String>) {
    match outcome {
        RunOutcome::Succeeded => ("succeeded", None),
        RunOutcome::Raised { ename, evalue } if evalue.is_empty() => ("raised", Some(ename.clone())),
        RunOutcome::Raised { ename, evalue } => ("raised", Some(format!("{ename}: {evalue}"))),
        RunOutcome::Failed { summary, .. } => ("failed", Some(format!("{summary}; `explain` tells more"))),
        RunOutcome::Unserved { reason } => ("not_run", Some(reason.clone())),
        RunOutcome::TimedOut { limit_ms } => {
            ("timed_out", Some(format!("it took longer than {limit_ms} ms")))
        }
        RunOutcome::Cancelled { why } => ("cancelled", Some(cancelled(*why))),
    }
}

fn cancelled(why: CancelWhy) -> String {
    let name = serde_json::to_value(why).expect("a name");
    name.as_str().unwrap_or("cancelled").replace('_', " ")
}

impl Run {
    /// For readers: one line.
    pub fn line(&self) -> String {
        let cell = self.cell.as_ref().map_or_else(String::new, |cell| format!(" of cell {cell}"));
        let why = self.why.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
        format!("run {}{cell}: {}{why}", self.run, self.state)
    }
}
