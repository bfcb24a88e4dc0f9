//! `outlive ps`: the sessions as a table.

use outlive_core::session::spec::Trust;
use outlive_protocol::http::{RuntimeState, SessionState, SessionView};

use super::attach::quietly;
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::follow::{board, members, state};
use crate::table::{self, Cell, Shape};
use crate::terminal::{self, Ink, Paint};
use crate::{clock, select};

/// Arguments.
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Ended sessions too
    #[arg(short, long)]
    all: bool,
    /// Print the sessions as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let client = quietly(daemon).await?;
        let mut sessions = client.sessions(self.all).await?;
        sessions.sort_by_key(|session| std::cmp::Reverse(session.created_at));
        if self.json {
            let text = serde_json::to_string_pretty(&sessions).expect("sessions have string keys");
            terminal::line(text)?;
            return Ok(Exit::Ok);
        }
        if sessions.is_empty() {
            let more = if self.all { "" } else { " (`outlive ps -a` lists the ended ones)" };
            terminal::talk(format!("no session is open{more}"));
            return Ok(Exit::Ok);
        }
        let now = clock::now().0;
        let width = if terminal::out_is_terminal() { terminal::width() } else { usize::MAX };
        terminal::data(table(&sessions, now, width, Paint::out()).as_bytes())?;
        Ok(Exit::Ok)
    }
}

const STATE: usize = 3;
const RUNTIME: usize = 5;
const NODE: usize = 10;
const HEAD: [&str; 11] =
    ["ID", "KIND", "TITLE", "STATE", "SAVED", "RUNTIME", "PID", "RUNS", "CLIENTS", "AGE", "NODE"];

fn table(sessions: &[SessionView], now: u64, width: usize, paint: Paint) -> String {
    let rows: Vec<Vec<Cell>> = sessions.iter().map(|session| row(session, now)).collect();
    let is_cluster = sessions.iter().any(|session| session.node.is_some());
    let shape = Shape {
        head: if is_cluster { &HEAD } else { &HEAD[..NODE] },
        main: (2, 14),
        // The runtime's state may be a sentence.
        spare: (RUNTIME, 10),
        // Pid, kind, clients.
        give_way: &[6, 1, 8],
    };
    shape.text(&rows, width, paint)
}

fn row(session: &SessionView, now: u64) -> Vec<Cell> {
    let runs = session.runs;
    let done = runs.succeeded + runs.failed + runs.cancelled;
    let failed = if runs.failed > 0 { format!(" ({} failed)", runs.failed) } else { String::new() };
    let (saved_ink, saved) = board::saved(session.saved.as_ref());
    let runtime = match &session.group {
        Some(group) => members::summary(group),
        None => state::runtime(&session.runtime.state),
    };
    let mut row: Vec<Cell> = [
        select::short(session.id),
        session.kind.clone(),
        terminal::one_line(&session.title),
        if is_dormant(session) { "dormant".to_owned() } else { state::session(session.state).to_owned() },
        String::new(),
        runtime,
        match (&session.group, session.runtime.pid) {
            (None, Some(pid)) => pid.to_string(),
            (Some(_), _) | (None, None) => "-".to_owned(),
        },
        format!("{done}/{}{failed}", done + runs.queued + runs.running),
        session.peers.to_string(),
        table::age(now.saturating_sub(session.created_at.0)),
        session.node.as_deref().map_or_else(|| "-".to_owned(), terminal::one_line),
    ]
    .map(table::cell)
    .into();
    row[4] = match (saved.is_empty(), session.trust) {
        (true, _) => table::cell("-"),
        (false, Trust::Trusted) => (Some(saved_ink), saved),
        // Nothing starts or is installed for it by itself: whoever wonders why sees it here.
        (false, Trust::Untrusted) => (Some(saved_ink), format!("{saved}, untrusted")),
    };
    row[STATE].0 = ink(session);
    row[RUNTIME].0 = ink(session);
    row
}

/// Whether it is open and not in the daemon's memory; whoever asks for it brings it back.
const fn is_dormant(session: &SessionView) -> bool {
    !session.loaded && session.closed_at.is_none() && session.node.is_none()
}

const fn ink(session: &SessionView) -> Option<Ink> {
    match (&session.state, &session.runtime.state) {
        (
            _,
            RuntimeState::Unresponsive { .. } | RuntimeState::Backoff { .. } | RuntimeState::GaveUp { .. },
        ) => Some(Ink::Yellow),
        (SessionState::Working, _) => Some(Ink::Cyan),
        (SessionState::Succeeded, _) => Some(Ink::Green),
        (SessionState::Failed, _) => Some(Ink::Red),
        (SessionState::Stopped, _) => Some(Ink::Dim),
        (SessionState::Idle | SessionState::Unknown, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn session(change: serde_json::Value) -> SessionView {
        let mut session = json!({
            "id": "1a2b3c4d-0000-4000-8000-000000000000", "generation": 1, "position": 1,
            "title": "a very long name of a notebook.ipynb", "kind": "notebook", "path": "/a.ipynb",
            "saved": {"state": "unsaved"}, "created_at": 0, "closed_at": null, "state": "working",
            "runtime": {"id": uuid::Uuid::nil(), "incarnation": 1, "name": "k", "state": {"state": "busy"},
                        "pid": 4711, "since": 0},
            "runs": {"queued": 3, "running": 1, "succeeded": 7, "failed": 1, "cancelled": 0},
            "current": null, "question": null, "last_report": null, "save_problem": null, "peers": 2,
        });
        for (key, value) in change.as_object().expect("an object") {
            session[key] = value.clone();
        }
        serde_json::from_value(session).expect("a session")
    }

    fn all() -> Vec<SessionView> {
        let down = json!({"id": uuid::Uuid::nil(), "incarnation": 0, "name": "k", "state": {"state": "down"},
            "pid": null, "since": 0});
        let none = json!({"queued": 0, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0});
        let idle = json!({"state": "idle", "loaded": false, "title": "untitled", "saved": {"state": "untitled"},
            "runtime": down, "runs": none, "peers": 0});
        vec![session(json!({})), session(idle)]
    }

    #[test]
    fn a_table_says_what_is_saved_what_sleeps_and_what_failed() {
        let expected = "\
ID        KIND      TITLE                                 STATE    SAVED     RUNTIME  PID   RUNS             CLIENTS  AGE
1a2b3c4d  notebook  a very long name of a notebook.ipynb  working  unsaved   busy     4711  8/12 (1 failed)  2        2h
1a2b3c4d  notebook  untitled                              dormant  untitled  down     -     0/0              0        2h
";
        assert_eq!(table(&all(), 7_200_000_000, usize::MAX, Paint::OFF), expected);
    }

    #[test]
    fn a_notebook_that_nobody_vouches_for_is_shown_as_one() {
        let text = table(&[session(json!({"trust": "untrusted"}))], 0, usize::MAX, Paint::OFF);
        assert!(text.contains("  unsaved, untrusted  "), "{text}");
        assert!(!table(&all(), 0, usize::MAX, Paint::OFF).contains("untrusted"));
    }

    #[test]
    fn in_a_cluster_each_session_has_its_node() {
        let mut sessions = all();
        sessions[0].node = Some("a".to_owned());
        let text = table(&sessions, 7_200_000_000, usize::MAX, Paint::OFF);
        let lasts: Vec<_> = text.lines().map(|line| line.split_whitespace().next_back()).collect();
        assert_eq!(lasts, [Some("NODE"), Some("a"), Some("-")], "{text}");
        assert!(!table(&all(), 0, usize::MAX, Paint::OFF).contains("NODE"));
    }

    #[test]
    fn a_table_fits_the_terminal() {
        let expected = "\
ID        TITLE             STATE    SAVED     RUNTIME  RUNS             CLIENTS  AGE
1a2b3c4d  a very long nam…  working  unsaved   busy     8/12 (1 failed)  2        2h
1a2b3c4d  untitled          dormant  untitled  down     0/0              0        2h
";
        assert_eq!(table(&all(), 7_200_000_000, 85, Paint::OFF), expected);
        let narrow = table(&all(), 7_200_000_000, 80, Paint::OFF);
        assert!(!narrow.contains("CLIENTS") && narrow.contains("a very long name of…"), "{narrow}");
        let exited =
            json!({"state": "exited", "status": {"kind": "unknown"}, "cause": "missing-interpreter"});
        let runtime = json!({"id": uuid::Uuid::nil(), "incarnation": 1, "name": "k", "state": exited,
            "pid": null, "since": 0});
        let mut sessions = all();
        sessions.push(session(json!({"runtime": runtime, "state": "succeeded", "closed_at": 1})));
        for width in [80, 85, 100, 120] {
            let text = table(&sessions, 7_200_000_000, width, Paint::OFF);
            assert!(text.lines().all(|line| console::measure_text_width(line) <= width), "{text}");
        }
    }
}
