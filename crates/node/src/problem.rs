//! The node's errors as clients see them.

use std::path::Path;

use outlive_core::id::{RunId, SessionId};
use outlive_document::file::{ReadError, WriteError};
use outlive_protocol::http::{Elsewhere, FileConflict, Problem};

use outlive_store::{BlobError, Dropped};

use crate::seams::ClaimError;
use crate::session::with_sources;

/// The request cannot be understood.
#[must_use]
pub fn bad_request(detail: impl Into<String>) -> Problem {
    Problem::new(400, "bad-request", "The request cannot be understood", detail)
}

/// A defect, or a machine that does not do what it must.
#[must_use]
pub fn internal(detail: impl Into<String>) -> Problem {
    Problem::new(500, "internal", "The daemon cannot do it", detail).hint("the daemon's log says more")
}

/// The daemon ends.
#[must_use]
pub fn shutting_down() -> Problem {
    Problem::new(
        503,
        "shutting-down",
        "The daemon is shutting down",
        "the daemon ends; its processes may go on",
    )
    .hint("join again: the next daemon has the notebook with every edit that was answered")
}

/// The store does not answer.
#[must_use]
pub fn store(error: &dyn std::error::Error) -> Problem {
    Problem::new(503, "store-unavailable", "The store does not answer", with_sources(error))
        .hint("`outlive doctor` says what is wrong, most often a full disk")
}

/// No row can be written at present.
pub(crate) fn tables_refused(why: &str) -> Problem {
    let detail = format!("the tables of the store cannot be written: {why}");
    Problem::new(503, "store-unavailable", "The store takes nothing", detail)
        .hint("free disk space or repair the disk; it goes on by itself then")
}

/// The store takes nothing of a session at the moment.
pub(crate) fn stalled(session: SessionId, why: &str) -> Problem {
    Problem::new(
        503,
        "store-unavailable",
        "The store takes nothing",
        format!("session {session} waits, and so does what it runs; nothing was done: {why}"),
    )
    .hint("it goes on by itself when there is room; `outlive doctor` says which sessions wait")
}

/// The store stopped taking what a session writes while this was asked of it.
pub(crate) fn stalled_in_the_middle(session: SessionId, why: &str) -> Problem {
    let detail =
        format!("session {session} waits for the store, and what was asked of it waits with it: {why}");
    Problem::new(503, "store-stalled", "The session waits for the store", detail)
        .hint("it is done when there is room, if it was not before: look before you ask again; `outlive doctor` says what is wrong")
}

/// The store takes its time.
pub(crate) fn store_silent(after_ms: u64) -> Problem {
    Problem::new(
        503,
        "store-unavailable",
        "The store does not answer",
        format!("the store has not answered for {after_ms} ms"),
    )
    .hint("`outlive doctor` says what is wrong; of a cluster, look at its NATS servers")
}

/// The node is cut off: what it could show may be old, and what is new it does not hear.
#[must_use]
pub fn node_isolated() -> Problem {
    Problem::new(
        503,
        "node-isolated",
        "The node is cut off",
        "this node is cut off from the others or from their store, and cannot tell what happens now",
    )
    .hint(
        "attach again with the last cursor, to another node of the cluster: nothing is missed or shown twice",
    )
}

/// What a session was made with is gone from its log: nothing can go on from there.
pub(crate) fn session_lost(session: SessionId, dropped: &[Dropped]) -> Problem {
    let mut aside: Vec<_> =
        dropped.iter().flat_map(|dropped| dropped.aside.iter().map(String::as_str)).collect();
    aside.dedup();
    let (bytes, records) = dropped
        .iter()
        .fold((0, 0), |(bytes, records), dropped| (bytes + dropped.bytes, records + dropped.records));
    let kept = if aside.is_empty() {
        String::new()
    } else {
        format!(", kept in {} of its folder", aside.join(", "))
    };
    Problem::new(
        500,
        SESSION_LOST,
        "The session's log is damaged",
        format!(
            "the beginning of the log of session {session} is damaged: {bytes} bytes with {records} whole records cannot be \
             used without it{kept}"
        ),
    )
    .hint("its notebook's file can be opened as another session; `outlive stop --force` and `outlive forget` clear this one away")
}

/// Whether it says that a session cannot be taken up as it is.
pub(crate) fn is_broken(problem: &Problem) -> bool {
    [SESSION_BROKEN, SESSION_LOST].contains(&problem.code.as_str())
}

/// The code of a session whose task ended without its end, or that cannot be taken up at present.
pub(crate) const SESSION_BROKEN: &str = "session-broken";
/// The code of a session that cannot be taken up any more.
pub(crate) const SESSION_LOST: &str = "session-lost";

/// No such session.
#[must_use]
pub fn no_session(id: SessionId) -> Problem {
    Problem::new(404, "no-such-session", "No such session", format!("there is no session {id}"))
        .hint("`outlive ps -a` lists them")
}

/// No such run.
#[must_use]
pub fn no_run(session: SessionId, run: RunId) -> Problem {
    Problem::new(404, "no-such-run", "No such run", format!("session {session} has no run {run}"))
}

/// A blob that cannot be had.
#[must_use]
pub fn blob(session: SessionId, error: &BlobError) -> Problem {
    match error {
        BlobError::Missing { sha256 } | BlobError::BadName { sha256 } => Problem::new(
            404,
            "no-such-blob",
            "No such blob",
            format!("session {session} has no blob {sha256}"),
        )
        .hint("a blob goes with its session and its run; look whether the run was trimmed"),
        BlobError::Unavailable(error) => store(error),
        BlobError::Mismatch { .. } => internal(with_sources(error)),
    }
}

/// What only a group of runners does was asked of another session.
#[must_use]
pub fn not_runners(session: SessionId) -> Problem {
    Problem::new(
        409,
        "not-runners",
        "The session is no group of runners",
        format!("session {session} has no runners"),
    )
    .hint("`outlive runners` lists the groups")
}

/// A path that cannot be had.
#[must_use]
pub fn claim(error: &ClaimError) -> Problem {
    let detail = with_sources(error);
    match error {
        ClaimError::Held { path, session, pid } => {
            Problem::new(409, "path-already-open", "The notebook is already open", detail)
                .hint(format!("close session {session} first, or choose another path"))
                .fact("path", path.clone())
                .fact("session", session.to_string())
                .fact("pid", pid.to_string())
        }
        ClaimError::Elsewhere { path, to } => {
            Problem::new(409, "file-changed", "The notebook's path leads elsewhere", detail)
                .hint("save to another path; or remove the link")
                .fact("path", path.clone())
                .fact("to", to.clone())
        }
        ClaimError::NotWritable { .. } => {
            Problem::new(403, "not-writable", "The notebook cannot be written", detail)
                .hint("choose another path, or make this one writable")
        }
        ClaimError::Relative { path } => Problem::new(422, "relative-path", "The path is relative", detail)
            .hint("resolve it against your own directory first")
            .fact("path", path.clone()),
        ClaimError::UseTheId { path } => {
            Problem::new(422, "use-the-id", "This is an id and not a path", detail)
                .hint("give it as the id; a file of this name is given with its directory")
                .fact("session", path.clone())
        }
        ClaimError::VolumeNotHere { path, volume, nodes } => {
            let title = "The notebook is on a volume that this node does not have";
            Problem::new(409, "volume-not-here", title, detail)
                .hint(format!("it is saved by {nodes}; or save it here, to another path: the session keeps everything meanwhile"))
                .fact("path", path.clone())
                .fact("volume", volume.clone())
                .fact("nodes", nodes.clone())
        }
        ClaimError::BadPath { path, .. } | ClaimError::Unresolvable { path, .. } => {
            Problem::new(422, "bad-path", "The path cannot be used", detail)
                .hint("give the path of a file; a notebook's name ends in `.ipynb`")
                .fact("path", path.clone())
        }
        ClaimError::MissingDirectory { path, directory } => {
            Problem::new(422, "no-such-directory", "There is no such directory", detail)
                .hint(format!("`mkdir -p {directory}`, or choose another path"))
                .fact("path", path.clone())
                .fact("directory", directory.clone())
        }
        ClaimError::NoDirectory { path, file } => {
            Problem::new(422, "no-such-directory", "There is no such directory", detail)
                .hint("choose another path")
                .fact("path", path.clone())
                .fact("file", file.clone())
        }
        ClaimError::Io { .. } => Problem::new(503, "claim-unavailable", "The path cannot be claimed", detail),
    }
}

/// A path that no notebook can have.
#[must_use]
pub fn bad_path(path: &Path, why: &'static str) -> Problem {
    claim(&ClaimError::BadPath { path: path.display().to_string(), why })
}

/// A file that cannot be read.
#[must_use]
pub fn read(error: &ReadError) -> Problem {
    let detail = with_sources(error);
    match error {
        ReadError::NotFound(path) => Problem::new(404, "no-such-file", "There is no such file", detail)
            .hint("look for a typing mistake; a new notebook is made untitled and then saved to its path")
            .fact("path", path.display().to_string()),
        ReadError::NotAFile(..)
        | ReadError::TooLarge { .. }
        | ReadError::InMidWrite(_)
        | ReadError::NoPermission(_)
        | ReadError::Io { .. } => {
            Problem::new(422, "unreadable-notebook", "The notebook cannot be read", detail)
        }
    }
}

/// A file that is not written.
#[must_use]
pub fn write(error: &WriteError) -> Problem {
    let detail = with_sources(error);
    let about = |status, code, title, path: &Path| {
        Problem::new(status, code, title, detail.clone()).fact("path", path.display().to_string())
    };
    match error {
        WriteError::Changed { path, .. } => {
            about(409, "file-changed", "The file was changed by another program", path)
                .hint("save again; or save to another path")
        }
        WriteError::NotAFile(path, _) | WriteError::PathTooLong(path) => {
            about(422, "bad-path", "The path cannot be used", path).hint("save to another path")
        }
        WriteError::MissingDirectory(path) => {
            about(422, "no-such-directory", "There is no such directory", path)
                .hint("make the directory, or save to another path")
        }
        WriteError::ReadOnly(path) => about(403, "read-only", "The file system is read-only", path)
            .hint("save to another path; the session keeps everything meanwhile"),
        WriteError::NoPermission(path) => about(403, "not-writable", "The notebook cannot be written", path)
            .hint("change the permissions, or save to another path; the session keeps everything meanwhile"),
        WriteError::DiskFull(path) => about(507, "disk-full", "The disk is full", path)
            .hint("free some space and save again; the session keeps everything meanwhile"),
        WriteError::Io { path, .. } => about(503, "not-writable", "The notebook cannot be written", path)
            .hint("save to another path; the session keeps everything meanwhile"),
    }
}

/// A notebook without a file cannot be saved without a path.
#[must_use]
pub fn no_path(session: SessionId) -> Problem {
    Problem::new(
        422,
        "no-path",
        "The notebook has no file yet",
        format!("the notebook of session {session} was never saved"),
    )
    .hint("give the path that it is to be saved to")
}

/// A notebook with a file is not saved elsewhere by accident.
#[must_use]
pub fn has_a_path(session: SessionId, own: &Path) -> Problem {
    let own = own.display().to_string();
    Problem::new(
        409,
        "has-a-path",
        "The notebook has a file already",
        format!("the notebook of session {session} is {own}"),
    )
    .hint("leave the path out to save it there; `save_as` moves the session to another file, `copy` writes a copy")
    .fact("path", own)
}

/// Somebody else's file is not replaced by accident.
#[must_use]
pub fn file_exists(path: &Path) -> Problem {
    let path = path.display().to_string();
    Problem::new(409, "file-exists", "There is a file already", format!("{path} exists"))
        .hint("choose another path, or say `overwrite` to replace it")
        .fact("path", path)
}

/// A notebook that is not written before a person decides.
#[must_use]
pub fn conflict(session: SessionId, conflict: FileConflict, why: &str) -> Problem {
    let (code, title) = match conflict {
        FileConflict::Elsewhere => ("file-changed", "The notebook's path leads elsewhere"),
        FileConflict::Deleted => ("file-deleted", "The notebook's file was deleted"),
        FileConflict::Claimed => ("path-already-open", "The notebook's file belongs to another session"),
        FileConflict::Changed | FileConflict::NotANotebook | FileConflict::Unknown => {
            ("file-changed", "The file was changed by another program")
        }
    };
    let hint = match conflict {
        FileConflict::Elsewhere => "save to another path; or remove the link",
        FileConflict::Changed
        | FileConflict::NotANotebook
        | FileConflict::Deleted
        | FileConflict::Claimed
        | FileConflict::Unknown => {
            "say `overwrite` to replace the file, whose content is kept beside it; or save to another path"
        }
    };
    Problem::new(409, code, title, format!("session {session} is not saved: {why}")).hint(hint)
}

/// An edit that no file and no session would have any more is not taken.
#[must_use]
pub fn closing_untitled(session: SessionId) -> Problem {
    Problem::new(
        409,
        "session-ended",
        "The session is being closed",
        format!("session {session} is being closed, and its notebook has no file that an edit could go to"),
    )
    .hint("nothing was changed; make a new notebook for it")
}

/// A session is not closed while something of it is in no file.
#[must_use]
pub fn unsaved(session: SessionId, why: &str) -> Problem {
    Problem::new(
        409,
        "unsaved",
        "Not everything is in a file",
        format!("session {session} has edits or outputs that are in no file: {why}"),
    )
    .hint("save it to a path first; or close it with `discard`, and only the session's log keeps them")
}

/// It recovers.
pub(crate) fn not_ready() -> Problem {
    Problem::new(503, "not-ready", "The daemon is not ready", "the daemon is still recovering its sessions")
        .hint("try again in a moment")
}

/// It is not one of the cluster's nodes yet.
#[must_use]
pub fn joining(why: impl Into<String>) -> Problem {
    Problem::new(503, "joining", "The node is joining its cluster", why)
        .hint("try again in a moment, or ask another node; `outlive nodes` lists them")
}

/// It is cut off from the others.
pub(crate) fn isolated() -> Problem {
    let detail = "the node is cut off from its cluster's store; what it runs is held until the store is back";
    Problem::new(503, "isolated", "The node is cut off", detail)
        .hint("ask another node; look at the network between this one and the NATS servers")
}

/// It gives everything away.
pub(crate) fn draining() -> Problem {
    Problem::new(503, "draining", "The node is draining", "the node hands its sessions over to the others")
        .hint("ask another node; `outlive nodes` lists them")
}

/// Another node has what was asked for. A daemon that serves clients asks it itself.
#[must_use]
pub fn elsewhere(what: &str, there: Elsewhere) -> Problem {
    let detail = format!("{what} is for node {}", there.name);
    let hint = match &there.url {
        Some(url) => format!("ask that node, which is at {url}"),
        None => {
            "ask that node; it has said no address, so it is reached from its own machine alone".to_owned()
        }
    };
    let mut problem = Problem::new(421, "elsewhere", "Another node has it", detail).hint(hint);
    problem.elsewhere = Some(Box::new(there));
    problem
}

/// There is nobody to give anything to.
pub(crate) fn not_clustered() -> Problem {
    Problem::new(
        409,
        "not-clustered",
        "This daemon is alone",
        "there is no other node to give its sessions to",
    )
    .hint("`outlive serve --cluster nats://HOST:4222` makes it one of several")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_about_a_path_fits_every_client() {
        let path = || "/work/a.ipynb".to_owned();
        let errors = [
            ClaimError::Held { path: path(), session: SessionId::from_uuid(uuid::Uuid::nil()), pid: 7 },
            ClaimError::NotWritable { path: path(), source: std::io::ErrorKind::ReadOnlyFilesystem.into() },
            ClaimError::UseTheId { path: path() },
            ClaimError::Elsewhere { path: path(), to: path() },
            ClaimError::MissingDirectory { path: path(), directory: "/work".to_owned() },
            ClaimError::NoDirectory { path: path(), file: "/work".to_owned() },
        ];
        for problem in errors.iter().map(claim) {
            let hint = problem.hint.as_deref().unwrap_or_default();
            assert!(!hint.is_empty(), "{problem:?} does not say what to do");
            // Whoever saves has no `-o`, and whoever opens writes nothing.
            assert!(!hint.contains("-o") && !problem.detail.contains("written: there is no"), "{problem:?}");
        }
    }
}
