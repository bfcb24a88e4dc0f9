//! Which session is meant: by id or the beginning of one, by title or file name, or the latest.

use outlive_core::id::{RunId, SessionId};
use outlive_protocol::http::SessionView;

use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::terminal;

/// How many candidates an ambiguous name lists.
const CANDIDATES_MAX: usize = 8;

/// The part of an id that people see and type.
pub fn short(id: SessionId) -> String {
    id.to_string().chars().take(8).collect()
}

/// The part of a task's id that people see and type.
pub fn short_run(id: RunId) -> String {
    id.to_string().chars().take(8).collect()
}

/// Finds the session that the user means. Of several of one notebook that have all ended it is the newest, which is said.
pub async fn session(client: &Client, name: Option<&str>) -> Result<SessionView, Failure> {
    let Chosen { session, ended } = choose(client.sessions(true).await?, name)?;
    if let [_, _, ..] = ended.as_slice() {
        let (count, title) = (ended.len(), terminal::one_line(&session.title));
        let id = short(session.id);
        terminal::talk(format!("note: {count} sessions of {title} have ended; this is the newest, {id}"));
    }
    Ok(session)
}

/// Finds the one session that the user means: for what cannot be taken back.
pub async fn only(client: &Client, name: &str) -> Result<SessionView, Failure> {
    let Chosen { session, ended } = choose(client.sessions(true).await?, Some(name))?;
    if ended.len() > 1 { Err(ambiguous(name, &ended.iter().collect::<Vec<_>>())) } else { Ok(session) }
}

/// A session, and all that the name fits as well as it when they have all ended.
struct Chosen {
    session: SessionView,
    ended: Vec<SessionView>,
}

/// Chooses among all sessions, newest first: an exact title or path wins over the beginning of an id.
fn choose(sessions: Vec<SessionView>, name: Option<&str>) -> Result<Chosen, Failure> {
    let one = |session: SessionView| Chosen { session, ended: Vec::new() };
    let Some(name) = name.filter(|name| *name != "latest") else {
        return sessions.into_iter().max_by_key(|session| session.created_at).map(one).ok_or_else(|| {
            Failure::new(Exit::NotFound, "there is no session yet")
                .hint("`outlive run`, `outlive open` and `outlive new` make one")
        });
    };
    let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    // As it was written, and as the daemon has it: with links resolved.
    let paths = [std::path::absolute(name).ok().map(text), std::fs::canonicalize(name).ok().map(text)];
    let prefix = name.to_ascii_lowercase();
    let is_open = |session: &SessionView| session.closed_at.is_none();
    let is_named = |session: &SessionView| {
        session.title == name || session.path.is_some() && paths.contains(&session.path)
    };
    let is_id = |session: &SessionView| session.id.to_string() == prefix;
    let begins = |session: &SessionView| {
        let id = session.id.to_string();
        id.starts_with(&prefix) || id.replace('-', "").starts_with(&prefix)
    };
    let fitting = |test: &dyn Fn(&SessionView) -> bool| -> Vec<&SessionView> {
        sessions.iter().filter(|session| test(session)).collect()
    };
    // Of several sessions of one notebook at most one is open, and that is the one that is meant.
    for found in [fitting(&is_id), fitting(&|session| is_named(session) && is_open(session))] {
        match found.as_slice() {
            [] => {}
            [session] => return Ok(one((*session).clone())),
            several => return Err(ambiguous(name, several)),
        }
    }
    let named = fitting(&is_named);
    if let Some(newest) = named.iter().max_by_key(|session| session.created_at) {
        let session = (**newest).clone();
        return Ok(Chosen { session, ended: named.into_iter().cloned().collect() });
    }
    match fitting(&begins).as_slice() {
        [] => {}
        [session] => return Ok(one((*session).clone())),
        several => return Err(ambiguous(name, several)),
    }
    Err(Failure::new(Exit::NotFound, format!("there is no session {name:?}"))
        .hint("`outlive ps -a` lists all"))
}

fn ambiguous(name: &str, several: &[&SessionView]) -> Failure {
    let row = |session: &&SessionView| {
        let state = if session.closed_at.is_none() { "open" } else { "ended" };
        (short(session.id), format!("{} ({state})", terminal::one_line(&session.title)))
    };
    let mut facts: Vec<_> = several.iter().take(CANDIDATES_MAX).map(row).collect();
    if several.len() > CANDIDATES_MAX {
        facts.push(("…".to_owned(), format!("and {} more", several.len() - CANDIDATES_MAX)));
    }
    Failure {
        facts,
        ..Failure::new(Exit::NotFound, format!("{name:?} fits {} sessions", several.len()))
            .hint("name one by its id")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn session(id: &str, title: &str, created_at: u64, closed_at: Option<u64>) -> SessionView {
        serde_json::from_value(json!({
            "id": id, "generation": 1, "position": 1, "title": title, "kind": "notebook",
            "path": format!("/notebooks/{title}"), "created_at": created_at, "closed_at": closed_at, "state": "idle",
            "runtime": {"id": id, "incarnation": 1, "name": "k", "state": {"state": "idle"}, "pid": 1, "since": 0},
            "runs": {"queued": 0, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0},
            "current": null, "question": null, "last_report": null, "save_problem": null, "peers": 0,
        }))
        .expect("a session")
    }

    fn all() -> Vec<SessionView> {
        vec![
            session("aaaa1111-0000-4000-8000-000000000001", "a.ipynb", 1, Some(5)),
            session("aaaa2222-0000-4000-8000-000000000002", "a.ipynb", 9, None),
            session("bbbb0000-0000-4000-8000-000000000003", "b.ipynb", 3, Some(4)),
            session("cccc0000-0000-4000-8000-000000000004", "b.ipynb", 2, Some(4)),
        ]
    }

    fn chosen(name: Option<&str>) -> Result<String, Failure> {
        choose(all(), name).map(|chosen| short(chosen.session.id))
    }

    #[test]
    fn by_prefix_title_path_or_the_latest() {
        assert_eq!(chosen(None).expect("one"), "aaaa2222");
        assert_eq!(chosen(Some("latest")).expect("one"), "aaaa2222");
        assert_eq!(chosen(Some("B")).expect("one"), "bbbb0000");
        assert_eq!(chosen(Some("aaaa11110000")).expect("dashes may be left out"), "aaaa1111");
        assert_eq!(chosen(Some("a.ipynb")).expect("the open one"), "aaaa2222");
        assert_eq!(chosen(Some("/notebooks/a.ipynb")).expect("by path"), "aaaa2222");
    }

    #[test]
    fn several_are_listed_and_none_is_said() {
        let failure = chosen(Some("aaaa")).expect_err("open or not");
        assert_eq!(failure.exit, Exit::NotFound);
        assert_eq!(failure.facts[0], ("aaaa1111".to_owned(), "a.ipynb (ended)".to_owned()));
        assert_eq!(failure.facts[1], ("aaaa2222".to_owned(), "a.ipynb (open)".to_owned()));
        assert!(chosen(Some("zzz")).expect_err("none").what.contains("zzz"));
        assert!(choose(Vec::new(), None).err().expect("none").what.contains("no session yet"));
    }

    #[test]
    fn of_ended_sessions_of_one_notebook_the_newest_is_meant_and_how_many_there_are_is_known() {
        let both = choose(all(), Some("b.ipynb")).expect("both have ended");
        assert_eq!((short(both.session.id).as_str(), both.ended.len()), ("bbbb0000", 2));
        let open = choose(all(), Some("a.ipynb")).expect("one is open");
        assert!(open.ended.is_empty(), "nothing has to be said");
    }
}
