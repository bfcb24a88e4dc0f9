//! A node that answers from memory and lets tests feed its event streams.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use outlive_core::diagnosis::FailureReport;
use outlive_core::id::{Attempt, BootId, Cursor, NodeId, RunId, RuntimeId, Seq, SessionId};
use outlive_core::log::ChunkKind;
use outlive_core::session::RunOutcome;
use outlive_core::session::spec::Trust;
use outlive_core::time::WallTime;
use outlive_node::api::{Api, AttachRun, AttachSession, Delivered, Events, From};
use outlive_node::session::peers::DocumentPeer;
use outlive_protocol::http::{
    API_VERSION, ChunkView, Close, ClusterView, CreateSession, DoctorView, Drain, Drained, EditNotebook,
    Edited, Elsewhere, NewSession, NodeView, NotebookView, OpenSession, Opened, Problem, Restart, RunCounts,
    RunState, RunView, RuntimeState, RuntimeView, SaveSession, SavedState, SessionState, SessionView, Stop,
    StopNode, StreamEvent, SubmitRuns, TakeoverView,
};
use tokio::sync::watch;
use uuid::Uuid;

use crate::client::in_time;
use crate::cluster::{Cluster, takeover};
use crate::group::{self, GROUP, Groups};

/// The session that the fake has.
pub const SESSION: Uuid = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001);
/// Its run.
pub const RUN: Uuid = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0002);

/// What a test gives to the reader of a stream.
pub type Source = Box<dyn Fn(Cursor) -> Events + Send + Sync>;

pub struct Fake {
    /// Makes the streams of `attach` (with the position as the cursor's seq) and `attach_run`.
    pub events: Mutex<Source>,
    /// What was called, with its arguments.
    calls: watch::Sender<Vec<String>>,
    /// The groups of runners.
    pub groups: Groups,
    /// The folder of blobs.
    pub blobs: PathBuf,
    /// The other nodes.
    pub cluster: Cluster,
}

impl Fake {
    pub fn new(blobs: PathBuf) -> Self {
        let ended = |_| futures_util::stream::iter([ended(RunOutcome::Succeeded)]).boxed();
        let calls = watch::Sender::default();
        Self {
            events: Mutex::new(Box::new(ended)),
            calls,
            groups: Groups::default(),
            blobs,
            cluster: Cluster::default(),
        }
    }

    pub fn calls(&self) -> Vec<String> {
        self.calls.borrow().clone()
    }

    /// Waits until this has been called.
    pub async fn until(&self, call: &str) {
        let mut calls = self.calls.subscribe();
        in_time(calls.wait_for(|calls| calls.iter().any(|one| one == call))).await.unwrap();
    }

    /// Waits until so much has been called.
    pub async fn until_calls(&self, count: usize) {
        let mut calls = self.calls.subscribe();
        in_time(calls.wait_for(|calls| calls.len() >= count)).await.unwrap();
    }

    pub fn called(&self, call: impl Into<String>) {
        self.calls.send_modify(|calls| calls.push(call.into()));
    }

    fn known(&self, id: SessionId) -> Result<SessionView, Problem> {
        self.cluster.check()?;
        if *id.as_uuid() == SESSION || *id.as_uuid() == GROUP {
            return Ok(session_view());
        }
        Err(Problem::new(404, "no-such-session", "There is no such session", format!("No session {id}."))
            .hint("GET /v1/sessions lists them.")
            .fact("session", id.to_string()))
    }
}

pub fn session_view() -> SessionView {
    SessionView {
        id: SessionId::from_uuid(SESSION),
        generation: Default::default(),
        position: Default::default(),
        title: "train.ipynb".to_owned(),
        kind: "notebook".to_owned(),
        path: None,
        untitled: true,
        saved: Some(SavedState::Untitled),
        base: Some("/home/ada".to_owned()),
        trust: Trust::Trusted,
        queue: Vec::new(),
        loaded: true,
        created_at: WallTime(1),
        closed_at: None,
        state: SessionState::Idle,
        runtime: RuntimeView {
            id: RuntimeId::from_uuid(SESSION),
            incarnation: Default::default(),
            name: "Python 3".to_owned(),
            state: RuntimeState::Idle,
            pid: None,
            since: WallTime(1),
        },
        runs: RunCounts::default(),
        current: None,
        question: None,
        last_report: None,
        save_problem: None,
        rests_at: None,
        group: None,
        node: None,
        peers: 0,
    }
}

fn opened() -> Opened {
    Opened { session_id: SessionId::from_uuid(SESSION), path: None, session: session_view(), kept: None }
}

pub fn run_view() -> RunView {
    RunView {
        id: RunId::from_uuid(RUN),
        session: SessionId::from_uuid(SESSION),
        index: 0,
        cell: None,
        cell_id: None,
        source: "1".to_owned(),
        state: RunState::Queued,
        attempt: Attempt(0),
        head: Seq(0),
        execution_count: None,
        may_raise: false,
        queued_at: WallTime(1),
        started_at: None,
        ended_at: None,
        task: None,
    }
}

pub fn output(seq: u64, text: &str) -> Delivered {
    let chunk = ChunkView {
        kind: ChunkKind::Stdout,
        at: WallTime(seq),
        text: Some(text.to_owned()),
        base64: None,
        content: None,
        blob: None,
    };
    Delivered {
        cursor: Some(format!("1.{seq}")),
        event: StreamEvent::Output {
            run: Some(RunId::from_uuid(RUN)),
            attempt: Attempt(1),
            first: Seq(seq),
            chunks: vec![chunk],
        },
    }
}

/// The end of a run.
pub fn ended(outcome: RunOutcome) -> Delivered {
    Delivered { cursor: None, event: StreamEvent::End { outcome: Some(outcome) } }
}

pub fn end() -> Delivered {
    Delivered { cursor: None, event: StreamEvent::End { outcome: None } }
}

#[async_trait]
impl Api for Fake {
    fn node(&self) -> NodeView {
        NodeView {
            node: NodeId::from_uuid(SESSION),
            boot: BootId::from_uuid(RUN),
            version: "0.1.0".to_owned(),
            api: API_VERSION,
            pid: 4711,
            state_directory: "/secret/place".to_owned(),
            started_at: WallTime(1),
            ready: true,
        }
    }

    async fn create(&self, request: CreateSession) -> Result<SessionView, Problem> {
        self.cluster.check()?;
        self.called(format!("create {:?}", request.workload));
        assert!(!request.parameters.contains_key("panic"), "a test asked for a panic");
        Ok(session_view())
    }

    async fn sessions(&self, all: bool) -> Result<Vec<SessionView>, Problem> {
        self.called(format!("sessions all={all}"));
        Ok(vec![session_view()])
    }

    async fn session(&self, id: SessionId) -> Result<SessionView, Problem> {
        self.known(id)
    }

    async fn forget(&self, id: SessionId) -> Result<(), Problem> {
        self.known(id).map(|_| ())
    }

    async fn runs(&self, id: SessionId) -> Result<Vec<RunView>, Problem> {
        self.known(id)?;
        Ok(if *id.as_uuid() == GROUP { self.groups.tasks() } else { vec![run_view()] })
    }

    async fn submit(&self, id: SessionId, work: SubmitRuns) -> Result<Vec<RunView>, Problem> {
        self.cluster.check()?;
        self.called(format!("submit {work:?}"));
        self.known(id).map(|_| vec![run_view()])
    }

    async fn interrupt(&self, id: SessionId) -> Result<SessionView, Problem> {
        self.known(id)
    }

    async fn restart(&self, id: SessionId, how: Restart) -> Result<SessionView, Problem> {
        self.cluster.check()?;
        self.called(format!("restart run_all={}", how.run_all));
        self.known(id)
    }

    async fn stop(&self, id: SessionId, how: Stop) -> Result<SessionView, Problem> {
        self.cluster.check()?;
        self.called(format!("stop force={}", how.force));
        self.known(id)
    }

    async fn cancel(&self, id: SessionId, _: RunId) -> Result<RunView, Problem> {
        self.known(id).map(|_| run_view())
    }

    async fn input(&self, id: SessionId, _: RunId, value: String) -> Result<RunView, Problem> {
        self.cluster.check()?;
        self.called(format!("input {value}"));
        self.known(id).map(|_| run_view())
    }

    async fn attach(&self, id: SessionId, how: AttachSession) -> Result<Events, Problem> {
        self.known(id)?;
        let (after, position) = match how.from {
            From::After(position) => (position.to_string(), position.0),
            From::Head => ("head".to_owned(), 0),
        };
        self.called(format!(
            "attach after={after} interactive={} follow={} outputs={}",
            how.interactive, how.follow, how.outputs
        ));
        Ok((self.events.lock().unwrap())(Cursor { attempt: Attempt(0), seq: Seq(position) }))
    }

    async fn attach_run(&self, id: SessionId, run: RunId, how: AttachRun) -> Result<Events, Problem> {
        self.known(id)?;
        self.called(format!("attach_run cursor={} follow={}", how.cursor, how.follow));
        let events = (self.events.lock().unwrap())(how.cursor);
        Ok(if how.cancel { group::cancelling(self.calls.clone(), run, events) } else { events })
    }

    async fn reports(&self, id: SessionId) -> Result<Vec<FailureReport>, Problem> {
        self.known(id).map(|_| Vec::new())
    }

    async fn blob(&self, id: SessionId, sha256: &str) -> Result<File, Problem> {
        self.known(id)?;
        self.called(format!("blob {sha256}"));
        let opened = outlive_node::blobs::open_in(self.blobs.clone(), sha256).await;
        opened.map_err(|error| {
            Problem::new(404, "no-such-blob", "No such blob", error.to_string()).hint("none")
        })
    }

    async fn doctor(&self) -> DoctorView {
        DoctorView { checks: Vec::new() }
    }

    async fn new_session(&self, request: NewSession) -> Result<Opened, Problem> {
        self.cluster.check()?;
        self.called(format!("new kernel={:?}", request.kernel));
        Ok(opened())
    }

    async fn open(&self, request: OpenSession) -> Result<Opened, Problem> {
        self.cluster.check()?;
        self.called(format!("open path={:?} trust={:?}", request.path, request.trust));
        Ok(opened())
    }

    async fn save(&self, id: SessionId, how: SaveSession) -> Result<Opened, Problem> {
        self.cluster.check()?;
        self.called(format!("save {how:?}"));
        if how.path.as_deref() == Some("/held.ipynb") {
            let problem = Problem::new(409, "path-already-open", "The path is open", "It is open elsewhere.");
            return Err(problem.hint("Close it or choose another path.").fact("path", "/held.ipynb"));
        }
        self.known(id).map(|_| opened())
    }

    async fn close(&self, id: SessionId, how: Close) -> Result<SessionView, Problem> {
        self.cluster.check()?;
        self.called(format!("close discard={}", how.discard));
        self.known(id)
    }

    async fn rest(&self, id: SessionId, how: Stop) -> Result<SessionView, Problem> {
        self.cluster.check()?;
        self.called(format!("rest force={}", how.force));
        self.known(id)
    }

    async fn trust(&self, id: SessionId, trust: Trust) -> Result<SessionView, Problem> {
        self.cluster.check()?;
        self.called(format!("trust {trust:?}"));
        self.known(id)
    }

    async fn notebook(&self, id: SessionId, outputs: bool) -> Result<NotebookView, Problem> {
        self.cluster.check()?;
        self.called(format!("notebook outputs={outputs}"));
        Ok(NotebookView {
            session_id: id,
            path: None,
            state_vector: String::new(),
            metadata: serde_json::json!({}),
            cells: Vec::new(),
        })
    }

    async fn edit(&self, id: SessionId, edits: EditNotebook) -> Result<Edited, Problem> {
        self.cluster.check()?;
        self.called(format!("edit {:?}", edits.edits));
        self.known(id).map(|_| Edited { cells: vec!["a".to_owned()], state_vector: String::new() })
    }

    async fn cell_outputs(&self, id: SessionId, cell: String) -> Result<Vec<serde_json::Value>, Problem> {
        self.cluster.check()?;
        self.called(format!("outputs of {cell}"));
        self.known(id).map(|_| Vec::new())
    }

    async fn document(&self, id: SessionId) -> Result<DocumentPeer, Problem> {
        self.known(id)?;
        Err(Problem::new(409, "no-notebook", "There is no notebook", "The fake session has none.")
            .hint("Join a session that has one."))
    }

    async fn metrics(&self) -> String {
        "outlive_sessions_open 1\n".to_owned()
    }

    async fn ready(&self) -> Result<(), Problem> {
        self.cluster.ready()
    }

    fn is_in_touch(&self) -> bool {
        !self.cluster.out_of_touch.load(Ordering::SeqCst)
    }

    fn neighbour(&self) -> Option<Elsewhere> {
        self.cluster.neighbour()
    }

    async fn until_lost(&self, node: NodeId) {
        self.cluster.until_lost(node).await;
    }

    async fn cluster(&self) -> ClusterView {
        self.cluster.view()
    }

    async fn drain(&self, how: Drain) -> Result<Drained, Problem> {
        self.called(format!("drain cell_grace_ms={} stop={}", how.cell_grace_ms, how.stop));
        Ok(Drained { released: vec![SessionId::from_uuid(SESSION)], ..Drained::default() })
    }

    async fn takeovers(&self, id: SessionId) -> Result<Vec<TakeoverView>, Problem> {
        self.known(id).map(|_| vec![takeover()])
    }

    async fn shutdown(&self, how: StopNode) -> Result<(), Problem> {
        self.called(format!("shutdown keep_runtimes={}", how.keep_runtimes));
        Ok(())
    }
}
