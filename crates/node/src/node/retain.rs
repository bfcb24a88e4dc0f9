//! What has ended is kept for a while, and not for ever.

use std::sync::Arc;
use std::time::Duration;

use outlive_core::failover::rendezvous;
use outlive_core::id::SessionId;
use outlive_core::limits::{RETENTION_BYTES_MAX, RETENTION_DAYS, RETENTION_PERIOD_MS};
use outlive_store::TableError;

use crate::cluster::Standing;
use crate::context::{Context, Presence};
use crate::session::with_sources;

/// Forgets now and then what [`retain`] does, until the node ends.
pub(super) async fn retain_now_and_then(context: Arc<Context>) {
    loop {
        let next = context.clock.now().tick + Duration::from_millis(RETENTION_PERIOD_MS);
        tokio::select! {
            biased;
            () = context.stop.cancelled() => return,
            () = context.clock.until(next) => {}
        }
        if let Err(error) = retain(&context).await {
            tracing::warn!(error = %with_sources(&error), "ended sessions are not forgotten");
        }
    }
}

/// Forgets ended sessions that are too old, then the oldest while all hold too much. Of several nodes each forgets those
/// that are meant for it.
///
/// # Errors
/// When the store does not answer.
pub(super) async fn retain(context: &Context) -> Result<(), TableError> {
    let oldest = context.clock.now().wall.0.saturating_sub(RETENTION_DAYS * 86_400 * 1_000_000);
    let mut held = 0_u64;
    let ended = context.all_indexed().await?.into_iter().filter(|row| row.presence == Presence::Ended);
    for (nth, row) in ended.enumerate() {
        let usage = context.engine.usage(row.view.id).await.unwrap_or_default();
        held = held.saturating_add(usage.log_bytes).saturating_add(usage.blob_bytes);
        let old = row.view.closed_at.is_some_and(|at| at.0 < oldest);
        // The newest may be larger than all that is allowed, and somebody has just watched it end.
        if (old || (nth > 0 && held > RETENTION_BYTES_MAX)) && is_meant_here(context, row.view.id) {
            tracing::info!(session = %row.view.id, "an ended session is forgotten");
            context.forget(row.view.id).await?;
        }
    }
    Ok(())
}

/// Whether this node is the one of the living that is to forget a session. One that is not ready leaves it to the others.
pub(crate) fn is_meant_here(context: &Context, session: SessionId) -> bool {
    let Some(cluster) = &context.cluster else { return true };
    if *cluster.standing.borrow() != Standing::Ready {
        return false;
    }
    let members = cluster.members.borrow();
    let alive = members.alive().map(|(member, _)| member.node).chain([cluster.me.node]);
    rendezvous::order(session.as_uuid(), alive).first() == Some(&cluster.me.node)
}
