//! What an earlier daemon left: sessions that were open are taken up, those that are dormant stay so.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use outlive_core::id::SessionId;
use outlive_core::limits::STORE_RETRY_MS;

use super::{StartError, unlisted};
use crate::context::{Context, Indexed, Presence, Reservation};
use crate::seams::FoundShim;
use crate::session::open::{self, Instead, NotResumed};
use crate::session::with_sources;

/// Takes up what is in the store and behind shims. A session whose row is gone is listed again by its log.
///
/// # Errors
/// When the table of sessions cannot be read, nor all logs in its place: whoever began with less than there is would
/// give a path away that a session has.
pub(crate) async fn recover(context: &Arc<Context>) -> Result<(), StartError> {
    let mut shims: BTreeMap<SessionId, Vec<FoundShim>> = BTreeMap::new();
    for shim in context.runtimes.found() {
        shims.entry(shim.identity.session).or_default().push(shim);
    }
    let (mut rows, unread) = match context.all_indexed().await {
        Ok(rows) => (rows, None),
        // What it holds stands in the logs as well.
        Err(error) if context.cluster.is_none() => {
            tracing::error!(error = %with_sources(&error), "the table of sessions cannot be read");
            (Vec::new(), Some(error))
        }
        Err(error) => return Err(error.into()),
    };
    let has_shim = |id: &SessionId| shims.contains_key(id);
    match unlisted::list_again(context, &mut rows, has_shim, unread.is_none()).await {
        Ok(unread) => {
            for id in unread {
                let found = shims.remove(&id).unwrap_or_default();
                context.tasks.spawn(take_up_later(Arc::clone(context), id, found));
            }
        }
        Err(error) => {
            tracing::error!(error = %with_sources(&error), "nobody knows which sessions have logs and no rows");
            unread.map_or(Ok(()), Err)?;
        }
    }
    rows.retain(|row| row.presence != Presence::Ended && is_ours(context, row));
    // All paths first: what is taken up may be asked for at once.
    for Indexed { view, .. } in &rows {
        if let Some(path) = &view.path
            && let Err(holder) = context.hold_path(Path::new(path), view.id)
        {
            tracing::error!(session = %view.id, path, %holder, "two sessions have one path");
        }
    }
    for Indexed { view, presence, .. } in rows {
        let found = shims.remove(&view.id).unwrap_or_default();
        // One that is dormant stays so, unless it has a process after all.
        if presence == Presence::Dormant && found.is_empty() {
            continue;
        }
        let Some(reservation) = context.reserve(view.id) else { continue };
        if take_up(context, reservation, found.clone()).await == TakenUp::Later {
            context.tasks.spawn(take_up_later(Arc::clone(context), view.id, found));
        }
    }
    for shim in shims.into_values().flatten() {
        context.refuse(&shim, "no session of this daemon knows it");
    }
    Ok(())
}

/// Whether an earlier life of this node had the session, as its row says; of a node that is alone they all are. Others
/// are taken over, if nobody has them, and not taken up.
fn is_ours(context: &Context, row: &Indexed) -> bool {
    context.cluster.is_none() || row.owner.is_some_and(|owner| owner.node == context.who.node)
}

/// How taking up a session went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TakenUp {
    /// It is open, or cannot be.
    Settled,
    /// The store does not answer now.
    Later,
}

async fn take_up(context: &Arc<Context>, reservation: Reservation, shims: Vec<FoundShim>) -> TakenUp {
    let id = reservation.id;
    match open::resume(context, &reservation, Instead::OfNobody(shims.clone())).await {
        Ok(()) => {
            tracing::info!(session = %id, "taken up");
            TakenUp::Settled
        }
        Err(NotResumed::Taken(owner)) => {
            tracing::info!(session = %id, node = %owner.node, "taken over by another node meanwhile");
            open::refuse_all(context, &shims, "another node owns its session now");
            context.leave_paths_of(id);
            TakenUp::Settled
        }
        Err(NotResumed::Because(problem)) => {
            tracing::error!(session = %id, %problem, "a session cannot be taken up");
            context.broken(id, problem.to_string());
            if problem.status == 503 { TakenUp::Later } else { TakenUp::Settled }
        }
    }
}

/// A store on a full disk answers again when there is space; what runs goes on meanwhile.
async fn take_up_later(context: Arc<Context>, id: SessionId, shims: Vec<FoundShim>) {
    while context.pause(STORE_RETRY_MS).await {
        let Some(reservation) = context.reserve_broken(id) else { return };
        if take_up(&context, reservation, shims.clone()).await == TakenUp::Settled {
            return;
        }
    }
}
