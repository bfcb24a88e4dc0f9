//! A session that is taken up again: by a daemon that comes back, or by whoever asks for one that was evicted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use outlive_core::failover::{Member, TakenWhy, Takeover};
use outlive_core::id::{Epoch, Position, SessionId};
use outlive_core::log::Lane;
use outlive_core::runtime::ExitReport;
use outlive_core::session::spec::Place;
use outlive_core::session::state::Status;
use outlive_core::session::{Effect, Session, recover};
use outlive_core::time::WallTime;
use outlive_protocol::http::Problem;
use outlive_store::{Dropped, LaneFilter};
use tokio::sync::mpsc;

use super::damaged::{Instead as Damaged, restore_instead};
use super::{blob_directory, load, load_lanes, not_written, start, task};
use crate::budget::room;
use crate::cluster::paths::VolumePath;
use crate::cluster::unreachable::Unreachable;
use crate::context::{Context, Entered, Found, Presence, Reservation};
use crate::group;
use crate::hosted::Hosted;
use crate::problem;
use crate::seams::{ClaimError, FoundShim, FromLink, Link, PathClaim};
use crate::session::handle::{Visiting, ended};
use crate::session::journal::{Claimed, Journal, WriteError};
use crate::session::notebook::restore::DocumentLane;
use crate::session::notebook::saving::claim_at;
use crate::session::notebook::{BlobFolder, NotebookFile, NotebookPlane};
use crate::session::task::{Life, Task};

/// Enters a session; one that is dormant is taken up again first. Whoever comes while it is made, woken or evicted waits
/// for that.
///
/// # Errors
/// `no-such-session`, `session-ended`, `session-broken`, `elsewhere`, or why it cannot be taken up.
pub async fn wake(context: &Arc<Context>, id: SessionId) -> Result<Entered, Problem> {
    loop {
        match context.enter(id, Visiting::ToAsk)? {
            Found::Open(entered) => return Ok(entered),
            Found::Moving(over) => over.cancelled().await,
            Found::Absent => {
                context.is_here_or_nowhere(id)?;
                let Some(reservation) = context.reserve(id) else { continue };
                let waker = Arc::clone(context);
                // In a task of its own: a client that goes away meanwhile must not leave it half taken up.
                let waking = context.tasks.spawn(async move { wake_up(&waker, &reservation).await });
                waking.await.map_err(|panicked| problem::internal(panicked.to_string()))??;
            }
        }
    }
}

async fn wake_up(context: &Arc<Context>, reservation: &Reservation) -> Result<(), Problem> {
    let id = reservation.id;
    let row = context.indexed(id).await.map_err(|error| problem::store(&error))?;
    let row = row.ok_or_else(|| problem::no_session(id))?;
    match row.presence {
        Presence::Ended => return Err(ended(id)),
        Presence::Open | Presence::Dormant => {}
    }
    if let Some(owner) = row.owner.filter(|owner| owner.node != context.who.node) {
        return Err(context.elsewhere(id, owner));
    }
    room()?;
    let woken = match resume(context, reservation, Instead::OfNobody(Vec::new())).await {
        // What was to be free, or never was this cluster's, and its owner is no more.
        Err(NotResumed::Taken(owner)) if let Some(loss) = context.loss_of(owner) => {
            resume(context, reservation, Instead::Of(loss)).await
        }
        woken => woken,
    };
    woken.map_err(|why| why.problem(context, id))?;
    context.metrics.session_woken();
    Ok(())
}

/// Why a session is not taken up.
#[derive(Debug)]
pub enum NotResumed {
    /// This member has it. Nothing was written.
    Taken(Member),
    /// It cannot be, for this reason.
    Because(Problem),
}

impl From<Problem> for NotResumed {
    fn from(problem: Problem) -> Self {
        Self::Because(problem)
    }
}

impl NotResumed {
    /// What a client is told that has asked for it.
    pub fn problem(self, context: &Context, id: SessionId) -> Problem {
        match self {
            Self::Taken(owner) => context.elsewhere(id, owner),
            Self::Because(problem) => problem,
        }
    }
}

/// In whose place a session is taken up.
#[derive(Clone, Debug)]
pub enum Instead {
    /// Nobody's: it is free, or an earlier life of this node had it, and these shims are found for it.
    OfNobody(Vec<FoundShim>),
    /// That of another node, and its processes did not come along.
    Of(Loss),
}

/// How it came that a session has to be taken up by another node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loss {
    /// Who had it.
    pub from: Member,
    /// What that node was called.
    pub name: String,
    /// Why it has it no more.
    pub why: TakenWhy,
    /// When that node was heard last.
    pub heard: Option<WallTime>,
    /// When that was noticed.
    pub noticed_at: WallTime,
}

impl Loss {
    /// As it is recorded by `to`, which has claimed the session now.
    fn takeover(self, (to, to_name): (Member, String), epoch: Epoch, now: WallTime) -> Box<Takeover> {
        Box::new(Takeover {
            from: self.from,
            from_name: self.name,
            to,
            to_name,
            epoch,
            why: self.why,
            last_heard: self.heard,
            noticed_at: self.noticed_at,
            claimed_at: now,
            resumed_at: WallTime::default(),
            resumed: Vec::new(),
        })
    }
}

/// Where a session comes from that is claimed.
pub(crate) enum Origin {
    /// It was here, or nowhere.
    Here(Vec<FoundShim>),
    /// Another node had it.
    Elsewhere(Box<Takeover>),
}

/// Takes up a session that was open when the daemon before this one ended, or that another node had.
///
/// # Errors
/// When its log cannot be read or claimed; it stays as it is then.
pub async fn resume(
    context: &Arc<Context>,
    reservation: &Reservation,
    instead: Instead,
) -> Result<(), NotResumed> {
    let id = reservation.id;
    let deposes = match &instead {
        Instead::OfNobody(_) => None,
        Instead::Of(loss) => Some(loss.from),
    };
    let shims = match &instead {
        Instead::OfNobody(shims) => shims.clone(),
        Instead::Of(_) => Vec::new(),
    };
    let mut claimed = match Journal::claim(id, context, deposes).await {
        Ok(claimed) => claimed,
        Err(WriteError::Taken(claim)) => {
            return Err(NotResumed::Taken(Member { node: claim.node, boot: claim.boot }));
        }
        Err(WriteError::Closed) => return Ok(forgo(context, id, &shims).await?),
        Err(error) => return Err(not_written(&error).into()),
    };
    let claimed_at = context.clock.now().wall;
    if shims.is_empty() {
        claimed.look_for_unnamed().await;
    }
    let row = context.indexed(id).await.map_err(|error| problem::store(&error))?;
    let place = row.and_then(|row| row.place);
    context.index_owner(id, claimed.epoch).await.map_err(|error| problem::store(&error))?;
    // What it was for and what it shows; its output is read once, by the journal.
    let lanes = LaneFilter::Only(vec![Lane::Control, Lane::Journal, Lane::Document]);
    let folded = load_lanes(context, id, &lanes).await.map_err(|error| problem::store(&error))?;
    let Some(before) = folded.hosted.filter(|hosted| !hosted.is_closed()) else {
        return Ok(forgo(context, id, &shims).await?);
    };
    let blobs = blob_directory(context, id).await?;
    let from = match (instead, &context.cluster) {
        (Instead::Of(loss), Some(cluster)) => {
            let me = (cluster.me, cluster.settings.name.clone());
            Origin::Elsewhere(loss.takeover(me, claimed.epoch, claimed_at))
        }
        (Instead::Of(_), None) | (Instead::OfNobody(_), _) => Origin::Here(shims),
    };
    match before {
        Hosted::Group(_) => Ok(group::resume(context, reservation, from, claimed, &blobs).await?),
        Hosted::Session(session) => {
            let lane = (folded.document, folded.fold.position());
            let notebook = reopen_notebook(context, &session, lane, &blobs, place).await?;
            Ok(resume_session(context, reservation, from, claimed, notebook, &blobs).await?)
        }
    }
}

/// There is nothing to take up: the session has ended, or its creation was never answered, or its log is gone. Nobody
/// would supervise what it had started.
async fn forgo(context: &Arc<Context>, id: SessionId, shims: &[FoundShim]) -> Result<(), Problem> {
    context.forget_paths_of(id);
    let whole = load(context, id).await.map_err(|error| problem::store(&error))?;
    let Some(ended) = whole.hosted else {
        if let Some(problem) = lost_beginning(context, id).await? {
            refuse_all(context, shims, "the beginning of its session's log is damaged");
            return Err(problem);
        }
        refuse_all(context, shims, "its session has no log");
        return context.forget(id).await.map_err(|error| problem::store(&error));
    };
    refuse_all(context, shims, "its session is closed");
    let view = ended.view(whole.fold.position());
    let epoch = whole.fold.epoch();
    context.index(&view, Presence::Ended, epoch).await.map_err(|error| problem::store(&error))
}

/// Why a log without a session in it is no sign that the session was never made: it has lost its beginning.
///
/// # Errors
/// When the store does not say.
pub(crate) async fn lost_beginning(context: &Context, id: SessionId) -> Result<Option<Problem>, Problem> {
    let dropped = context.engine.dropped(id).await.map_err(|error| problem::store(&error))?;
    let holds_something = |dropped: &Dropped| dropped.records > 0 || !dropped.aside.is_empty();
    Ok(dropped.iter().any(holds_something).then(|| problem::session_lost(id, &dropped)))
}

async fn resume_session(
    context: &Arc<Context>,
    reservation: &Reservation,
    from: Origin,
    claimed: Claimed,
    notebook: Option<(NotebookPlane, Option<Damaged>)>,
    blobs: &Path,
) -> Result<(), Problem> {
    let (mut notebook, damaged) = notebook.unzip();
    let now = context.clock.now().tick;
    let mut hosted = None;
    // Another node may have written what it builds on.
    let folder = (context.cluster.is_some() && notebook.is_some()).then_some(blobs);
    let read = claimed.read_with(folder, |entry, effect| {
        Hosted::fold(&mut hosted, entry, effect);
        if let (Some(notebook), Some(Hosted::Session(session))) = (&mut notebook, &hosted) {
            notebook.apply(entry, effect, session, now);
        }
    });
    let mut journal = read.await.map_err(|error| context.not_claimed(reservation.id, &error))?;
    let Some(Hosted::Session(mut session)) = hosted else {
        return Err(problem::internal("the log changed while it was read"));
    };
    let mut unnamed = journal.take_unnamed();
    if let Some(notebook) = notebook.as_mut().filter(|_| !unnamed.is_empty()) {
        // The output of a run that has left the log may be referred to here.
        unnamed.look_through(&notebook.document.live().state());
    }
    context.tasks.spawn(journal.remove_unnamed(unnamed));
    if let (Some(notebook), Place::Notebook) = (&mut notebook, session.spec.place) {
        notebook.compare(now);
    }
    if let (Some(damaged), Some(notebook)) = (damaged.flatten(), &mut notebook) {
        damaged.note(context, &mut journal, &mut session, notebook).await?;
    }
    let epoch = journal.fold().epoch();
    let (mut task, handle) = task(context, *session, journal, notebook, blobs);
    // Before anything is started for it: the next daemon must take it up.
    let view = handle.view.borrow().clone();
    context.index(&view, Presence::Open, epoch).await.map_err(|error| problem::store(&error))?;
    match from {
        Origin::Here(shims) => {
            task.take_up(shims);
            // Before anybody can ask for it, or for the path that it may have.
            task.take_up_file().await.map_err(|error| context.not_claimed(reservation.id, &error))?;
        }
        Origin::Elsewhere(takeover) => task.taken = Some(takeover),
    }
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
    context: &Arc<Context>,
    session: &Session,
    (lane, position): (DocumentLane, Position),
    blobs: &Path,
    place: Option<VolumePath>,
) -> Result<Option<(NotebookPlane, Option<Damaged>)>, Problem> {
    if !session.is_notebook() {
        return Ok(None);
    }
    let id = session.spec.id;
    let folder = BlobFolder(blobs.to_owned());
    if context.cluster.is_some() {
        for blob in lane.beside() {
            let brought = crate::blobs::bring(&*context.engine, id, blobs, blob).await;
            brought.map_err(|error| problem::store(&error))?;
        }
    }
    let of_log = folder.clone();
    let (restored, lane) = crate::aside::run(move || (lane.restore(id, of_log), lane)).await;
    let (restored, damaged) = match restored {
        Ok(restored) => (restored, None),
        // It may be there the next time.
        Err(error) if error.may_pass() => return Err(problem::store(&error)),
        Err(error) => {
            let (restored, damaged) =
                restore_instead(context, session, lane, folder, (position, error)).await;
            (restored, Some(damaged))
        }
    };
    let files = Arc::clone(&context.files);
    let file = match &session.path {
        None => NotebookFile::untitled(id, files),
        Some(path) => {
            let file = match here(context, place, path) {
                Ok(local) => match claim_again(context, &local, id).await {
                    Ok(claim) => NotebookFile::new(id, files, (local, None), claim),
                    Err(error) => NotebookFile::unclaimed(id, files, local, &error),
                },
                Err(unreachable) => {
                    let (path, refusal) = (PathBuf::from(path), unreachable.refusal(Path::new(path)));
                    NotebookFile::unclaimed(id, unreachable, path, &refusal)
                }
            };
            // What was known of another file says nothing about this one.
            let saved = restored.saved.filter(|saved| saved.path == *path).map(|saved| saved.stamp);
            let rendered = restored.rendered.filter(|rendered| rendered.path == *path);
            file.opened_as(restored.opened).last_known(saved, rendered.map(|rendered| rendered.sha256))
        }
    };
    Ok(Some((NotebookPlane::new(id, Arc::clone(&context.clock), restored.document, file), damaged)))
}

/// Where the notebook of a session is on this node, whichever node it comes from.
fn here(context: &Context, place: Option<VolumePath>, path: &str) -> Result<PathBuf, Arc<Unreachable>> {
    match (&context.cluster, place) {
        (Some(cluster), Some(place)) => {
            let unreachable = || Unreachable::new(place.volume.clone(), cluster.who_has(&place));
            cluster.local(&place).ok_or_else(unreachable)
        }
        (None, _) | (_, None) => Ok(PathBuf::from(path)),
    }
}

/// A session that is taken up claims its notebook's file again: in the daemon, where another may have got it before the
/// end of this one was in the log; among all nodes, where its claim is there already unless it was never made; and on this
/// machine.
async fn claim_again(
    context: &Arc<Context>,
    path: &Path,
    id: SessionId,
) -> Result<Box<dyn PathClaim>, ClaimError> {
    context.hold_path(path, id).map_err(|holder| ClaimError::Held {
        path: path.display().to_string(),
        session: holder,
        pid: std::process::id(),
    })?;
    context.claim_everywhere(path, id).await?;
    claim_at(&*context.files, path, id).await
}

impl Task {
    /// Links the session to the shim of its present process. A shim of an earlier one is refused; a process whose
    /// shim is nowhere is reported lost, and a launch that had not begun is begun again.
    pub(in crate::session) fn take_up(&mut self, shims: Vec<FoundShim>) {
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
                let now = self.context.clock.now().wall;
                self.link = Some(gone(self.session.runtime.nowhere(process, now)));
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

/// A link that says at once that its process is nowhere.
pub(crate) fn gone(report: ExitReport) -> Link {
    let (to, _orders) = mpsc::channel(1);
    let (says, from) = mpsc::channel(1);
    let process = report.process;
    says.try_send(FromLink::Gone { report: Some(Box::new(report)) })
        .expect("the channel is new and has room");
    Link { process, to, from }
}
