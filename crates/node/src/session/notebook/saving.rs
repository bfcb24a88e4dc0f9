//! What is done with a notebook's file. Each is a future that has all it needs, so that the session goes on meanwhile.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outlive_core::id::SessionId;
use outlive_core::session::state::Claiming;
use outlive_document::file::{FileStamp, ReadError, WriteError};
use outlive_document::{CellKind, Notebook, NotebookError};
use outlive_protocol::http::{FileConflict, Problem, SaveHow, SaveSession};

use super::document::{Document, sources};
use super::{hex, with_sources};
use crate::context::{Context, PathSlot};
use crate::files::notebook_at;
use crate::problem;
use crate::seams::{ClaimError, Files, PathClaim, Standing};
use crate::trust::{self, TrustKey};

/// What a person has written of a notebook, as [`super::Document::sources`] gives it.
pub type Sources = Vec<(CellKind, String)>;

/// What may be replaced.
#[derive(Clone, Debug)]
pub enum Expect {
    /// What was last read or written; `None`: nothing is there.
    Stamp(Option<FileStamp>),
    /// The file was not looked at yet: an earlier save of the session, which differs in outputs alone, or what the
    /// session opened.
    Ours(Sources, Option<FileStamp>),
    /// Whatever is there, which is kept beside first: a person has decided so.
    KeepTheirs,
}

/// A write of the notebook to its own file.
pub struct Save {
    /// The files of this machine.
    pub files: Arc<dyn Files>,
    /// Whose notebook it is.
    pub session: SessionId,
    /// Its file.
    pub path: PathBuf,
    /// What is written.
    pub bytes: Vec<u8>,
    /// SHA-256 of them.
    pub hash: [u8; 32],
    /// What may be replaced.
    pub expect: Expect,
    /// The session's claim; `None` when it could not have it when it was taken up.
    pub claim: Option<Arc<dyn PathClaim>>,
}

/// What came of a [`Save`].
#[derive(Debug)]
pub struct Saved {
    /// What the file is now.
    pub result: Result<FileStamp, SaveError>,
    /// The claim that was missing.
    pub claim: Option<Box<dyn PathClaim>>,
    /// Where that is kept which stood in the file before, if a person has decided that it is replaced.
    pub kept: Option<PathBuf>,
}

/// Why a notebook is not in its file.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The path is not to be had.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// It was not written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// What is there, and was to be kept, cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl SaveError {
    /// The same for who asked for the save.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Claim(error) => problem::claim(error),
            Self::Write(error) => problem::write(error),
            Self::Read(error) => problem::read(error),
        }
    }
}

impl Save {
    /// Carries it out.
    pub async fn run(self) -> Saved {
        let held = hold_or_claim(&*self.files, self.claim.as_deref(), &self.path, self.session).await;
        let claim = match held {
            Ok(claim) => claim,
            Err(error) => return Saved { result: Err(error.into()), claim: None, kept: None },
        };
        let mut kept = None;
        Saved { result: self.write(&mut kept).await, claim, kept }
    }

    async fn write(self, kept: &mut Option<PathBuf>) -> Result<FileStamp, SaveError> {
        let Self { files, path, bytes, hash, expect, .. } = self;
        let expected = match expect {
            Expect::Stamp(stamp) => stamp,
            Expect::Ours(sources, opened) => ours(&*files, &path, &sources, opened.as_ref()).await,
            Expect::KeepTheirs => keep_theirs(&*files, &path).await?.map(|(stamp, place)| {
                *kept = Some(place);
                stamp
            }),
        };
        // The same bytes again would only tell everybody who watches the file that it has changed.
        if let Some(stamp) = expected.as_ref().filter(|stamp| stamp.hash == hash)
            && files.stat(&path).await.is_ok_and(|there| there == Some(stamp.meta()))
        {
            return Ok(stamp.clone());
        }
        Ok(files.write(&path, bytes, expected).await?)
    }
}

/// Makes sure, just before something is done with a file, that the claim is on what its path leads to now. Another one,
/// where it had to be taken anew.
///
/// # Errors
/// When the path leads elsewhere, or cannot be claimed again.
pub async fn hold(
    files: &dyn Files,
    held: &dyn PathClaim,
    session: SessionId,
) -> Result<Option<Box<dyn PathClaim>>, ClaimError> {
    match held.standing().await {
        Standing::Stands => Ok(None),
        Standing::Lapsed => claim_at(files, held.path(), session).await.map(Some),
        Standing::Elsewhere(to) => Err(elsewhere(held.path(), &to)),
    }
}

/// As [`hold`]; the claim is taken where there is none.
///
/// # Errors
/// As [`hold`].
pub async fn hold_or_claim(
    files: &dyn Files,
    held: Option<&dyn PathClaim>,
    path: &Path,
    session: SessionId,
) -> Result<Option<Box<dyn PathClaim>>, ClaimError> {
    match held {
        Some(held) => hold(files, held, session).await,
        None => claim_at(files, path, session).await.map(Some),
    }
}

/// Claims a path that a session has already: it must be its own place still, and no link to another.
///
/// # Errors
/// When it is, or cannot be claimed.
pub async fn claim_at(
    files: &dyn Files,
    path: &Path,
    session: SessionId,
) -> Result<Box<dyn PathClaim>, ClaimError> {
    let claim = files.claim(path, session).await?;
    if claim.path() == path { Ok(claim) } else { Err(elsewhere(path, claim.path())) }
}

fn elsewhere(path: &Path, to: &Path) -> ClaimError {
    ClaimError::Elsewhere { path: path.display().to_string(), to: to.display().to_string() }
}

/// Keeps what is in the file under another name beside it, and gives what it is and where it is kept.
async fn keep_theirs(files: &dyn Files, path: &Path) -> Result<Option<(FileStamp, PathBuf)>, SaveError> {
    let (bytes, stamp) = match files.read(path).await {
        Ok(read) => read,
        Err(ReadError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let kept = beside(path, &format!("theirs-{}", &hex(&stamp.hash)[..8]));
    match files.write(&kept, bytes, None).await {
        Ok(_) => {}
        // Kept already.
        Err(WriteError::Changed { .. })
            if files.read(&kept).await.is_ok_and(|(_, there)| there.hash == stamp.hash) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(Some((stamp, kept)))
}

/// The stamp of a file as it is, if it may be replaced: it differs from ours in outputs alone, and so is an earlier save
/// of the session by a daemon that died; or it still is what the session opened.
pub async fn ours(
    files: &dyn Files,
    path: &Path,
    sources_of_ours: &[(CellKind, String)],
    opened: Option<&FileStamp>,
) -> Option<FileStamp> {
    let (bytes, stamp) = files.read(path).await.ok()?;
    if opened.is_some_and(|opened| opened.hash == stamp.hash) {
        return Some(stamp);
    }
    let there = Notebook::parse(&bytes).ok()?;
    (sources(&there) == sources_of_ours).then_some(stamp)
}

/// `analysis.ipynb` → `analysis.outlive-0192f3aa.ipynb`.
pub fn beside(path: &Path, what: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}.outlive-{what}.ipynb"))
}

/// Writes the notebook beside its file, which cannot be written for this reason. Says where the results are.
pub async fn put_beside(
    files: Arc<dyn Files>,
    session: SessionId,
    path: PathBuf,
    document: &mut Document,
    why: String,
) -> String {
    let id = session.to_string();
    let beside = beside(&path, &id[id.len() - 8..]);
    let (bytes, sources) = (document.to_bytes(), document.sources());
    // It is there already when an earlier daemon came to the same end.
    let earlier = ours(&*files, &beside, &sources, None).await;
    match files.write(&beside, bytes, earlier).await {
        Ok(_) => format!("{why}; the results are in {}", beside.display()),
        Err(_) => format!("{why}; the outputs stay in the log of the session"),
    }
}

/// A look at the notebook's file, which another program may have changed.
pub struct Look {
    /// The files of this machine.
    pub files: Arc<dyn Files>,
    /// The file.
    pub path: PathBuf,
    /// What it was when it was last read or written.
    pub stamp: Option<FileStamp>,
    /// What was being written when a daemon was killed.
    pub rendered: Option<String>,
    /// What our notebook says, where there is no stamp.
    pub sources: Option<Sources>,
    /// Where it may be now.
    pub hint: Option<PathBuf>,
    /// Whose notebook it is.
    pub session: SessionId,
    /// The session's claim, if it has it.
    pub claim: Option<Arc<dyn PathClaim>>,
}

/// What a [`Look`] has found.
#[derive(Debug)]
pub enum Looked {
    /// What was last read or written, or what we were writing.
    Ours(FileStamp),
    /// A whole notebook by another program.
    Theirs(Box<Notebook>, FileStamp),
    /// No whole notebook.
    NotWhole(String),
    /// Nothing; the file is here now, if it was renamed.
    Gone(Option<PathBuf>),
    /// It is being written at this moment.
    InMidWrite,
    /// It cannot be read.
    Unreadable(String),
    /// It is not, or not surely, the session's any more.
    Lost(Lost),
}

impl Look {
    /// Carries it out; with the claim, where it had to be taken anew.
    pub async fn run(self) -> (Looked, Option<Box<dyn PathClaim>>) {
        match hold_or_claim(&*self.files, self.claim.as_deref(), &self.path, self.session).await {
            Ok(claim) => (self.look().await, claim),
            Err(error @ (ClaimError::Held { .. } | ClaimError::Elsewhere { .. })) => {
                (Looked::Lost(Lost { conflict: conflict_of(&error), why: with_sources(&error) }), None)
            }
            // It may be read, all the same.
            Err(_) => (self.look().await, None),
        }
    }

    async fn look(self) -> Looked {
        if let Some(stamp) = &self.stamp
            && self.files.stat(&self.path).await.is_ok_and(|there| there == Some(stamp.meta()))
        {
            return Looked::Ours(stamp.clone());
        }
        let (bytes, stamp) = match self.files.read(&self.path).await {
            Ok(read) => read,
            Err(ReadError::NotFound(_)) => return Looked::Gone(self.renamed().await),
            Err(ReadError::InMidWrite(_)) => return Looked::InMidWrite,
            Err(error @ (ReadError::NotAFile(..) | ReadError::TooLarge { .. })) => {
                return Looked::NotWhole(with_sources(&error));
            }
            Err(error @ (ReadError::NoPermission(_) | ReadError::Io { .. })) => {
                return Looked::Unreadable(with_sources(&error));
            }
        };
        let is_ours = self.stamp.as_ref().is_some_and(|last| last.hash == stamp.hash)
            || self.rendered.is_some_and(|rendered| rendered == hex(&stamp.hash));
        if is_ours {
            return Looked::Ours(stamp);
        }
        match parse(bytes).await {
            Ok(theirs) if self.sources.is_some_and(|ours| ours == sources(&theirs)) => Looked::Ours(stamp),
            Ok(theirs) => Looked::Theirs(Box::new(theirs), stamp),
            Err(error) => Looked::NotWhole(format!("{}: {}", self.path.display(), with_sources(&error))),
        }
    }

    /// Where the file is now. Only another notebook's name: some editors move a file away before they write it anew.
    async fn renamed(&self) -> Option<PathBuf> {
        let stamp = self.stamp.as_ref()?;
        let found = self.files.find_inode(self.path.parent()?, stamp.inode).await;
        for place in self.hint.clone().into_iter().chain(found) {
            if place.extension() == Some(OsStr::new("ipynb"))
                && let Ok(Some(there)) = self.files.stat(&place).await
                && there.is_renamed(&stamp.meta())
            {
                return Some(place);
            }
        }
        None
    }
}

/// A large notebook takes a while.
async fn parse(bytes: Vec<u8>) -> Result<Notebook, NotebookError> {
    crate::aside::run(move || Notebook::parse(&bytes)).await
}

/// A path that a notebook may be written to. Dropping it gives it back.
pub struct Destination {
    /// Where, absolute, links resolved.
    pub path: PathBuf,
    /// Its place in the index of this node.
    pub slot: PathSlot,
    /// The claim against other daemons.
    pub claim: Box<dyn PathClaim>,
    /// What is there, and may be replaced.
    pub there: Option<FileStamp>,
    /// Where that is kept.
    pub kept: Option<PathBuf>,
}

impl std::fmt::Debug for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Destination").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Where a save with a path leads.
#[derive(Debug)]
pub enum Prepared {
    /// To the file that the session has.
    Own,
    /// Elsewhere.
    To(Destination),
}

/// Takes the path that a save asks for. `own` is the session's.
pub async fn prepare(
    context: Arc<Context>,
    session: SessionId,
    own: Option<PathBuf>,
    wish: SaveSession,
) -> Result<Prepared, Problem> {
    let claim_problem = |error: ClaimError| problem::claim(&error);
    let asked = PathBuf::from(wish.path.unwrap_or_default());
    let path = notebook_at(&*context.files, &asked).await.map_err(claim_problem)?;
    match (&own, wish.how) {
        (Some(own), SaveHow::Save | SaveHow::SaveAs) if *own == path => return Ok(Prepared::Own),
        (Some(own), SaveHow::Save) => return Err(problem::has_a_path(session, own)),
        (Some(_), SaveHow::SaveAs | SaveHow::Copy) | (None, _) => {}
    }
    let (slot, claim) = take(&context, session, &path).await.map_err(claim_problem)?;
    let exists = context
        .files
        .stat(&path)
        .await
        .map_err(|source| problem::read(&ReadError::Io { path: path.clone(), source }))?;
    let (there, kept) = match exists {
        None => None,
        Some(_) if !wish.overwrite => return Err(problem::file_exists(&path)),
        Some(_) => keep_theirs(&*context.files, &path).await.map_err(|error| error.problem())?,
    }
    .unzip();
    Ok(Prepared::To(Destination { path, slot, claim, there, kept }))
}

/// The destination as its file system spells it, now that a file is there: some keep another spelling than was asked for.
pub async fn spelt(context: Arc<Context>, session: SessionId, destination: Destination) -> Destination {
    match context.files.resolve(&destination.path).await {
        Ok(path) if path != destination.path => match take(&context, session, &path).await {
            Ok((slot, claim)) => Destination { path, slot, claim, ..destination },
            // Somebody who asks for it so is about to be told whose it is.
            Err(_) => destination,
        },
        Ok(_) | Err(_) => destination,
    }
}

/// The path in this node's index, and the claim against other daemons.
async fn take(
    context: &Arc<Context>,
    session: SessionId,
    path: &Path,
) -> Result<(PathSlot, Box<dyn PathClaim>), ClaimError> {
    let slot = context.take_path(path, session).await?;
    Ok((slot, context.files.claim(path, session).await?))
}

/// What it is for a session that its path cannot be claimed.
pub const fn conflict_of(error: &ClaimError) -> FileConflict {
    match error {
        ClaimError::Held { .. } => FileConflict::Claimed,
        ClaimError::Elsewhere { .. } => FileConflict::Elsewhere,
        _ => FileConflict::Deleted,
    }
}

/// A file that the session cannot have any more, or not follow.
#[derive(Debug)]
pub struct Lost {
    /// What it is for the session.
    pub conflict: FileConflict,
    /// Why.
    pub why: String,
}

/// Takes the path that the session's file was renamed to.
pub async fn follow(context: Arc<Context>, session: SessionId, to: PathBuf) -> Result<Destination, Lost> {
    let taken = async {
        let path = context.files.resolve(&to).await?;
        let (slot, claim) = take(&context, session, &path).await?;
        Ok(Destination { path, slot, claim, there: None, kept: None })
    };
    taken.await.map_err(|error: ClaimError| {
        let why = format!("the file was renamed to {}: {}", to.display(), with_sources(&error));
        Lost { conflict: conflict_of(&error), why }
    })
}

/// Whether the write that was begun before a crash happened: the path, and what the file is.
pub async fn claimed_before(
    context: &Arc<Context>,
    session: SessionId,
    claiming: &Claiming,
) -> Option<(Destination, FileStamp)> {
    let (_, stamp) = context.files.read(Path::new(&claiming.path)).await.ok()?;
    if hex(&stamp.hash) != claiming.sha256 {
        return None;
    }
    let path = context.files.resolve(Path::new(&claiming.path)).await.ok()?;
    let (slot, claim) = take(context, session, &path).await.ok()?;
    Some((Destination { path, slot, claim, there: None, kept: None }, stamp))
}

/// Notes that the notebook that was just saved is trusted, so that it still is when it is opened again. Whether it is
/// noted.
pub async fn remember(context: &Context, key: &TrustKey) -> bool {
    let noted = trust::remember(&*context.engine, key).await;
    if let Err(error) = &noted {
        tracing::warn!(error = %with_sources(error), "the store does not note that a notebook is trusted");
    }
    noted.is_ok()
}
