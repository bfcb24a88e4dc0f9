//! What to do, in the words of the command line. The daemon says it to all its clients in the words of its API; a shell
//! has commands and flags.

use outlive_protocol::http::{Problem, SessionView};

use crate::select::short;
use crate::terminal;

/// Stands for a session until it is known which one is meant; help texts call it the same.
const SESSION: &str = "SESSION";

/// Words of the API, and what they are called here.
const WORDS: [(&str, &str); 4] = [
    ("`save_as`", "`outlive save-as SESSION PATH`"),
    ("`copy`", "`outlive save SESSION --copy PATH`"),
    ("`overwrite`", "`--overwrite`"),
    ("`discard`", "`--discard`"),
];

/// What to do about a problem.
pub fn of(problem: &Problem) -> Option<String> {
    let hint = match problem.code.as_str() {
        "no-path" => "`outlive save SESSION PATH` gives it a file",
        "no-such-cell" => "`outlive cells SESSION` lists them",
        "no-such-file" => {
            "look for a typing mistake; `outlive new` makes a new notebook, `outlive save SESSION PATH` gives it its file"
        }
        "runtime-down" => {
            "`outlive restart SESSION` starts it again; `outlive explain SESSION` says why it ended"
        }
        _ => return problem.hint.clone().map(translated),
    };
    Some(hint.to_owned())
}

fn translated(hint: String) -> String {
    WORDS.iter().fold(hint, |hint, (word, here)| hint.replace(word, here))
}

/// The same about a session that is known: its id can be typed as it stands.
pub fn about(hint: &str, session: &SessionView) -> String {
    hint.replace(SESSION, &short(session.id))
}

/// What is left of a session that has ended, and how its notebook is opened again.
pub fn ended(session: &SessionView) -> String {
    let id = short(session.id);
    let left = format!("`outlive logs {id}` and `outlive explain {id}` show what it did");
    match &session.path {
        Some(path) if session.kind == "notebook" => {
            format!("`outlive open {}` opens its notebook again; {left}", terminal::one_line(path))
        }
        Some(_) | None => left,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(code: &str, hint: &str) -> String {
        of(&Problem::new(409, code, "Title", "detail").hint(hint)).expect("a hint")
    }

    #[test]
    fn what_the_api_calls_its_fields_are_commands_and_flags_here() {
        let moved = said("has-a-path", "`save_as` moves the session to another file, `copy` writes a copy");
        assert_eq!(
            moved,
            "`outlive save-as SESSION PATH` moves the session to another file, `outlive save SESSION --copy PATH` writes a copy"
        );
        assert_eq!(said("file-exists", "say `overwrite` to replace it"), "say `--overwrite` to replace it");
        assert_eq!(said("unsaved", "or close it with `discard`"), "or close it with `--discard`");
        assert!(said("no-such-file", "made untitled").contains("`outlive new`"));
    }

    #[test]
    fn a_session_that_is_known_has_its_id_in_the_hint_and_one_that_has_ended_its_file() {
        let id = "1a2b3c4d-0000-4000-8000-000000000000";
        let mut session: SessionView = serde_json::from_value(json!({
            "id": id, "generation": 1, "position": 1, "title": "a.ipynb", "kind": "notebook", "path": "/a.ipynb",
            "created_at": 1, "closed_at": null, "state": "idle",
            "runtime": {"id": id, "incarnation": 1, "name": "k", "state": {"state": "idle"}, "pid": 1, "since": 0},
            "runs": {"queued": 0, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0},
            "current": null, "question": null, "last_report": null, "save_problem": null, "peers": 0,
        }))
        .expect("a session");
        let hint = said("no-such-cell", "read it again");
        assert_eq!(about(&hint, &session), "`outlive cells 1a2b3c4d` lists them");
        assert!(ended(&session).starts_with("`outlive open /a.ipynb` opens its notebook again"));
        session.path = None;
        assert!(ended(&session).starts_with("`outlive logs 1a2b3c4d`"));
    }
}
