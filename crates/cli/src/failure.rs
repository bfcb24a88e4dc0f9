//! What a user is told when a command fails: what happened, to what, what to do; and the exit code.

use std::io;

use outlive_protocol::http::Problem;

use crate::client::CallError;
use crate::exit::Exit;

/// The end of a command that did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened, to what. Empty when there is nothing to say (a reader who left, or it was said already).
    pub what: String,
    /// Facts by name, for instance the holder of a path.
    pub facts: Vec<(String, String)>,
    /// What to do.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure with its text.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), facts: Vec::new(), hint: None }
    }

    /// An end of which nothing more is said.
    pub const fn quiet(exit: Exit) -> Self {
        Self { exit, what: String::new(), facts: Vec::new(), hint: None }
    }

    /// Says what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Standard output could not be written. A reader who left is no failure to talk about.
    pub fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::quiet(Exit::CLOSED_OUTPUT)
        } else {
            Self::new(Exit::Failed, format!("standard output cannot be written: {error}"))
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let what = if problem.detail.is_empty() {
            problem.title
        } else {
            format!("{}: {}", problem.title, problem.detail)
        };
        Self {
            exit: exit_of(&problem.code, problem.status),
            what,
            facts: problem.facts.into_iter().collect(),
            hint: problem.hint,
        }
    }
}

/// What a failed call means for what was tried. A collision is said in the same words wherever it is met.
pub fn doing(what: &str, error: CallError) -> Failure {
    match error {
        CallError::Refused(problem) => {
            let said = problem.sentence(what);
            let hint = problem.hint.clone().filter(|_| problem.code != "path-already-open");
            Failure { what: said, hint, ..Failure::from(*problem) }
        }
        error => error.into(),
    }
}

/// The exit code for a problem: by its own code where the status says too little.
fn exit_of(code: &str, status: u16) -> Exit {
    match (code, status) {
        ("missing-kernel" | "missing-interpreter" | "not-a-notebook" | "cannot-start", _) => {
            Exit::CannotStart
        }
        ("version-mismatch", _) => Exit::Daemon,
        (code, _) if code.starts_with("notebook-") => Exit::CannotStart,
        (code, 409) if code.starts_with("path-") => Exit::Conflict,
        (_, 404 | 410) => Exit::NotFound,
        (_, 400 | 422) => Exit::Usage,
        (_, 502..=504) => Exit::Daemon,
        (_, _) => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_path_is_a_conflict_that_names_the_holder() {
        let problem = Problem::new(409, "path-already-open", "This notebook is already open", "/tmp/a.ipynb")
            .fact("holder", "1a2b")
            .hint("outlive attach 1a2b");
        let failure = Failure::from(problem);
        assert_eq!(failure.exit, Exit::Conflict);
        assert_eq!(failure.what, "This notebook is already open: /tmp/a.ipynb");
        assert_eq!(failure.facts, [("holder".to_owned(), "1a2b".to_owned())]);
        assert_eq!(failure.hint.as_deref(), Some("outlive attach 1a2b"));
    }

    #[test]
    fn a_reader_who_left_is_not_talked_about() {
        let failure = Failure::output(&io::ErrorKind::BrokenPipe.into());
        assert_eq!((failure.exit, failure.what.as_str()), (Exit::CLOSED_OUTPUT, ""));
        assert_eq!(Failure::output(&io::ErrorKind::StorageFull.into()).exit, Exit::Failed);
    }
}
