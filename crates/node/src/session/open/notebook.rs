//! A notebook that is made, or opened by path.
//!
//! ```text
//!  path ─► suffix, resolved ─► has a session? ─ yes ─► joined (woken if it is dormant; waited for if it moves)
//!                                  │ no
//!                                  ▼
//!           renamed while its session was dormant? ─ yes ─► that one follows it, and is joined
//!                                  │ no
//!                                  ▼
//!           id and path reserved ─► claimed ─► read ─► trusted? ─► session
//! ```
//! What fails on the way gives everything back, and has written nothing to the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outlive_core::id::SessionId;
use outlive_core::limits::READY_TIMEOUT_MS;
use outlive_core::runtime::{LaunchSpec, Program, RestartPolicy};
use outlive_core::session::SessionSpec;
use outlive_core::session::spec::{AfterWork, HangPolicy, OnNodeLoss, Place, StartWhen, Trust, Workload};
use outlive_document::file::FileStamp;
use outlive_document::{Notebook, NotebookError};
use outlive_jupyter::kernelspec;
use outlive_jupyter::surroundings::Surroundings;
use outlive_protocol::http::{self, NewSession, OpenSession, Problem, SessionView};
use serde_json::{Value, json};

use super::{make, renamed, wake};
use crate::budget::room;
use crate::cluster::paths;
use crate::context::{Context, Entered, Found, PathHolder, PathSlot, Reservation};
use crate::files::notebook_at;
use crate::seams::{ClaimError, PathClaim};
use crate::session::handle::{Answer, Ask, Visiting};
use crate::session::with_sources;
use crate::{problem, trust};

/// A notebook that no session has yet.
pub(super) struct Opened {
    /// What stands in it.
    pub(super) document: Notebook,
    /// Where it is written; `None` while it is untitled.
    pub(super) place: Option<Claimed>,
    /// That path among the sessions of this node, until the session has it.
    pub(super) slot: Option<PathSlot>,
}

/// A file that is claimed for a session.
pub(super) struct Claimed {
    /// Absolute, links resolved.
    pub(super) path: PathBuf,
    /// What stands there; `None` when nothing does.
    pub(super) stamp: Option<FileStamp>,
    /// Against every daemon of this machine; or why it could not be claimed although it can be read.
    pub(super) claim: Result<Box<dyn PathClaim>, ClaimError>,
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
    parameters: &BTreeMap<String, Value>,
) -> Result<Opened, Problem> {
    let resolved = context.files.resolve(path).await.map_err(|error| problem::claim(&error))?;
    let slot = context.take_path(&resolved, id).await.map_err(|error| problem::claim(&error))?;
    let claim = context.files.claim(&resolved, id).await.map_err(|error| problem::claim(&error))?;
    let (mut document, stamp) = read(context, source).await?;
    let values: Vec<_> = parameters.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    document.inject_parameters(&values).map_err(|error| {
        Problem::new(422, "bad-parameter", "The parameter cannot be given", error.to_string())
    })?;
    let stamp = if source == path || source == resolved {
        Some(stamp)
    } else {
        context.files.read(&resolved).await.ok().map(|(_, stamp)| stamp)
    };
    let place = Some(Claimed { path: resolved, stamp, claim: Ok(claim) });
    Ok(Opened { document, place, slot: Some(slot) })
}

async fn read(context: &Context, path: &Path) -> Result<(Notebook, FileStamp), Problem> {
    let (bytes, stamp) = context.files.read(path).await.map_err(|error| problem::read(&error))?;
    // A large notebook takes a second to parse, and others are served meanwhile.
    let parsed = crate::aside::run(move || Notebook::parse(&bytes)).await;
    Ok((parsed.map_err(|error| not_a_notebook(path, &error))?, stamp))
}

pub(super) fn not_a_notebook(path: &Path, error: &NotebookError) -> Problem {
    let detail = format!("{}: {}", path.display(), with_sources(error));
    let shown = path.display().to_string();
    match error {
        NotebookError::TooOld { .. } => {
            Problem::new(422, "too-old-notebook", "The notebook's format is too old", detail)
        }
        _ => Problem::new(422, "not-a-notebook", "The file is not a notebook", detail)
            .hint("the file is as it was; mend it, or open another"),
    }
    .fact("path", shown)
}

/// What `new` and `open` have in common.
struct Wishes {
    kernel: Option<String>,
    start: Option<StartWhen>,
    cwd: String,
    env: Option<BTreeMap<String, String>>,
    memory_bytes_max: Option<u64>,
    on_node_loss: OnNodeLoss,
}

/// A notebook that people edit: its kernel is the one that it names, found when it is launched, and stays until
/// somebody stops it.
fn spec(context: &Context, id: SessionId, path: Option<String>, trust: Trust, wishes: Wishes) -> SessionSpec {
    let Wishes { kernel, start, cwd, env, memory_bytes_max, on_node_loss } = wishes;
    SessionSpec {
        id,
        runtime: outlive_core::id::RuntimeId::from_uuid(crate::ids::by_time()),
        workload: Workload::Notebook {
            source: path.clone(),
            path,
            allow_errors: false,
            cell_timeout_ms: None,
        },
        launch: LaunchSpec {
            program: Program::OfNotebook { kernel, metadata: Value::Null },
            cwd,
            // Empty: the daemon's own at each launch.
            env: env.unwrap_or_default(),
            memory_bytes_max,
            ready_timeout_ms: READY_TIMEOUT_MS,
        },
        // What a kernel has computed is gone with it: somebody decides.
        restart: RestartPolicy::temporary(),
        on_hang: HangPolicy::Report,
        after_work: AfterWork::Keep,
        on_node_loss,
        start: start.unwrap_or(StartWhen::FirstRun),
        place: Place::Notebook,
        trust,
        parameters: BTreeMap::new(),
        created_at: context.clock.now().wall,
    }
}

fn opened(view: &SessionView) -> http::Opened {
    http::Opened { session_id: view.id, path: view.path.clone(), session: view.clone(), kept: None }
}

/// Random, not by time: people type the beginning of it.
fn fresh_id() -> SessionId {
    SessionId::from_uuid(crate::ids::random())
}

/// Makes an untitled notebook with one empty cell; the same id again gives the same session.
///
/// # Errors
/// What is wrong with the request or the store.
pub async fn new(context: &Arc<Context>, request: NewSession) -> Result<http::Opened, Problem> {
    let id = request.id.unwrap_or_else(fresh_id);
    let reservation = match made_or_free(context, id).await? {
        Ok(entered) => return Ok(opened(&entered.handle.view.borrow())),
        Err(free) => free,
    };
    room()?;
    in_its_own_task(context, move |context| async move {
        let cwd = match request.cwd {
            Some(cwd) if !Path::new(&cwd).is_absolute() => {
                return Err(problem::bad_request(format!("cwd is {cwd:?}; it must be absolute")));
            }
            Some(cwd) => cwd,
            None => home(),
        };
        let document = empty(request.kernel.clone(), request.env.clone()).await?;
        let wishes = Wishes {
            kernel: request.kernel,
            start: request.start,
            cwd,
            env: request.env,
            memory_bytes_max: request.memory_bytes_max,
            on_node_loss: request.on_node_loss,
        };
        let spec = spec(&context, id, None, Trust::Trusted, wishes);
        let made = Opened { document, place: None, slot: None };
        let handle = make(&context, &reservation, spec, Some(made), false).await?;
        let view = handle.view.borrow().clone();
        Ok(opened(&view))
    })
    .await
}

/// The session of that id, or the right to make it. Its place is held while it is looked up, from the look that finds it
/// empty on: of two who make it at once one goes on, and the other waits for that.
async fn made_or_free(
    context: &Arc<Context>,
    id: SessionId,
) -> Result<Result<Entered, Reservation>, Problem> {
    loop {
        match context.enter(id, Visiting::ToAsk)? {
            Found::Open(entered) => return Ok(Ok(entered)),
            Found::Moving(over) => over.cancelled().await,
            Found::Absent => {
                context.is_here_or_nowhere(id)?;
                let Some(reservation) = context.reserve(id) else { continue };
                let row = context.indexed(id).await.map_err(|error| problem::store(&error))?;
                if row.is_none() {
                    return Ok(Err(reservation));
                }
                drop(reservation);
                match wake(context, id).await {
                    // Its row was left over from one that never was made, and is gone now.
                    Err(problem) if problem.code == "no-such-session" => {}
                    woken => return woken.map(Ok),
                }
            }
        }
    }
}

fn home() -> String {
    std::env::var("HOME").ok().filter(|home| Path::new(home).is_absolute()).unwrap_or_else(|| "/".to_owned())
}

/// A client that goes away meanwhile must not leave half of it behind.
async fn in_its_own_task<T: Send + 'static, F: Future<Output = Result<T, Problem>> + Send + 'static>(
    context: &Arc<Context>,
    work: impl FnOnce(Arc<Context>) -> F,
) -> Result<T, Problem> {
    let working = context.tasks.spawn(work(Arc::clone(context)));
    working.await.map_err(|panicked| problem::internal(panicked.to_string()))?
}

/// A notebook with one empty code cell for this kernel; Python without one.
async fn empty(kernel: Option<String>, env: Option<BTreeMap<String, String>>) -> Result<Notebook, Problem> {
    let metadata = crate::aside::run(move || kernel_metadata(kernel.as_deref(), env)).await;
    let id: String = crate::ids::random().simple().to_string().chars().take(8).collect();
    let cell = json!({
        "cell_type": "code", "execution_count": null, "id": id, "metadata": {}, "outputs": [], "source": [],
    });
    let notebook = json!({ "cells": [cell], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5 });
    let mut bytes = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut writer = serde_json::Serializer::with_formatter(&mut bytes, format);
    serde::Serialize::serialize(&notebook, &mut writer).expect("a notebook is plain data");
    bytes.push(b'\n');
    Notebook::parse(&bytes).map_err(|error| problem::internal(with_sources(&error)))
}

/// What a notebook says about its kernel. Blocks. An unknown name is written down: where the notebook is run it may be
/// known.
fn kernel_metadata(kernel: Option<&str>, env: Option<BTreeMap<String, String>>) -> Value {
    let name = kernel.unwrap_or("python3");
    let surroundings = match env {
        Some(variables) => Some(Surroundings::new(variables, PathBuf::from("/"))),
        None => Surroundings::of_this_process().ok(),
    };
    let found = surroundings.and_then(|surroundings| kernelspec::find(name, &surroundings).ok());
    let (display_name, language) = match found {
        Some(found) => (found.spec.display_name, found.spec.language),
        None if name == "python3" => ("Python 3 (ipykernel)".to_owned(), "python".to_owned()),
        None => return json!({ "kernelspec": { "display_name": name, "name": name } }),
    };
    json!({
        "kernelspec": { "display_name": display_name, "language": language, "name": name },
        "language_info": { "name": language },
    })
}

/// Opens a notebook by path, or a session by id.
///
/// # Errors
/// What is wrong with the request, the notebook, its path or the store.
pub async fn open(context: &Arc<Context>, request: OpenSession) -> Result<http::Opened, Problem> {
    match (&request.path, request.id) {
        (Some(path), None) => {
            let path = notebook_at(&*context.files, Path::new(path)).await;
            let path = path.map_err(|error| problem::claim(&error))?;
            by_path(context, path, request).await
        }
        (None, Some(id)) => join(context, id, &request).await.map(|view| opened(&view)),
        (Some(_), Some(_)) | (None, None) => {
            let said = if request.id.is_some() { "both were given" } else { "neither was given" };
            let detail = format!("a notebook is opened by path or by session id; {said}");
            Err(Problem::new(422, "path-xor-id", "Give a path or an id, and not both", detail)
                .hint("give the path of the notebook, or the id of the session that has it"))
        }
    }
}

async fn by_path(
    context: &Arc<Context>,
    path: PathBuf,
    request: OpenSession,
) -> Result<http::Opened, Problem> {
    loop {
        match context.holder(&path) {
            // A notebook is being opened there, or saved, or a copy is.
            Some(PathHolder::Unsettled(over)) => {
                over.cancelled().await;
                continue;
            }
            Some(PathHolder::Session(id)) => match joined_at(context, id, &path, &request).await? {
                Some(opened) => return Ok(opened),
                None => continue,
            },
            None => {}
        }
        if let Some(id) = paths::holder(context, &path).await? {
            match joined_at(context, id, &path, &request).await? {
                Some(opened) => return Ok(opened),
                // It is open here, and its notebook is another file: the claim is left over.
                None => context.free_path(&path, id).await,
            }
            continue;
        }
        context.takes_work()?;
        if renamed::is_followed(context, &path).await? {
            continue;
        }
        room()?;
        let id = fresh_id();
        let Some(reservation) = context.reserve(id) else { continue };
        let slot = match context.take_path(&path, id).await {
            Ok(slot) => slot,
            Err(ClaimError::Held { .. }) => continue,
            Err(error) => return Err(problem::claim(&error)),
        };
        let opening = in_its_own_task(context, move |context| async move {
            let view = from_path(&context, &reservation, path, slot, request).await?;
            Ok(opened(&view))
        });
        return opening.await;
    }
}

/// Joins the session that is said to have the notebook; `None` when it has it no more.
async fn joined_at(
    context: &Arc<Context>,
    id: SessionId,
    path: &Path,
    request: &OpenSession,
) -> Result<Option<http::Opened>, Problem> {
    match join(context, id, request).await {
        Ok(view) if view.path.as_deref().map(Path::new) == Some(path) => Ok(Some(opened(&view))),
        // It was saved elsewhere before it answered.
        Ok(_) => Ok(None),
        // Its end came first, or it was never made: the path is free.
        Err(problem) if matches!(problem.code.as_str(), "session-ended" | "no-such-session") => {
            context.forget_paths_of(id);
            Ok(None)
        }
        // Nothing can be had of it: it has let go of its path, and the file is opened as another.
        Err(problem) if problem.code == problem::SESSION_LOST && context.holder(path).is_none() => Ok(None),
        Err(problem) => Err(problem),
    }
}

async fn from_path(
    context: &Arc<Context>,
    reservation: &Reservation,
    path: PathBuf,
    slot: PathSlot,
    request: OpenSession,
) -> Result<SessionView, Problem> {
    let id = reservation.id;
    let claim = match context.files.claim(&path, id).await {
        // It can be looked at and run; that it cannot be saved is said by its state.
        Err(error @ ClaimError::NotWritable { .. }) => Err(error),
        Err(error) => return Err(problem::claim(&error)),
        Ok(claim) => Ok(claim),
    };
    let (document, stamp) = read(context, &path).await?;
    let trust = trust_in(context, &document, request.trust).await?;
    let cwd = path.parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned();
    let place = Some(Claimed { path, stamp: Some(stamp), claim });
    let opened = Opened { document, place, slot: Some(slot) };
    let wishes = Wishes {
        kernel: request.kernel,
        start: request.start,
        cwd,
        env: request.env,
        memory_bytes_max: request.memory_bytes_max,
        on_node_loss: request.on_node_loss,
    };
    let spec = spec(context, id, opened.path()?, trust, wishes);
    let handle = make(context, reservation, spec, Some(opened), false).await?;
    let view = handle.view.borrow().as_ref().clone();
    Ok(view)
}

/// What the caller says; without that, what the store knows.
async fn trust_in(context: &Context, document: &Notebook, said: Option<Trust>) -> Result<Trust, Problem> {
    let key = trust::key(document);
    let known = match said {
        Some(Trust::Untrusted) => false,
        Some(Trust::Trusted) => {
            trust::remember(&*context.engine, &key).await.map_err(|error| problem::store(&error))?;
            true
        }
        None => trust::is_trusted(&*context.engine, &key).await.map_err(|error| problem::store(&error))?,
    };
    Ok(if known { Trust::Trusted } else { Trust::Untrusted })
}

/// Joins a session that is there, or comes back. Where it is ending, its end is waited for and said.
async fn join(context: &Arc<Context>, id: SessionId, request: &OpenSession) -> Result<SessionView, Problem> {
    let entered = wake(context, id).await?;
    let ask = Ask::Join { start: request.start, trust: request.trust };
    match entered.handle.ask(ask).await {
        Ok(Answer::Done(view)) => Ok(view.as_ref().clone()),
        Ok(other) => Err(problem::internal(format!("the session answered something else: {other:?}"))),
        Err(problem) if problem.code == "session-ended" => {
            let mut view = entered.handle.view.clone();
            while view.changed().await.is_ok() {}
            if let Found::Moving(over) = context.enter(id, Visiting::ToLook)? {
                over.cancelled().await;
            }
            Err(problem)
        }
        Err(problem) => Err(problem),
    }
}

#[cfg(test)]
mod tests;
