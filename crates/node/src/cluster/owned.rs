//! Whether a session that is open here is still ours: the control lane of its log alone says so.

use std::sync::Arc;

use outlive_core::failover::isolation::Verdict;
use outlive_core::id::SessionId;
use outlive_core::limits::STORE_RETRY_MS;
use outlive_store::ReadError;

use super::Cluster;
use crate::context::Context;
use crate::session::open::control;
use crate::session::with_sources;

/// Reads the control lane of a session.
///
/// # Errors
/// As the store says; then nothing is known.
pub(crate) async fn check(context: &Context, id: SessionId) -> Result<Verdict, ReadError> {
    let fold = control(&*context.engine, id).await?.fold;
    let is_mine =
        fold.claim().is_some_and(|claim| (claim.node, claim.boot) == (context.who.node, context.who.boot));
    Ok(if is_mine { Verdict::Mine } else { Verdict::NotMine })
}

/// Gives up what the table says another node has: an owner that was thought lost, and that has nothing to write, would
/// not hear of it otherwise, and its process would stay beside that of the new owner.
pub(crate) async fn give_up_moved(context: Arc<Context>, cluster: Arc<Cluster>) {
    loop {
        let moved = tokio::select! {
            biased;
            () = context.stop.cancelled() => return,
            moved = cluster.directory.moved() => moved,
        };
        for id in moved {
            let Ok(Some(handle)) = context.handle(id) else { continue };
            let owner = cluster.directory.get(id).and_then(|row| row.owner);
            if owner != Some(cluster.me) && known(&context, id).await == Verdict::NotMine {
                tracing::warn!(session = %id, "another node has taken the session over: its processes here are killed");
                handle.lose();
            }
        }
    }
}

/// As [`check`], however long the store takes to answer. A node that is alone has all its sessions.
pub(crate) async fn known(context: &Context, id: SessionId) -> Verdict {
    while context.cluster.is_some() {
        match check(context, id).await {
            Ok(verdict) => return verdict,
            Err(error) => {
                let error = with_sources(&error);
                tracing::warn!(session = %id, error, "it is not known yet whether the session is still ours");
            }
        }
        if !context.pause(STORE_RETRY_MS).await {
            // What is frozen then stays so for whoever has it next.
            return Verdict::NotMine;
        }
    }
    Verdict::Mine
}
