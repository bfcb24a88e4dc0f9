//! A session that nobody needs in memory leaves it.
//!
//! ```text
//!  due ─► nobody there, nothing to do? ─► file written, log on disk ─► out of the registry, if still nobody is there
//!            │ no                                                        │ no         │ row: dormant ─► closed
//!            ▼                                                           ▼            ▼ not written
//!         cancelled                                                  cancelled     back, and another deadline
//! ```
//! Whoever asks for it while it leaves waits for the end of that, and wakes it.

use std::time::Duration;

use outlive_core::limits::EVICT_RETRY_MS;
use outlive_core::session::residence::Resident;
use outlive_core::session::{Input, can_release};
use outlive_core::time::Tick;
use outlive_document::file::FileStamp;
use outlive_protocol::http::SavedState;

use super::super::handle::{Answer, Giving, denied, moving};
use super::super::journal::WriteError;
use super::super::with_sources;
use super::Task;
use crate::metrics::Skipped;

/// What became of a deadline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Left {
    /// The session is out of memory; the task ends.
    Yes,
    /// It stays, at least until its next deadline.
    No,
}

impl Task {
    /// When the session is to leave, if nothing happens before.
    pub(super) fn leaves_at(&self) -> Option<Tick> {
        self.resident.borrow().residence.deadline()
    }

    /// Looks whether somebody is there and something to do. After whatever may have changed that.
    pub(super) fn look_around(&self) {
        let now = self.context.clock.now().tick;
        let before = *self.resident.borrow();
        let there = self.peers.there();
        let after = before.look(&self.session, there, now, self.context.budgets.idle_timeout);
        match (before.residence.deadline(), after.residence.deadline()) {
            (None, Some(_)) => self.context.metrics.eviction_scheduled(),
            (Some(_), None) => self.context.metrics.eviction_cancelled(),
            (None, None) | (Some(_), Some(_)) => {}
        }
        if before != after {
            self.resident.send_replace(after);
        }
    }

    /// The deadline has come.
    pub(super) async fn evict(&mut self) -> Result<Left, WriteError> {
        self.look_around();
        let now = self.context.clock.now().tick;
        if self.leaves_at().is_none_or(|at| at > now) {
            return Ok(Left::No);
        }
        if let Some(notebook) = &mut self.notebook
            && notebook.file.state() == SavedState::Unsaved
        {
            // It can be written, so it is written first. What cannot is in the store.
            notebook.file.hurry();
            return Ok(Left::No);
        }
        // What runs have made stands in the shared document as well, so that it has one history.
        self.project_outputs().await?;
        let id = self.session.spec.id;
        // What was said to be written is on the disk as well: nothing else will remember it.
        if let Err(error) = self.context.engine.flush().await {
            return Ok(self.stay(Skipped::Store, &error));
        }
        let Some((reservation, handle)) = self.context.vacate(id) else {
            self.look_around();
            if self.leaves_at().is_some() {
                // They came and went between two looks, or only look.
                self.postpone(Skipped::Visited);
            }
            return Ok(Left::No);
        };
        let view = self.view.borrow().as_ref().clone();
        let epoch = self.journal.fold().epoch();
        let stamp = self.notebook.as_ref().and_then(|notebook| notebook.file.stamp());
        let file = stamp.map(FileStamp::meta);
        if let Err(error) = self.context.index_dormant(&view, epoch, file).await {
            reservation.opened(handle);
            return Ok(self.stay(Skipped::Store, &error));
        }
        // Its claim and its watch go before anybody can come and want them.
        self.notebook = None;
        self.let_go().await;
        self.context.metrics.eviction_done();
        tracing::info!(session = %id, path = ?self.session.path, "evicted: idle, and nobody is there");
        drop(reservation);
        Ok(Left::Yes)
    }

    /// The session leaves this node's memory; of several nodes any that is asked for it may take it up.
    pub(super) async fn let_go(&mut self) {
        let id = self.session.spec.id;
        if self.context.cluster.is_none() {
            self.context.engine.close_session(id).await;
            return self.context.bus.close(id);
        }
        match self.journal.release(None).await {
            Ok(()) | Err(WriteError::Fenced) => {}
            // It is claimed from here then, or when this node is gone.
            Err(error) => {
                tracing::warn!(session = %id, error = %with_sources(&error), "the session is not released");
            }
        }
        self.context.leave_paths_of(id);
        self.context.close_here(id).await;
    }

    /// The session is to go to another node.
    pub(super) async fn asked_to_hand_over(
        &mut self,
        grace_ms: u64,
        giving: Giving,
    ) -> Result<(), WriteError> {
        match self.input(Input::HandOver { grace_ms }, None).await? {
            // Of two who ask the later one is told.
            Ok(()) => self.giving = Some(giving),
            Err(why) => drop(giving.answer.send(Err(denied(self.session.spec.id, &why)))),
        }
        Ok(())
    }

    /// Whether it can be given away now.
    pub(super) fn is_given(&self) -> bool {
        self.giving.is_some() && can_release(&self.session)
    }

    /// Gives the session away: all of it is stored, and nothing of it runs. The task ends.
    pub(super) async fn give_away(&mut self) -> Result<(), WriteError> {
        let id = self.session.spec.id;
        if let Some(problem) = self.save_before_leaving().await? {
            tracing::warn!(session = %id, problem, "not saved before it was given away; its edits are in the store");
        }
        self.project_outputs().await?;
        let (to, answer) = self.giving.take().map(|giving| (giving.to, giving.answer)).unzip();
        self.journal.release(to.flatten()).await?;
        if let Some(mut plane) = self.notebook.take() {
            plane.peers.part_with(moving(id));
        }
        let view = self.view.borrow().as_ref().clone();
        self.context.given_away(&view, self.journal.fold().epoch()).await;
        if let Some(answer) = answer {
            let _gone = answer.send(Ok(Answer::Released));
        }
        // Nothing is waited for after this: whoever still asks here is sent on.
        self.lost.cancel();
        Ok(())
    }

    fn stay(&self, why: Skipped, error: &dyn std::error::Error) -> Left {
        let session = self.session.spec.id;
        tracing::warn!(%session, error = %with_sources(error), "not evicted now; it is tried again");
        self.postpone(why);
        Left::No
    }

    fn postpone(&self, why: Skipped) {
        let now = self.context.clock.now().tick;
        self.context.metrics.eviction_skipped(why);
        self.context.metrics.eviction_scheduled();
        let idle_timeout = self.context.budgets.idle_timeout;
        let wait = match why {
            Skipped::Store => idle_timeout,
            // Whoever only looked has gone by then.
            Skipped::Visited => idle_timeout.min(Duration::from_millis(EVICT_RETRY_MS)),
        };
        let resident: Resident = *self.resident.borrow();
        self.resident.send_replace(resident.postponed(now, wait));
    }
}

#[cfg(test)]
mod tests;
