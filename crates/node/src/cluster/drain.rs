//! A node gives everything away that it owns: for an upgrade, or for good.
//!
//! ```text
//!  draining: nothing new is taken ─► each session at once: what runs ends, or is stopped ─► released, listed as nobody's
//!                                                        │ cannot                               └─► its heir claims it
//!                                                        ▼                                    all of them: goodbye
//!                                                      kept, and said
//! ```

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use outlive_core::failover::plan::heir;
use outlive_core::id::SessionId;
use outlive_core::limits::{DRAIN_AT_ONCE, DRAIN_TAKEN_MS, SESSION_END_MS};
use outlive_protocol::http::{Drain, Drained, Problem};

use super::takeover::claimants;
use super::{Cluster, Standing};
use crate::context::{Context, Presence};
use crate::session::Handle;
use crate::session::handle::{Answer, Ask};

/// What became of a session that was to be given away.
enum Given {
    Away(SessionId),
    /// It came to its end first.
    Ended,
    /// It stays, for this reason.
    Not(String),
}

/// Gives everything away.
///
/// # Errors
/// When this node is not one of several that are well.
pub(crate) async fn drain(
    context: &Arc<Context>,
    cluster: &Arc<Cluster>,
    how: Drain,
) -> Result<Drained, Problem> {
    let was = *cluster.standing.borrow();
    if !matches!(was, Standing::Ready | Standing::Draining) {
        cluster.ready()?;
    }
    let mut drained = Drained::default();
    if claimants(&cluster.members.borrow(), cluster.me.node).is_empty() {
        let kept = context.handles().into_iter();
        drained.kept =
            kept.map(|handle| format!("session {}: there is no other node that lives", handle.id)).collect();
        return Ok(drained);
    }
    // Before anything is given away: nobody gives us anything, and we claim nothing.
    cluster.standing.send_replace(Standing::Draining);
    // What was begun before that is given away too.
    let deadline = context.clock.now().tick + Duration::from_millis(SESSION_END_MS);
    tokio::select! {
        biased;
        () = context.settled() => {}
        () = context.clock.until(deadline) => tracing::warn!("a session is still being made or woken; it is not given away"),
    }
    tracing::info!(node = %cluster.settings.name, sessions = context.handles().len(), "the node gives everything away");
    let given = context.handles().into_iter().map(|handle| give(context, cluster, handle, how));
    let mut given = futures_util::stream::iter(given).buffer_unordered(DRAIN_AT_ONCE);
    while let Some(given) = given.next().await {
        match given {
            Given::Away(session) => drained.released.push(session),
            Given::Ended => {}
            Given::Not(why) => drained.kept.push(why),
        }
    }
    drained.released.sort_unstable();
    drained.taken = taken(context, cluster, &drained.released).await;
    if drained.kept.is_empty() {
        cluster.goodbye().await;
    }
    Ok(drained)
}

async fn give(context: &Arc<Context>, cluster: &Cluster, handle: Handle, how: Drain) -> Given {
    let id = handle.id;
    let to = heir(id, claimants(&cluster.members.borrow(), cluster.me.node));
    let patience = Duration::from_millis(how.cell_grace_ms.saturating_add(SESSION_END_MS));
    let deadline = context.clock.now().tick + patience;
    let asked = tokio::select! {
        biased;
        asked = handle.ask(Ask::HandOver { grace_ms: how.cell_grace_ms, to }) => asked,
        () = context.clock.until(deadline) => {
            return Given::Not(format!("session {id}: it did not come to rest within {} s", patience.as_secs()));
        }
    };
    match asked {
        Ok(Answer::Released) => Given::Away(id),
        Ok(other) => Given::Not(format!("session {id}: it answered something else: {other:?}")),
        // Somebody has taken it meanwhile.
        Err(problem) if problem.code == "session-moving" => Given::Away(id),
        Err(problem) if problem.code == "session-ended" => {
            // Its end takes a moment, and then it has no process.
            let mut view = handle.view.clone();
            tokio::select! {
                biased;
                () = async { while view.changed().await.is_ok() {} } => Given::Ended,
                () = context.clock.until(deadline) => Given::Not(format!("session {id}: it is still ending")),
            }
        }
        Err(problem) => Given::Not(format!("session {id}: {problem}")),
    }
}

/// Which of them others have taken already. Waits for that, but not for long.
async fn taken(context: &Context, cluster: &Cluster, released: &[SessionId]) -> Vec<SessionId> {
    let is_taken = |session: &SessionId| {
        let row = cluster.directory.get(*session);
        row.is_none_or(|row| {
            row.presence != Presence::Open || row.owner.is_some_and(|owner| owner != cluster.me)
        })
    };
    let deadline = context.clock.now().tick + Duration::from_millis(DRAIN_TAKEN_MS);
    let all = async {
        let mut changes = cluster.directory.changes();
        while !released.iter().all(is_taken) && changes.changed().await.is_ok() {}
    };
    tokio::select! {
        biased;
        () = all => {}
        () = context.clock.until(deadline) => {}
    }
    released.iter().copied().filter(|session| is_taken(session)).collect()
}
