//! A group that is made, or taken up again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use outlive_core::group::state::Member;
use outlive_core::group::{Group, GroupEvent, GroupSpec, apply};
use outlive_core::id::SessionId;
use outlive_core::session::Fact;
use outlive_core::session::event::{Happened, SessionEvent};
use outlive_core::session::state::Status;
use outlive_protocol::http::Problem;

use super::links::Links;
use super::names;
use super::replay::Replays;
use super::task::{Life, Task};
use super::view::{self, Loading};
use crate::context::{Context, Presence, Reservation};
use crate::hosted::Hosted;
use crate::problem;
use crate::seams::FoundShim;
use crate::session::Handle;
use crate::session::handle::Desk;
use crate::session::journal::{Claimed, Journal, WriteError};
use crate::session::open::{Origin, Unmade, blob_directory, gone, start, unmake};
use crate::session::view::behind;

/// Makes a group whose name is claimed, and starts its task.
///
/// # Errors
/// When the store does not take it; nothing of it is left then, as far as the store can be reached.
pub(super) async fn create(
    context: &Arc<Context>,
    reservation: &Reservation,
    spec: GroupSpec,
) -> Result<Handle, Problem> {
    let (id, name) = (reservation.id, spec.name.clone());
    let made = async {
        let blobs = blob_directory(context, id).await?;
        let (group, journal) =
            write_beginning(context, spec).await.map_err(|error| context.not_claimed(id, &error))?;
        let epoch = journal.fold().epoch();
        let (task, handle) = task(context, group, journal, &blobs);
        // Before it starts: the next daemon must take up what is started for it.
        let view = handle.view.borrow().clone();
        context.index(&view, Presence::Open, epoch).await.map_err(|error| problem::store(&error))?;
        names::claim_again(context, &name, id).await?;
        Ok((task, handle))
    };
    match made.await {
        Ok((task, handle)) => {
            context.metrics.session_opened();
            context.name_group(&name, id);
            start(context, reservation, &handle, task.run());
            Ok(handle)
        }
        Err(problem) => {
            // A group that may be there keeps its name. If it is not, the claim is left over and is replaced.
            if unmake(context, id).await == Unmade::Surely {
                names::release(context, &name, id).await;
            }
            Err(problem)
        }
    }
}

pub(super) async fn write_beginning(
    context: &Context,
    spec: GroupSpec,
) -> Result<(Group, Journal), WriteError> {
    let mut journal = Journal::claim(spec.id, context, None).await?.read(|_, _| {}).await?;
    let at = spec.created_at;
    let mut group = Group::new(spec.clone());
    let what = Happened::Group(GroupEvent::Created(Box::new(spec)));
    let created = Fact::Journal(SessionEvent { at, what });
    journal.fact(&created, None).await?;
    apply(&mut group, &created);
    Ok((group, journal))
}

/// Takes up a group that was up when the daemon before this one ended. `shims` are those found for it.
///
/// # Errors
/// When its log cannot be read or claimed; it stays as it is then.
pub(crate) async fn resume(
    context: &Arc<Context>,
    reservation: &Reservation,
    from: Origin,
    claimed: Claimed,
    blobs: &Path,
) -> Result<(), Problem> {
    let epoch = claimed.epoch;
    let id = reservation.id;
    let (group, mut journal, replays) = read_beginning(context, id, claimed).await?;
    let unnamed = journal.take_unnamed();
    context.tasks.spawn(journal.remove_unnamed(unnamed));
    if names::is_anothers(context, &group.spec.name, id).await? {
        tracing::warn!(session = %id, name = group.spec.name, "another group has the name since before this one was made");
        return context.forget(id).await.map_err(|error| problem::store(&error));
    }
    let (mut task, handle) = task(context, group, journal, blobs);
    task.replays = replays;
    // Before anything is started for it: the next daemon must take it up.
    let view = handle.view.borrow().clone();
    context.index(&view, Presence::Open, epoch).await.map_err(|error| problem::store(&error))?;
    match from {
        Origin::Here(shims) => task.take_up(shims),
        Origin::Elsewhere(takeover) => task.taken = Some(takeover),
    }
    context.name_group(&task.group.spec.name, reservation.id);
    start(context, reservation, &handle, task.run());
    Ok(())
}

/// Folds the log of a group that is claimed.
pub(super) async fn read_beginning(
    context: &Context,
    id: SessionId,
    claimed: Claimed,
) -> Result<(Group, Journal, Replays), Problem> {
    let (mut hosted, mut replays) = (None, Replays::default());
    let read = claimed.read(|entry, effect| {
        Hosted::fold(&mut hosted, entry, effect);
        replays.fold(hosted.as_ref(), entry, effect);
    });
    let journal = read.await.map_err(|error| context.not_claimed(id, &error))?;
    match hosted {
        Some(Hosted::Group(group)) => Ok((*group, journal, replays)),
        Some(Hosted::Session(_)) | None => Err(problem::internal("the log changed while it was read")),
    }
}

pub(super) fn task(context: &Arc<Context>, group: Group, journal: Journal, blobs: &Path) -> (Task, Handle) {
    let mut first = view::group(&group, journal.position(), 0, &Loading::new());
    first.node = context.name();
    let first = behind(None, first, journal.fold().epoch());
    let (mut handle, Desk { mailbox, view, resident, lost }) = Handle::new(first, context.clock.now().tick);
    handle.stall = journal.stall();
    let forgotten = journal.fold().runs().map(|(run, _)| run).filter(|run| !group.tasks.contains_key(run));
    let task = Task {
        context: Arc::clone(context),
        forgotten: forgotten.collect(),
        group,
        journal,
        links: Links::default(),
        timers: BTreeMap::new(),
        replays: Replays::default(),
        loading: Loading::new(),
        mailbox,
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

impl Task {
    /// Links each member to the shim of its present process. A shim of an earlier one is refused; a process whose shim is
    /// nowhere is reported lost, and a launch that had not begun is begun again.
    fn take_up(&mut self, shims: Vec<FoundShim>) {
        for shim in shims {
            let process = shim.identity.process;
            let is_present = |member: &Member| member.process() == process && member.runtime.has_process();
            if self.group.members.iter().any(is_present) {
                let acked = self.journal.acked(process);
                let link = self.context.runtimes.adopt(&shim, acked);
                self.links.insert(link);
            } else {
                self.context.refuse(&shim, "its group has gone on without it");
            }
        }
        let now = self.context.clock.now().wall;
        let alone: Vec<_> = self
            .group
            .members
            .iter()
            .filter(|member| member.runtime.has_process() && !self.links.has(member.process()))
            .map(|member| {
                let process = member.process();
                (process, member.runtime.pid, member.runtime.nowhere(process, now))
            })
            .collect();
        for (process, pid, nowhere) in alone {
            let is_launching = self
                .group
                .member(process.runtime)
                .is_some_and(|(_, member)| member.runtime.status == Status::Launching && pid.is_none());
            let order = if is_launching { self.launch_order(process) } else { None };
            let link = match order {
                Some(order) => {
                    tracing::info!(%process, "a launch that had not begun");
                    self.context.runtimes.launch(order)
                }
                None => gone(nowhere),
            };
            self.links.insert(link);
        }
    }
}
