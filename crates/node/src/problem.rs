//! The node's errors as clients see them.

use outlive_document::file::ReadError;
use outlive_protocol::http::Problem;

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

/// The store does not answer.
#[must_use]
pub fn store(error: &dyn std::error::Error) -> Problem {
    Problem::new(503, "store-unavailable", "The store does not answer", with_sources(error))
        .hint("`outlive doctor` says what is wrong, most often a full disk")
}

/// No such session.
#[must_use]
pub fn no_session(id: outlive_core::id::SessionId) -> Problem {
    Problem::new(404, "no-such-session", "No such session", format!("there is no session {id}"))
        .hint("`outlive ps -a` lists them")
}

/// A path that cannot be had.
#[must_use]
pub fn claim(error: &ClaimError) -> Problem {
    let detail = with_sources(error);
    match error {
        ClaimError::Held { path, session, pid } => {
            Problem::new(409, "path-already-open", "The notebook is already open", detail)
                .hint(format!(
                    "`outlive attach {session}` shows it; stop it first, or write to another file with `-o`"
                ))
                .fact("path", path.clone())
                .fact("session", session.to_string())
                .fact("pid", pid.to_string())
        }
        ClaimError::NotWritable { .. } => {
            Problem::new(403, "not-writable", "The notebook cannot be written", detail)
                .hint("write to another file with `-o`, or change the permissions")
        }
        ClaimError::Relative { path } => Problem::new(422, "relative-path", "The path is relative", detail)
            .hint("resolve it against your own directory first")
            .fact("path", path.clone()),
        ClaimError::UseTheId { path } => {
            Problem::new(422, "use-the-id", "This is an id and not a path", detail)
                .fact("session", path.clone())
        }
        ClaimError::BadPath { path, .. } | ClaimError::Unresolvable { path, .. } => {
            Problem::new(422, "bad-path", "The path cannot be used", detail).fact("path", path.clone())
        }
        ClaimError::MissingDirectory { path, directory } => {
            Problem::new(422, "no-such-directory", "There is no such directory", detail)
                .hint(format!("`mkdir -p {directory}`, or choose another path"))
                .fact("path", path.clone())
                .fact("directory", directory.clone())
        }
        ClaimError::Io { .. } => Problem::new(503, "claim-unavailable", "The path cannot be claimed", detail),
    }
}

/// A path that another session has.
#[must_use]
pub fn path_taken(path: &str, session: outlive_core::id::SessionId, pid: u32) -> Problem {
    claim(&ClaimError::Held { path: path.to_owned(), session, pid })
}

/// A path that no notebook can have.
#[must_use]
pub fn bad_path(path: &std::path::Path, why: &'static str) -> Problem {
    claim(&ClaimError::BadPath { path: path.display().to_string(), why })
}

/// A file that cannot be read.
#[must_use]
pub fn read(error: &ReadError) -> Problem {
    let status = if matches!(error, ReadError::NotFound(_)) { 404 } else { 422 };
    Problem::new(status, "unreadable-notebook", "The notebook cannot be read", with_sources(error))
}
