//! Sessions that cannot be taken up: whoever does not want to wait for their repair ends them as they are.

use outlive_core::id::SessionId;
use outlive_protocol::http::{Problem, SessionState, SessionView};

use super::Node;
use crate::context::Presence;
use crate::problem;
use crate::session::open::refuse_all;

impl Node {
    /// What an ask came to; where the session cannot be taken up and its user gives up what it holds, it ends.
    ///
    /// # Errors
    /// Why it was refused.
    pub(super) async fn or_end_broken(
        &self,
        id: SessionId,
        given_up: bool,
        asked: Result<SessionView, Problem>,
    ) -> Result<SessionView, Problem> {
        match asked {
            Err(problem) if given_up && problem::is_broken(&problem) => {
                self.end_broken(id, problem).await?;
                self.row(id).await
            }
            asked => asked,
        }
    }

    /// Ends a session that cannot be taken up: its processes are stopped, its path is free, and its row says that it has
    /// ended. What stands in its log stays until it is forgotten.
    ///
    /// # Errors
    /// When the store does not take it, or something else is done with it just now.
    pub(super) async fn end_broken(&self, id: SessionId, why: Problem) -> Result<(), Problem> {
        let context = &self.context;
        let Some(_reservation) = context.reserve_broken(id).or_else(|| context.reserve(id)) else {
            return Err(why);
        };
        let row = context.indexed(id).await;
        let ended = match row {
            Ok(Some(row)) => {
                let closed_at = Some(context.clock.now().wall);
                let view = SessionView { state: SessionState::Stopped, closed_at, ..row.view };
                context.index(&view, Presence::Ended, row.epoch).await
            }
            row => row.map(drop),
        };
        if let Err(error) = ended {
            context.broken(id, why.detail);
            return Err(problem::store(&error));
        }
        tracing::warn!(session = %id, why = why.detail, "a session that cannot go on is ended as its user asked");
        let shims: Vec<_> =
            context.runtimes.found().into_iter().filter(|shim| shim.identity.session == id).collect();
        refuse_all(context, &shims, "its session was ended");
        context.forget_paths_of(id);
        context.bus.close(id);
        context.engine.close_session(id).await;
        Ok(())
    }

    /// Forgets a session that cannot be taken up, whether or not it has a row.
    ///
    /// # Errors
    /// As [`Self::end_broken`].
    pub(super) async fn forget_broken(&self, id: SessionId, why: Problem) -> Result<(), Problem> {
        self.end_broken(id, why).await?;
        self.context.forget(id).await.map_err(|error| problem::store(&error))
    }
}
