//! What has ended is kept for a while, and not for ever.

use std::sync::Arc;

use outlive_core::failover::rendezvous;
use outlive_core::id::SessionId;
use outlive_core::limits::{RETENTION_BYTES_MAX, RETENTION_DAYS, RETENTION_PERIOD_MS};
use outlive_core::time::WallTime;
use outlive_store::TableError;

use crate::cluster::Standing;
use crate::context::{Context, Presence};
use crate::session::with_sources;

/// Forgets now and then what [`retain`] does, until the node ends.
pub(super) async fn retain_now_and_then(context: Arc<Context>) {
    while context.pause(RETENTION_PERIOD_MS).await {
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
    // What it would not forget is not looked for, which is all of it while it starts.
    if context.cluster.as_ref().is_some_and(|cluster| *cluster.standing.borrow() != Standing::Ready) {
        return Ok(());
    }
    let oldest = slowest(context).0.saturating_sub(RETENTION_DAYS * 86_400 * 1_000_000);
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

/// The present by the slowest clock of the nodes that are there: one whose clock is weeks ahead would take for old what
/// has just ended, and nobody gets that back.
fn slowest(context: &Context) -> WallTime {
    let now = context.clock.now().wall;
    let Some(cluster) = &context.cluster else { return now };
    let members = cluster.members.borrow();
    behind(now, members.alive().map(|(_, seen)| seen.clock_skew_ms))
}

/// A time, less what the slowest of some clocks is behind, in milliseconds as they differ from ours.
fn behind(now: WallTime, skews_ms: impl Iterator<Item = i64>) -> WallTime {
    let slowest = skews_ms.min().unwrap_or_default().min(0);
    WallTime(now.0.saturating_sub(slowest.unsigned_abs().saturating_mul(1_000)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_ahead_makes_nothing_old() {
        let (now, day_ms) = (WallTime(90 * 86_400_000_000), 86_400_000);
        assert_eq!(behind(now, [0, -60 * day_ms, day_ms].into_iter()), WallTime(30 * 86_400_000_000));
        assert_eq!(behind(now, [day_ms].into_iter()), now, "ours is the slowest");
        assert_eq!(behind(now, [].into_iter()), now);
        assert_eq!(behind(now, [i64::MIN].into_iter()), WallTime(0));
    }
}
