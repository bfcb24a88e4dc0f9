//! The file of a notebook: written when the notebook has been quiet for a while, after a longer while in any case, when
//! somebody asks, and at the end; looked at when another program may have changed it.
//!
//! One thing is done with the file at a time ([`Work`]), beside the session's task, which is told what came of it
//! ([`Done`]) and asks what is next ([`NotebookFile::next_step`]).
//!
//! ```text
//!             quiet, or asked                    whole again, or merged
//!   saved ──► unsaved ──► being written ──► saved ◄───────────────┐
//!                ▲              │ full disk, read-only … ► failing ─► tried again
//!                └──────────────┤
//!                               └ or a look finds it gone, or no notebook ► conflict: autosave holds
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use outlive_core::id::SessionId;
use outlive_core::limits::{AUTOSAVE_MAX_MS, AUTOSAVE_QUIET_MS};
use outlive_core::time::{Tick, WallTime};
use outlive_document::file::{FileStamp, WriteError};
use outlive_protocol::http::{FileConflict, Problem, SavedState};

use super::asks::FileAsks;
use super::document::Document;
use super::saving::{
    Destination, Expect, Look, Looked, Lost, Prepared, Save, Saved, hold_or_claim, ours, put_beside,
};
use super::with_sources;
use crate::seams::{ClaimError, FileHint, FileWatch, Files, PathClaim};

/// The file of a notebook that its session writes.
pub struct NotebookFile {
    session: SessionId,
    files: Arc<dyn Files>,
    manner: Manner,
    /// `None` while the notebook is untitled.
    home: Option<Home>,
    dirty: Dirty,
    trouble: Option<Trouble>,
    work: Option<BoxFuture<'static, Done>>,
    /// When the file is to be looked at.
    look_at: Option<Tick>,
    /// When the save that is under way, or was last, began.
    save_began: Tick,
    /// When it was last saved.
    saved_at: Option<WallTime>,
    at_end: AtEnd,
    /// Who waits for something.
    pub asks: FileAsks,
}

/// What becomes of a notebook that cannot be saved at the session's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum AtEnd {
    /// It goes beside its file.
    Keep,
    /// The session's log is enough.
    Forget,
}

/// How a notebook is saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    /// It is run and not edited: what another program makes of the file meanwhile is that program's, and the results go
    /// beside it.
    Run,
    /// People edit it, here and in the file: both are merged.
    Edited,
}

/// Where a notebook is.
struct Home {
    path: PathBuf,
    /// What the file was when it was last read or written; `None` when there was none, or nobody has looked yet.
    stamp: Option<FileStamp>,
    /// What the file was when the session opened it, for a daemon that takes the session up.
    opened: Option<FileStamp>,
    /// SHA-256 of what was being written when the daemon before ended, in hex.
    rendered: Option<String>,
    /// Held as long as this is; `None` when it could not be had.
    claim: Option<Arc<dyn PathClaim>>,
    watch: Option<Box<dyn FileWatch>>,
    /// Where the file was renamed to, as far as the watch knows.
    renamed: Option<PathBuf>,
}

/// Why a notebook is not in its file.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Trouble {
    /// A full disk, for instance: it is tried again then.
    Failing { why: String, retry: Tick },
    /// Somebody has to decide.
    Conflict { conflict: FileConflict, why: String },
}

/// Whether there is something to save.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dirty {
    No,
    /// The first and the last change since the last save.
    Since(Tick, Tick),
    /// Yes, and it is not waited for quiet.
    Due,
}

/// What has happened to the file.
#[derive(Debug)]
pub enum Done {
    /// Another program may have changed it.
    Hint(FileHint),
    /// The notebook was written, or not.
    Saved(Saved),
    /// It was looked at; with the claim, where it had to be taken anew.
    Looked(Looked, Option<Box<dyn PathClaim>>),
    /// A path is taken for a save to it, or not.
    Prepared(Result<Prepared, Problem>),
    /// The notebook was written to that path, or not.
    Moved(Destination, Result<FileStamp, WriteError>),
    /// The path that it was renamed to is taken, or not.
    Followed(Result<Destination, Lost>),
}

/// What is to be done with the file next.
#[derive(Debug)]
pub enum Step {
    /// Nothing, or something is being done.
    Wait,
    /// Look at it.
    Look,
    /// Take the path that somebody wants it to be saved to.
    Prepare,
    /// Write it.
    Save(Expect),
    /// Those who wait for a save must be told that only a person can decide.
    Refuse,
}

impl NotebookFile {
    /// A notebook that was just opened or taken up.
    pub fn new(
        session: SessionId,
        files: Arc<dyn Files>,
        (path, stamp): (PathBuf, Option<FileStamp>),
        claim: Box<dyn PathClaim>,
    ) -> Self {
        Self { home: Some(Home::new(path, stamp, Some(claim))), ..Self::untitled(session, files) }
    }

    /// A notebook that has no file yet.
    pub fn untitled(session: SessionId, files: Arc<dyn Files>) -> Self {
        Self {
            session,
            files,
            manner: Manner::Run,
            home: None,
            dirty: Dirty::No,
            trouble: None,
            work: None,
            look_at: None,
            save_began: Tick(0),
            saved_at: None,
            at_end: AtEnd::Keep,
            asks: FileAsks::default(),
        }
    }

    /// A notebook whose file could not be claimed when it was taken up; before each write that is tried again.
    pub fn unclaimed(session: SessionId, files: Arc<dyn Files>, path: PathBuf, why: &ClaimError) -> Self {
        let why_text = with_sources(why);
        let trouble = match why {
            ClaimError::Held { .. } => Trouble::Conflict { conflict: FileConflict::Claimed, why: why_text },
            ClaimError::Elsewhere { .. } => {
                Trouble::Conflict { conflict: FileConflict::Elsewhere, why: why_text }
            }
            ClaimError::MissingDirectory { .. } | ClaimError::NoDirectory { .. } => {
                Trouble::Conflict { conflict: FileConflict::Deleted, why: why_text }
            }
            _ => Trouble::Failing { why: why_text, retry: Tick(0) },
        };
        let home = Some(Home::new(path, None, None));
        Self { home, trouble: Some(trouble), ..Self::untitled(session, files) }
    }

    /// The same, taken up by a daemon that did not open it: the file was this when the session did.
    #[must_use]
    pub fn opened_as(mut self, opened: Option<FileStamp>) -> Self {
        if let Some(home) = &mut self.home {
            home.opened = opened;
        }
        self
    }

    /// The same, taken up: the file was `saved` when it was last written or merged, and then `rendered` (SHA-256 in hex)
    /// was about to be written.
    #[must_use]
    pub fn last_known(mut self, saved: Option<FileStamp>, rendered: Option<String>) -> Self {
        if let Some(home) = &mut self.home {
            home.stamp = saved.or(home.stamp.take());
            home.rendered = rendered;
        }
        self
    }

    /// The notebook is edited from now on: what another program does to the file is heard of and merged.
    pub fn edited(&mut self) {
        self.manner = Manner::Edited;
        if let Some(home) = &mut self.home
            && home.watch.is_none()
        {
            home.watch = Some(self.files.watch(&home.path));
            // Never saved since it was opened.
            home.stamp = home.stamp.take().or_else(|| home.opened.take());
        }
    }

    /// Nothing more is written or looked at: the path is anybody's.
    pub fn release(&mut self) {
        if let Some(home) = &mut self.home {
            home.claim = None;
            home.watch = None;
        }
    }

    /// Whether it is.
    pub fn is_edited(&self) -> bool {
        self.manner == Manner::Edited
    }

    /// Where it is; `None` while it is untitled.
    pub fn path(&self) -> Option<&Path> {
        self.home.as_ref().map(|home| home.path.as_path())
    }

    /// The notebook has changed.
    pub fn changed(&mut self, now: Tick) {
        self.dirty = match self.dirty {
            Dirty::No => Dirty::Since(now, now),
            Dirty::Since(first, _) => Dirty::Since(first, now),
            Dirty::Due => Dirty::Due,
        };
    }

    /// Whether a notebook that was taken up, whose bytes have this SHA-256, stands in its file, as far as that is known.
    pub fn compare(&mut self, hash: [u8; 32], now: Tick) {
        let Some(home) = &self.home else { return };
        let known = home.stamp.as_ref().or(home.opened.as_ref());
        if known.is_some_and(|stamp| stamp.hash == hash) {
            self.dirty = Dirty::No;
        } else if self.dirty == Dirty::No {
            self.changed(now);
        }
    }

    /// What is not in the file is to be written without waiting for quiet.
    pub fn hurry(&mut self) {
        if self.dirty != Dirty::No {
            self.dirty = Dirty::Due;
        }
        if let Some(Trouble::Failing { retry, .. }) = &mut self.trouble {
            *retry = Tick(0);
        }
    }

    /// Why it is not in its file, and what it takes.
    pub fn problem(&self) -> Option<&str> {
        self.trouble
            .as_ref()
            .map(|(Trouble::Failing { why, .. } | Trouble::Conflict { why, .. })| why.as_str())
    }

    /// The conflict that only a person can end.
    pub fn conflict(&self) -> Option<(FileConflict, &str)> {
        match &self.trouble {
            Some(Trouble::Conflict { conflict, why }) => Some((*conflict, why)),
            Some(Trouble::Failing { .. }) | None => None,
        }
    }

    /// Whether nothing has changed since what is in the file, or is being written to it.
    pub fn is_clean(&self) -> bool {
        self.dirty == Dirty::No
    }

    /// Whether something is being done with the file.
    pub fn is_working(&self) -> bool {
        self.work.is_some()
    }

    /// Somebody has decided that what is in no file may be forgotten with the session's log.
    pub fn discard(&mut self) {
        self.at_end = AtEnd::Forget;
    }

    /// Whether somebody has.
    pub fn is_discarded(&self) -> bool {
        self.at_end == AtEnd::Forget
    }

    /// Whether all is in the file, as far as is known.
    pub fn is_saved(&self) -> bool {
        self.home.is_some() && self.dirty == Dirty::No && self.trouble.is_none() && self.asks.served.is_none()
    }

    /// The same for views.
    pub fn state(&self) -> SavedState {
        match &self.trouble {
            Some(Trouble::Conflict { conflict, why }) => {
                SavedState::Conflict { conflict: *conflict, why: why.clone() }
            }
            Some(Trouble::Failing { why, .. }) => SavedState::Failing { why: why.clone() },
            None if self.home.is_none() => SavedState::Untitled,
            None if self.is_saved() => SavedState::Saved { at: self.saved_at },
            None => SavedState::Unsaved,
        }
    }

    /// When [`Self::next_step`] is to be asked, if nothing happens before.
    pub fn due(&self) -> Option<Tick> {
        if self.work.is_some() {
            return None;
        }
        self.look_at.into_iter().chain(self.autosave_due()).min()
    }

    fn autosave_due(&self) -> Option<Tick> {
        self.home.as_ref()?;
        match (&self.trouble, self.dirty) {
            (Some(Trouble::Conflict { .. }), _) | (_, Dirty::No) => None,
            (Some(Trouble::Failing { retry, .. }), _) => Some(*retry),
            (None, Dirty::Due) => Some(Tick(0)),
            (None, Dirty::Since(first, last)) => Some(
                (last + Duration::from_millis(AUTOSAVE_QUIET_MS))
                    .min(first + Duration::from_millis(AUTOSAVE_MAX_MS)),
            ),
        }
    }

    /// What is to be done now. A look goes first: it may find that there is nothing to write, or nowhere.
    pub fn next_step(&self, now: Tick) -> Step {
        if self.work.is_some() {
            return Step::Wait;
        }
        if self.home.is_some() && self.look_at.is_some_and(|at| at <= now) {
            return Step::Look;
        }
        if self.asks.moving.is_some() {
            return Step::Prepare;
        }
        let asked = !self.asks.waiting.is_empty();
        match (&self.trouble, &self.home) {
            (_, None) => Step::Wait,
            (Some(Trouble::Conflict { conflict, .. }), _) if asked => match conflict {
                _ if self.asks.only_to_close() => Step::Refuse,
                FileConflict::Deleted | FileConflict::Claimed => Step::Save(Expect::Stamp(None)),
                FileConflict::Elsewhere => Step::Refuse,
                _ if self.asks.may_overwrite() => Step::Save(Expect::KeepTheirs),
                FileConflict::Changed | FileConflict::NotANotebook | FileConflict::Unknown => Step::Refuse,
            },
            (Some(Trouble::Conflict { .. }), _) => Step::Wait,
            (Some(Trouble::Failing { .. }) | None, Some(home)) => {
                if asked || self.autosave_due().is_some_and(|at| at <= now) {
                    Step::Save(Expect::Stamp(home.stamp.clone()))
                } else {
                    Step::Wait
                }
            }
        }
    }

    /// Begins what [`Self::next`] ends.
    pub fn begin(&mut self, work: impl Future<Output = Done> + Send + 'static) {
        debug_assert!(self.work.is_none(), "one thing at a time");
        self.work = Some(Box::pin(work));
    }

    /// Waits until something has happened to the file; for ever when nothing is done with it and nobody watches it.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Done {
        let work = async {
            match &mut self.work {
                Some(work) => work.await,
                None => std::future::pending().await,
            }
        };
        let hint = async {
            match self.home.as_mut().and_then(|home| home.watch.as_mut()) {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            done = work => {
                self.work = None;
                done
            }
            hint = hint => Done::Hint(hint),
        }
    }

    /// Waits until what is done with the file is done; `None` when nothing is.
    pub async fn finish_work(&mut self) -> Option<Done> {
        let done = self.work.as_mut()?.await;
        self.work = None;
        Some(done)
    }

    /// Begins to look at the file.
    pub fn begin_look(&mut self, document: &mut Document) {
        self.look_at = None;
        let Some(home) = &mut self.home else { return };
        let look = Look {
            files: Arc::clone(&self.files),
            path: home.path.clone(),
            stamp: home.stamp.clone(),
            rendered: home.rendered.clone(),
            sources: home.stamp.is_none().then(|| document.sources()),
            hint: home.renamed.take(),
            session: self.session,
            claim: home.claim.clone(),
        };
        self.begin(async move {
            let (looked, claim) = look.run().await;
            Done::Looked(looked, claim)
        });
    }

    /// Begins to write these bytes of the notebook to its own file.
    pub fn begin_save(
        &mut self,
        document: &mut Document,
        bytes: Vec<u8>,
        hash: [u8; 32],
        expect: Expect,
        now: Tick,
    ) {
        let Some(home) = &mut self.home else { return };
        // A notebook that was taken up has not looked at its file yet: the daemon before may have saved it.
        let expect = match expect {
            Expect::Stamp(None) if self.manner == Manner::Run => {
                Expect::Ours(document.sources(), home.opened.clone())
            }
            other => other,
        };
        let save = Save {
            files: Arc::clone(&self.files),
            session: self.session,
            path: home.path.clone(),
            bytes,
            hash,
            expect,
            claim: home.claim.clone(),
        };
        self.saving(now);
        self.begin(async move { Done::Saved(save.run().await) });
    }

    /// All that stands in the notebook now is being written somewhere.
    pub fn saving(&mut self, now: Tick) {
        self.dirty = Dirty::No;
        self.save_began = now;
    }

    /// Another program may have changed the file.
    pub fn hinted(&mut self, hint: FileHint, now: Tick) {
        self.look_at = Some(now);
        if let (FileHint::Renamed(to), Some(home)) = (hint, &mut self.home) {
            home.renamed = Some(to);
        }
        if let Some(Trouble::Failing { retry, .. }) = &mut self.trouble {
            *retry = now;
        }
    }

    /// The file is to be looked at.
    pub fn look(&mut self, at: Tick) {
        self.look_at = Some(at);
    }

    /// The file is this, and holds what our notebook said when it was written or read.
    pub fn is(&mut self, stamp: FileStamp) {
        if let Some(home) = &mut self.home {
            home.stamp = Some(stamp);
            home.rendered = None;
        }
        if !matches!(self.trouble, Some(Trouble::Failing { .. })) {
            self.trouble = None;
        }
    }

    /// The notebook is in its file since `at`.
    pub fn saved(&mut self, stamp: FileStamp, at: WallTime) {
        self.trouble = None;
        self.is(stamp);
        self.saved_at = Some(at);
    }

    /// What the last write was to bring into the file is not in it.
    pub fn not_saved(&mut self) {
        self.dirty = match self.dirty {
            Dirty::No => Dirty::Since(self.save_began, self.save_began),
            Dirty::Since(_, last) => Dirty::Since(self.save_began, last),
            Dirty::Due => Dirty::Due,
        };
    }

    /// It cannot be written now.
    pub fn failing(&mut self, why: String) {
        // Said once, however often it is tried again.
        if self.problem() != Some(why.as_str()) {
            tracing::warn!(session = %self.session, path = ?self.path(), why, "not saved");
        }
        self.not_saved();
        let retry = self.save_began + Duration::from_millis(AUTOSAVE_MAX_MS);
        self.trouble = Some(Trouble::Failing { why, retry });
    }

    /// It is not written before a person decides.
    pub fn conflicted(&mut self, conflict: FileConflict, why: String) {
        if self.conflict() != Some((conflict, &why)) {
            tracing::warn!(session = %self.session, path = ?self.path(), ?conflict, why, "autosave holds");
        }
        // What stands in the notebook is in no file any more.
        self.not_saved();
        self.trouble = Some(Trouble::Conflict { conflict, why });
    }

    /// The claim that was missing.
    pub fn claimed(&mut self, claim: Option<Box<dyn PathClaim>>) {
        if let (Some(home), Some(claim)) = (&mut self.home, claim) {
            home.claim = Some(claim.into());
        }
    }

    /// The notebook's file is this one from now on; the one before is free, and nobody watches it any more.
    pub fn move_to(&mut self, path: PathBuf, stamp: FileStamp, claim: Box<dyn PathClaim>) {
        self.home = Some(Home::new(path, Some(stamp), Some(claim)));
        self.trouble = None;
        self.look_at = None;
        if self.manner == Manner::Edited {
            self.edited();
        }
    }

    /// What the file was when it was last read or written.
    pub fn stamp(&self) -> Option<&FileStamp> {
        self.home.as_ref()?.stamp.as_ref()
    }

    /// Saves a notebook that is only run for the last time. Where the file has become somebody else's meanwhile, the
    /// notebook goes beside it. `None` when the file holds everything; else what is wrong and where the notebook is.
    pub async fn save_finally(&mut self, document: &mut Document, now: Tick) -> Option<String> {
        let home = self.home.as_ref()?;
        if self.dirty == Dirty::No && self.trouble.is_none() {
            return None;
        }
        let path = home.path.clone();
        let (stamp, opened) = (home.stamp.clone(), home.opened.clone());
        let (files, session) = (Arc::clone(&self.files), self.session);
        let held = hold_or_claim(&*files, home.claim.as_deref(), &path, session).await;
        match held.map_err(|error| with_sources(&error)) {
            Ok(anew) => self.claimed(anew),
            Err(why) => return Some(put_beside(files, session, path, document, why).await),
        }
        let expected = match stamp {
            Some(stamp) => Some(stamp),
            None => ours(&*self.files, &path, &document.sources(), opened.as_ref()).await,
        };
        self.saving(now);
        let error = match self.files.write(&path, document.to_bytes(), expected).await {
            Ok(stamp) => {
                self.trouble = None;
                self.is(stamp);
                return None;
            }
            Err(error) => error,
        };
        if let WriteError::Changed { now: Some(_), .. } = &error
            && let Some(stamp) = ours(&*self.files, &path, &document.sources(), None).await
        {
            return match self.files.write(&path, document.to_bytes(), Some(stamp)).await {
                Ok(_) => None,
                Err(error) => Some(with_sources(&error)),
            };
        }
        Some(put_beside(files, session, path, document, with_sources(&error)).await)
    }
}

impl Home {
    fn new(path: PathBuf, stamp: Option<FileStamp>, claim: Option<Box<dyn PathClaim>>) -> Self {
        let claim = claim.map(Arc::from);
        Self { path, stamp, opened: None, rendered: None, claim, watch: None, renamed: None }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use outlive_document::Notebook;
    use uuid::Uuid;

    use super::super::document::BlobFolder;
    use super::super::saving::SaveError;
    use super::*;
    use crate::files::LocalFiles;

    fn notebook(source: &str, outputs: &str) -> String {
        format!(
            r#"{{"cells":[{{"cell_type":"code","execution_count":null,"id":"a","metadata":{{}},"outputs":[{outputs}],
"source":["{source}"]}}],"metadata":{{}},"nbformat":4,"nbformat_minor":5}}"#
        )
    }

    const OUTPUT: &str = r#"{"name":"stdout","output_type":"stream","text":["1\n"]}"#;

    /// As a daemon has it that comes back: it has not looked at the file, and there is something to save.
    async fn taken_up(place: &Path) -> (NotebookFile, Document) {
        let files = LocalFiles::new(place.join("claims"));
        let session = SessionId::from_uuid(Uuid::from_u128(1));
        let path = place.join("n.ipynb");
        let claim = files.claim(&path, session).await.unwrap();
        let notebook = Notebook::parse(notebook("print(1)", OUTPUT).as_bytes()).unwrap();
        let document = Document::new(session, notebook, BlobFolder(place.join("blobs")));
        let mut file = NotebookFile::new(session, Arc::new(files), (path, None), claim);
        file.changed(Tick(0));
        (file, document)
    }

    /// What came of an autosave.
    async fn autosave(file: &mut NotebookFile, document: &mut Document) -> Result<FileStamp, SaveError> {
        let due = file.due().expect("there is something to save");
        let Step::Save(expect) = file.next_step(due) else { panic!("a save was due") };
        let bytes = document.to_bytes();
        file.begin_save(document, bytes, [0; 32], expect, due);
        match file.finish_work().await {
            Some(Done::Saved(saved)) => saved.result,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_notebook_that_was_taken_up_is_saved_while_it_runs_over_what_the_daemon_before_saved() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("n.ipynb");
        fs::write(&path, notebook("print(1)", "")).unwrap();
        let (mut file, mut document) = taken_up(place.path()).await;
        autosave(&mut file, &mut document).await.unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains("stdout"));
        // What a person has changed meanwhile stays.
        let changed = notebook("print(2)", "");
        fs::write(&path, &changed).unwrap();
        drop(file);
        let (mut file, mut document) = taken_up(place.path()).await;
        autosave(&mut file, &mut document).await.unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), changed);
    }

    #[tokio::test]
    async fn results_that_went_beside_a_changed_notebook_are_renewed_by_the_next_daemon() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("n.ipynb"), notebook("print(2)", "")).unwrap();
        for _ in 0..2 {
            let (mut file, mut document) = taken_up(place.path()).await;
            let problem =
                file.save_finally(&mut document, Tick(0)).await.expect("the file is somebody else's");
            assert!(problem.contains("the results are in"), "{problem}");
        }
    }

    #[tokio::test]
    async fn a_notebook_with_parameters_that_was_taken_up_before_its_first_save_goes_into_its_file() {
        // D1
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("n.ipynb");
        fs::write(&path, notebook("another = 0", "")).unwrap();
        let (_, opened) = outlive_document::file::read(&path).unwrap();
        let (file, mut document) = taken_up(place.path()).await;
        let mut file = file.opened_as(Some(opened));
        assert_eq!(file.save_finally(&mut document, Tick(0)).await, None);
        assert!(fs::read_to_string(&path).unwrap().contains("print(1)"));
    }

    #[test]
    fn what_cannot_be_written_is_tried_again_and_what_somebody_must_decide_is_not() {
        // C3
        let place = tempfile::tempdir().unwrap();
        let files = Arc::new(LocalFiles::new(place.path().to_owned()));
        let session = SessionId::from_uuid(Uuid::from_u128(1));
        let mut file = NotebookFile::unclaimed(
            session,
            files,
            "/n.ipynb".into(),
            &ClaimError::Relative { path: String::new() },
        );
        assert!(matches!(file.state(), SavedState::Failing { .. }));
        assert_eq!(file.due(), None, "there is nothing to save yet");
        file.changed(Tick(0));
        assert_eq!(file.due(), Some(Tick(0)), "a claim that could not be had is tried again");
        file.saving(Tick(0));
        file.failing("the disk is full".to_owned());
        let again = file.due().expect("it is tried again");
        assert_eq!(again, Tick(0) + Duration::from_millis(AUTOSAVE_MAX_MS));
        assert!(matches!(file.next_step(Tick(0)), Step::Wait));
        assert!(matches!(file.next_step(again), Step::Save(_)));
        // Another program has touched it: perhaps there is room now.
        file.hinted(FileHint::Changed, Tick(1));
        assert!(matches!(file.next_step(Tick(1)), Step::Look));
        file.conflicted(FileConflict::NotANotebook, "it is empty".to_owned());
        file.changed(Tick(2));
        file.look_at = None;
        assert_eq!(file.due(), None);
        assert!(matches!(file.state(), SavedState::Conflict { conflict: FileConflict::NotANotebook, .. }));
    }
}
