//! Sessions and runs, as briefly as an agent needs them.

use outlive_core::id::{RunId, SessionId};
use outlive_core::session::spec::Trust;
use outlive_core::session::{CancelWhy, RunOutcome};
use outlive_protocol::http::{
    Question, ReportSummary, RunCounts, RunState, RunView, SavedState, SessionState, SessionView,
};
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
    /// Where its notebook's edits and outputs are.
    pub saved: Option<SavedState>,
    /// Whether somebody has vouched for the notebook.
    pub trust: Trust,
    /// Whether it works, and how it went if it has ended.
    pub state: SessionState,
    /// Its kernel or command.
    pub runtime: Runtime,
    /// How many runs are in which state.
    pub runs: RunCounts,
    /// A question of a program that waits for an answer.
    pub question: Option<Question>,
    /// The last failure; `explain` tells more.
    pub last_failure: Option<ReportSummary>,
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
        Self {
            session: view.id,
            title: view.title,
            kind: view.kind,
            path: view.path,
            untitled: view.untitled,
            saved: view.saved,
            trust: view.trust,
            state: view.state,
            runtime: Runtime {
                name: view.runtime.name,
                state: state["state"].as_str().unwrap_or("unknown").to_owned(),
                pid: view.runtime.pid,
            },
            runs: view.runs,
            question: view.question,
            last_failure: view.last_report,
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
        let saved = match &self.saved {
            Some(SavedState::Saved { .. }) => Some("saved".to_owned()),
            Some(SavedState::Unsaved) => Some("not all is in the file yet".to_owned()),
            Some(SavedState::Failing { why }) => Some(format!("cannot be saved: {why}")),
            Some(SavedState::Conflict { why, .. }) => Some(format!("not saved: {why}")),
            Some(SavedState::Untitled | SavedState::Unknown) | None => None,
        };
        if let Some(saved) = saved {
            text.push_str(&format!("  {saved}\n"));
        }
        if let Some(question) = &self.question {
            text.push_str(&format!("  run {} asks its user: {}\n", question.run, question.prompt));
        }
        if let Some(failure) = &self.last_failure {
            text.push_str(&format!("  last failure: {}; `explain` tells more\n", failure.summary));
        }
        text
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
    /// What it runs, or its beginning, where runs are listed.
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
        RunOutcome::Raised { ename, evalue } => ("raised", Some(format!("{ename}: {evalue}"))),
        RunOutcome::Failed { summary, .. } => ("failed", Some(format!("{summary}; `explain` tells more"))),
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
