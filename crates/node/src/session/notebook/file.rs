//! The file of a notebook: written when the notebook has been quiet for a while, after a longer while in any case, and
//! at the end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use outlive_core::id::SessionId;
use outlive_core::limits::{AUTOSAVE_MAX_MS, AUTOSAVE_QUIET_MS};
use outlive_core::time::Tick;
use outlive_document::file::{FileStamp, WriteError};
use outlive_document::{CellKind, Notebook};

use super::document::{Document, sources};
use super::with_sources;
use crate::seams::{Files, PathClaim};

/// The file of a notebook that its session writes.
pub struct NotebookFile {
    session: SessionId,
    files: Arc<dyn Files>,
    path: PathBuf,
    /// What the file was when it was last read or written; `None` when there is none.
    stamp: Option<FileStamp>,
    dirty: Dirty,
    saving: Option<BoxFuture<'static, Result<FileStamp, WriteError>>>,
    /// What the file was when the session opened it, for a daemon that takes the session up.
    opened: Option<FileStamp>,
    /// When the save that is under way, or was last, began.
    save_began: Tick,
    /// Why it was not saved where it should be.
    problem: Option<Unsaved>,
    /// Held as long as this is.
    _claim: Box<dyn PathClaim>,
}

/// Why a notebook was not saved.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Unsaved {
    /// A full disk, for instance: it is tried again.
    Later(String),
    /// The file is somebody else's now: only the last save looks for a way.
    Blocked(String),
}

/// Whether there is something to save.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dirty {
    No,
    /// The first and the last change since the last save.
    Since(Tick, Tick),
}

impl NotebookFile {
    /// A notebook that was just opened or taken up.
    pub fn new(
        session: SessionId,
        files: Arc<dyn Files>,
        (path, stamp): (PathBuf, Option<FileStamp>),
        claim: Box<dyn PathClaim>,
    ) -> Self {
        Self {
            session,
            files,
            path,
            stamp,
            dirty: Dirty::No,
            saving: None,
            opened: None,
            save_began: Tick(0),
            problem: None,
            _claim: claim,
        }
    }

    /// The notebook has changed.
    pub fn changed(&mut self, now: Tick) {
        self.dirty = match self.dirty {
            Dirty::No => Dirty::Since(now, now),
            Dirty::Since(first, _) => Dirty::Since(first, now),
        };
    }

    /// The same, taken up by a daemon that did not open it: the file was this when the session did.
    #[must_use]
    pub fn opened_as(self, opened: Option<FileStamp>) -> Self {
        Self { opened, ..self }
    }

    /// Why the last save did not succeed.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_ref().map(|(Unsaved::Later(why) | Unsaved::Blocked(why))| why.as_str())
    }

    /// When the next autosave is due; `None` when nothing is to be saved or it cannot be.
    pub fn save_due(&self) -> Option<Tick> {
        if self.saving.is_some() || matches!(self.problem, Some(Unsaved::Blocked(_))) {
            return None;
        }
        match self.dirty {
            Dirty::No => None,
            Dirty::Since(first, last) => Some(
                (last + Duration::from_millis(AUTOSAVE_QUIET_MS))
                    .min(first + Duration::from_millis(AUTOSAVE_MAX_MS)),
            ),
        }
    }

    /// Begins to save; [`Self::saved`] ends it.
    pub fn begin_save(&mut self, document: &Document, now: Tick) {
        self.dirty = Dirty::No;
        self.save_began = now;
        let bytes = document.to_bytes();
        let (files, path, expected) = (Arc::clone(&self.files), self.path.clone(), self.stamp.clone());
        let (sources, opened) = (document.sources(), self.opened.clone());
        self.saving = Some(Box::pin(async move {
            // A notebook that was taken up has not looked at its file yet: the daemon before may have saved it.
            let expected = match expected {
                None => ours(&*files, &path, &sources, opened.as_ref()).await,
                Some(stamp) => Some(stamp),
            };
            files.write(&path, bytes, expected).await
        }));
    }

    /// Waits until the save that was begun is done; for ever when none was. Cancel-safe.
    pub async fn saved(&mut self) {
        let Some(saving) = self.saving.as_mut() else { return std::future::pending().await };
        let result = saving.await;
        self.saving = None;
        match result {
            Ok(stamp) => {
                self.stamp = Some(stamp);
                self.problem = None;
            }
            Err(error) => {
                tracing::warn!(session = %self.session, path = %self.path.display(), %error, "not saved");
                let why = with_sources(&error);
                self.problem = Some(match error {
                    WriteError::Changed { .. } | WriteError::NotAFile(..) => Unsaved::Blocked(why),
                    _ => Unsaved::Later(why),
                });
                let again = self.save_began + Duration::from_millis(AUTOSAVE_MAX_MS);
                self.dirty = Dirty::Since(again, again);
            }
        }
    }

    /// Saves for the last time. Where the file has become somebody else's meanwhile, the notebook goes beside it.
    /// `None` when the file holds everything; else what is wrong and where the notebook is.
    pub async fn save_finally(&mut self, document: &Document, now: Tick) -> Option<String> {
        if self.saving.is_some() {
            self.saved().await;
        }
        if self.dirty == Dirty::No && self.problem.is_none() {
            return None;
        }
        self.begin_save(document, now);
        let saving = self.saving.take()?;
        let error = match saving.await {
            Ok(stamp) => {
                self.stamp = Some(stamp);
                self.problem = None;
                return None;
            }
            Err(error) => error,
        };
        if let WriteError::Changed { now: Some(_), .. } = &error
            && let Some(stamp) = ours(&*self.files, &self.path, &document.sources(), None).await
        {
            let bytes = document.to_bytes();
            return match self.files.write(&self.path, bytes, Some(stamp)).await {
                Ok(_) => None,
                Err(error) => Some(with_sources(&error)),
            };
        }
        let beside = beside(&self.path, self.session);
        let bytes = document.to_bytes();
        // It is there already when an earlier daemon came to the same end.
        let earlier = ours(&*self.files, &beside, &document.sources(), None).await;
        match self.files.write(&beside, bytes, earlier).await {
            Ok(_) => Some(format!("{}; the results are in {}", with_sources(&error), beside.display())),
            Err(_) => Some(format!("{}; the outputs stay in the log of the session", with_sources(&error))),
        }
    }
}

/// The stamp of a file as it is, if it may be replaced: it differs from ours in outputs alone, and so is an earlier save
/// of the session by a daemon that died; or it still is what the session opened.
async fn ours(
    files: &dyn Files,
    path: &Path,
    sources_of_ours: &[(CellKind, String)],
    opened: Option<&FileStamp>,
) -> Option<FileStamp> {
    let (bytes, stamp) = files.read(path).await.ok()?;
    if opened == Some(&stamp) {
        return Some(stamp);
    }
    let there = Notebook::parse(&bytes).ok()?;
    (sources(&there) == sources_of_ours).then_some(stamp)
}

/// `analysis.ipynb` → `analysis.outlive-0192f3aa.ipynb`.
fn beside(path: &Path, session: SessionId) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let id = session.to_string();
    path.with_file_name(format!("{stem}.outlive-{}.ipynb", &id[id.len() - 8..]))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use uuid::Uuid;

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
    async fn taken_up(place: &Path) -> NotebookFile {
        let files = LocalFiles::new(place.join("claims"));
        let session = SessionId::from_uuid(Uuid::from_u128(1));
        let path = place.join("n.ipynb");
        let claim = files.claim(&path, session).await.unwrap();
        let document = Notebook::parse(notebook("print(1)", OUTPUT).as_bytes()).unwrap();
        let blobs = BlobFolder(place.join("blobs"));
        let mut file = NotebookFile::new(session, document, blobs, Arc::new(files), (path, None), claim);
        file.dirty = Dirty::Since(Tick(0), Tick(0));
        file
    }

    #[tokio::test]
    async fn a_notebook_that_was_taken_up_is_saved_while_it_runs_over_what_the_daemon_before_saved() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("n.ipynb");
        fs::write(&path, notebook("print(1)", "")).unwrap();
        let mut file = taken_up(place.path()).await;
        file.begin_save(Tick(0));
        file.saved().await;
        assert_eq!(file.problem, None);
        assert!(fs::read_to_string(&path).unwrap().contains("stdout"));
        // What a person has changed meanwhile stays.
        let changed = notebook("print(2)", "");
        fs::write(&path, &changed).unwrap();
        drop(file);
        let mut file = taken_up(place.path()).await;
        file.begin_save(Tick(0));
        file.saved().await;
        assert!(file.problem.is_some());
        assert_eq!(fs::read_to_string(&path).unwrap(), changed);
    }

    #[tokio::test]
    async fn results_that_went_beside_a_changed_notebook_are_renewed_by_the_next_daemon() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("n.ipynb"), notebook("print(2)", "")).unwrap();
        for _ in 0..2 {
            let mut file = taken_up(place.path()).await;
            let problem = file.save_finally(Tick(0)).await.expect("the file is somebody else's");
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
        let mut file = taken_up(place.path()).await.opened_as(Some(opened));
        assert_eq!(file.save_finally(Tick(0)).await, None);
        assert!(fs::read_to_string(&path).unwrap().contains("print(1)"));
    }

    #[tokio::test]
    async fn what_somebody_else_wrote_is_not_saved_over_and_over_but_said() {
        // C3
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("n.ipynb");
        fs::write(&path, notebook("theirs", "")).unwrap();
        let mut file = taken_up(place.path()).await;
        file.begin_save(Tick(0));
        file.saved().await;
        assert!(file.problem().is_some());
        assert_eq!(file.save_due(), None, "the file is somebody else's");
        assert!(fs::read_to_string(&path).unwrap().contains("theirs"));
    }
}
