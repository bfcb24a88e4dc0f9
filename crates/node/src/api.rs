//! What a surface (HTTP now; Jupyter's API, MCP later) may ask of a node.

use std::fs::File;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use outlive_core::diagnosis::FailureReport;
use outlive_core::id::{Cursor, NodeId, Position, RunId, SessionId};
use outlive_core::session::spec::Trust;
use outlive_protocol::http::{
    Close, ClusterView, CreateSession, DoctorView, Drain, Drained, EditNotebook, Edited, Elsewhere,
    GroupConfig, Members, NewSession, NodeView, NotebookView, OpenSession, Opened, Problem, Restart, RunView,
    SaveSession, SessionView, Stop, StopNode, StreamEvent, SubmitRuns, SubmitTask, TakeoverView,
};
use serde::Serialize;
use serde_json::Value;

use crate::session::peers::DocumentPeer;

/// An event with the cursor to come back with: a log position for a session, `attempt.seq` for a run.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// The value of the SSE field `id`; `None` for events that are no place to come back to.
    pub cursor: Option<String>,
    /// The event.
    pub event: StreamEvent,
}

/// A stream of events. Dropping it detaches.
pub type Events = BoxStream<'static, Delivered>;

/// Where a reader of a session begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum From {
    /// Behind this position; 0 for the beginning.
    After(Position),
    /// With the present state: nothing that happened before is told.
    Head,
}

/// How to attach to a session.
#[expect(clippy::struct_excessive_bools, reason = "independent wishes of one request")]
#[derive(Clone, Copy, Debug)]
pub struct AttachSession {
    /// Where to begin.
    pub from: From,
    /// Whether somebody is there who can answer a program's question.
    pub interactive: bool,
    /// Stay for what is still to come; else end at the present head.
    pub follow: bool,
    /// With the output of runs; without it, the session's state alone.
    pub outputs: bool,
}

/// How to attach to a run.
#[expect(clippy::struct_excessive_bools, reason = "independent wishes of one request")]
#[derive(Clone, Copy, Debug)]
pub struct AttachRun {
    /// What the reader has.
    pub cursor: Cursor,
    /// Stay for what is still to come.
    pub follow: bool,
    /// Of a group's task: it is cancelled when this reader goes away before its end.
    pub cancel: bool,
}

/// What is asked of another node, over its API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Errand {
    /// `GET`, `POST`, …
    pub method: &'static str,
    /// The path with its query.
    pub path: String,
    /// The JSON that goes with it.
    pub body: Option<Vec<u8>>,
}

impl Errand {
    /// Asks for something.
    #[must_use]
    pub const fn get(path: String) -> Self {
        Self { method: "GET", path, body: None }
    }

    /// Asks to do something.
    #[must_use]
    pub fn post(path: String, body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).expect("what is asked for has string keys");
        Self { method: "POST", path, body: Some(body) }
    }
}

/// The way to the other nodes, for a surface that calls [`Api`] itself: what a [`Problem`] `elsewhere` names is asked of
/// the node that it names. The HTTP server does so by itself.
#[async_trait]
pub trait Others: Send + Sync + 'static {
    /// Asks a node; the body of its answer.
    async fn ask(&self, there: &Elsewhere, errand: Errand) -> Result<Bytes, Problem>;
    /// Attaches to a stream of events there. It ends with `end` or `problem`, also when the node is lost.
    async fn attach(&self, there: &Elsewhere, path: String) -> Result<Events, Problem>;
}

/// What bringing a group up has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Up {
    /// It was made.
    Made,
    /// It was up already, with the same configuration.
    Already,
}

/// What is wanted of members of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberWish {
    /// To be up.
    Start,
    /// To be down.
    Stop,
    /// To be started anew.
    Restart,
}

/// The groups of runners of a node. Every method may answer with a [`Problem`] that can be shown as it is.
#[async_trait]
pub trait Groups: Send + Sync + 'static {
    /// The groups of runners that are up, by name.
    async fn groups(&self) -> Result<Vec<SessionView>, Problem>;
    /// A group that is up.
    async fn group(&self, name: &str) -> Result<SessionView, Problem>;
    /// Brings a group up; one that is up with the same configuration is left alone.
    async fn up(&self, name: &str, config: GroupConfig) -> Result<(SessionView, Up), Problem>;
    /// Stops all members of a group and ends it.
    async fn down(&self, name: &str, how: Stop) -> Result<SessionView, Problem>;
    /// Starts, stops or restarts members of a group.
    async fn members(&self, name: &str, what: MemberWish, which: Members) -> Result<SessionView, Problem>;
    /// Queues a task.
    async fn submit_task(&self, name: &str, task: SubmitTask) -> Result<RunView, Problem>;
    /// Cancels a task; one that has ended is left alone.
    async fn cancel_task(&self, name: &str, run: RunId) -> Result<RunView, Problem>;
}

/// A node, as its surfaces see it. Every method may answer with a [`Problem`] that can be shown as it is.
#[async_trait]
pub trait Api: Groups {
    /// Who it is.
    fn node(&self) -> NodeView;
    /// Makes a session; the same caller-given id again gives the same session.
    async fn create(&self, request: CreateSession) -> Result<SessionView, Problem>;
    /// The open sessions, or all that are remembered, newest first.
    async fn sessions(&self, all: bool) -> Result<Vec<SessionView>, Problem>;
    /// One session.
    async fn session(&self, id: SessionId) -> Result<SessionView, Problem>;
    /// Forgets an ended session.
    async fn forget(&self, id: SessionId) -> Result<(), Problem>;
    /// Its runs, in the order in which they were queued.
    async fn runs(&self, id: SessionId) -> Result<Vec<RunView>, Problem>;
    /// Queues work, all or nothing.
    async fn submit(&self, id: SessionId, work: SubmitRuns) -> Result<Vec<RunView>, Problem>;
    /// Interrupts what runs.
    async fn interrupt(&self, id: SessionId) -> Result<SessionView, Problem>;
    /// Restarts the runtime; running and queued work is cancelled.
    async fn restart(&self, id: SessionId, how: Restart) -> Result<SessionView, Problem>;
    /// Stops the runtime and closes the session.
    async fn stop(&self, id: SessionId, how: Stop) -> Result<SessionView, Problem>;
    /// Cancels one run.
    async fn cancel(&self, id: SessionId, run: RunId) -> Result<RunView, Problem>;
    /// Answers a run's question.
    async fn input(&self, id: SessionId, run: RunId, value: String) -> Result<RunView, Problem>;
    /// Everything that happens in a session, in log order.
    async fn attach(&self, id: SessionId, how: AttachSession) -> Result<Events, Problem>;
    /// The output of one run.
    async fn attach_run(&self, id: SessionId, run: RunId, how: AttachRun) -> Result<Events, Problem>;
    /// The failures of a session, oldest first.
    async fn reports(&self, id: SessionId) -> Result<Vec<FailureReport>, Problem>;
    /// The file of a blob.
    async fn blob(&self, id: SessionId, sha256: &str) -> Result<File, Problem>;
    /// Looks at what the node needs.
    async fn doctor(&self) -> DoctorView;
    /// Makes an untitled notebook; the same caller-given id again gives the same session.
    async fn new_session(&self, request: NewSession) -> Result<Opened, Problem>;
    /// Opens a notebook by path, or a session by id.
    async fn open(&self, request: OpenSession) -> Result<Opened, Problem>;
    /// Saves a notebook.
    async fn save(&self, id: SessionId, how: SaveSession) -> Result<Opened, Problem>;
    /// Saves, stops the kernel and ends the session.
    async fn close(&self, id: SessionId, how: Close) -> Result<SessionView, Problem>;
    /// Stops the kernel and keeps the session.
    async fn rest(&self, id: SessionId, how: Stop) -> Result<SessionView, Problem>;
    /// Vouches for a notebook, or takes that back.
    async fn trust(&self, id: SessionId, trust: Trust) -> Result<SessionView, Problem>;
    /// A notebook as it is now.
    async fn notebook(&self, id: SessionId, outputs: bool) -> Result<NotebookView, Problem>;
    /// Edits a notebook, all or nothing.
    async fn edit(&self, id: SessionId, edits: EditNotebook) -> Result<Edited, Problem>;
    /// The outputs of a cell, in nbformat's form.
    async fn cell_outputs(&self, id: SessionId, cell: String) -> Result<Vec<Value>, Problem>;
    /// Joins those who edit a notebook live.
    async fn document(&self, id: SessionId) -> Result<DocumentPeer, Problem>;
    /// The node's counters in Prometheus' text format.
    async fn metrics(&self) -> String;
    /// The nodes of the cluster, as this one sees them; empty when it is alone.
    async fn cluster(&self) -> ClusterView {
        ClusterView::default()
    }
    /// Gives everything that this node owns to the others.
    async fn drain(&self, _how: Drain) -> Result<Drained, Problem> {
        Err(crate::problem::not_clustered())
    }
    /// Whether it takes work now; else the reason, for instance `joining` or `isolated`.
    async fn ready(&self) -> Result<(), Problem> {
        if self.node().ready { Ok(()) } else { Err(crate::problem::not_ready()) }
    }
    /// Whether it hears what happens in its cluster: a node that does not may show less than there is.
    fn is_in_touch(&self) -> bool {
        true
    }
    /// Another living node, which a client of this one can go to.
    fn neighbour(&self) -> Option<Elsewhere> {
        None
    }
    /// Comes back when a node is lost that was one of the cluster: nothing more is to be expected of it. Not when it
    /// left by itself, having said its last words.
    async fn until_lost(&self, _node: NodeId) {
        std::future::pending().await
    }
    /// How a session has changed its owners, oldest first.
    async fn takeovers(&self, _id: SessionId) -> Result<Vec<TakeoverView>, Problem> {
        Ok(Vec::new())
    }
    /// Asks the node to end.
    async fn shutdown(&self, how: StopNode) -> Result<(), Problem>;
}
