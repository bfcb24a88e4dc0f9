//! `outlive ps`: the sessions as a table.

use outlive_protocol::http::{RuntimeState, SessionState, SessionView};

use super::attach::quietly;
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::follow::state;
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

const HEAD: [&str; 8] = ["ID", "KIND", "TITLE", "STATE", "RUNTIME", "PID", "RUNS", "AGE"];
/// The column that gives way on a narrow terminal.
const TITLE: usize = 2;
/// Its narrowest width.
const TITLE_MIN: usize = 12;

fn table(sessions: &[SessionView], now: u64, width: usize, paint: Paint) -> String {
    let rows: Vec<[String; 8]> = sessions.iter().map(|session| row(session, now)).collect();
    let mut widths = HEAD.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(console::measure_text_width(cell));
        }
    }
    let others: usize = widths.iter().sum::<usize>() - widths[TITLE] + 2 * (widths.len() - 1);
    widths[TITLE] = widths[TITLE].min(width.saturating_sub(others).max(TITLE_MIN));
    let mut text = String::new();
    let head = HEAD.map(str::to_owned);
    line(&mut text, &head, &widths, |_, cell| paint.text(Ink::Bold, cell).to_string());
    for (row, session) in rows.iter().zip(sessions) {
        let colour = |column: usize, cell: String| match (column, ink(session)) {
            (3 | 4, Some(ink)) => paint.text(ink, cell).to_string(),
            (_, _) => cell,
        };
        line(&mut text, row, &widths, colour);
    }
    text
}

fn line(text: &mut String, row: &[String; 8], widths: &[usize; 8], colour: impl Fn(usize, String) -> String) {
    let start = text.len();
    for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
        let cell = terminal::fit(cell, *width);
        let blank = " ".repeat(width - console::measure_text_width(&cell).min(*width) + 2);
        text.push_str(&colour(column, cell));
        text.push_str(&blank);
    }
    text.truncate(start + text[start..].trim_end().len());
    text.push('\n');
}

fn row(session: &SessionView, now: u64) -> [String; 8] {
    let runs = session.runs;
    let done = runs.succeeded + runs.failed + runs.cancelled;
    let failed = if runs.failed > 0 { format!(" ({} failed)", runs.failed) } else { String::new() };
    [
        select::short(session.id),
        session.kind.clone(),
        terminal::one_line(&session.title),
        state::session(session.state).to_owned(),
        state::runtime(&session.runtime.state),
        session.runtime.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        format!("{done}/{}{failed}", done + runs.queued + runs.running),
        age(now.saturating_sub(session.created_at.0)),
    ]
}

/// An age in its largest unit.
fn age(micros: u64) -> String {
    match micros / 1_000_000 {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m", seconds / 60),
        seconds @ 3_600..86_400 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
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

    #[test]
    fn a_table_fits_the_terminal_and_says_what_failed() {
        let session: SessionView = serde_json::from_value(json!({
            "id": "1a2b3c4d-0000-4000-8000-000000000000", "generation": 1, "position": 1,
            "title": "a very long name of a notebook.ipynb", "kind": "notebook", "path": null,
            "created_at": 0, "closed_at": null, "state": "working",
            "runtime": {"id": uuid::Uuid::nil(), "incarnation": 1, "name": "k", "state": {"state": "busy"},
                        "pid": 4711, "since": 0},
            "runs": {"queued": 3, "running": 1, "succeeded": 7, "failed": 1, "cancelled": 0},
            "current": null, "question": null, "last_report": null, "save_problem": null, "peers": 0,
        }))
        .expect("a session");
        let text = table(&[session], 7_200_000_000, 94, Paint::OFF);
        let expected = "\
ID        KIND      TITLE                         STATE    RUNTIME  PID   RUNS             AGE
1a2b3c4d  notebook  a very long name of a noteb…  working  busy     4711  8/12 (1 failed)  2h
";
        assert_eq!(text, expected);
        assert!(text.lines().all(|line| console::measure_text_width(line) <= 94), "{text}");
    }
}
