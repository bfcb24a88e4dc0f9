//! Sessions that the table of sessions has lost: their logs hold everything, so they are listed again from them.
//!
//! The table is an index. A file of it that was damaged or is gone, or single rows that cannot be read, take no session
//! along: whoever has a log and no row is folded at the start, and nobody else is.

use std::collections::HashSet;
use std::sync::Arc;

use outlive_core::id::SessionId;
use outlive_core::session::residence::{Need, need};
use outlive_store::ReadError;

use crate::context::{Context, Indexed, Presence};
use crate::hosted::Hosted;
use crate::session::open::{self, Folded};
use crate::session::with_sources;

/// Lists all sessions that have a log and no row among `rows`, and adds them. Several nodes share a table that is not kept
/// here.
///
/// # Errors
/// The store does not answer: then some are not listed.
pub(super) async fn list_again(context: &Arc<Context>, rows: &mut Vec<Indexed>) -> Result<(), ReadError> {
    if context.cluster.is_some() {
        return Ok(());
    }
    let listed: HashSet<SessionId> = rows.iter().map(|row| row.view.id).collect();
    let logs = context.engine.sessions().await?;
    let mut found = 0_usize;
    for id in logs.into_iter().filter(|id| !listed.contains(id)) {
        match open::load(context, id).await {
            Ok(folded) => {
                if let Some(row) = list(context, id, folded, rows).await {
                    rows.push(row);
                    found += 1;
                }
            }
            Err(error @ ReadError::Unavailable(_)) => return Err(error),
            Err(error @ ReadError::Corrupt { .. }) => {
                tracing::error!(session = %id, error = %with_sources(&error), "a session without a row cannot be read");
                context.broken(id, with_sources(&error));
            }
        }
        context.engine.close_session(id).await;
    }
    if let Err(error) = context.drop_unreadable().await {
        tracing::warn!(error = %with_sources(&error), "rows that cannot be read stay");
    }
    if found > 0 {
        tracing::error!(
            sessions = found,
            "the table of sessions had lost them; they are listed again by their logs"
        );
    }
    context.found_unlisted(found);
    Ok(())
}

/// Gives a session a row as its log has it; `None` if there is nothing to list.
async fn list(context: &Arc<Context>, id: SessionId, folded: Folded, rows: &[Indexed]) -> Option<Indexed> {
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
    let (view, epoch) = (hosted.view(folded.fold.position()), folded.fold.epoch());
    let has_its_path = |row: &&Indexed| row.presence != Presence::Ended && row.view.path == view.path;
    if presence != Presence::Ended
        && view.path.is_some()
        && let Some(other) = rows.iter().find(has_its_path)
    {
        // Its making failed, and another has got what it was made for. Nobody was ever told of it.
        tracing::warn!(session = %id, path = view.path, holder = %other.view.id, "a session is not listed: its path is another's");
        return None;
    }
    let presence = match context.index(&view, presence, epoch).await {
        Ok(()) => presence,
        // Nobody would find it: it is taken up, and so until its row is written.
        Err(error) => {
            tracing::warn!(session = %id, error = %with_sources(&error), "a session is not listed yet");
            Presence::Open
        }
    };
    Some(Indexed::found(view, presence))
}
