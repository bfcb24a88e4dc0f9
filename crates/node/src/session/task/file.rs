//! What is asked of the notebook's file, and what happens to it.
//!
//! ```text
//!  asked ─┐
//!  due ───┤► next step ─► begun, beside the task ─► done ─► facts, records, answers ─► next step …
//!  hint ──┘
//! ```

mod moving;
#[cfg(test)]
pub(super) mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use outlive_core::limits::{AUTOSAVE_QUIET_MS, SAVE_TRIES_MAX};
use outlive_core::runtime::{StopStep, StopWhy};
use outlive_core::session::Input;
use outlive_core::session::event::PathWhy;
use outlive_core::session::spec::{Place, Trust};
use outlive_document::Notebook;
use outlive_document::file::{FileStamp, WriteError as FileError};
use outlive_protocol::http::{Close, FileConflict, Opened, Problem, SaveSession, SavedState};
use sha2::{Digest, Sha256};

use super::super::handle::{Answer, FileAsk, denied};
use super::super::journal::WriteError;
use super::super::notebook::asks::{Asker, Foreign, Moving, Reply, Served, Wish};
use super::super::notebook::record::{DocumentRecord, Rendered, Saved as SavedRecord};
use super::super::notebook::saving::{Expect, Looked, SaveError, Saved, conflict_of, put_beside, remember};
use super::super::notebook::{Done, Step, hex, with_sources};
use super::Task;
use crate::problem;
use crate::seams::ClaimError;
use crate::trust::{self, TrustKey};

/// How many things are done at most to bring a notebook into its file at the end: a look and a write for each try,
/// and a save to another path that was under way.
const FLUSH_STEPS_MAX: u32 = 2 * SAVE_TRIES_MAX + 4;

impl Task {
    /// Before anything else: the file of a notebook that people edit is watched, and a save that a crash has cut off is
    /// settled.
    pub(in super::super) async fn take_up_file(&mut self) -> Result<(), WriteError> {
        let Some(plane) = &mut self.notebook else { return Ok(()) };
        if self.session.spec.place == Place::Notebook {
            plane.file.edited();
        }
        self.settle_claim().await
    }

    /// The node that had the session before has the notebook's volume elsewhere.
    pub(super) async fn follow_volume(&mut self) -> Result<(), WriteError> {
        let here =
            self.notebook.as_ref().and_then(|plane| plane.file.path()).map(|path| path.display().to_string());
        if let (Some(here), Some(before)) = (here, &self.session.path)
            && here != *before
        {
            let moved = Input::TakePath { path: here, why: PathWhy::Renamed };
            self.input(moved, None).await?.ok();
        }
        Ok(())
    }

    /// Answers when it is done; the session goes on meanwhile.
    pub(super) async fn asked_file(&mut self, ask: FileAsk, reply: Reply) -> Result<(), WriteError> {
        let now = self.context.clock.now().tick;
        match ask {
            FileAsk::Save(wish) => self.asked_to_save(wish, reply),
            FileAsk::Close(how) => self.asked_to_close(how, reply).await?,
        }
        if let Some(plane) = &mut self.notebook
            && plane.file.conflict().is_some()
            && !plane.file.asks.waiting.is_empty()
        {
            // It may have ended a moment ago.
            plane.file.look(now);
        }
        self.go_on_with_file().await
    }

    fn asked_to_save(&mut self, wish: SaveSession, reply: Reply) {
        let id = self.session.spec.id;
        let Some(plane) = &mut self.notebook else {
            return refuse(reply, denied(id, &outlive_core::session::Denied::NoNotebook));
        };
        let file = &mut plane.file;
        match wish.path {
            None if file.path().is_none() => refuse(reply, problem::no_path(id)),
            None => {
                let foreign = if wish.overwrite { Foreign::Replace } else { Foreign::Respect };
                self.wait_for_save(Asker { wish: Wish::Save(foreign), reply });
            }
            Some(path) if let Some(moving) = &file.asks.moving => {
                let there = moving.wish.path.as_deref().unwrap_or_default();
                refuse(reply, being_saved(id, there, &path));
            }
            Some(_) => file.asks.moving = Some(Moving { wish, reply }),
        }
    }

    /// Whoever wants what is being written already shares that write.
    fn wait_for_save(&mut self, asker: Asker) {
        let id = self.session.spec.id;
        let Some(plane) = &mut self.notebook else { return };
        let in_file_soon = plane.file.is_clean();
        let asks = &mut plane.file.asks;
        if !asks.has_room() {
            return refuse(asker.reply, busy(id));
        }
        match &mut asks.served {
            Some(served) if in_file_soon => served.askers.push(asker),
            Some(_) | None => asks.waiting.push(asker),
        }
    }

    async fn asked_to_close(&mut self, how: Close, reply: Reply) -> Result<(), WriteError> {
        let untitled = self.notebook.as_ref().map(|plane| plane.file.path().is_none());
        match untitled {
            None | Some(true) if how.discard => self.close(reply).await,
            None => self.close(reply).await,
            Some(true) if self.is_blank() => self.close(reply).await,
            Some(true) => {
                refuse(reply, problem::unsaved(self.session.spec.id, "it was never saved to a file"));
                Ok(())
            }
            Some(false) => {
                self.wait_for_save(Asker { wish: Wish::Close(how), reply });
                Ok(())
            }
        }
    }

    /// Whether nobody would miss what stands in the notebook.
    fn is_blank(&mut self) -> bool {
        let Some(plane) = &mut self.notebook else { return true };
        self.session.order.is_empty()
            && plane.document.sources().iter().all(|(_, source)| source.trim().is_empty())
    }

    /// Closes although something is in no file.
    async fn discard(&mut self, reply: Reply) -> Result<(), WriteError> {
        if let Some(plane) = &mut self.notebook {
            plane.file.discard();
        }
        self.close(reply).await
    }

    async fn close(&mut self, reply: Reply) -> Result<(), WriteError> {
        let stop = Input::Stop { why: StopWhy::User, from: StopStep::Ask };
        let id = self.session.spec.id;
        let answer = match self.input(stop, None).await? {
            Ok(()) => Ok(Answer::Done(self.view.borrow().clone())),
            Err(why) => Err(denied(id, &why)),
        };
        let _gone = reply.send(answer);
        Ok(())
    }

    /// Something has happened to the file.
    pub(super) async fn file_done(&mut self, done: Done) -> Result<(), WriteError> {
        match done {
            Done::Hint(hint) => {
                let now = self.context.clock.now().tick;
                if let Some(plane) = &mut self.notebook {
                    plane.file.hinted(hint, now);
                }
            }
            Done::Saved(saved) => self.file_saved(saved).await?,
            Done::Looked(looked, claim) => {
                if let Some(plane) = &mut self.notebook {
                    plane.file.claimed(claim);
                }
                self.file_looked(looked).await?;
            }
            Done::Prepared(prepared) => self.file_prepared(prepared).await?,
            Done::Moved(destination, written) => self.file_moved(destination, written).await?,
            Done::Followed(followed) => self.file_followed(followed).await?,
        }
        self.go_on_with_file().await
    }

    /// Begins what is to be done with the file next, if anything is.
    pub(super) async fn go_on_with_file(&mut self) -> Result<(), WriteError> {
        let now = self.context.clock.now().tick;
        let Some(plane) = &mut self.notebook else { return Ok(()) };
        match plane.file.next_step(now) {
            Step::Wait => {}
            Step::Look => plane.file.begin_look(&mut plane.document),
            Step::Prepare => self.begin_prepare(),
            Step::Save(expect) => self.begin_save(expect).await?,
            Step::Refuse => self.refuse_savers().await?,
        }
        Ok(())
    }

    /// Watchers are told when the notebook comes into its file, or cannot.
    pub(super) fn show_saved(&self) {
        let state: Option<SavedState> = self.notebook.as_ref().map(|plane| plane.file.state());
        if self.view.borrow().saved != state {
            self.show();
        }
    }

    async fn begin_save(&mut self, expect: Expect) -> Result<(), WriteError> {
        let now = self.context.clock.now().tick;
        let Some(plane) = &mut self.notebook else { return Ok(()) };
        let Some(path) = plane.file.path().map(|path| path.display().to_string()) else { return Ok(()) };
        let askers = std::mem::take(&mut plane.file.asks.waiting);
        // Nothing to write, and nobody who wants to be sure that it is there.
        if plane.file.is_saved() && askers.iter().all(|asker| matches!(asker.wish, Wish::Close(_))) {
            for asker in askers {
                self.close(asker.reply).await?;
            }
            return Ok(());
        }
        let bytes = plane.document.to_bytes();
        let hash: [u8; 32] = Sha256::digest(&bytes).into();
        let is_news = plane.file.stamp().is_none_or(|stamp| stamp.hash != hash);
        let edited = plane.file.is_edited();
        let trust =
            (edited && self.session.trust == Trust::Trusted).then(|| trust::key(plane.document.notebook()));
        let trust = trust.filter(|key| plane.file.asks.trusted.as_ref() != Some(key));
        plane.document.live().rendered();
        plane.file.asks.served = Some(Served { askers, trust });
        plane.file.begin_save(&mut plane.document, bytes, hash, expect, now);
        if edited && is_news {
            self.note_rendered(hash, path).await?;
        }
        Ok(())
    }

    /// A daemon that is killed now is followed by one that knows its own write.
    async fn note_rendered(&mut self, hash: [u8; 32], path: String) -> Result<(), WriteError> {
        let record = DocumentRecord::Rendered(Rendered { sha256: hex(&hash), path });
        self.journal.document(record.encode()).await?;
        Ok(())
    }

    async fn note_saved(&mut self, stamp: FileStamp) -> Result<(), WriteError> {
        let Some(plane) = &self.notebook else { return Ok(()) };
        let (Some(path), true) = (plane.file.path(), plane.file.is_edited()) else { return Ok(()) };
        let record = DocumentRecord::Saved(SavedRecord { stamp, path: path.display().to_string() });
        self.journal.document(record.encode()).await?;
        Ok(())
    }

    async fn file_saved(&mut self, saved: Saved) -> Result<(), WriteError> {
        let (id, now) = (self.session.spec.id, self.context.clock.now());
        let kept = saved.kept;
        let Some(plane) = &mut self.notebook else { return Ok(()) };
        let served = plane.file.asks.served.take().unwrap_or(Served { askers: Vec::new(), trust: None });
        plane.file.claimed(saved.claim);
        let error = match saved.result {
            Ok(stamp) => {
                plane.file.asks.tries = 0;
                let is_news = plane.file.stamp() != Some(&stamp);
                plane.document.live().saved();
                plane.file.saved(stamp.clone(), now.wall);
                if is_news {
                    self.note_saved(stamp).await?;
                }
                return self.fulfil(served, kept).await;
            }
            Err(error) => error,
        };
        let edited = plane.file.is_edited();
        plane.file.not_saved();
        match &error {
            // Merged, if it can be, and then saved.
            SaveError::Write(FileError::Changed { .. } | FileError::MissingDirectory(_))
                if edited && plane.file.asks.tries < SAVE_TRIES_MAX =>
            {
                plane.file.asks.tries += 1;
                plane.file.asks.waiting.splice(0..0, served.askers);
                plane.file.look(now.tick);
                return Ok(());
            }
            SaveError::Write(FileError::Changed { .. }) if edited => plane.file.failing(with_sources(&error)),
            SaveError::Write(FileError::Changed { .. } | FileError::NotAFile(..)) => {
                plane.file.conflicted(FileConflict::Changed, with_sources(&error));
            }
            SaveError::Claim(why @ (ClaimError::Held { .. } | ClaimError::Elsewhere { .. })) => {
                plane.file.conflicted(conflict_of(why), with_sources(&error));
            }
            SaveError::Claim(_) | SaveError::Write(_) | SaveError::Read(_) => {
                plane.file.failing(with_sources(&error));
            }
        }
        plane.file.asks.tries = 0;
        for asker in served.askers {
            match asker.wish {
                Wish::Save(_) => refuse(asker.reply, error.problem()),
                Wish::Close(Close { discard: true }) => self.discard(asker.reply).await?,
                Wish::Close(_) => refuse(asker.reply, problem::unsaved(id, &with_sources(&error))),
            }
        }
        Ok(())
    }

    async fn fulfil(&mut self, served: Served, kept: Option<PathBuf>) -> Result<(), WriteError> {
        // Somebody may have taken it back meanwhile.
        if let (Some(key), Some(plane), Trust::Trusted) =
            (served.trust, &mut self.notebook, self.session.trust)
            && remember(&self.context, &key).await
        {
            plane.file.asks.trusted = Some(key);
        }
        self.show();
        for asker in served.askers {
            match asker.wish {
                Wish::Save(_) => {
                    let _gone = asker.reply.send(Ok(self.opened(self.session.path.clone(), kept.as_deref())));
                }
                Wish::Close(_) => self.close(asker.reply).await?,
            }
        }
        Ok(())
    }

    fn opened(&self, path: Option<String>, kept: Option<&Path>) -> Answer {
        let session = self.view.borrow().as_ref().clone();
        let kept = kept.map(|kept| kept.display().to_string());
        Answer::Opened(Box::new(Opened { session_id: self.session.spec.id, path, session, kept }))
    }

    async fn refuse_savers(&mut self) -> Result<(), WriteError> {
        let Some(plane) = &mut self.notebook else { return Ok(()) };
        for asker in std::mem::take(&mut plane.file.asks.waiting) {
            self.refuse_or_close(asker).await?;
        }
        Ok(())
    }

    /// To one who wants a save that only a person can decide on.
    async fn refuse_or_close(&mut self, asker: Asker) -> Result<(), WriteError> {
        let id = self.session.spec.id;
        let conflict = self.notebook.as_ref().and_then(|plane| plane.file.conflict());
        let (conflict, why) = conflict.unwrap_or((FileConflict::Changed, "its file has changed"));
        match asker.wish {
            Wish::Save(_) => refuse(asker.reply, problem::conflict(id, conflict, why)),
            Wish::Close(Close { discard: true }) => return self.discard(asker.reply).await,
            Wish::Close(_) => refuse(asker.reply, problem::unsaved(id, why)),
        }
        Ok(())
    }

    async fn file_looked(&mut self, looked: Looked) -> Result<(), WriteError> {
        let now = self.context.clock.now().tick;
        let Some(plane) = &mut self.notebook else { return Ok(()) };
        let file = &mut plane.file;
        match looked {
            Looked::Ours(stamp) => {
                // The same bytes at another time are no save of ours: what was rendered last may not be among them.
                let is_written = file.stamp().is_none_or(|last| last.hash != stamp.hash);
                file.is(stamp.clone());
                if is_written {
                    plane.document.live().saved();
                    self.note_saved(stamp).await?;
                }
            }
            Looked::Theirs(theirs, stamp) if file.is_edited() => self.merge(*theirs, stamp).await?,
            Looked::Theirs(..) => {
                let why = "its file was changed by another program".to_owned();
                file.conflicted(FileConflict::Changed, why);
            }
            Looked::NotWhole(why) => file.conflicted(FileConflict::NotANotebook, why),
            Looked::Gone(Some(renamed)) if file.is_edited() => self.begin_follow(renamed),
            Looked::Gone(_) => {
                let path = file.path().map(|path| path.display().to_string()).unwrap_or_default();
                file.conflicted(FileConflict::Deleted, format!("{path} was deleted; a save writes it again"));
            }
            Looked::Lost(lost) => file.conflicted(lost.conflict, lost.why),
            Looked::InMidWrite => file.look(now + Duration::from_millis(AUTOSAVE_QUIET_MS)),
            Looked::Unreadable(why) => file.failing(why),
        }
        Ok(())
    }

    /// Another program has made this of the file.
    async fn merge(&mut self, theirs: Notebook, stamp: FileStamp) -> Result<(), WriteError> {
        self.merge_document(theirs).await?;
        let now = self.context.clock.now().tick;
        let Some(plane) = &mut self.notebook else { return Ok(()) };
        tracing::info!(session = %self.session.spec.id, "another program's changes of the file are merged");
        plane.file.is(stamp.clone());
        // What stands on our side alone is to be there too.
        plane.file.changed(now);
        self.note_saved(stamp).await
    }

    /// Brings all that can be there into the notebook's file, without waiting for quiet.
    pub(super) async fn flush_file(&mut self) -> Result<(), WriteError> {
        for _ in 0..FLUSH_STEPS_MAX {
            let Some(plane) = &mut self.notebook else { return Ok(()) };
            if !plane.file.is_working() {
                plane.file.hurry();
                self.go_on_with_file().await?;
            }
            let Some(plane) = &mut self.notebook else { return Ok(()) };
            let Some(done) = plane.file.finish_work().await else { return Ok(()) };
            let failed = matches!(&done, Done::Saved(saved) if saved.result.is_err());
            self.file_done(done).await?;
            // Tried again once it is merged; a full disk is not waited for.
            if failed && self.notebook.as_ref().is_some_and(|plane| plane.file.problem().is_some()) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The processes go on and the daemon ends: what can be saved is saved.
    pub(super) async fn save_before_leaving(&mut self) -> Result<Option<String>, WriteError> {
        let Some(plane) = &self.notebook else { return Ok(None) };
        if !plane.file.is_edited() {
            return self.last_save().await;
        }
        self.flush_file().await?;
        Ok(self.notebook.as_ref().and_then(|plane| plane.file.problem()).map(str::to_owned))
    }

    /// The last save. `None` when the file holds everything; else what is wrong and where the notebook is.
    pub(super) async fn last_save(&mut self) -> Result<Option<String>, WriteError> {
        let now = self.context.clock.now().tick;
        // What is under way goes on to its end, a save to another path too.
        while let Some(plane) = &mut self.notebook
            && let Some(done) = plane.file.finish_work().await
        {
            self.file_done(done).await?;
        }
        let Some(plane) = &mut self.notebook else { return Ok(None) };
        if !plane.file.is_edited() {
            return Ok(plane.file.save_finally(&mut plane.document, now).await);
        }
        self.flush_file().await?;
        let Some(plane) = &mut self.notebook else { return Ok(None) };
        let Some(why) = plane.file.problem().map(str::to_owned) else { return Ok(None) };
        match plane.file.conflict() {
            Some((FileConflict::Changed | FileConflict::NotANotebook | FileConflict::Unknown, _))
                if !plane.file.is_discarded() =>
            {
                let Some(path) = plane.file.path().map(Path::to_owned) else { return Ok(Some(why)) };
                let files = Arc::clone(&self.context.files);
                let id = self.session.spec.id;
                Ok(Some(put_beside(files, id, path, &mut plane.document, why).await))
            }
            Some(_) | None => Ok(Some(format!("{why}; the session's log keeps what is in no file"))),
        }
    }

    /// Another program's edit is being merged; the notebook was known by `before`, and the file is known by `theirs`.
    /// Where it has brought in or taken out what a notebook starts, nobody has vouched for that here, and the session is
    /// trusted no more, unless the store knows the file. It is in the log before the merge is.
    pub(super) async fn vouched_for(
        &mut self,
        before: &TrustKey,
        theirs: &TrustKey,
    ) -> Result<(), WriteError> {
        let Some(plane) = &mut self.notebook else { return Ok(()) };
        if self.session.trust == Trust::Untrusted || plane.document.trust_key() == *before {
            return Ok(());
        }
        let id = self.session.spec.id;
        match trust::is_trusted(&*self.context.engine, theirs).await {
            Ok(true) => return Ok(()),
            Ok(false) => {
                tracing::warn!(session = %id, "another program has changed the notebook's code or what it needs: it is trusted no more");
            }
            Err(error) => {
                tracing::warn!(session = %id, error = %with_sources(&error), "nobody knows whether another program's edit is trusted: it is not");
            }
        }
        let denied = self.input(Input::Trust(Trust::Untrusted), None).await?;
        debug_assert_eq!(denied, Ok(()), "a session that merges has not ended");
        Ok(())
    }

    /// Vouches for the notebook, or takes it back; a file's notebook is known by it when it is opened again.
    pub(super) async fn asked_to_trust(
        &mut self,
        trust: Trust,
    ) -> Result<Result<Answer, Problem>, WriteError> {
        let id = self.session.spec.id;
        let key = self.notebook.as_mut().map(|plane| {
            plane.file.asks.trusted = None;
            trust::key(plane.document.notebook())
        });
        // Noted before it holds: what was answered is known when the file is opened again.
        if let (Trust::Trusted, Some(key)) = (trust, &key)
            && let Err(error) = trust::remember(&*self.context.engine, key).await
        {
            return Ok(Err(problem::store(&error)));
        }
        if let Err(why) = self.input(Input::Trust(trust), None).await? {
            return Ok(Err(denied(id, &why)));
        }
        if let (Trust::Untrusted, Some(key)) = (trust, &key)
            && let Err(error) = trust::forget(&*self.context.engine, key).await
        {
            return Ok(Err(problem::store(&error)));
        }
        Ok(Ok(Answer::Done(self.view.borrow().clone())))
    }
}

fn refuse(reply: Reply, problem: Problem) {
    // Whoever asked may have gone.
    let _gone = reply.send(Err(problem));
}

fn busy(id: outlive_core::id::SessionId) -> Problem {
    Problem::new(503, "busy", "The session is busy", format!("too many wait for a save of session {id}"))
        .hint("try again in a moment")
}

fn being_saved(id: outlive_core::id::SessionId, there: &str, wanted: &str) -> Problem {
    Problem::new(
        409,
        "busy",
        "The notebook is being saved",
        format!("session {id} is being saved to {there}, so it cannot be saved to {wanted} now"),
    )
    .hint("try again in a moment")
}
