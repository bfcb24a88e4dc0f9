//! Notebooks and their files: open, new, save, close.

use outlive_core::id::SessionId;
use outlive_core::session::spec::Trust;
use outlive_protocol::http::{Close, NewSession, OpenSession, Opened, Problem, SaveHow, SaveSession};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::brief::Session;
use crate::tool::{Call, Reply};

/// `open`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Open {
    /// The notebook's file, which exists; `.ipynb` is appended where it is missing.
    #[serde(default)]
    path: Option<String>,
    /// A session's id.
    #[serde(default, alias = "session")]
    id: Option<SessionId>,
    /// The user vouches for the notebook: what it names may be installed.
    #[serde(default)]
    trust: bool,
    /// The kernel to run it with, if not the one that the notebook names. A session that is there already keeps its own.
    #[serde(default)]
    kernel: Option<String>,
}

/// A session, and what did not become of it.
#[derive(Serialize, JsonSchema)]
pub struct Joined {
    #[serde(flatten)]
    session: Session,
    /// What was asked for and has no effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<String>,
}

pub async fn open(call: Call, input: Open) -> Result<Reply<Joined>, Problem> {
    let caller = call.host.caller();
    let request = OpenSession {
        path: input.path.map(|path| caller.path(path)),
        id: input.id,
        kernel: input.kernel.clone(),
        trust: input.trust.then_some(Trust::Trusted),
        env: caller.variables.clone(),
        ..OpenSession::default()
    };
    let Reply { answer: session, mut text, .. } = opened(call.host.open(request).await?);
    let notice = match input.kernel {
        Some(kernel) => other_kernel(&call, &session, &kernel).await?,
        None => None,
    };
    if let Some(notice) = &notice {
        text.push_str(&format!("  {notice}\n"));
    }
    Ok(Reply::new(Joined { session, notice }, text))
}

/// What the daemon calls a kernel that only its notebook names.
const OF_THE_NOTEBOOK: &str = "kernel";

/// A session that is there already keeps the kernel that it was opened with, or that its notebook names.
async fn other_kernel(call: &Call, session: &Session, wanted: &str) -> Result<Option<String>, Problem> {
    let mut has = session.runtime.name.clone();
    if has == OF_THE_NOTEBOOK {
        let metadata = call.host.notebook(session.session).await?.metadata;
        if let Some(named) = metadata.pointer("/kernelspec/name").and_then(serde_json::Value::as_str) {
            named.clone_into(&mut has);
        }
    }
    Ok((has != wanted).then(|| {
        format!(
            "the session is there already and keeps its kernel ({has}): kernel={wanted} has no effect; `close` it and \
             `open` it again to change that"
        )
    }))
}

/// `new`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct New {
    /// The kernel to run it with, for instance `python3`, which is the default.
    #[serde(default)]
    kernel: Option<String>,
    /// Your own id for it, a UUID: asking again with the same one gives the same session.
    #[serde(default)]
    id: Option<SessionId>,
}

pub async fn new(call: Call, input: New) -> Result<Reply<Session>, Problem> {
    let caller = call.host.caller();
    let request = NewSession {
        id: input.id,
        kernel: input.kernel,
        cwd: caller.directory.as_ref().map(|directory| directory.to_string_lossy().into_owned()),
        env: caller.variables.clone(),
        ..NewSession::default()
    };
    Ok(opened(call.host.new_session(request).await?))
}

fn opened(opened: Opened) -> Reply<Session> {
    let session = Session::from(opened.session);
    let text = session.text();
    Reply::new(session, text)
}

/// `save`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Save {
    /// The session's id.
    session: SessionId,
    /// The file; `.ipynb` is appended where it is missing. Needed for an untitled notebook, save_as and copy.
    #[serde(default)]
    path: Option<String>,
    /// `save`, `save_as` or `copy`.
    #[serde(default)]
    how: SaveHow,
    /// Write although another program has changed the file, or another file is there.
    #[serde(default)]
    overwrite: bool,
}

/// Where a notebook was written.
#[derive(Serialize, JsonSchema)]
pub struct Saved {
    /// The file that was written.
    path: Option<String>,
    /// Where that is which stood in the file before, when it was overwritten.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<String>,
    /// The session as it is now.
    #[serde(flatten)]
    session: SavedSession,
}

/// Its session, which a copy leaves where it is.
#[derive(Serialize, JsonSchema)]
struct SavedSession {
    /// The session's id.
    session: SessionId,
    /// The session's own file.
    session_path: Option<String>,
    /// Where its kernel runs on, when that is not beside the file any more; a restart moves it.
    kernel_directory: Option<String>,
}

pub async fn save(call: Call, input: Save) -> Result<Reply<Saved>, Problem> {
    let before = call.host.session(input.session).await?;
    let request = SaveSession {
        path: input.path.map(|path| call.host.caller().path(path)),
        how: input.how,
        overwrite: input.overwrite,
    };
    let Opened { session_id, path, session, kept } = call.host.save(input.session, request).await?;
    let left = before.base.filter(|base| before.runtime.pid.is_some() && session.base.as_ref() != Some(base));
    let mut text = match &path {
        Some(path) => format!("{path} is written; session {session_id}\n"),
        None => format!("session {session_id} is saved\n"),
    };
    if let Some(kept) = &kept {
        text.push_str(&format!("What stood there before is in {kept}.\n"));
    }
    if let Some(directory) = &left {
        text.push_str(&format!("Its kernel runs on in {directory}; `restart` moves it.\n"));
    }
    let session = SavedSession { session: session_id, session_path: session.path, kernel_directory: left };
    Ok(Reply::new(Saved { path, kept, session }, text))
}

/// `close`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CloseSession {
    /// The session's id.
    session: SessionId,
    /// Close although there are edits that no file has.
    #[serde(default)]
    discard: bool,
}

pub async fn close(call: Call, input: CloseSession) -> Result<Reply<Session>, Problem> {
    let view = call.host.close(input.session, Close { discard: input.discard }).await?;
    let session = Session::from(view);
    let text = format!("session {} is closed; its runs and failures can still be read\n", session.session);
    Ok(Reply::new(session, text))
}
