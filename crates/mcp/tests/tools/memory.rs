//! A daemon with one session and one run, all in memory, that does what a test tells it.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use outlive_core::diagnosis::FailureReport;
use outlive_core::id::{Attempt, BootId, NodeId, RunId, RuntimeId, Seq, SessionId};
use outlive_core::log::ChunkKind;
use outlive_core::session::RunOutcome;
use outlive_core::session::spec::Trust;
use outlive_core::time::WallTime;
use outlive_node::api::{Api, AttachRun, AttachSession, Delivered, Events, Groups, MemberWish, Up};
use outlive_node::session::peers::DocumentPeer;
use outlive_protocol::http::{
    API_VERSION, CellKindName, CellState, CellView, ChunkView, Close, CreateSession, DoctorView,
    EditNotebook, Edited, Elsewhere, GroupConfig, Members, NewSession, NodeView, NotebookView, OpenSession,
    Opened, Problem, Restart, RunCounts, RunState, RunView, RuntimeState, RuntimeView, SaveSession,
    SavedState, SessionState, SessionView, Stop, StopNode, StreamEvent, SubmitRuns, SubmitTask,
};
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};
use uuid::Uuid;

pub const SESSION: Uuid = Uuid::from_u128(0x7000_8000_0000_0000_0001);
pub const RUN: Uuid = Uuid::from_u128(0x7000_8000_0000_0000_0002);

pub struct Memory {
    run: Mutex<RunView>,
    chunks: Mutex<Vec<ChunkView>>,
    cells: Mutex<Vec<CellView>>,
    edits: Mutex<Vec<Value>>,
    events: broadcast::Sender<StreamEvent>,
    /// How often something was submitted, and how often a session is being watched.
    submitted: watch::Sender<u32>,
    watchers: Arc<watch::Sender<u32>>,
    /// What everything about the session is refused with: another node has it.
    away: Mutex<Option<Problem>>,
}

pub fn print(text: &str) -> ChunkView {
    ChunkView {
        kind: ChunkKind::Stdout,
        at: WallTime(1),
        text: Some(text.to_owned()),
        base64: None,
        content: None,
        blob: None,
    }
}

pub fn display(data: Value) -> ChunkView {
    ChunkView { kind: ChunkKind::DisplayData, text: None, content: Some(json!({"data": data})), ..print("") }
}

pub fn failed(ename: &str, evalue: &str) -> RunState {
    RunState::Ended { outcome: RunOutcome::Raised { ename: ename.to_owned(), evalue: evalue.to_owned() } }
}

impl Memory {
    pub fn new() -> Arc<Self> {
        let memory = Self {
            run: Mutex::new(run_view()),
            chunks: Mutex::default(),
            cells: Mutex::default(),
            edits: Mutex::default(),
            events: broadcast::channel(64).0,
            submitted: watch::Sender::new(0),
            watchers: Arc::new(watch::Sender::new(0)),
            away: Mutex::default(),
        };
        memory.set_cells(&["1".to_owned()]);
        Arc::new(memory)
    }

    /// A daemon whose one session another node has.
    pub fn elsewhere(url: String) -> Arc<Self> {
        let memory = Self::new();
        let mut problem = Problem::new(421, "elsewhere", "Another node has it", "it is open on node n2");
        let there = Elsewhere { node: NodeId::from_uuid(RUN), name: "n2".to_owned(), url: Some(url) };
        problem.elsewhere = Some(Box::new(there));
        *memory.away.lock().unwrap() = Some(problem);
        memory
    }

    /// The session is here from now on.
    pub fn takes_over(&self) {
        *self.away.lock().unwrap() = None;
    }

    fn here(&self) -> Result<(), Problem> {
        self.away.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    pub fn set_cells(&self, sources: &[String]) {
        let cell = |(index, source): (usize, &String)| CellView {
            id: format!("c{index}"),
            kind: CellKindName::Code,
            source: source.clone(),
            metadata: json!({}),
            execution_count: None,
            state: CellState::Idle,
            run: None,
            outputs: None,
        };
        *self.cells.lock().unwrap() = sources.iter().enumerate().map(cell).collect();
    }

    /// The run was one of this cell.
    pub fn was_run(&self, cell: &str) {
        self.run.lock().unwrap().cell_id = Some(cell.to_owned());
        let mut cells = self.cells.lock().unwrap();
        cells.iter_mut().find(|known| known.id == cell).unwrap().run = Some(RunId::from_uuid(RUN));
    }

    pub fn take_edits(&self) -> Vec<Value> {
        std::mem::take(&mut self.edits.lock().unwrap())
    }

    /// The run is running and has printed this.
    pub fn begin_with(&self, chunks: Vec<ChunkView>) {
        let head = Seq(chunks.len() as u64);
        *self.run.lock().unwrap() =
            RunView { state: RunState::Running, attempt: Attempt(1), head, ..run_view() };
        *self.chunks.lock().unwrap() = chunks;
        self.submitted.send_replace(0);
    }

    pub fn prints(&self, chunk: ChunkView) {
        self.chunks.lock().unwrap().push(chunk);
        self.run.lock().unwrap().head.0 += 1;
    }

    pub fn end(&self, state: RunState) {
        let mut run = self.run.lock().unwrap();
        run.state = state;
        // Nobody may be watching.
        drop(self.events.send(StreamEvent::Run { run: Box::new(run.clone()) }));
    }

    pub fn shut_down(&self) {
        let problem = Problem::new(503, "shutting-down", "The daemon is shutting down", "the daemon ends");
        drop(self.events.send(StreamEvent::Problem { problem }));
    }

    pub async fn submitted(&self) {
        self.submitted.subscribe().wait_for(|times| *times > 0).await.unwrap();
    }

    pub async fn watched(&self) {
        self.watchers.subscribe().wait_for(|watchers| *watchers > 0).await.unwrap();
    }

    pub async fn unwatched(&self) {
        self.watchers.subscribe().wait_for(|watchers| *watchers == 0).await.unwrap();
    }

    fn known(&self, id: SessionId) -> Result<SessionView, Problem> {
        self.here()?;
        if *id.as_uuid() == SESSION {
            return Ok(session_view(None));
        }
        Err(Problem::new(404, "no-such-session", "No such session", format!("there is no session {id}"))
            .fact("session", id.to_string()))
    }
}

fn session_view(path: Option<&str>) -> SessionView {
    let base = path.map_or("/home/ada", |path| path.rsplit_once('/').unwrap().0);
    SessionView {
        id: SessionId::from_uuid(SESSION),
        generation: Default::default(),
        position: Default::default(),
        title: "untitled".to_owned(),
        kind: "notebook".to_owned(),
        path: path.map(str::to_owned),
        untitled: path.is_none(),
        saved: Some(SavedState::Untitled),
        base: Some(base.to_owned()),
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
            pid: Some(42),
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

fn run_view() -> RunView {
    RunView {
        id: RunId::from_uuid(RUN),
        session: SessionId::from_uuid(SESSION),
        index: 0,
        cell: None,
        cell_id: None,
        source: "x".to_owned(),
        may_raise: false,
        state: RunState::Queued,
        attempt: Attempt(0),
        head: Seq(0),
        execution_count: None,
        queued_at: WallTime(1),
        started_at: None,
        ended_at: None,
        task: None,
    }
}

fn opened(path: Option<&str>) -> Opened {
    Opened {
        session_id: SessionId::from_uuid(SESSION),
        path: path.map(str::to_owned),
        session: session_view(path),
        kept: None,
    }
}

fn told(event: StreamEvent) -> Delivered {
    Delivered { cursor: None, event }
}

/// Counts a watcher while it is there.
struct Watcher(Arc<watch::Sender<u32>>);

impl Watcher {
    fn new(watchers: &Arc<watch::Sender<u32>>) -> Self {
        watchers.send_modify(|watchers| *watchers += 1);
        Self(Arc::clone(watchers))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.send_modify(|watchers| *watchers -= 1);
    }
}

/// No tool asks for this.
fn never<T>() -> Result<T, Problem> {
    Err(Problem::new(501, "not-in-memory", "The daemon in memory cannot do this", ""))
}

#[async_trait]
impl Api for Memory {
    fn node(&self) -> NodeView {
        NodeView {
            node: NodeId::from_uuid(SESSION),
            boot: BootId::from_uuid(RUN),
            version: "0.1.0".to_owned(),
            api: API_VERSION,
            pid: 1,
            state_directory: "/state".to_owned(),
            started_at: WallTime(1),
            ready: true,
        }
    }

    async fn sessions(&self, _: bool) -> Result<Vec<SessionView>, Problem> {
        Ok(vec![session_view(None)])
    }

    async fn session(&self, id: SessionId) -> Result<SessionView, Problem> {
        self.known(id)
    }

    async fn runs(&self, id: SessionId) -> Result<Vec<RunView>, Problem> {
        self.known(id).map(|_| vec![self.run.lock().unwrap().clone()])
    }

    async fn submit(&self, id: SessionId, _: SubmitRuns) -> Result<Vec<RunView>, Problem> {
        self.known(id)?;
        self.submitted.send_modify(|times| *times += 1);
        Ok(vec![self.run.lock().unwrap().clone()])
    }

    async fn interrupt(&self, id: SessionId) -> Result<SessionView, Problem> {
        self.known(id)
    }

    async fn restart(&self, id: SessionId, _: Restart) -> Result<SessionView, Problem> {
        self.known(id)
    }

    async fn attach(&self, id: SessionId, how: AttachSession) -> Result<Events, Problem> {
        self.known(id)?;
        assert!(how.follow && !how.outputs, "an agent waits without output");
        let state = (self.events.subscribe(), Watcher::new(&self.watchers));
        Ok(stream::unfold(state, |(mut events, watcher)| async move {
            let event = events.recv().await.ok()?;
            Some((told(event), (events, watcher)))
        })
        .boxed())
    }

    async fn attach_run(&self, id: SessionId, _: RunId, how: AttachRun) -> Result<Events, Problem> {
        self.known(id)?;
        assert!(!how.follow, "what there is now");
        let chunks: Vec<ChunkView> = self
            .chunks
            .lock()
            .unwrap()
            .iter()
            .skip(usize::try_from(how.cursor.seq.0).unwrap())
            .cloned()
            .collect();
        // In batches, as the log is read.
        let batches: Vec<Delivered> = (how.cursor.seq.0 + 1..)
            .step_by(7)
            .zip(chunks.chunks(7))
            .map(|(first, chunks)| {
                told(StreamEvent::Output {
                    run: Some(RunId::from_uuid(RUN)),
                    attempt: Attempt(1),
                    first: Seq(first),
                    chunks: chunks.to_vec(),
                })
            })
            .collect();
        let end = told(StreamEvent::End { outcome: None });
        Ok(stream::iter(batches.into_iter().chain([end])).boxed())
    }

    async fn reports(&self, id: SessionId) -> Result<Vec<FailureReport>, Problem> {
        self.known(id).map(|_| Vec::new())
    }

    async fn new_session(&self, _: NewSession) -> Result<Opened, Problem> {
        self.here()?;
        Ok(opened(None))
    }

    async fn open(&self, request: OpenSession) -> Result<Opened, Problem> {
        self.here()?;
        let path = request.path.unwrap_or_else(|| "/by/id.ipynb".to_owned());
        if !path.starts_with('/') {
            let detail = format!("{path} is relative");
            return Err(Problem::new(422, "relative-path", "The path is relative", detail)
                .hint("resolve it against your own directory first"));
        }
        Ok(opened(Some(&path)))
    }

    async fn save(&self, id: SessionId, how: SaveSession) -> Result<Opened, Problem> {
        self.known(id)?;
        if how.path.as_deref() == Some("/held.ipynb") {
            return Err(Problem::new(409, "path-already-open", "The notebook is already open", "elsewhere")
                .hint("close it")
                .fact("path", "/held.ipynb")
                .fact("session", "00000000-0000-7000-8000-00000000beef"));
        }
        Ok(opened(how.path.as_deref()))
    }

    async fn close(&self, id: SessionId, _: Close) -> Result<SessionView, Problem> {
        self.known(id)
    }

    async fn notebook(&self, id: SessionId, outputs: bool) -> Result<NotebookView, Problem> {
        self.known(id)?;
        assert!(!outputs, "outputs are asked for cell by cell, which is bounded");
        Ok(NotebookView {
            session_id: id,
            path: None,
            state_vector: String::new(),
            metadata: json!({}),
            cells: self.cells.lock().unwrap().clone(),
        })
    }

    async fn edit(&self, id: SessionId, edits: EditNotebook) -> Result<Edited, Problem> {
        self.known(id)?;
        let edits = edits.edits.iter().map(|edit| serde_json::to_value(edit).unwrap());
        self.edits.lock().unwrap().extend(edits);
        Ok(Edited { cells: vec!["new".to_owned(), "c0".to_owned()], state_vector: String::new() })
    }

    async fn cell_outputs(&self, id: SessionId, cell: String) -> Result<Vec<Value>, Problem> {
        self.known(id)?;
        let text = format!("outputs of {cell}");
        Ok(vec![json!({"output_type": "stream", "name": "stdout", "text": [text]})])
    }

    async fn create(&self, _: CreateSession) -> Result<SessionView, Problem> {
        never()
    }

    async fn forget(&self, _: SessionId) -> Result<(), Problem> {
        never()
    }

    async fn stop(&self, _: SessionId, _: Stop) -> Result<SessionView, Problem> {
        never()
    }

    async fn cancel(&self, _: SessionId, _: RunId) -> Result<RunView, Problem> {
        never()
    }

    async fn input(&self, _: SessionId, _: RunId, _: String) -> Result<RunView, Problem> {
        never()
    }

    async fn blob(&self, _: SessionId, _: &str) -> Result<std::fs::File, Problem> {
        never()
    }

    async fn doctor(&self) -> DoctorView {
        DoctorView { checks: Vec::new() }
    }

    async fn rest(&self, _: SessionId, _: Stop) -> Result<SessionView, Problem> {
        never()
    }

    async fn trust(&self, _: SessionId, _: Trust) -> Result<SessionView, Problem> {
        never()
    }

    async fn document(&self, _: SessionId) -> Result<DocumentPeer, Problem> {
        never()
    }

    async fn metrics(&self) -> String {
        String::new()
    }

    async fn shutdown(&self, _: StopNode) -> Result<(), Problem> {
        never()
    }
}

#[async_trait]
impl Groups for Memory {
    async fn groups(&self) -> Result<Vec<SessionView>, Problem> {
        Ok(Vec::new())
    }
    async fn group(&self, name: &str) -> Result<SessionView, Problem> {
        Err(no_group(name))
    }
    async fn up(&self, name: &str, _: GroupConfig) -> Result<(SessionView, Up), Problem> {
        Err(no_group(name))
    }
    async fn down(&self, name: &str, _: Stop) -> Result<SessionView, Problem> {
        Err(no_group(name))
    }
    async fn members(&self, name: &str, _: MemberWish, _: Members) -> Result<SessionView, Problem> {
        Err(no_group(name))
    }
    async fn submit_task(&self, name: &str, _: SubmitTask) -> Result<RunView, Problem> {
        Err(no_group(name))
    }
    async fn cancel_task(&self, name: &str, _: RunId) -> Result<RunView, Problem> {
        Err(no_group(name))
    }
}

fn no_group(name: &str) -> Problem {
    Problem::new(404, "no-such-group", "No such group", format!("no group {name:?} is up"))
}
