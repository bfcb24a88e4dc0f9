//! A notebook that is made, or opened by path.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outlive_core::id::SessionId;
use outlive_document::file::FileStamp;
use outlive_document::{Notebook, NotebookError};
use outlive_protocol::http::{NewSession, OpenSession, Problem};

use crate::context::{Context, PathSlot};
use crate::problem;
use crate::seams::PathClaim;
use crate::session::with_sources;

/// A notebook that no session has yet.
pub(super) struct Opened {
    /// What stands in it.
    pub(super) document: Notebook,
    /// Where it is written; `None` while it is untitled.
    pub(super) place: Option<Claimed>,
}

/// A file that is claimed for a session.
pub(super) struct Claimed {
    /// Absolute, links resolved.
    pub(super) path: PathBuf,
    /// What stands there; `None` when nothing does.
    pub(super) stamp: Option<FileStamp>,
    /// Against every daemon of this machine.
    pub(super) claim: Box<dyn PathClaim>,
    /// Among the sessions of this one.
    pub(super) slot: PathSlot,
}

impl Opened {
    /// The path as views have it.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub(super) fn path(&self) -> Result<Option<String>, Problem> {
        let Some(place) = &self.place else { return Ok(None) };
        match place.path.to_str() {
            Some(path) => Ok(Some(path.to_owned())),
            None => Err(problem::bad_path(&place.path, "it is not valid UTF-8")),
        }
    }
}

/// Claims `path` for a session and reads the notebook `source`, which may be another file.
///
/// # Errors
/// What is wrong with the notebook, its path or the parameters.
pub(super) async fn from_file(
    context: &Arc<Context>,
    id: SessionId,
    source: &Path,
    path: &Path,
    parameters: &BTreeMap<String, serde_json::Value>,
) -> Result<Opened, Problem> {
    let resolved = context.files.resolve(path).await.map_err(|error| problem::claim(&error))?;
    let slot = context
        .reserve_path(&resolved, id)
        .map_err(|holder| problem::path_taken(&resolved.to_string_lossy(), holder, std::process::id()))?;
    let claim = context.files.claim(&resolved, id).await.map_err(|error| problem::claim(&error))?;
    let (bytes, stamp) = context.files.read(source).await.map_err(|error| problem::read(&error))?;
    let mut document = parse(source, bytes).await?;
    let values: Vec<_> = parameters.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    document.inject_parameters(&values).map_err(|error| {
        Problem::new(422, "bad-parameter", "The parameter cannot be given", error.to_string())
    })?;
    let stamp = if source == path || source == resolved {
        Some(stamp)
    } else {
        context.files.read(&resolved).await.ok().map(|(_, stamp)| stamp)
    };
    Ok(Opened { document, place: Some(Claimed { path: resolved, stamp, claim, slot }) })
}

/// A large notebook takes a second to parse, and others are served meanwhile.
async fn parse(path: &Path, bytes: Vec<u8>) -> Result<Notebook, Problem> {
    let parsed = tokio::task::spawn_blocking(move || Notebook::parse(&bytes)).await;
    parsed
        .map_err(|error| problem::internal(error.to_string()))?
        .map_err(|error| not_a_notebook(path, &error))
}

pub(super) fn not_a_notebook(path: &Path, error: &NotebookError) -> Problem {
    let detail = format!("{}: {}", path.display(), with_sources(error));
    Problem::new(422, "not-a-notebook", "The file cannot be run as a notebook", detail)
}

/// Makes an untitled notebook.
///
/// # Errors
/// What is wrong with the request or the store.
pub async fn new(
    context: &Arc<Context>,
    request: NewSession,
) -> Result<outlive_protocol::http::Opened, Problem> {
    let _ = (context, request);
    Err(problem::internal("not there yet"))
}

/// Opens a notebook by path, or a session by id.
///
/// # Errors
/// What is wrong with the request, the notebook, its path or the store.
pub async fn open(
    context: &Arc<Context>,
    request: OpenSession,
) -> Result<outlive_protocol::http::Opened, Problem> {
    let _ = (context, request);
    Err(problem::internal("not there yet"))
}
