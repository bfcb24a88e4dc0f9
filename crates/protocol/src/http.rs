//! The native API `/v1`: its bodies, its stream events and its errors. The OpenAPI document is generated from these.
//!
//! | method and path | body → answer |
//! |---|---|
//! | `GET /v1/live`, `GET /v1/ready` | → [`NodeView`]; no token needed for `live` |
//! | `GET /v1/node` | → [`NodeView`] |
//! | `POST /v1/node/stop` | [`StopNode`] → 202 |
//! | `GET /v1/doctor` | → [`DoctorView`] |
//! | `GET /v1/openapi.json` | → the document |
//! | `POST /v1/sessions` | [`CreateSession`] → 201 [`SessionView`] |
//! | `POST /v1/sessions/new` | [`NewSession`] → 201 [`Opened`]: an untitled notebook |
//! | `POST /v1/sessions/open` | [`OpenSession`] → [`Opened`]: by path or by id |
//! | `POST /v1/sessions/{id}/save` | [`SaveSession`] → [`Opened`] |
//! | `POST /v1/sessions/{id}/close` | [`Close`] → 202 [`SessionView`] |
//! | `POST /v1/sessions/{id}/trust` | [`SetTrust`] → [`SessionView`] |
//! | `POST /v1/sessions/{id}/rest` | [`Stop`] → 202 [`SessionView`]: the kernel stops, the session stays |
//! | `GET /v1/sessions/{id}/notebook?outputs=bool` | → [`NotebookView`] |
//! | `POST /v1/sessions/{id}/notebook` | [`EditNotebook`] → [`Edited`] |
//! | `GET /v1/sessions/{id}/cells/{cell}/outputs` | → list of nbformat outputs |
//! | `GET /v1/sessions/{id}/document` | WebSocket: the y-sync and awareness protocols |
//! | `GET /metrics` | → Prometheus' text format |
//! | `GET /v1/sessions?all=true` | → list of [`SessionView`]; without `all`, only those that are open |
//! | `GET /v1/sessions/{id}` | → [`SessionView`] |
//! | `DELETE /v1/sessions/{id}` | forget an ended session and its log → 204 |
//! | `GET /v1/sessions/{id}/attach?after=POSITION&interactive=bool&follow=bool&outputs=bool` | → SSE of [`StreamEvent`], `id:` is a log position; the same as WebSocket messages when the request asks for an upgrade. `after=head` begins now |
//! | `POST /v1/sessions/{id}/interrupt` | → 202 [`SessionView`] |
//! | `POST /v1/sessions/{id}/restart` | [`Restart`] → 202 [`SessionView`] |
//! | `POST /v1/sessions/{id}/stop` | [`Stop`] → 202 [`SessionView`] |
//! | `GET /v1/sessions/{id}/runs` | → list of [`RunView`] |
//! | `POST /v1/sessions/{id}/runs` | [`SubmitRuns`] → 201 list of [`RunView`] |
//! | `GET /v1/sessions/{id}/runs/{run}` | → [`RunView`] |
//! | `DELETE /v1/sessions/{id}/runs/{run}` | cancel → 202 [`RunView`] |
//! | `POST /v1/sessions/{id}/runs/{run}/input` | [`Input`] → 202 [`RunView`] |
//! | `GET /v1/sessions/{id}/runs/{run}/attach?cursor=ATTEMPT.SEQ&follow=bool` | → SSE of [`StreamEvent`], `id:` is `attempt.seq`; `Last-Event-ID` works too |
//! | `GET /v1/runners` | → list of [`SessionView`]: the groups of runners that are up |
//! | `GET /v1/runners/{name}` | → [`SessionView`] with its `group` |
//! | `PUT /v1/runners/{name}` | [`GroupConfig`] → 201 [`SessionView`]; one that is up with the same configuration is left alone → 200, with another → 409 |
//! | `DELETE /v1/runners/{name}` | [`Stop`] → 202 [`SessionView`]: all members are stopped, the group ends |
//! | `POST /v1/runners/{name}/start`, `/stop`, `/restart` | [`Members`] → 202 [`SessionView`] |
//! | `GET /v1/runners/{name}/tasks` | → list of [`RunView`] |
//! | `POST /v1/runners/{name}/tasks` | [`SubmitTask`] → 201 [`RunView`] |
//! | `GET /v1/runners/{name}/tasks/{run}` | → [`RunView`] |
//! | `DELETE /v1/runners/{name}/tasks/{run}` | cancel → 202 [`RunView`]; 200 when it has ended, with this or before |
//! | `GET /v1/runners/{name}/tasks/{run}/attach?cursor=ATTEMPT.SEQ&follow=bool&cancel=bool` | as a run's; `cancel=true` cancels the task when this client goes away first |
//! | `POST /v1/chat/completions`, `GET /v1/models` | OpenAI's bodies; the model is a group whose members declare `chat` |
//! | `GET /v1/sessions/{id}/reports` | → list of `FailureReport` |
//! | `GET /v1/sessions/{id}/blobs/{sha256}` | → bytes |
//!
//! Errors are [`Problem`]s (RFC 9457), `application/problem+json`.

mod chunk;
mod cluster;
mod doctor;
mod node;
mod notebook;
mod openai;
mod runner;
mod words;

use std::collections::BTreeMap;

use outlive_core::diagnosis::{CauseCode, FailureReport};
use outlive_core::id::{
    Attempt, Generation, Incarnation, Position, ReportId, RunId, RuntimeId, Seq, SessionId,
};
use outlive_core::runtime::{ExitStatus, LaunchSpec, RestartPolicy, StopStep, StopWhy};
use outlive_core::session::RunOutcome;
use outlive_core::session::event::PathWhy;
use outlive_core::session::spec::{HangPolicy, OnNodeLoss, Trust, Workload};
use outlive_core::time::WallTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use chunk::{ChunkView, base64, from_base64};
pub use cluster::{ClusterNode, ClusterView, Drain, Drained, NodeState, TakeoverView};
pub use doctor::{DoctorCheck, DoctorLevel, DoctorView};
pub use node::{API_VERSION, Elsewhere, NodeView, StopNode};
pub use notebook::{
    CellEdit, CellKindName, CellState, CellView, Close, EditNotebook, Edited, FileConflict, NewSession,
    NotebookView, OpenSession, Opened, SaveHow, SaveSession, SavedState, SetTrust, Where,
};
pub use openai::{
    ChatChoice, ChatChunk, ChatChunkChoice, ChatCompletion, ChatDiagnostics, ChatError, ChatMessage,
    ChatModel, ChatModels, ChatRefusal, ChatRequest, ChatStreamOptions, ChatWishes,
};
pub use runner::{GroupConfig, GroupView, MemberConfig, MemberView, Members, SubmitTask, TaskView};
pub use words::plainly;

/// An error as every client gets it (RFC 9457).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{title}: {detail}")]
pub struct Problem {
    /// `https://outlive.dev/problems/CODE`-like reference; here `about:outlive#CODE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Our code, kebab-case, stable: for instance `path-already-open`.
    pub code: String,
    /// What went wrong, in a few words; the same for each occurrence of the code.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What happened here, to what.
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// More facts by name, for instance the holder of a path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
    /// The node that can do it, where this one cannot: code `elsewhere`. A daemon asks it itself; clients see this only
    /// when it cannot be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<Box<Elsewhere>>,
}

impl Problem {
    /// A problem with a code, an HTTP status, a title and what happened.
    #[must_use]
    pub fn new(status: u16, code: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("about:outlive#{code}"),
            code: code.to_owned(),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            hint: None,
            facts: BTreeMap::new(),
            elsewhere: None,
        }
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What it means for somebody who wanted to do something, in one sentence, the same on every surface: `cannot save:
    /// PATH is open in session ID; close it or choose another path`.
    #[must_use]
    pub fn sentence(&self, doing: &str) -> String {
        if let Some((path, session)) = self.collision() {
            return format!(
                "cannot {doing}: {path} is open in session {session}; close it or choose another path"
            );
        }
        let what = if self.detail.is_empty() { &self.title } else { &self.detail };
        format!("cannot {doing}: {what}")
    }

    /// The path that somebody else has, and the session that has it; `None` for every other problem.
    #[must_use]
    pub fn collision(&self) -> Option<(&str, &str)> {
        let fact = |name: &str| self.facts.get(name).map(String::as_str);
        (self.code == "path-already-open").then(|| Some((fact("path")?, fact("session")?))).flatten()
    }

    /// Adds a fact by name.
    #[must_use]
    pub fn fact(mut self, name: &str, value: impl Into<String>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }
}

/// A new session.
#[expect(clippy::struct_excessive_bools, reason = "two independent wishes of one request")]
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CreateSession {
    /// The caller's id for it; asking again with the same id gives the same session.
    #[serde(default)]
    pub id: Option<SessionId>,
    /// What it is for.
    pub workload: Workload,
    /// How its runtime is started.
    pub launch: LaunchSpec,
    /// When its runtime is started again.
    pub restart: RestartPolicy,
    /// What is done with a runtime that hangs.
    #[serde(default)]
    pub on_hang: HangPolicy,
    /// What goes on by itself on another node.
    #[serde(default)]
    pub on_node_loss: OnNodeLoss,
    /// Keep session and runtime after the work is done (else the runtime is stopped and the session closed).
    #[serde(default)]
    pub keep: bool,
    /// Parameters for a notebook's `parameters` cell, by name.
    #[serde(default)]
    pub parameters: BTreeMap<String, serde_json::Value>,
    /// Queue all code cells (a notebook), in order, stopping at the first failure unless errors are allowed.
    #[serde(default)]
    pub run_all: bool,
}

/// Work for a session.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum SubmitRuns {
    /// Code without a cell.
    Code {
        /// The source.
        code: String,
    },
    /// All code cells.
    All {
        /// A state vector (base64): first wait until the notebook holds all edits that it names, or refuse. It names
        /// no deletions; `snapshot:` and a Yjs snapshot v1 (base64) names them too.
        #[serde(default)]
        required: Option<String>,
    },
    /// Some cells by index (0 is the first cell of any type).
    Cells {
        /// Their indexes.
        cells: Vec<usize>,
    },
    /// Some cells by id. One that waits in the queue already is not queued twice: its run is answered.
    CellIds {
        /// Their ids.
        cells: Vec<String>,
        /// A state vector (base64): first wait until the notebook holds all edits that it names, or refuse. It names
        /// no deletions; `snapshot:` and a Yjs snapshot v1 (base64) names them too.
        #[serde(default)]
        required: Option<String>,
        /// Sources by cell, as the asker has seen them: first wait until these cells read so, or refuse.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        expected: BTreeMap<String, String>,
    },
}

/// How to restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Restart {
    /// Queue all code cells of a notebook afterwards.
    pub run_all: bool,
}

/// How to stop a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Stop {
    /// SIGKILL at once instead of asking first.
    pub force: bool,
}

/// An answer to a run's question.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Input {
    /// What to say.
    pub value: String,
}

/// A session as clients see it.
#[expect(clippy::struct_excessive_bools, reason = "two independent facts of one view")]
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SessionView {
    /// Its id; never changes.
    pub id: SessionId,
    /// Rises with every change of this view.
    pub generation: Generation,
    /// The log position that this view contains.
    pub position: Position,
    /// What people call it: the notebook's file name or the command line.
    pub title: String,
    /// `notebook`, `command`, `kernel` or `runners`.
    pub kind: String,
    /// The notebook that is written, absolute; `None` while it is untitled, and for sessions without a notebook.
    pub path: Option<String>,
    /// Whether it is a notebook that has not been given a path yet. The form of an id says nothing about that.
    #[serde(default)]
    pub untitled: bool,
    /// Where a notebook's edits and outputs are; `None` for sessions without a notebook.
    #[serde(default)]
    pub saved: Option<SavedState>,
    /// The directory that a notebook's relative assets are looked up in: its file's, or while it is untitled the one
    /// that it was made in.
    #[serde(default)]
    pub base: Option<String>,
    /// Whether somebody has vouched for the notebook.
    #[serde(default)]
    pub trust: Trust,
    /// The runs that wait, first to be run first; at most 100 of them.
    #[serde(default)]
    pub queue: Vec<RunId>,
    /// Whether it is in the daemon's memory; one that is not comes back when it is opened.
    #[serde(default = "loaded")]
    pub loaded: bool,
    /// When it was created.
    pub created_at: WallTime,
    /// When it was closed.
    pub closed_at: Option<WallTime>,
    /// Open or closed, and how its work went.
    pub state: SessionState,
    /// Its runtime.
    pub runtime: RuntimeView,
    /// How many runs are in which state.
    pub runs: RunCounts,
    /// The run that is running.
    pub current: Option<RunId>,
    /// A question that waits for an answer.
    pub question: Option<Question>,
    /// The last failure.
    pub last_report: Option<ReportSummary>,
    /// A notebook that cannot be saved, and why.
    pub save_problem: Option<String>,
    /// How many clients are attached.
    pub peers: u32,
    /// When its idle kernel is stopped because a budget of the daemon is exceeded, unless it is given work before.
    #[serde(default)]
    pub rests_at: Option<WallTime>,
    /// Its members, of a group of runners. `runtime` is then the one that is worst off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupView>,
    /// Of several nodes the name of the one that has it open; none has one that is dormant or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

const fn loaded() -> bool {
    true
}

/// Where a session stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// Work is queued or running.
    Working,
    /// Open, nothing to do.
    Idle,
    /// Closed: everything succeeded.
    Succeeded,
    /// Closed: something failed.
    Failed,
    /// Closed: stopped before its end.
    Stopped,
    /// A state that this client does not know.
    #[serde(other)]
    Unknown,
}

/// A runtime as clients see it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RuntimeView {
    /// Its id, the same across restarts.
    pub id: RuntimeId,
    /// How many processes it has had.
    pub incarnation: Incarnation,
    /// What it is, for instance `Python 3 (ipykernel)` or the command's name.
    pub name: String,
    /// Its state.
    pub state: RuntimeState,
    /// The pid of its process, while it has one.
    pub pid: Option<i32>,
    /// When it entered this state.
    pub since: WallTime,
}

/// The state of a runtime.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum RuntimeState {
    /// Not started yet.
    Down,
    /// Started, not ready.
    Launching,
    /// Ready and without work.
    Idle,
    /// Ready and at work.
    Busy,
    /// It does not answer.
    Unresponsive {
        /// How it looks meanwhile, for instance `stopped (SIGSTOP)` or `running, 97 % of a core`.
        detail: String,
    },
    /// On its way out.
    Stopping {
        /// Who wanted it.
        why: StopWhy,
        /// The rung of the ladder.
        step: StopStep,
    },
    /// It has ended.
    Exited {
        /// How.
        status: ExitStatus,
        /// The cause, unless it ended as it should.
        cause: Option<CauseCode>,
    },
    /// It is started again soon.
    Backoff {
        /// After which wait, in milliseconds.
        after_ms: u64,
    },
    /// It died too often.
    GaveUp {
        /// The reason.
        reason: String,
    },
    /// A state that this client does not know.
    #[serde(other)]
    Unknown,
}

/// How many runs are in which state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct RunCounts {
    /// Waiting.
    pub queued: u32,
    /// Running.
    pub running: u32,
    /// Ended well.
    pub succeeded: u32,
    /// Ended badly.
    pub failed: u32,
    /// Not run, or not to the end.
    pub cancelled: u32,
}

/// A question that a program asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Question {
    /// The run that asks.
    pub run: RunId,
    /// What it asks.
    pub prompt: String,
    /// Whether the answer must not be shown.
    pub password: bool,
}

/// A failure in one line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ReportSummary {
    /// Its id.
    pub id: ReportId,
    /// The first cause.
    pub code: CauseCode,
    /// The cause in one sentence.
    pub summary: String,
    /// When.
    pub at: WallTime,
}

/// A run as clients see it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RunView {
    /// Its id.
    pub id: RunId,
    /// Its session.
    pub session: SessionId,
    /// Its place among the session's runs, from 0.
    pub index: u32,
    /// The notebook cell that it runs, by index among all cells when it was queued.
    pub cell: Option<usize>,
    /// The same cell by its id.
    #[serde(default)]
    pub cell_id: Option<String>,
    /// What it runs: source or command line, at most 4 KiB of it.
    pub source: String,
    /// Whether an exception of its own is expected or allowed: then it does not stop what is queued behind it.
    #[serde(default)]
    pub may_raise: bool,
    /// Where it stands.
    pub state: RunState,
    /// The attempt that counts; 0 while it is queued.
    pub attempt: Attempt,
    /// The last chunk's number.
    pub head: Seq,
    /// The kernel's count.
    pub execution_count: Option<u32>,
    /// When it was queued.
    pub queued_at: WallTime,
    /// When it began.
    pub started_at: Option<WallTime>,
    /// When it ended.
    pub ended_at: Option<WallTime>,
    /// What it asks of a runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskView>,
}

/// Where a run stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum RunState {
    /// Waiting for its turn or for its runtime.
    Queued,
    /// Running.
    Running,
    /// Ended.
    Ended {
        /// How.
        outcome: RunOutcome,
    },
    /// A state that this client does not know.
    #[serde(other)]
    Unknown,
}

/// One event of a stream (`event:` holds its kind, `data:` this as JSON).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum StreamEvent {
    /// The state of the session: first in a session's stream, then after every change, and after a `gap`.
    Session {
        /// The view.
        session: Box<SessionView>,
    },
    /// A run was queued, began or ended.
    Run {
        /// The view.
        run: Box<RunView>,
    },
    /// The notebook is another file from now on; `untitled` is over.
    PathChanged {
        /// The session, whose id stays.
        session: SessionId,
        /// The file, absolute.
        path: String,
        /// Why.
        why: PathWhy,
    },
    /// Output of a run.
    Output {
        /// The run; `None` for output of nobody (a kernel's own log, start-up).
        run: Option<RunId>,
        /// The attempt that made it; 0 for output of nobody, and for prints that came after the run's end.
        attempt: Attempt,
        /// The first chunk's number, when they have one.
        first: Seq,
        /// The chunks.
        chunks: Vec<ChunkView>,
    },
    /// The output of a run was cut back: forget what comes after `keep`.
    Reset {
        /// The run.
        run: RunId,
        /// The attempt that begins.
        attempt: Attempt,
        /// The last chunk that still counts.
        keep: Seq,
    },
    /// A process failed.
    Report {
        /// The report.
        report: Box<FailureReport>,
    },
    /// This client fell behind; a fresh `session` and the output from the log follow.
    Gap {
        /// How many records were skipped in memory (they are read from the log).
        skipped: u64,
    },
    /// The store does not take what the session writes: what it runs waits, and nothing is lost. Told by the node that has
    /// it.
    Stalled {
        /// Why; `null` when it goes on again.
        why: Option<String>,
    },
    /// The stream is complete: the run or the session has ended, or `follow` was not asked for.
    End {
        /// For a run, how it ended.
        outcome: Option<RunOutcome>,
    },
    /// The stream ends early, for this reason.
    Problem {
        /// The reason.
        problem: Problem,
    },
    /// An event that this client does not know.
    #[serde(other)]
    Unknown,
}

impl StreamEvent {
    /// The event's name on the wire.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Session { .. } => "session",
            Self::Run { .. } => "run",
            Self::PathChanged { .. } => "path_changed",
            Self::Output { .. } => "output",
            Self::Reset { .. } => "reset",
            Self::Report { .. } => "report",
            Self::Gap { .. } => "gap",
            Self::Stalled { .. } => "stalled",
            Self::End { .. } => "end",
            Self::Problem { .. } => "problem",
            Self::Unknown => "unknown",
        }
    }
}
