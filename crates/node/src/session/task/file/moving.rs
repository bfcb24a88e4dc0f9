//! A notebook that gets its first file, another one, or a copy; and a file that was renamed by another program.
//!
//! ```text
//!  path ─► resolved, reserved, claimed ─► fact: claimed ─► written ─► fact: the notebook is there ─► index
//!                                              └─ a crash here is settled by looking at the file
//! ```
//! What fails gives everything back, and the session stays where it was.

use std::path::PathBuf;
use std::sync::Arc;

use outlive_core::session::Input;
use outlive_core::session::event::PathWhy;
use outlive_core::session::spec::Trust;
use outlive_document::file::{FileStamp, WriteError as FileError};
use outlive_protocol::http::{Problem, SaveHow};
use sha2::{Digest, Sha256};

use super::super::super::handle::denied;
use super::super::super::journal::WriteError;
use super::super::super::notebook::asks::{Asker, Foreign, Moving, Wish};
use super::super::super::notebook::saving::{
    Destination, Lost, Prepared, claimed_before, follow, prepare, remember, spelt,
};
use super::super::super::notebook::{Done, hex, with_sources};
use super::super::Task;
use super::refuse;
use crate::context::Presence;
use crate::{problem, trust};

impl Task {
    /// Begins to take the path that somebody wants the notebook saved to.
    pub(super) fn begin_prepare(&mut self) {
        let Some(plane) = &mut self.notebook else { return };
        let Some(moving) = &plane.file.asks.moving else { return };
        let own = plane.file.path().map(PathBuf::from);
        let (context, id, wish) = (Arc::clone(&self.context), self.session.spec.id, moving.wish.clone());
        plane.file.begin(async move { Done::Prepared(prepare(context, id, own, wish).await) });
    }

    pub(super) async fn file_prepared(
        &mut self,
        prepared: Result<Prepared, Problem>,
    ) -> Result<(), WriteError> {
        let Some(plane) = &mut self.notebook else { return Ok(()) };
        let destination = match prepared {
            Ok(Prepared::To(destination)) => destination,
            Ok(Prepared::Own) => {
                let Some(Moving { wish, reply }) = plane.file.asks.moving.take() else { return Ok(()) };
                let foreign = if wish.overwrite { Foreign::Replace } else { Foreign::Respect };
                self.wait_for_save(Asker { wish: Wish::Save(foreign), reply });
                return Ok(());
            }
            Err(problem) => {
                self.not_moved(problem);
                return Ok(());
            }
        };
        let copies = plane.file.asks.moving.as_ref().is_some_and(|moving| moving.wish.how == SaveHow::Copy);
        let bytes = plane.document.to_bytes();
        let hash: [u8; 32] = Sha256::digest(&bytes).into();
        let path = destination.path.display().to_string();
        if !copies {
            let claim = Input::ClaimPath { path: path.clone(), sha256: hex(&hash) };
            if let Err(why) = self.input(claim, None).await? {
                self.not_moved(denied(self.session.spec.id, &why));
                return Ok(());
            }
            let now = self.context.clock.now().tick;
            if let Some(plane) = &mut self.notebook {
                plane.document.live().rendered();
                plane.file.saving(now);
            }
            self.note_rendered(hash, path).await?;
        }
        let (context, id) = (Arc::clone(&self.context), self.session.spec.id);
        let Some(plane) = &mut self.notebook else { return Ok(()) };
        plane.file.begin(async move {
            let written = context.files.write(&destination.path, bytes, destination.there.clone()).await;
            let destination =
                if written.is_ok() && !copies { spelt(context, id, destination).await } else { destination };
            Done::Moved(destination, written)
        });
        Ok(())
    }

    pub(super) async fn file_moved(
        &mut self,
        destination: Destination,
        written: Result<FileStamp, FileError>,
    ) -> Result<(), WriteError> {
        let (path, kept) = (destination.path.display().to_string(), destination.kept.clone());
        let Some(plane) = &mut self.notebook else { return Ok(()) };
        let copies = plane.file.asks.moving.as_ref().is_some_and(|moving| moving.wish.how == SaveHow::Copy);
        let stamp = match written {
            Ok(stamp) => stamp,
            Err(error) => {
                if !copies {
                    plane.file.not_saved();
                    self.input(Input::ReleasePath { path }, None).await?.ok();
                }
                // Given back before anybody hears of it.
                let problem = match &error {
                    FileError::Changed { now: Some(_), .. } => problem::file_exists(&destination.path),
                    error => problem::write(error),
                };
                drop(destination);
                self.not_moved(problem);
                return Ok(());
            }
        };
        let key = (self.session.trust == Trust::Trusted).then(|| trust::key(plane.document.notebook()));
        if copies {
            drop(destination);
            self.show();
        } else {
            let why = if self.session.path.is_some() { PathWhy::SavedAs } else { PathWhy::Saved };
            if let Err(problem) = self.settle_at(destination, stamp, why).await? {
                self.not_moved(problem);
                return Ok(());
            }
        }
        if let Some(key) = key {
            let _noted = remember(&self.context, &key).await;
        }
        if let Some(plane) = &mut self.notebook
            && let Some(Moving { reply, .. }) = plane.file.asks.moving.take()
        {
            let _gone = reply.send(Ok(self.opened(Some(path), kept.as_deref())));
        }
        Ok(())
    }

    /// Whoever waits for the path learns that it is free, and who asked for the save learns why.
    fn not_moved(&mut self, problem: Problem) {
        self.show();
        if let Some(plane) = &mut self.notebook
            && let Some(Moving { reply, .. }) = plane.file.asks.moving.take()
        {
            refuse(reply, problem);
        }
    }

    /// The notebook is at this path now: first in the log, then for everybody else.
    async fn settle_at(
        &mut self,
        destination: Destination,
        stamp: FileStamp,
        why: PathWhy,
    ) -> Result<Result<(), Problem>, WriteError> {
        let Destination { path, slot, claim, .. } = destination;
        let path_text = path.display().to_string();
        let claiming = self.session.claiming.clone().filter(|claiming| claiming.path != path_text);
        if let Some(claiming) = claiming.filter(|_| why != PathWhy::Renamed) {
            // The file system spells it otherwise than was asked for.
            self.input(Input::ReleasePath { path: claiming.path }, None).await?.ok();
            let claim = Input::ClaimPath { path: path_text.clone(), sha256: claiming.sha256 };
            self.input(claim, None).await?.ok();
        }
        let taken = Input::TakePath { path: path_text, why };
        if let Err(why) = self.input(taken, None).await? {
            return Ok(Err(denied(self.session.spec.id, &why)));
        }
        slot.confirm();
        let wall = self.context.clock.now().wall;
        if let Some(plane) = &mut self.notebook {
            plane.file.move_to(path, stamp.clone(), claim);
            if why != PathWhy::Renamed {
                plane.document.live().saved();
                plane.file.saved(stamp.clone(), wall);
            }
        }
        self.note_saved(stamp).await?;
        self.show();
        let view = self.view.borrow().clone();
        if let Err(error) = self.context.index(&view, Presence::Open, self.journal.fold().epoch()).await {
            // The log has it; the row is written again when the session leaves memory.
            tracing::warn!(session = %view.id, error = %with_sources(&error), "a new path is not indexed yet");
        }
        Ok(Ok(()))
    }

    /// Begins to follow the file to where another program has renamed it.
    pub(super) fn begin_follow(&mut self, to: PathBuf) {
        let (context, id) = (Arc::clone(&self.context), self.session.spec.id);
        let Some(plane) = &mut self.notebook else { return };
        plane.file.begin(async move { Done::Followed(follow(context, id, to).await) });
    }

    pub(super) async fn file_followed(
        &mut self,
        followed: Result<Destination, Lost>,
    ) -> Result<(), WriteError> {
        let Some(plane) = &mut self.notebook else { return Ok(()) };
        match (followed, plane.file.stamp().cloned()) {
            (Ok(destination), Some(stamp)) => {
                // Denied to a session that has ended: then nothing is written any more either.
                self.settle_at(destination, stamp, PathWhy::Renamed).await?.ok();
            }
            // Only a file with a stamp is looked for.
            (Ok(_), None) => {}
            (Err(lost), _) => plane.file.conflicted(lost.conflict, lost.why),
        }
        Ok(())
    }

    /// A crash came between the claim of a path and the fact that the notebook is there: the file says which it was.
    pub(super) async fn settle_claim(&mut self) -> Result<(), WriteError> {
        let Some(claiming) = self.session.claiming.clone() else { return Ok(()) };
        match claimed_before(&self.context, self.session.spec.id, &claiming).await {
            Some((destination, stamp)) => {
                let why = if self.session.path.is_some() { PathWhy::SavedAs } else { PathWhy::Saved };
                self.settle_at(destination, stamp, why).await?.ok();
            }
            None => {
                self.input(Input::ReleasePath { path: claiming.path }, None).await?.ok();
            }
        }
        Ok(())
    }
}
