//! Sessions that the table of sessions has lost: their logs hold everything, so they are listed again from them.
//!
//! The table is an index. A file of it that was damaged or is gone, or single rows that cannot be read, take no session
//! along: whoever has a log and no row is folded at the start, and nobody else is.

use std::collections::HashSet;
use std::sync::Arc;

use outlive_core::id::{Epoch, SessionId};
use outlive_core::session::residence::{Need, need};
use outlive_protocol::http::SessionView;
use outlive_store::ReadError;

use crate::context::{Context, Indexed, Presence};
use crate::hosted::Hosted;
use crate::session::open::{self, Folded};
use crate::session::with_sources;

/// A session as its log has it.
struct Found {
    view: SessionView,
    presence: Presence,
    epoch: Epoch,
}

/// Lists all sessions that have a log and no row among `rows`, and adds them. Several nodes share a table that is not kept
/// here. `has_shim` says for whom something runs; `has_table`, whether `rows` is what the table holds. Gives those whose logs
/// cannot be read now: nothing is known of them, so what runs for them is to be left alone.
///
/// # Errors
/// Without the table, when the store does not answer: whoever began with less than there is would give a path away that a
/// session has.
pub(super) async fn list_again(
    context: &Arc<Context>,
    rows: &mut Vec<Indexed>,
    has_shim: impl Fn(&SessionId) -> bool,
    has_table: bool,
) -> Result<Vec<SessionId>, ReadError> {
    let (mut found, mut unread) = (Vec::new(), Vec::new());
    if context.cluster.is_some() {
        return Ok(unread);
    }
    let listed: HashSet<SessionId> = rows.iter().map(|row| row.view.id).collect();
    let logs = context.engine.sessions().await?;
    for id in logs.into_iter().filter(|id| !listed.contains(id)) {
        match open::load(context, id).await {
            Ok(folded) => found.extend(in_log(context, id, folded).await),
            Err(error @ ReadError::Unavailable(_)) if !has_table => return Err(error),
            Err(error) => {
                tracing::error!(session = %id, error = %with_sources(&error), "a session without a row cannot be read");
                context.broken(id, with_sources(&error));
                unread.push(id);
            }
        }
        context.engine.close_session(id).await;
    }
    if let Err(error) = context.drop_unreadable().await {
        tracing::warn!(error = %with_sources(&error), "rows that cannot be read stay");
    }
    // Of two that had one path the one that runs something is believed, then the newer: another's making has failed.
    found.sort_by_key(|found| {
        (std::cmp::Reverse(has_shim(&found.view.id)), std::cmp::Reverse(found.view.created_at))
    });
    let before = rows.len();
    for Found { view, presence, epoch } in found {
        let has_its_path = |row: &&Indexed| row.presence != Presence::Ended && row.view.path == view.path;
        if presence != Presence::Ended
            && view.path.is_some()
            && !has_shim(&view.id)
            && let Some(other) = rows.iter().find(has_its_path)
        {
            tracing::warn!(session = %view.id, path = view.path, holder = %other.view.id, "a session is not listed: its path is another's");
            continue;
        }
        let presence = match context.index(&view, presence, epoch).await {
            Ok(()) => presence,
            Err(error) => {
                tracing::warn!(session = %view.id, error = %with_sources(&error), "a session is not listed yet");
                if presence == Presence::Ended {
                    continue;
                }
                // Nobody would find it: it is taken up, and so until its row is written.
                Presence::Open
            }
        };
        rows.push(Indexed::found(view, presence));
    }
    let found = rows.len() - before;
    if found > 0 {
        tracing::error!(
            sessions = found,
            "the table of sessions had lost them; they are listed again by their logs"
        );
    }
    context.found_unlisted(found);
    Ok(unread)
}

/// A session as its log has it; `None` if there is nothing to list.
async fn in_log(context: &Arc<Context>, id: SessionId, folded: Folded) -> Option<Found> {
    let Some(hosted) = folded.hosted else {
        match open::lost_beginning(context, id).await {
            Ok(None) => {
                tracing::info!(session = %id, "what is left of a session that was never made is removed");
                if let Err(error) = context.engine.drop_session(id).await {
                    tracing::warn!(session = %id, error = %with_sources(&error), "it stays");
                }
            }
            Ok(Some(problem)) | Err(problem) => context.broken(id, problem.detail),
        }
        return None;
    };
    let presence = match &hosted {
        _ if hosted.is_closed() => Presence::Ended,
        Hosted::Session(session) if need(session) == Need::Nothing => Presence::Dormant,
        Hosted::Session(_) | Hosted::Group(_) => Presence::Open,
    };
    Some(Found { view: hosted.view(folded.fold.position()), presence, epoch: folded.fold.epoch() })
}
