//! The end of what a node runs, when it is asked to leave nothing behind.

use std::time::Duration;

use outlive_core::id::SessionId;
use outlive_core::limits::SESSION_END_MS;
use outlive_protocol::http::{RuntimeState, SessionView};

use super::Node;
use crate::session::handle::{Answer, Ask};

impl Node {
    /// As [`Self::end`], but a session that cannot be ended, for instance on a full disk, does not hold up the rest.
    pub(super) async fn end_in_time(&self, id: SessionId) {
        let deadline = self.context.clock.now().tick + Duration::from_millis(SESSION_END_MS);
        tokio::select! {
            biased;
            () = self.end(id) => {}
            () = self.context.clock.until(deadline) => {
                tracing::error!(session = %id, "the session did not end in time; its process is ended without it");
            }
        }
    }

    /// Stops a session's process, and the session unless it is a notebook that people edit, and waits for the end of that.
    async fn end(&self, id: SessionId) {
        let Ok(Some(entered)) = self.here(id).await else { return };
        let mut view = entered.handle.view.clone();
        let has_process = |view: &SessionView| match view.runtime.state {
            RuntimeState::Launching
            | RuntimeState::Idle
            | RuntimeState::Busy
            | RuntimeState::Unresponsive { .. }
            | RuntimeState::Stopping { .. } => true,
            RuntimeState::Down
            | RuntimeState::Exited { .. }
            | RuntimeState::Backoff { .. }
            | RuntimeState::GaveUp { .. }
            | RuntimeState::Unknown => false,
        };
        match entered.handle.ask(Ask::Drain).await {
            // An error is the end of its task.
            Ok(Answer::Resting) => drop(view.wait_for(|view| !has_process(view)).await),
            Ok(_) => while view.changed().await.is_ok() {},
            Err(problem) if problem.code == "session-ended" => while view.changed().await.is_ok() {},
            Err(problem) => tracing::warn!(session = %id, %problem, "a session is not stopped"),
        }
    }
}
