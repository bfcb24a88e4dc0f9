//! A daemon over real files and a real store, whose clock stands still, whose kernels do nothing, and that can be killed
//! at each step that it takes in the world.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use outlive_core::diagnosis::Evidence;
use outlive_core::diagnosis::evidence::StopEvidence;
use outlive_core::id::{BootId, NodeId, Position, ProcessKey, SessionId, Src};
use outlive_core::log::{FencedBody, Record};
use outlive_core::runtime::{ExitReport, ExitStatus};
use outlive_core::session::spec::Trust;
use outlive_core::time::{Now, Tick, WallTime};
use outlive_document::file::{FileMeta, FileStamp, ReadError, WriteError};
use outlive_protocol::http::{
    CellEdit, Close, EditNotebook, NewSession, NotebookView, OpenSession, Opened, Problem, SaveHow,
    SaveSession, SavedState, SessionView,
};
use outlive_protocol::shim::{Notice, Numbered, StateNotice, ToShim};
use outlive_store::faulty::{Fault, Operation};
use outlive_store::{Embedded, Faulty, LaneFilter, ReadLimit};
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::budget::Budgets;
use crate::bus::LocalBus;
use crate::context::{Context, Seams};
use crate::files::LocalFiles;
use crate::seams::{
    ClaimError, Clock, FileWatch, Files, FoundShim, FromLink, Identity, LaunchOrder, Link, PathClaim,
    Runtimes, WatchState,
};
use crate::session::handle::{Answer, Ask, DocumentAsk, FileAsk};
use crate::session::open;

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What daemons leave to each other.
pub struct World {
    place: TempDir,
}

impl World {
    pub fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("work")).unwrap();
        Self { place }
    }

    /// A path among the notebooks.
    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join("work").canonicalize().unwrap().join(name)
    }

    /// The notebooks' directory: every name in it, in order.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.place.path().join("work")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// How many paths are claimed.
    pub fn claims(&self) -> usize {
        fs::read_dir(self.place.path().join("claims")).map_or(0, Iterator::count)
    }

    /// How many paths are claimed by somebody who lives.
    pub fn claims_held(&self) -> usize {
        let Ok(entries) = fs::read_dir(self.place.path().join("claims")) else { return 0 };
        let is_held = |entry: &fs::DirEntry| {
            let file = fs::File::open(entry.path()).unwrap();
            rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err()
        };
        entries.filter_map(Result::ok).filter(is_held).count()
    }

    /// A daemon.
    pub fn daemon(&self) -> Daemon {
        self.doomed(Doom::default())
    }

    /// A daemon that is killed.
    pub fn doomed(&self, doom: Doom) -> Daemon {
        let step = doom.clone();
        let engine = Embedded::open(&self.place.path().join("store")).unwrap();
        let engine = Faulty::new(engine, move |operation| match operation {
            Operation::Append { .. } | Operation::TableWrite if step.comes() => Fault::Delay(Duration::MAX),
            _ => Fault::None,
        });
        let files = LocalFiles::new(self.place.path().join("claims"));
        let clock = Arc::new(StillClock::default());
        let kernels = Arc::new(IdleKernels::default());
        let who =
            Identity { node: NodeId::from_uuid(Uuid::from_u128(1)), boot: BootId::from_uuid(Uuid::now_v7()) };
        let seams = Seams {
            clock: clock.clone(),
            engine: Arc::new(engine),
            bus: Arc::new(LocalBus::default()),
            runtimes: kernels.clone(),
            files: Arc::new(DoomedFiles { files, doom }),
            cluster: None,
        };
        let context = Arc::new(Context::new(who, seams, Budgets::default()));
        Daemon { context, clock, kernels }
    }
}

/// A daemon with its sessions. They end where they are when the test's tokio runtime does.
pub struct Daemon {
    pub context: Arc<Context>,
    pub clock: Arc<StillClock>,
    pub kernels: Arc<IdleKernels>,
}

impl Daemon {
    /// An untitled notebook with one cell.
    pub async fn new_notebook(&self, source: &str) -> SessionId {
        let made = open::new(&self.context, NewSession::default()).await.unwrap();
        let cell = self.notebook(made.session_id).await.cells.remove(0).id;
        self.set_source(made.session_id, &cell, source).await;
        made.session_id
    }

    pub async fn open(&self, path: &Path) -> Result<Opened, Problem> {
        let path = Some(path.display().to_string());
        open::open(&self.context, OpenSession { path, ..OpenSession::default() }).await
    }

    async fn ask(&self, id: SessionId, ask: Ask) -> Result<Answer, Problem> {
        let entered = open::wake(&self.context, id).await?;
        tokio::time::timeout(PATIENCE, entered.handle.ask(ask)).await.expect("an answer comes")
    }

    pub async fn save_as(&self, id: SessionId, path: &Path, how: SaveHow) -> Result<Opened, Problem> {
        let path = Some(path.display().to_string());
        self.save(id, SaveSession { path, how, overwrite: false }).await
    }

    pub async fn save(&self, id: SessionId, how: SaveSession) -> Result<Opened, Problem> {
        match self.ask(id, Ask::File(FileAsk::Save(how))).await? {
            Answer::Opened(opened) => Ok(*opened),
            other => panic!("{other:?}"),
        }
    }

    pub async fn close(&self, id: SessionId, discard: bool) -> Result<(), Problem> {
        self.ask(id, Ask::File(FileAsk::Close(Close { discard }))).await.map(drop)
    }

    pub async fn do_ask(&self, id: SessionId, ask: Ask) {
        self.ask(id, ask).await.unwrap();
    }

    pub async fn trust(&self, id: SessionId, trust: Trust) {
        self.ask(id, Ask::Trust(trust)).await.unwrap();
    }

    pub async fn notebook(&self, id: SessionId) -> NotebookView {
        match self.ask(id, Ask::Document(DocumentAsk::Read { outputs: true })).await.unwrap() {
            Answer::Notebook(view) => *view,
            other => panic!("{other:?}"),
        }
    }

    /// What stands in each cell.
    pub async fn sources(&self, id: SessionId) -> Vec<String> {
        self.notebook(id).await.cells.into_iter().map(|cell| cell.source).collect()
    }

    pub async fn set_source(&self, id: SessionId, cell: &str, source: &str) {
        let edit = CellEdit::SetSource { cell: cell.to_owned(), source: source.to_owned(), expected: None };
        let edits = EditNotebook { edits: vec![edit] };
        self.ask(id, Ask::Document(DocumentAsk::Edit(edits))).await.unwrap();
    }

    /// The session's state now.
    pub fn view(&self, id: SessionId) -> SessionView {
        self.context.handle(id).unwrap().expect("it is open").view.borrow().as_ref().clone()
    }

    /// Waits until the session is so.
    pub async fn until(&self, id: SessionId, is_so: impl FnMut(&SessionView) -> bool) -> SessionView {
        let mut view = self.context.handle(id).unwrap().expect("it is open").view;
        let mut is_so = is_so;
        let found = tokio::time::timeout(PATIENCE, view.wait_for(|view| is_so(view))).await;
        match found {
            Ok(found) => found.expect("the session goes on").as_ref().clone(),
            Err(_) => panic!("it never came; at last: {:?}", self.view(id)),
        }
    }

    /// Waits until a cell of the notebook is this.
    pub async fn until_source(&self, id: SessionId, source: &str) {
        self.until_notebook(id, |notebook| notebook.cells.iter().any(|cell| cell.source == source)).await;
    }

    /// Waits until a cell's outputs have this in them.
    pub async fn until_output(&self, id: SessionId, cell: &str, text: &str) {
        let has = |notebook: &NotebookView| {
            let cell = notebook.cells.iter().find(|view| view.id == cell).expect("the cell is there");
            cell.outputs.iter().flatten().any(|output| output.to_string().contains(text))
        };
        self.until_notebook(id, has).await;
    }

    /// Looks at the notebook again after each thing that is written to its log.
    async fn until_notebook(&self, id: SessionId, is_so: impl Fn(&NotebookView) -> bool) {
        let mut head = self.context.engine.head(id).await.unwrap();
        let found = async {
            loop {
                head.mark_unchanged();
                if is_so(&self.notebook(id).await) {
                    return;
                }
                head.changed().await.expect("the session goes on");
            }
        };
        if tokio::time::timeout(PATIENCE, found).await.is_err() {
            panic!("it never came; at last: {:?}, {:?}", self.notebook(id).await, self.view(id).saved);
        }
    }

    /// Waits until a fact of this name is in the session's log.
    pub async fn until_log(&self, id: SessionId, fact: &str) {
        self.until_record(id, |body| match body {
            FencedBody::Journal(events) => serde_json::to_string(events).unwrap().contains(fact),
            _ => false,
        })
        .await;
    }

    /// Waits until a record of this name is in the document's lane.
    pub async fn until_document(&self, id: SessionId, name: &str) {
        let begins = format!("{{\"{name}\"");
        self.until_record(id, |body| match body {
            FencedBody::Document(bytes) => bytes.starts_with(begins.as_bytes()),
            _ => false,
        })
        .await;
    }

    async fn until_record(&self, id: SessionId, is_it: impl Fn(&FencedBody) -> bool) {
        let engine = &self.context.engine;
        let mut head = engine.head(id).await.unwrap();
        let found = async {
            loop {
                head.mark_unchanged();
                let page =
                    engine.read(id, Position(0), &LaneFilter::All, ReadLimit::default()).await.unwrap();
                let fenced = page.entries.iter().filter_map(|entry| match &entry.record {
                    Record::Fenced(fenced) => Some(&fenced.body),
                    _ => None,
                });
                if fenced.into_iter().any(&is_it) {
                    return;
                }
                head.changed().await.expect("the log goes on");
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("the record comes");
    }

    /// The daemon ends as it should.
    pub async fn end(&self) {
        self.context.stop.cancel();
        self.context.tasks.close();
        tokio::time::timeout(PATIENCE, self.context.tasks.wait()).await.expect("its tasks end");
    }

    /// Waits until all is in the file.
    pub async fn until_saved(&self, id: SessionId) {
        self.until(id, |view| matches!(view.saved, Some(SavedState::Saved { .. }))).await;
    }

    /// Waits until the session has ended.
    pub async fn until_ended(&self, id: SessionId) {
        let mut view = match self.context.handle(id).unwrap() {
            Some(handle) => handle.view,
            None => return,
        };
        let ended = async { while view.changed().await.is_ok() {} };
        tokio::time::timeout(PATIENCE, ended).await.expect("it ends");
    }
}

/// Runs one life of a daemon; it ends as by SIGKILL.
pub fn life<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(body)
}

/// When a daemon is killed: before the step that is counted down to, which never happens.
#[derive(Clone, Default)]
pub struct Doom(Arc<Countdown>);

#[derive(Default)]
struct Countdown {
    /// 0: not counted. 1: it is over.
    left: AtomicUsize,
    over: Notify,
    /// Files that were written.
    writes: AtomicUsize,
    /// Who writes a file waits for this.
    gate: tokio::sync::RwLock<()>,
}

impl Doom {
    /// After so many steps.
    pub fn after(&self, steps: usize) {
        self.0.left.store(steps + 2, Ordering::SeqCst);
    }

    /// Takes a step, or says that it is the one that never happens.
    fn comes(&self) -> bool {
        let left = self.0.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| match left {
            0 | 1 => None,
            left => Some(left - 1),
        });
        let over = matches!(left, Ok(2) | Err(1));
        if over {
            self.0.over.notify_one();
        }
        over
    }

    async fn step(&self) {
        if self.comes() {
            std::future::pending().await
        }
    }

    /// No file is written until this is dropped.
    pub fn hold_writes(&self) -> impl Drop + use<'_> {
        self.0.gate.try_write().expect("nobody writes")
    }

    /// How many files were written.
    pub fn writes(&self) -> usize {
        self.0.writes.load(Ordering::SeqCst)
    }

    /// Waits for it.
    pub async fn over(&self) {
        self.0.over.notified().await;
    }
}

#[derive(Debug)]
struct DoomedFiles {
    files: LocalFiles,
    doom: Doom,
}

impl std::fmt::Debug for Doom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doom").finish_non_exhaustive()
    }
}

#[async_trait]
impl Files for DoomedFiles {
    async fn resolve(&self, path: &Path) -> Result<PathBuf, ClaimError> {
        self.files.resolve(path).await
    }

    async fn claim(&self, path: &Path, session: SessionId) -> Result<Box<dyn PathClaim>, ClaimError> {
        self.doom.step().await;
        let claim = self.files.claim(path, session).await;
        self.doom.step().await;
        claim
    }

    async fn read(&self, path: &Path) -> Result<(Vec<u8>, FileStamp), ReadError> {
        self.files.read(path).await
    }

    async fn write(
        &self,
        path: &Path,
        bytes: Vec<u8>,
        expected: Option<FileStamp>,
    ) -> Result<FileStamp, WriteError> {
        self.doom.step().await;
        drop(self.doom.0.gate.read().await);
        self.doom.0.writes.fetch_add(1, Ordering::SeqCst);
        let written = self.files.write(path, bytes, expected).await;
        self.doom.step().await;
        written
    }

    async fn stat(&self, path: &Path) -> io::Result<Option<FileMeta>> {
        self.files.stat(path).await
    }

    async fn find_inode(&self, directory: &Path, inode: u64) -> Option<PathBuf> {
        self.files.find_inode(directory, inode).await
    }

    fn watch(&self, path: &Path) -> Box<dyn FileWatch> {
        self.files.watch(path)
    }

    fn watching(&self) -> WatchState {
        self.files.watching()
    }

    fn claims(&self) -> usize {
        self.files.claims()
    }
}

/// Time that goes on when the test says so.
#[derive(Debug)]
pub struct StillClock(watch::Sender<Tick>);

impl Default for StillClock {
    fn default() -> Self {
        Self(watch::Sender::new(Tick(1_000_000_000)))
    }
}

impl StillClock {
    pub fn advance(&self, milliseconds: u64) {
        self.0.send_modify(|tick| *tick = *tick + Duration::from_millis(milliseconds));
    }
}

#[async_trait]
impl Clock for StillClock {
    fn now(&self) -> Now {
        let tick = *self.0.borrow();
        Now { tick, wall: WallTime(tick.0 / 1_000), slept: Duration::ZERO }
    }

    async fn until(&self, tick: Tick) {
        let mut now = self.0.subscribe();
        now.wait_for(|now| *now >= tick).await.expect("the clock goes on");
    }
}

/// Kernels that are ready at once, and then run for ever whatever they are given.
#[derive(Default)]
pub struct IdleKernels {
    launched: Mutex<HashMap<SessionId, (LaunchOrder, mpsc::Sender<FromLink>)>>,
    shims: TaskTracker,
    stubborn: Arc<tokio::sync::RwLock<()>>,
}

impl IdleKernels {
    /// No kernel stops until this is dropped.
    pub fn hold_stops(&self) -> impl Drop + use<'_> {
        self.stubborn.try_write().expect("no kernel stops")
    }

    /// The kernel of this session says something; records count from 3.
    pub async fn says(&self, session: SessionId, src: u64, notice: Notice) {
        let (_, link) = self.launched.lock().unwrap().get(&session).expect("it has a kernel").clone();
        link.send(FromLink::Record(record(src, notice))).await.unwrap();
    }

    /// How this session's kernel was launched last.
    pub fn order(&self, session: SessionId) -> LaunchOrder {
        self.launched.lock().unwrap().get(&session).expect("it has a kernel").0.clone()
    }

    /// How many sessions have had a kernel.
    pub fn launches(&self) -> usize {
        self.launched.lock().unwrap().len()
    }
}

fn record(src: u64, notice: Notice) -> Numbered {
    Numbered { src: Src(src), at: WallTime(0), notice }
}

/// What the shim of a kernel says that does as it is asked.
fn stopped(process: ProcessKey, stop: StopEvidence) -> [StateNotice; 2] {
    let report = ExitReport {
        process,
        pid: Some(1),
        started_at: WallTime(0),
        exited_at: WallTime(0),
        status: ExitStatus::Code { code: 0 },
        evidence: Evidence { stop: Some(stop), ..Evidence::default() },
    };
    [
        StateNotice::Exited { report: Box::new(report) },
        StateNotice::Drained { evidence: Box::new(Evidence::default()) },
    ]
}

impl Runtimes for IdleKernels {
    fn launch(&self, order: LaunchOrder) -> Link {
        let (to, mut orders) = mpsc::channel(64);
        let (says, from) = mpsc::channel(64);
        let begins = [
            StateNotice::Spawned { pid: 1, pid_start: 1 },
            StateNotice::Ready { kernel_info: serde_json::Value::Null },
        ];
        for (src, state) in (1..).zip(begins) {
            says.try_send(FromLink::Record(record(src, Notice::State(state)))).unwrap();
        }
        self.launched.lock().unwrap().insert(order.session, (order.clone(), says.clone()));
        let stubborn = Arc::clone(&self.stubborn);
        self.shims.spawn(async move {
            while let Some(said) = orders.recv().await {
                if let ToShim::Stop { why, from } = &said {
                    let _may_stop = stubborn.read().await;
                    let stop = StopEvidence { why: *why, step: *from };
                    for (src, state) in (1_000..).zip(stopped(order.process, stop)) {
                        let _gone = says.send(FromLink::Record(record(src, Notice::State(state)))).await;
                    }
                }
            }
        });
        Link { process: order.process, to, from }
    }

    fn adopt(&self, _found: &FoundShim, _acked: Src) -> Link {
        unreachable!("these kernels end with their daemon")
    }

    fn found(&self) -> Vec<FoundShim> {
        Vec::new()
    }

    fn refuse(&self, _found: &FoundShim, _reason: &str) {}
}
