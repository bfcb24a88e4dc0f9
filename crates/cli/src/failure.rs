//! What a user is told when a command fails: what happened, to what, what to do; and the exit code.

use std::io;

use outlive_protocol::http::{Problem, SessionView};

use crate::client::CallError;
use crate::exit::Exit;
use crate::hint;

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

    /// Names the session that was meant in what to do.
    pub fn about(mut self, session: &SessionView) -> Self {
        self.hint = self.hint.map(|hint| hint::about(&hint, session));
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
        if problem.collision().is_some() {
            return collision("save", problem);
        }
        let hint = hint::of(&problem);
        let what = if problem.detail.is_empty() {
            problem.title
        } else {
            format!("{}: {}", problem.title, problem.detail)
        };
        Self {
            exit: exit_of(&problem.code, problem.status),
            what,
            facts: problem.facts.into_iter().collect(),
            hint,
        }
    }
}

/// An error with its sources, in one line.
pub fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// What a failed call means for what was tried. A collision is said in the same words wherever it is met.
pub fn doing(what: &str, error: CallError) -> Failure {
    match error {
        CallError::Refused(problem) if problem.collision().is_some() => collision(what, *problem),
        CallError::Refused(problem) => Failure { what: problem.sentence(what), ..Failure::from(*problem) },
        error => error.into(),
    }
}

/// The same of a call about one session.
pub fn doing_to(session: &SessionView, what: &str) -> impl FnOnce(CallError) -> Failure {
    move |error| match error {
        CallError::Refused(problem) if problem.code == "session-ended" => {
            doing(what, CallError::Refused(problem)).hint(hint::ended(session))
        }
        error => doing(what, error).about(session),
    }
}

/// Somebody else has the path: one sentence says which, who, and what to do. What is left is whose daemon that is.
fn collision(what: &str, problem: Problem) -> Failure {
    let facts = problem.facts.get("pid").map(|pid| ("daemon's pid".to_owned(), pid.clone()));
    Failure { facts: facts.into_iter().collect(), ..Failure::new(Exit::Conflict, problem.sentence(what)) }
}

/// The exit code for a problem: by its own code where the status says too little.
fn exit_of(code: &str, status: u16) -> Exit {
    match (code, status) {
        (
            "missing-kernel" | "missing-interpreter" | "not-a-notebook" | "cannot-start" | "nobody-ready",
            _,
        ) => Exit::CannotStart,
        ("version-mismatch", _) => Exit::Daemon,
        (code, _) if code.starts_with("notebook-") => Exit::CannotStart,
        (code, 409) if code.starts_with("path-") => Exit::Conflict,
        ("group-is-up", _) => Exit::Conflict,
        ("task-too-large", _) => Exit::Usage,
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
        let problem = Problem::new(409, "path-already-open", "This notebook is already open", "in use")
            .fact("path", "/tmp/a.ipynb")
            .fact("session", "1a2b")
            .fact("pid", "77")
            .hint("outlive attach 1a2b");
        let opening = doing("open", CallError::Refused(Box::new(problem.clone())));
        assert_eq!(
            opening.what,
            "cannot open: /tmp/a.ipynb is open in session 1a2b; close it or choose another path"
        );
        let failure = Failure::from(problem);
        assert_eq!((failure.exit, failure.hint), (Exit::Conflict, None));
        assert_eq!(
            failure.what,
            "cannot save: /tmp/a.ipynb is open in session 1a2b; close it or choose another path"
        );
        assert_eq!(failure.facts, [("daemon's pid".to_owned(), "77".to_owned())]);
    }

    #[test]
    fn a_claim_that_was_lost_is_said_in_the_daemons_words() {
        // Of a claim that somebody took from a session nobody knows the holder.
        let problem =
            Problem::new(409, "path-already-open", "It belongs to another session", "s is not saved: why");
        let failure = doing("save", CallError::Refused(Box::new(problem.hint("save to another path"))));
        assert_eq!(failure.what, "cannot save: s is not saved: why");
        assert_eq!((failure.exit, failure.hint.as_deref()), (Exit::Conflict, Some("save to another path")));
    }

    #[test]
    fn a_reader_who_left_is_not_talked_about() {
        let failure = Failure::output(&io::ErrorKind::BrokenPipe.into());
        assert_eq!((failure.exit, failure.what.as_str()), (Exit::CLOSED_OUTPUT, ""));
        assert_eq!(Failure::output(&io::ErrorKind::StorageFull.into()).exit, Exit::Failed);
    }
}
