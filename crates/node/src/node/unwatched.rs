//! A task that its reader wishes to go with them.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use outlive_core::id::{RunId, SessionId};
use outlive_core::limits::EVICT_RETRY_MS;
use outlive_protocol::http::StreamEvent;

use crate::api::Events;
use crate::context::{Context, Found};
use crate::session::handle::{Ask, Visiting};

/// Cancels a task when it is dropped before the task's end was told.
struct Unwatched {
    context: Arc<Context>,
    session: SessionId,
    run: Option<RunId>,
}

/// These events of a run, which is cancelled when they are dropped before its end.
pub(super) fn cancelled_with(
    context: Arc<Context>,
    session: SessionId,
    run: RunId,
    events: Events,
) -> Events {
    let unwatched = Unwatched { context, session, run: Some(run) };
    Box::pin(stream::unfold((events, unwatched), |(mut events, mut unwatched)| async move {
        let told = events.next().await?;
        if matches!(told.event, StreamEvent::End { .. }) {
            unwatched.run = None;
        }
        Some((told, (events, unwatched)))
    }))
}

impl Drop for Unwatched {
    fn drop(&mut self) {
        let (Some(run), Ok(runtime)) = (self.run, tokio::runtime::Handle::try_current()) else { return };
        let (context, session) = (Arc::clone(&self.context), self.session);
        self.context.tasks.spawn_on(cancel(context, session, run), &runtime);
    }
}

async fn cancel(context: Arc<Context>, session: SessionId, run: RunId) {
    loop {
        let Ok(Found::Open(entered)) = context.enter(session, Visiting::ToAsk) else { return };
        match entered.handle.ask(Ask::Cancel(run)).await {
            Err(problem) if problem.code == "busy" => {
                if !context.pause(EVICT_RETRY_MS).await {
                    return;
                }
            }
            Ok(_) => return tracing::info!(%session, %run, "cancelled: its reader has gone and wished it"),
            Err(problem) => return tracing::debug!(%session, %run, %problem, "not cancelled"),
        }
    }
}
