//! A session that is made, or taken up again by a daemon that comes back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt as _;
use outlive_core::id::{Position, RunId, RuntimeId, SessionId};
use outlive_core::limits::MAILBOX_MAX;
use outlive_core::log::fold::{Effect as LogEffect, Fold, Verdict};
use outlive_core::log::record::{FencedBody, RunRecord};
use outlive_core::log::{BlobRef, Entry, Lane, Record};
use outlive_core::runtime::Program;
use outlive_core::session::event::{Happened, NewRun, OnRaise, SessionEvent};
use outlive_core::session::spec::{AfterWork, Place, StartWhen, Trust, Workload};
use outlive_core::session::state::{Life as SessionLife, Status};
use outlive_core::session::{Effect, Fact, Session, SessionSpec, apply, recover};
use outlive_document::file::FileStamp;
use outlive_document::{Notebook, NotebookError};
use outlive_protocol::http::{CreateSession, NewSession, OpenSession, Problem, SubmitRuns};
use outlive_store::{LaneFilter, ReadError, ReadLimit};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::handle::{Handle, Peers};
use super::journal::{Journal, WriteError};
use super::notebook::{BlobFolder, Document, NotebookFile, NotebookPlane, with_sources};
use super::task::{Life, Task};
use super::view;
use crate::context::Context;
use crate::problem;
use crate::seams::{FoundShim, FromLink, Link, PathClaim};

/// Makes a session. Its path is claimed before anything is written; what fails leaves nothing behind.
///
/// # Errors
/// What is wrong with the request, the notebook, its path or the store.
pub async fn create(
    context: &Arc<Context>,
    id: SessionId,
    request: CreateSession,
) -> Result<Handle, Problem> {
    let spec = spec(context, id, &request)?;
    let opened = match &spec.workload {
        Workload::Notebook { source: Some(source), path: Some(path), .. } => {
            Some(open_notebook(context, id, Path::new(source), Path::new(path), &spec.parameters).await?)
        }
        Workload::Notebook { .. } => {
            return Err(problem::bad_request(
                "workload.source and workload.path are needed; `new` makes an untitled notebook",
            ));
        }
        Workload::Command { .. } | Workload::Kernel => None,
    };
    let made = async {
        let (task, handle) = write_beginning(context, spec, opened, request.run_all).await?;
        // Before it starts: its end is indexed too, and may come at once.
        let view = handle.view.borrow().clone();
        context.index(&view, true).await.map_err(|error| problem::store(&error))?;
        Ok((task, handle))
    };
    match made.await {
        Ok((task, handle)) => {
            start(context, task, &handle);
            Ok(handle)
        }
        Err(problem) => {
            if let Err(error) = context.engine.drop_session(id).await {
                tracing::warn!(session = %id, %error, "something of a session that was not made is left");
            }
            Err(problem)
        }
    }
}

/// Makes an untitled notebook.
///
/// # Errors
/// What is wrong with the request or the store.
pub async fn new(
    context: &Arc<Context>,
    request: NewSession,
) -> Result<outlive_protocol::http::Opened, Problem> {
    let _ = (context, request);
    Err(problem::internal("not there yet"))
}

/// Opens a notebook by path, or a session by id.
///
/// # Errors
/// What is wrong with the request, the notebook, its path or the store.
pub async fn open(
    context: &Arc<Context>,
    request: OpenSession,
) -> Result<outlive_protocol::http::Opened, Problem> {
    let _ = (context, request);
    Err(problem::internal("not there yet"))
}

fn spec(context: &Context, id: SessionId, request: &CreateSession) -> Result<SessionSpec, Problem> {
    let launch = &request.launch;
    if launch.program.argv().is_empty() && !launch.program.is_kernel() {
        return Err(problem::bad_request("launch.program.argv is empty; name a command"));
    }
    if !Path::new(&launch.cwd).is_absolute() {
        return Err(problem::bad_request(format!("launch.cwd is {:?}; it must be absolute", launch.cwd)));
    }
    let kernel = launch.program.is_kernel();
    match &request.workload {
        Workload::Notebook { source, path, .. } => {
            let relative =
                |path: &Option<String>| path.as_ref().is_some_and(|path| !Path::new(path).is_absolute());
            if relative(source) || relative(path) {
                return Err(problem::bad_request("workload.source and workload.path must be absolute"));
            }
            if !kernel {
                return Err(problem::bad_request("a notebook needs a program of kind `kernel`"));
            }
        }
        Workload::Command { .. } if kernel => {
            return Err(problem::bad_request("a command needs a program of kind `command`"));
        }
        Workload::Kernel if !kernel => {
            return Err(problem::bad_request("a kernel session needs a program of kind `kernel`"));
        }
        Workload::Command { .. } | Workload::Kernel => {}
    }
    Ok(SessionSpec {
        id,
        runtime: RuntimeId::from_uuid(Uuid::now_v7()),
        workload: request.workload.clone(),
        launch: launch.clone(),
        restart: request.restart,
        on_hang: request.on_hang,
        after_work: if request.keep { AfterWork::Keep } else { AfterWork::Close },
        start: StartWhen::AtOnce,
        place: Place::Fixed,
        trust: Trust::Trusted,
        parameters: request.parameters.clone(),
        created_at: context.clock.now().wall,
    })
}

/// A notebook with its path claimed.
struct Opened {
    document: Notebook,
    file: (PathBuf, Option<FileStamp>),
    claim: Box<dyn PathClaim>,
}

async fn open_notebook(
    context: &Context,
    id: SessionId,
    source: &Path,
    path: &Path,
    parameters: &BTreeMap<String, serde_json::Value>,
) -> Result<Opened, Problem> {
    let claim = context.files.claim(path, id).await.map_err(|error| problem::claim(&error))?;
    let (bytes, stamp) = context.files.read(source).await.map_err(|error| problem::read(&error))?;
    let mut document = Notebook::parse(&bytes).map_err(|error| not_a_notebook(source, &error))?;
    let values: Vec<_> = parameters.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    document.inject_parameters(&values).map_err(|error| {
        Problem::new(422, "bad-parameter", "The parameter cannot be given", error.to_string())
    })?;
    let stamp = if source == path {
        Some(stamp)
    } else {
        context.files.read(path).await.ok().map(|(_, stamp)| stamp)
    };
    Ok(Opened { document, file: (path.to_owned(), stamp), claim })
}

fn not_a_notebook(path: &Path, error: &NotebookError) -> Problem {
    let detail = format!("{}: {}", path.display(), with_sources(error));
    Problem::new(422, "not-a-notebook", "The file cannot be run as a notebook", detail)
}

async fn write_beginning(
    context: &Arc<Context>,
    spec: SessionSpec,
    opened: Option<Opened>,
    run_all: bool,
) -> Result<(Task, Handle), Problem> {
    let id = spec.id;
    let mut journal = Journal::claim(id, context, |_, _| {}).await.map_err(|error| not_written(&error))?;
    let blobs = blob_directory(context, id).await?;
    let notebook = match opened {
        Some(Opened { document, file, claim }) => {
            let folder = BlobFolder(blobs.clone());
            let document_blob = put_snapshot(context, id, &document, &folder).await?;
            let snapshot = Snapshot { document: document_blob, file: file.1.clone() };
            let record = serde_json::to_vec(&snapshot).expect("a snapshot is plain data");
            journal.document(record).await.map_err(|error| not_written(&error))?;
            let file = NotebookFile::new(id, Arc::clone(&context.files), file, claim);
            Some(NotebookPlane { document: Document::new(id, document, folder), file })
        }
        None => None,
    };
    let tolerant = matches!(spec.workload, Workload::Notebook { allow_errors: true, .. });
    let work = run_all.then_some(SubmitRuns::All { required: None });
    let runs = match (&spec.workload, &spec.launch.program) {
        (Workload::Command { .. }, program) => vec![command_run(program)],
        (Workload::Notebook { .. } | Workload::Kernel, _) => {
            runs_of(notebook.as_ref().map(|notebook| &notebook.document), tolerant, work)?
        }
    };
    let at = spec.created_at;
    let mut session = Session::new(spec.clone());
    let mut facts = vec![Fact::Journal(SessionEvent { at, what: Happened::Created(Box::new(spec)) })];
    if !runs.is_empty() {
        facts.push(Fact::Journal(SessionEvent { at, what: Happened::RunsQueued(runs) }));
    }
    for fact in &facts {
        journal.fact(fact, None).await.map_err(|error| not_written(&error))?;
        apply(&mut session, fact);
    }
    Ok(task(context, session, journal, notebook, &blobs))
}

fn command_run(program: &Program) -> NewRun {
    let source = program.argv().join(" ");
    NewRun {
        id: RunId::from_uuid(Uuid::now_v7()),
        cell: None,
        cell_id: None,
        source,
        on_raise: OnRaise::Stop,
    }
}

/// The runs that a wish asks for.
pub(super) fn runs_of(
    notebook: Option<&Document>,
    tolerant: bool,
    work: Option<SubmitRuns>,
) -> Result<Vec<NewRun>, Problem> {
    let id = || RunId::from_uuid(Uuid::now_v7());
    let no_cells = || problem::bad_request("the session has no notebook; submit code instead of cells");
    let no_cell = |index| {
        Problem::new(
            422,
            "no-such-cell",
            "No such code cell",
            format!("cell {index} is no code cell of the notebook"),
        )
        .hint("cells are counted from 0, text cells included")
    };
    match work {
        None => Ok(Vec::new()),
        Some(SubmitRuns::Code { code }) => {
            Ok(vec![NewRun { id: id(), cell: None, cell_id: None, source: code, on_raise: OnRaise::Stop }])
        }
        Some(SubmitRuns::CellIds { cells, required: _ }) => {
            let document = notebook.ok_or_else(no_cells)?;
            let indexes = cells.iter().map(|cell| document.index_of(cell)).collect::<Result<Vec<_>, _>>()?;
            document.runs_for(Some(&indexes), tolerant, id).map_err(no_cell)
        }
        Some(SubmitRuns::All { required: _ }) => {
            notebook.ok_or_else(no_cells)?.runs_for(None, tolerant, id).map_err(no_cell)
        }
        Some(SubmitRuns::Cells { cells }) => {
            notebook.ok_or_else(no_cells)?.runs_for(Some(&cells), tolerant, id).map_err(no_cell)
        }
    }
}

/// What stands in the document lane: the notebook as it was opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// The document, parameters injected.
    document: BlobRef,
    /// What its file was then; `None` when there was none.
    file: Option<FileStamp>,
}

/// The document as it was opened, as a blob of the session.
async fn put_snapshot(
    context: &Context,
    id: SessionId,
    document: &Notebook,
    folder: &BlobFolder,
) -> Result<BlobRef, Problem> {
    let bytes = document.to_bytes(folder);
    let sha256 = Sha256::digest(&bytes).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let blob = BlobRef { sha256, size: bytes.len() as u64, mime: "application/x-ipynb+json".to_owned() };
    let place = folder.0.clone();
    let temporary = tokio::task::spawn_blocking(move || {
        let mut file = tempfile::NamedTempFile::new_in(place)?;
        std::io::Write::write_all(&mut file, &bytes)?;
        Ok::<_, std::io::Error>(file)
    })
    .await
    .map_err(|error| problem::internal(error.to_string()))?
    .map_err(|error| problem::internal(format!("the notebook cannot be kept: {error}")))?;
    context
        .engine
        .put_blob(id, &blob, temporary.path())
        .await
        .map_err(|error| problem::internal(with_sources(&error)))?;
    Ok(blob)
}

async fn blob_directory(context: &Context, id: SessionId) -> Result<PathBuf, Problem> {
    let directory =
        context.engine.blob_directory(id).await.map_err(|error| problem::internal(with_sources(&error)))?;
    directory.ok_or_else(|| problem::internal("this store keeps no blobs on this machine"))
}

fn not_written(error: &WriteError) -> Problem {
    Problem::new(503, "store-unavailable", "The store does not take it", with_sources(error))
        .hint("`outlive doctor` says what is wrong, most often a full disk")
}

fn task(
    context: &Arc<Context>,
    session: Session,
    journal: Journal,
    notebook: Option<NotebookPlane>,
    blobs: &Path,
) -> (Task, Handle) {
    let (asks, mailbox) = mpsc::channel(MAILBOX_MAX);
    let peers = Arc::new(Peers::default());
    let (shown, view) = watch::channel(Arc::new(view::session(&session, journal.position(), 0)));
    let handle = Handle { id: session.spec.id, mailbox: asks, view, peers: Arc::clone(&peers) };
    let task = Task {
        context: Arc::clone(context),
        session,
        journal,
        notebook,
        link: None,
        timers: BTreeMap::new(),
        mailbox,
        view: shown,
        peers,
        blobs: blobs.display().to_string(),
        stop: context.stop.clone(),
        life: Life::Going,
    };
    (task, handle)
}

fn start(context: &Arc<Context>, task: Task, handle: &Handle) {
    context.register(handle.clone());
    context.tasks.spawn(guarded(Arc::clone(context), handle.id, task.run()));
}

/// A panic ends that session's task and nothing else: whoever asks or watches is told.
async fn guarded(context: Arc<Context>, id: SessionId, task: impl Future<Output = ()>) {
    if std::panic::AssertUnwindSafe(task).catch_unwind().await.is_err() {
        tracing::error!(session = %id, "a session's task panicked");
        context.broken(id, "a defect of Outlive ended its task; the daemon's log has the details".to_owned());
        context.bus.close(id);
    }
}

/// What a log says, folded.
pub struct Folded {
    /// The state; `None` when the log ends before the session was created.
    pub session: Option<Session>,
    /// The fold.
    pub fold: Fold,
    /// The document as it was opened.
    pub snapshot: Option<Snapshot>,
}

/// Folds a session's log for somebody who does not own it.
///
/// # Errors
/// When it cannot be read.
pub async fn load(context: &Context, id: SessionId) -> Result<Folded, ReadError> {
    load_lanes(context, id, &LaneFilter::All).await
}

/// As [`load`], of these lanes alone; without the runs' lanes it knows of no run that began or ended.
///
/// # Errors
/// When the log cannot be read.
pub async fn load_lanes(context: &Context, id: SessionId, lanes: &LaneFilter) -> Result<Folded, ReadError> {
    let mut folded = Folded { session: None, fold: Fold::default(), snapshot: None };
    let mut after = Position(0);
    loop {
        let page = context.engine.read(id, after, lanes, ReadLimit::default()).await?;
        if page.through <= after {
            return Ok(folded);
        }
        after = page.through;
        for entry in &page.entries {
            if let Verdict::Counted(effect) = folded.fold.push(entry) {
                fold_session(&mut folded.session, entry, &effect);
                if let Some(snapshot) = snapshot_in(entry) {
                    folded.snapshot = Some(snapshot);
                }
            }
        }
    }
}

fn snapshot_in(entry: &Entry) -> Option<Snapshot> {
    match &entry.record {
        Record::Fenced(fenced) => match &fenced.body {
            FencedBody::Document(bytes) => serde_json::from_slice(bytes).ok(),
            FencedBody::Journal(_) | FencedBody::Run(_) | FencedBody::Runtime { .. } => None,
        },
        Record::Control(_) | Record::Request(_) | Record::Unknown { .. } => None,
    }
}

/// The facts in a record that counts, applied to the session.
pub fn fold_session(session: &mut Option<Session>, entry: &Entry, effect: &LogEffect) {
    for fact in facts_in(entry, effect) {
        match (&mut *session, &fact) {
            (None, Fact::Journal(SessionEvent { what: Happened::Created(spec), .. })) => {
                *session = Some(Session::new((**spec).clone()));
            }
            (None, _) => {}
            (Some(session), fact) => apply(session, fact),
        }
    }
}

/// The facts that a record states.
#[must_use]
pub fn facts_in(entry: &Entry, effect: &LogEffect) -> Vec<Fact> {
    let Record::Fenced(fenced) = &entry.record else { return Vec::new() };
    match (&fenced.body, effect) {
        (FencedBody::Journal(events), _) => events.iter().cloned().map(Fact::Journal).collect(),
        (FencedBody::Run(RunRecord::Open { attempt, base, at }), LogEffect::Opened { run, .. }) => {
            vec![Fact::RunOpened { run: *run, attempt: *attempt, base: Some(*base), at: *at }]
        }
        (
            FencedBody::Run(RunRecord::End { outcome, report, execution_count, at, .. }),
            LogEffect::Ended { run, .. },
        ) => vec![Fact::RunEnded {
            run: *run,
            outcome: outcome.clone(),
            report: report.clone(),
            execution_count: *execution_count,
            at: *at,
        }],
        _ => Vec::new(),
    }
}

/// Takes up a session that was open when the daemon before this one ended. `shims` are those found for it.
///
/// # Errors
/// When its log cannot be read or claimed; it stays as it is then.
pub async fn resume(context: &Arc<Context>, id: SessionId, shims: Vec<FoundShim>) -> Result<(), Problem> {
    // What it was for and what it shows; its output is read once, by the journal.
    let lanes = LaneFilter::Only(vec![Lane::Control, Lane::Journal, Lane::Document]);
    let folded = load_lanes(context, id, &lanes).await.map_err(|error| problem::store(&error))?;
    let Some(before) = folded.session else {
        // Its creation was never answered, or its log is gone: nobody would supervise what it had started.
        refuse_all(context, &shims, "its session has no log");
        return context.forget(id).await.map_err(|error| problem::store(&error));
    };
    if let SessionLife::Closed { .. } = before.life {
        refuse_all(context, &shims, "its session is closed");
        let whole = load(context, id).await.map_err(|error| problem::store(&error))?;
        let view = view::session(whole.session.as_ref().unwrap_or(&before), whole.fold.position(), 0);
        return context.index(&view, false).await.map_err(|error| problem::store(&error));
    }
    let blobs = blob_directory(context, id).await?;
    let mut notebook = reopen_notebook(context, &before, folded.snapshot.as_ref(), &blobs).await?;
    let now = context.clock.now().tick;
    let mut session = None;
    let journal = Journal::claim(id, context, |entry, effect| {
        fold_session(&mut session, entry, effect);
        if let (Some(notebook), Some(session)) = (&mut notebook, &session) {
            notebook.apply(entry, effect, session, now);
        }
    })
    .await
    .map_err(|error| not_written(&error))?;
    let session = session.ok_or_else(|| problem::internal("the log changed while it was read"))?;
    let (mut task, handle) = task(context, session, journal, notebook, &blobs);
    task.take_up(shims);
    start(context, task, &handle);
    Ok(())
}

fn refuse_all(context: &Context, shims: &[FoundShim], reason: &str) {
    for shim in shims {
        context.refuse(shim, reason);
    }
}

/// The notebook as it was opened; the outputs are projected into it again. The file is looked at when it is saved.
async fn reopen_notebook(
    context: &Context,
    session: &Session,
    snapshot: Option<&Snapshot>,
    blobs: &Path,
) -> Result<Option<NotebookPlane>, Problem> {
    let (Some(path), Some(snapshot)) = (&session.path, snapshot) else {
        return Ok(None);
    };
    let id = session.spec.id;
    let claim = context.files.claim(Path::new(path), id).await.map_err(|error| problem::claim(&error))?;
    let file = blobs.join(&snapshot.document.sha256);
    let bytes = tokio::fs::read(&file)
        .await
        .map_err(|error| problem::internal(format!("the notebook's snapshot cannot be read: {error}")))?;
    let document = Notebook::parse(&bytes).map_err(|error| not_a_notebook(&file, &error))?;
    let folder = BlobFolder(blobs.to_owned());
    let files = Arc::clone(&context.files);
    let file = NotebookFile::new(id, files, (PathBuf::from(path), None), claim);
    let file = file.opened_as(snapshot.file.clone());
    Ok(Some(NotebookPlane { document: Document::new(id, document, folder), file }))
}

impl Task {
    /// Links the session to the shim of its present process. A shim of an earlier one is refused; a process whose
    /// shim is nowhere is reported lost, and a launch that had not begun is begun again.
    fn take_up(&mut self, shims: Vec<FoundShim>) {
        let process = self.session.process();
        for shim in shims {
            if shim.identity.process == process && self.session.has_process() {
                let acked = self.journal.acked(process);
                self.link = Some(self.context.runtimes.adopt(&shim, acked));
            } else {
                self.context.refuse(&shim, "its session has gone on without it");
            }
        }
        if self.link.is_some() {
            return;
        }
        match self.session.runtime.status {
            Status::Launching if self.session.runtime.pid.is_none() => {
                let again = Effect::Launch(process);
                self.link = Some(self.context.runtimes.launch(self.launch_order(process)));
                tracing::info!(?again, "a launch that had not begun");
            }
            Status::Launching | Status::Ready(_) | Status::Stopping { .. } | Status::Draining { .. } => {
                self.link = Some(gone(process, self.context.clock.now().wall));
            }
            Status::Down | Status::Exited(_) | Status::Backoff { .. } | Status::GaveUp { .. } => {
                for effect in recover(&self.session) {
                    if effect == Effect::SaveFinally {
                        self.life = Life::LastSave;
                    }
                }
            }
        }
    }
}

/// A link that says at once that the process is gone.
fn gone(process: outlive_core::id::ProcessKey, now: outlive_core::time::WallTime) -> Link {
    use outlive_core::diagnosis::Evidence;
    use outlive_core::diagnosis::evidence::ShimLostEvidence;
    use outlive_core::runtime::{ExitReport, ExitStatus};
    let shim_lost = ShimLostEvidence { shim_pid: None, shim_status: None, killed: 0, refused: None };
    let report = ExitReport {
        process,
        pid: None,
        started_at: now,
        exited_at: now,
        status: ExitStatus::Unknown,
        evidence: Evidence { shim_lost: Some(shim_lost), ..Evidence::default() },
    };
    let (to, _orders) = mpsc::channel(1);
    let (says, from) = mpsc::channel(1);
    says.try_send(FromLink::Gone { report: Some(Box::new(report)) })
        .expect("the channel is new and has room");
    Link { process, to, from }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use outlive_core::id::{BootId, NodeId};
    use tokio::sync::broadcast::error::RecvError;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::bus::LocalBus;
    use crate::clock::SystemClock;
    use crate::files::LocalFiles;
    use crate::runtimes::LocalRuntimes;
    use crate::seams::Identity;

    #[tokio::test]
    async fn whoever_watches_a_session_whose_task_panics_does_not_wait_for_ever() {
        let (node, boot) = (NodeId::from_uuid(Uuid::from_u128(1)), BootId::from_uuid(Uuid::from_u128(2)));
        let (who, clock) = (Identity { node, boot }, Arc::new(SystemClock::default()));
        let nowhere = PathBuf::from("/nonexistent");
        let runtimes =
            LocalRuntimes::new(nowhere.clone(), nowhere.clone(), who, clock.clone(), TaskTracker::new());
        let context = Arc::new(Context::new(
            who,
            clock,
            Arc::new(outlive_store::Memory::default()),
            Arc::new(LocalBus::default()),
            Arc::new(runtimes),
            Arc::new(LocalFiles::new(nowhere)),
            TaskTracker::new(),
            CancellationToken::new(),
        ));
        let id = SessionId::from_uuid(Uuid::from_u128(3));
        let mut watching = context.bus.subscribe(id);
        guarded(Arc::clone(&context), id, async { panic!("as intended by the test") }).await;
        let heard = tokio::time::timeout(Duration::from_secs(20), watching.recv()).await;
        assert_eq!(heard.expect("the tail ends").unwrap_err(), RecvError::Closed);
        assert_eq!(context.handle(id).unwrap_err().code, "session-broken");
    }
}
