//! A session that is taken up again: by a daemon that comes back, or by whoever asks for one that was evicted.

use std::path::Path;
use std::sync::Arc;

use outlive_core::id::SessionId;
use outlive_core::log::Lane;
use outlive_core::session::spec::Place;
use outlive_core::session::state::Status;
use outlive_core::session::{Effect, Session, recover};
use outlive_protocol::http::Problem;
use outlive_store::LaneFilter;
use tokio::sync::mpsc;

use super::{blob_directory, load, load_lanes, not_written, start, task};
use crate::budget::room;
use crate::context::{Context, Entered, Found, Presence, Reservation};
use crate::group;
use crate::hosted::Hosted;
use crate::problem;
use crate::seams::{FoundShim, FromLink, Link};
use crate::session::handle::{Visiting, ended};
use crate::session::journal::Journal;
use crate::session::notebook::restore::DocumentLane;
use crate::session::notebook::{BlobFolder, NotebookFile, NotebookPlane, with_sources};
use crate::session::task::{Life, Task};

/// Enters a session; one that is dormant is taken up again first. Whoever comes while it is made, woken or evicted waits
/// for that.
///
/// # Errors
/// `no-such-session`, `session-ended`, `session-broken`, or why it cannot be taken up.
pub async fn wake(context: &Arc<Context>, id: SessionId) -> Result<Entered, Problem> {
    loop {
        match context.enter(id, Visiting::ToAsk)? {
            Found::Open(entered) => return Ok(entered),
            Found::Moving(over) => over.cancelled().await,
            Found::Absent => {
                let Some(reservation) = context.reserve(id) else { continue };
                let waker = Arc::clone(context);
                // In a task of its own: a client that goes away meanwhile must not leave it half taken up.
                let waking = context.tasks.spawn(async move {
                    let row = waker.indexed(id).await.map_err(|error| problem::store(&error))?;
                    match row.map(|row| row.presence) {
                        None => Err(problem::no_session(id)),
                        Some(Presence::Ended) => Err(ended(id)),
                        Some(Presence::Dormant | Presence::Open) => {
                            room()?;
                            resume(&waker, &reservation, Vec::new()).await?;
                            waker.metrics.session_woken();
                            Ok(())
                        }
                    }
                });
                waking.await.map_err(|panicked| problem::internal(panicked.to_string()))??;
            }
        }
    }
}

/// Takes up a session that was open when the daemon before this one ended. `shims` are those found for it.
///
/// # Errors
/// When its log cannot be read or claimed; it stays as it is then.
pub async fn resume(
    context: &Arc<Context>,
    reservation: &Reservation,
    shims: Vec<FoundShim>,
) -> Result<(), Problem> {
    let id = reservation.id;
    // What it was for and what it shows; its output is read once, by the journal.
    let lanes = LaneFilter::Only(vec![Lane::Control, Lane::Journal, Lane::Document]);
    let folded = load_lanes(context, id, &lanes).await.map_err(|error| problem::store(&error))?;
    let Some(before) = folded.hosted else {
        // Its creation was never answered, or its log is gone: nobody would supervise what it had started.
        refuse_all(context, &shims, "its session has no log");
        context.forget_paths_of(id);
        return context.forget(id).await.map_err(|error| problem::store(&error));
    };
    if before.is_closed() {
        refuse_all(context, &shims, "its session is closed");
        context.forget_paths_of(id);
        let whole = load(context, id).await.map_err(|error| problem::store(&error))?;
        let view = whole.hosted.as_ref().unwrap_or(&before).view(whole.fold.position());
        return context.index(&view, Presence::Ended).await.map_err(|error| problem::store(&error));
    }
    let blobs = blob_directory(context, id).await?;
    let before = match before {
        Hosted::Session(session) => session,
        Hosted::Group(_) => return group::resume(context, reservation, shims, &blobs).await,
    };
    let mut notebook = reopen_notebook(context, &before, folded.document, &blobs).await?;
    let now = context.clock.now().tick;
    let mut hosted = None;
    let journal = Journal::claim(id, context, |entry, effect| {
        Hosted::fold(&mut hosted, entry, effect);
        if let (Some(notebook), Some(Hosted::Session(session))) = (&mut notebook, &hosted) {
            notebook.apply(entry, effect, session, now);
        }
    })
    .await
    .map_err(|error| not_written(&error))?;
    let Some(Hosted::Session(session)) = hosted else {
        return Err(problem::internal("the log changed while it was read"));
    };
    if let (Some(notebook), Place::Notebook) = (&mut notebook, session.spec.place) {
        notebook.compare(now);
    }
    let (mut task, handle) = task(context, *session, journal, notebook, &blobs);
    // Before anything is started for it: the next daemon must take it up.
    let view = handle.view.borrow().clone();
    context.index(&view, Presence::Open).await.map_err(|error| problem::store(&error))?;
    task.take_up(shims);
    // Before anybody can ask for it, or for the path that it may have.
    task.take_up_file().await.map_err(|error| not_written(&error))?;
    start(context, reservation, &handle, task.run());
    Ok(())
}

pub(crate) fn refuse_all(context: &Context, shims: &[FoundShim], reason: &str) {
    for shim in shims {
        context.refuse(shim, reason);
    }
}

/// The notebook as it was edited last; the outputs are projected into it again. The file is looked at when it is saved.
async fn reopen_notebook(
    context: &Context,
    session: &Session,
    lane: DocumentLane,
    blobs: &Path,
) -> Result<Option<NotebookPlane>, Problem> {
    if !session.is_notebook() {
        return Ok(None);
    }
    let id = session.spec.id;
    let folder = BlobFolder(blobs.to_owned());
    let restored = tokio::task::spawn_blocking(move || lane.restore(id, folder))
        .await
        .map_err(|panicked| problem::internal(panicked.to_string()))?
        .map_err(|error| problem::internal(with_sources(&error)))?;
    let files = Arc::clone(&context.files);
    let file = match &session.path {
        None => NotebookFile::untitled(id, files),
        Some(path) => {
            let place = Path::new(path);
            context
                .hold_path(place, id)
                .map_err(|holder| problem::path_taken(path, holder, std::process::id()))?;
            let file = match context.files.claim(place, id).await {
                Ok(claim) => NotebookFile::new(id, files, (place.to_owned(), None), claim),
                Err(error) => NotebookFile::unclaimed(id, files, place.to_owned(), &error),
            };
            // What was known of another file says nothing about this one.
            let saved = restored.saved.filter(|saved| saved.path == *path).map(|saved| saved.stamp);
            let rendered = restored.rendered.filter(|rendered| rendered.path == *path);
            file.opened_as(restored.opened).last_known(saved, rendered.map(|rendered| rendered.sha256))
        }
    };
    Ok(Some(NotebookPlane::new(id, Arc::clone(&context.clock), restored.document, file)))
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
                let order = self.launch_order(process);
                self.link = Some(self.context.runtimes.launch(order));
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
pub(crate) fn gone(process: outlive_core::id::ProcessKey, now: outlive_core::time::WallTime) -> Link {
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
