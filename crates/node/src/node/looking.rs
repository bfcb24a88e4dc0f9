//! How a node finds a session that it is asked about: in memory, woken, or in its log.

use std::sync::Arc;

use futures_util::StreamExt as _;
use outlive_core::id::{RunId, SessionId};
use outlive_protocol::http::{Problem, RunView, SessionView};

use super::{Node, unexpected};
use crate::api::Events;
use crate::context::{Context, Entered, Found, Presence};
use crate::session::handle::{Answer, Ask, KnownRun, Visiting};
use crate::session::open::{self, Folded};
use crate::session::view;
use crate::{problem, watch};

impl Node {
    pub(super) async fn row(&self, id: SessionId) -> Result<SessionView, Problem> {
        match self.context.indexed(id).await.map_err(|error| problem::store(&error))? {
            Some(row) => Ok(row.view),
            None => Err(problem::no_session(id)),
        }
    }

    /// The session if it is in memory, or about to be, to look at: it is not woken for that, and stays no longer.
    pub(super) async fn here(&self, id: SessionId) -> Result<Option<Entered>, Problem> {
        loop {
            match self.context.enter(id, Visiting::ToLook)? {
                Found::Open(entered) => return Ok(Some(entered)),
                Found::Moving(over) => over.cancelled().await,
                Found::Absent => return Ok(None),
            }
        }
    }

    pub(super) async fn ask(&self, id: SessionId, ask: Ask) -> Result<Answer, Problem> {
        match open::wake(&self.context, id).await?.handle.ask(ask).await {
            Err(problem) => Err(self.context.surely(id, problem).await),
            answer => answer,
        }
    }

    pub(super) async fn done(&self, id: SessionId, ask: Ask) -> Result<SessionView, Problem> {
        match self.ask(id, ask).await? {
            Answer::Done(view) => Ok((*view).clone()),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn run(&self, id: SessionId, run: RunId) -> Result<RunView, Problem> {
        Ok(self.known_run(id, run).await?.view)
    }

    pub(super) async fn known_run(&self, id: SessionId, run: RunId) -> Result<KnownRun, Problem> {
        if let Some(entered) = self.here(id).await? {
            match entered.handle.ask(Ask::Run(run)).await {
                Ok(Answer::Run(known)) => return Ok(*known),
                // It has ended or gone elsewhere meanwhile, or waits for its store: its log is all there is here.
                Err(problem)
                    if ["session-ended", "session-moving", "store-unavailable"].contains(&&*problem.code) => {
                }
                Err(problem) => return Err(self.context.surely(id, problem).await),
                Ok(other) => return Err(unexpected(&other)),
            }
        }
        self.row(id).await?;
        let _reading = Reading { context: Arc::clone(&self.context), id };
        watch::known::known_run(&self.context, id, run).await
    }

    /// Whether what is known here of a session that is not open here is all that is known: else another living node has
    /// it. One whose node is lost is told of by its log.
    ///
    /// # Errors
    /// `elsewhere`.
    pub(super) fn is_told_here(&self, id: SessionId) -> Result<(), Problem> {
        match self.context.is_here_or_nowhere(id) {
            Err(problem) if problem.elsewhere.is_some() => Err(problem),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// A session that is not open here.
    pub(super) async fn told(&self, id: SessionId) -> Result<SessionView, Problem> {
        self.is_told_here(id)?;
        let row = self.context.indexed(id).await.map_err(|error| problem::store(&error))?;
        let row = row.ok_or_else(|| problem::no_session(id))?;
        if self.context.cluster.is_none() || row.presence != Presence::Open {
            return Ok(row.view);
        }
        // Nobody is there to show it, and its row is as old as its last claim.
        let Folded { hosted, fold, .. } = self.load(id).await?;
        let view = hosted.map(|hosted| view::behind(None, hosted.view(fold.position()), fold.epoch()));
        Ok(view.unwrap_or(row.view))
    }

    pub(super) async fn has_ended(&self, id: SessionId) -> Result<bool, Problem> {
        let row = self.context.indexed(id).await.map_err(|error| problem::store(&error))?;
        Ok(row.is_none_or(|row| row.presence == Presence::Ended))
    }

    pub(super) async fn load(&self, id: SessionId) -> Result<Folded, Problem> {
        self.row(id).await?;
        let _reading = Reading { context: Arc::clone(&self.context), id };
        open::load(&self.context, id).await.map_err(|error| problem::store(&error))
    }

    /// The session to follow: woken if it is dormant, `None` if it has ended.
    pub(super) async fn followed(&self, id: SessionId) -> Result<Option<Entered>, Problem> {
        match open::wake(&self.context, id).await {
            Ok(entered) => Ok(Some(entered)),
            Err(problem) if problem.code == "session-ended" => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    /// Events of a session that may not be in memory: then what the store has opened for them is closed with them.
    pub(super) fn read_through(&self, id: SessionId, is_here: bool, events: Events) -> Events {
        if is_here {
            return events;
        }
        let reading = Reading { context: Arc::clone(&self.context), id };
        Box::pin(events.inspect(move |_| {
            let _held = &reading;
        }))
    }
}

/// Somebody reads the log of a session that is not in memory; afterwards the store need not keep it open.
struct Reading {
    context: Arc<Context>,
    id: SessionId,
}

impl Drop for Reading {
    fn drop(&mut self) {
        if self.context.is_here(self.id) || self.context.bus.is_followed(self.id) {
            return;
        }
        let (context, id) = (Arc::clone(&self.context), self.id);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // Whoever opens it meanwhile opens it again: nothing is lost but that moment.
            self.context.tasks.spawn_on(async move { context.engine.close_session(id).await }, &runtime);
        }
    }
}
