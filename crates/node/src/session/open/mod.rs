//! A session that is made, opened by the path of its notebook, or taken up again.
//!
//! | file | holds |
//! |---|---|
//! | [`mod@notebook`] | notebooks that are made or opened by path |
//! | [`mod@resume`] | sessions that are taken up by the next daemon, or woken |
//! | [`mod@damaged`] | a notebook that its log cannot give |
//! | [`mod@fold`] | a log, folded for somebody who does not own it |

mod damaged;
mod fold;
mod notebook;
mod renamed;
mod resume;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt as _;
use outlive_core::id::{RunId, RuntimeId, SessionId};
use outlive_core::limits::RUN_SOURCE_BYTES_MAX;
use outlive_core::log::fold::Ownership;
use outlive_core::runtime::Program;
use outlive_core::session::event::{Happened, NewRun, OnRaise, SessionEvent};
use outlive_core::session::spec::{AfterWork, Place, StartWhen, Trust, Workload};
use outlive_core::session::{Fact, Session, SessionSpec, apply};
use outlive_protocol::http::{CreateSession, Problem, SubmitRuns};

use super::handle::{Desk, Handle};
use super::journal::{Journal, WriteError};
use super::notebook::document::Which;
use super::notebook::{BlobFolder, Document, NotebookFile, NotebookPlane, restore, with_sources};
use super::task::{Life, Task};
use super::view;
use crate::budget::room;
use crate::context::{Context, Presence, Reservation};
use crate::problem;
use notebook::{Claimed, Opened};

pub use fold::{Folded, control, facts_in, load, load_lanes};
pub use notebook::{new, open};
pub use resume::{Instead, Loss, NotResumed, resume, wake};
pub(crate) use resume::{Origin, gone, lost_beginning, refuse_all};

/// Makes a session. Its path is claimed before anything is written; what fails leaves nothing behind.
///
/// # Errors
/// What is wrong with the request, the notebook, its path or the store.
pub async fn create(
    context: &Arc<Context>,
    reservation: &Reservation,
    request: CreateSession,
) -> Result<Handle, Problem> {
    room()?;
    let id = reservation.id;
    let mut spec = spec(context, id, &request)?;
    let opened = match &mut spec.workload {
        Workload::Notebook { source: Some(source), path: Some(path), .. } => {
            let (from, to) = (Path::new(source), Path::new(path));
            let opened = notebook::from_file(context, id, from, to, &spec.parameters).await?;
            *path = opened.path()?.unwrap_or_default();
            Some(opened)
        }
        Workload::Notebook { .. } => {
            return Err(problem::bad_request(
                "workload.source and workload.path are needed; `new` makes an untitled notebook",
            ));
        }
        Workload::Command { .. } | Workload::Kernel => None,
    };
    make(context, reservation, spec, opened, request.run_all).await
}

/// Writes the session's beginning and starts its task.
async fn make(
    context: &Arc<Context>,
    reservation: &Reservation,
    spec: SessionSpec,
    mut opened: Option<Opened>,
    run_all: bool,
) -> Result<Handle, Problem> {
    let id = reservation.id;
    let slot = opened.as_mut().and_then(|opened| opened.slot.take());
    let made = async {
        let (task, handle) = write_beginning(context, spec, opened, run_all).await?;
        // Before it starts: its end is indexed too, and may come at once.
        let (view, epoch) = (handle.view.borrow().clone(), task.journal.fold().epoch());
        context.index(&view, Presence::Open, epoch).await.map_err(|error| problem::store(&error))?;
        if let Some(slot) = &slot {
            slot.claim_again().await.map_err(|error| {
                tracing::warn!(session = %id, error = %with_sources(&error), "it is not made: its path may be another session's by now");
                super::handle::moving(id)
            })?;
        }
        Ok((task, handle))
    };
    match made.await {
        Ok((task, handle)) => {
            if let Some(slot) = slot {
                slot.confirm();
            }
            context.metrics.session_opened();
            start(context, reservation, &handle, task.run());
            Ok(handle)
        }
        Err(problem) => {
            if let (Unmade::Perhaps, Some(slot)) = (unmake(context, id).await, slot) {
                // Its path is that of what may be there. If nothing is, the claim is left over and is replaced.
                slot.forgo();
            }
            Err(problem)
        }
    }
}

/// What is left of a session that was not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unmade {
    /// Nothing; or somebody else has made it.
    Surely,
    /// The store does not say.
    Perhaps,
}

/// Removes what was written of a session that was not made, its row too, unless somebody else has made it meanwhile.
pub(crate) async fn unmake(context: &Context, id: SessionId) -> Unmade {
    let removed = async {
        let who = context.who;
        let control = control(&*context.engine, id).await.map_err(|error| with_sources(&error))?;
        let is_ours = match control.fold.ownership() {
            Ownership::Unclaimed => true,
            Ownership::Claimed(claim) => (claim.node, claim.boot) == (who.node, who.boot),
            Ownership::Released { .. } | Ownership::Closed => false,
        };
        let is_lost = lost_beginning(context, id).await.map_err(|problem| problem.detail)?.is_some();
        if is_ours && !is_lost {
            context.forget(id).await.map_err(|error| with_sources(&error))?;
        }
        Ok::<(), String>(())
    };
    match removed.await {
        Ok(()) => Unmade::Surely,
        Err(error) => {
            tracing::warn!(session = %id, error, "something of a session that was not made may be left");
            Unmade::Perhaps
        }
    }
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
        runtime: RuntimeId::from_uuid(crate::ids::by_time()),
        workload: request.workload.clone(),
        launch: launch.clone(),
        restart: request.restart,
        on_hang: request.on_hang,
        on_node_loss: request.on_node_loss,
        after_work: if request.keep { AfterWork::Keep } else { AfterWork::Close },
        start: StartWhen::AtOnce,
        place: Place::Fixed,
        trust: Trust::Trusted,
        parameters: request.parameters.clone(),
        created_at: context.clock.now().wall,
    })
}

async fn write_beginning(
    context: &Arc<Context>,
    spec: SessionSpec,
    opened: Option<Opened>,
    run_all: bool,
) -> Result<(Task, Handle), Problem> {
    let id = spec.id;
    let claimed = async { Journal::claim(id, context, None).await?.read(|_, _| {}).await };
    let mut journal = claimed.await.map_err(|error| context.not_claimed(id, &error))?;
    let blobs = blob_directory(context, id).await?;
    let mut notebook = match opened {
        Some(Opened { document, place, slot: _ }) => {
            let folder = BlobFolder(blobs.clone());
            let stamp = place.as_ref().and_then(|place| place.stamp.clone());
            restore::begin(&mut journal, &document, &folder, stamp)
                .await
                .map_err(|error| not_written(&error))?;
            let files = Arc::clone(&context.files);
            let file = match place {
                Some(Claimed { path, stamp, claim: Ok(claim) }) => {
                    NotebookFile::new(id, files, (path, stamp), claim)
                }
                Some(Claimed { path, claim: Err(why), .. }) => NotebookFile::unclaimed(id, files, path, &why),
                None => NotebookFile::untitled(id, files),
            };
            let clock = Arc::clone(&context.clock);
            Some(NotebookPlane::new(id, clock, Document::new(id, document, folder), file))
        }
        None => None,
    };
    let tolerant = matches!(spec.workload, Workload::Notebook { allow_errors: true, .. });
    let work = run_all.then_some(SubmitRuns::All { required: None });
    let runs = match (&spec.workload, &spec.launch.program) {
        (Workload::Command { .. }, program) => vec![command_run(program)],
        (Workload::Notebook { .. } | Workload::Kernel, _) => {
            runs_of(notebook.as_mut().map(|notebook| &mut notebook.document), tolerant, work)?
        }
    };
    let at = spec.created_at;
    let mut session = Session::new(spec.clone());
    let mut facts = vec![Fact::Journal(SessionEvent { at, what: Happened::Created(Box::new(spec)) })];
    if !runs.is_empty() {
        let queued = Happened::queued(runs).into_iter();
        facts.extend(queued.map(|what| Fact::Journal(SessionEvent { at, what })));
    }
    for fact in &facts {
        journal.fact(fact, None).await.map_err(|error| not_written(&error))?;
        apply(&mut session, fact);
    }
    let (task, handle) = task(context, session, journal, notebook, &blobs);
    Ok((task, handle))
}

fn command_run(program: &Program) -> NewRun {
    let source = program.argv().join(" ");
    NewRun {
        id: RunId::from_uuid(crate::ids::by_time()),
        cell: None,
        cell_id: None,
        source,
        on_raise: OnRaise::Stop,
    }
}

/// The runs that a wish asks for.
pub(super) fn runs_of(
    notebook: Option<&mut Document>,
    tolerant: bool,
    work: Option<SubmitRuns>,
) -> Result<Vec<NewRun>, Problem> {
    let id = || RunId::from_uuid(crate::ids::by_time());
    let cells = |which: Which<'_>| {
        let no_cells = || problem::bad_request("the session has no notebook; submit code instead of cells");
        notebook.ok_or_else(no_cells)?.runs_for(which, tolerant, id)
    };
    let runs = match work {
        None => Vec::new(),
        Some(SubmitRuns::Code { code }) => {
            vec![NewRun { id: id(), cell: None, cell_id: None, source: code, on_raise: OnRaise::Stop }]
        }
        // `required` and `expected` were waited for before.
        Some(SubmitRuns::CellIds { cells: ids, .. }) => cells(Which::Ids(&ids))?,
        Some(SubmitRuns::All { required: _ }) => cells(Which::All)?,
        Some(SubmitRuns::Cells { cells: indexes }) => cells(Which::Indexes(&indexes))?,
    };
    let too_large = runs.iter().find(|run| run.stored_bytes() > RUN_SOURCE_BYTES_MAX);
    too_large.map_or(Ok(()), |run| Err(source_too_large(run)))?;
    Ok(runs)
}

fn source_too_large(run: &NewRun) -> Problem {
    let (what, bytes) = match (run.cell, &run.cell_id) {
        (Some(index), Some(id)) => (format!("the source of cell {} ({id})", index + 1), run.source.len()),
        (_, _) => ("the code".to_owned(), run.source.len()),
    };
    let detail = format!("{what} has {bytes} bytes; about {RUN_SOURCE_BYTES_MAX} can be run at once");
    let problem = Problem::new(413, "source-too-large", "The source is too large to be run", detail)
        .hint("put the data into a file beside the notebook and read it from there; nothing was queued");
    match &run.cell_id {
        Some(cell) => problem.fact("cell", cell),
        None => problem,
    }
}

pub(crate) async fn blob_directory(context: &Context, id: SessionId) -> Result<PathBuf, Problem> {
    let directory =
        context.engine.blob_directory(id).await.map_err(|error| problem::internal(with_sources(&error)))?;
    directory.ok_or_else(|| problem::internal("this store keeps no blobs on this machine"))
}

pub(crate) fn not_written(error: &WriteError) -> Problem {
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
    let mut first = view::session(&session, journal.position(), 0);
    first.node = context.name();
    if let Some(notebook) = &notebook {
        view::in_file(&mut first, &notebook.file);
    }
    let first = view::behind(None, first, journal.fold().epoch());
    let (mut handle, Desk { mailbox, view, resident, lost }) = Handle::new(first, context.clock.now().tick);
    handle.stall = journal.stall();
    let known = |run: &RunId| session.runs.contains_key(run);
    let forgotten = journal.fold().runs().map(|(run, _)| run).filter(|run| !known(run)).collect();
    let task = Task {
        context: Arc::clone(context),
        session,
        journal,
        notebook,
        link: None,
        timers: BTreeMap::new(),
        mailbox,
        waiting: Vec::new(),
        forgotten,
        view,
        feed: Arc::clone(&handle.feed),
        peers: Arc::clone(&handle.peers),
        resident,
        blobs: blobs.display().to_string(),
        stop: context.stop.clone(),
        lost,
        taken: None,
        giving: None,
        life: Life::Going,
    };
    (task, handle)
}

/// The session is open from now on, and its task runs.
pub(crate) fn start(
    context: &Arc<Context>,
    reservation: &Reservation,
    handle: &Handle,
    task: impl Future<Output = ()> + Send + 'static,
) {
    reservation.opened(handle.clone());
    context.tasks.spawn(guarded(Arc::clone(context), handle.id, task));
}

/// A panic ends that session's task and nothing else: whoever asks or watches is told.
async fn guarded(context: Arc<Context>, id: SessionId, task: impl Future<Output = ()>) {
    if std::panic::AssertUnwindSafe(task).catch_unwind().await.is_err() {
        tracing::error!(session = %id, "a session's task panicked");
        context.bus.close(id);
        context.broken(id, "a defect of Outlive ended its task; the daemon's log has the details".to_owned());
    }
}
#[cfg(test)]
mod tests {
    use std::time::Duration;

    use outlive_core::id::{BootId, NodeId};
    use outlive_store::LaneFilter;
    use tokio_util::task::TaskTracker;
    use uuid::Uuid;

    use super::*;
    use crate::budget::Budgets;
    use crate::bus::{Cut, LocalBus};
    use crate::clock::SystemClock;
    use crate::context::Seams;
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
        let seams = Seams {
            clock,
            engine: Arc::new(outlive_store::Memory::default()),
            bus: Arc::new(LocalBus::default()),
            runtimes: Arc::new(runtimes),
            files: Arc::new(LocalFiles::new(nowhere)),
            cluster: None,
        };
        let context = Arc::new(Context::new(who, seams, Budgets::default()));
        let id = SessionId::from_uuid(Uuid::from_u128(3));
        let mut watching = context.bus.subscribe(id, LaneFilter::All);
        guarded(Arc::clone(&context), id, async { panic!("as intended by the test") }).await;
        let heard = tokio::time::timeout(Duration::from_secs(20), watching.recv()).await;
        assert_eq!(heard.expect("the tail ends").unwrap_err(), Cut::Closed);
        assert_eq!(context.handle(id).unwrap_err().code, "session-broken");
    }
}
