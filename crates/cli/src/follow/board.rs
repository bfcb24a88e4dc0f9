//! A session's notebook on one screen: what its kernel does, where it is saved, and its cells with the end of their output.

use std::collections::HashMap;
use std::ops::Range;

use outlive_core::id::{RunId, Seq};
use outlive_protocol::http::{
    CellKindName, CellState, CellView, RunState, RunView, SavedState, SessionView, StreamEvent,
};

use super::keys::Key;
use super::tail::{self, Tail};
use super::watch::Watch;
use super::{cell, output, state};
use crate::terminal::{self, Ink, Paint};

/// How many lines of output a cell that runs shows; one that does not shows its last.
const RUNNING_LINES: usize = 6;
/// Lines above the cells.
const HEAD_LINES: usize = 3;
/// What can be done here.
const KEYS: &str = "q leaves, and nothing stops · ↑ ↓ PgUp PgDn move, G follows what happens";

/// What is shown.
#[derive(Default)]
pub struct Board {
    watch: Watch,
    cells: Vec<CellView>,
    tails: HashMap<RunId, Tail>,
    /// What cells showed when somebody began to look, by their ids, with the run that it is of.
    before: HashMap<String, (Option<RunId>, String)>,
    /// The first cell that is shown; without one the screen goes along with what happens.
    top: Option<usize>,
    /// The cells that the screen showed last.
    shown: Range<usize>,
    /// That the daemon is away, while it is.
    away: Option<String>,
}

impl Board {
    /// What there was before anything is taken: how runs have ended, and cells with what they show.
    pub fn begin(&mut self, runs: Vec<RunView>, cells: Vec<CellView>) {
        for run in runs {
            self.watch.admit(StreamEvent::Run { run: Box::new(run) });
        }
        self.before = cells
            .iter()
            .filter(|cell| cell.state != CellState::Running)
            .map(|cell| (cell.id.clone(), (cell.run, tail::end(output::of_cell(cell)))))
            .collect();
        self.set_cells(cells);
    }

    /// The run that is running, as far as is known.
    pub fn running(&self) -> Option<&RunView> {
        self.watch.runs.values().find(|run| run.state == RunState::Running)
    }

    /// Says that the daemon is away, until something comes from it.
    pub fn is_away(&mut self, notice: String) {
        self.away = Some(notice);
    }

    /// Goes where a key says.
    pub fn go(&mut self, key: Key) {
        let last = self.cells.len().saturating_sub(1);
        let page = self.shown.len().max(1);
        let top = self.shown.start;
        self.top = match key {
            Key::Up => Some(top.saturating_sub(1)),
            Key::Down => Some((top + 1).min(last)),
            Key::PageUp => Some(top.saturating_sub(page)),
            Key::PageDown => Some((top + page).min(last)),
            Key::First => Some(0),
            Key::Last | Key::Leave => None,
        };
    }

    /// Takes what has happened. Gives whether cells may have changed with it.
    pub fn take(&mut self, event: StreamEvent) -> bool {
        self.away = None;
        match self.watch.admit(event) {
            Some(StreamEvent::Output { run: Some(run), first, chunks, .. }) => {
                let tail = self.tails.entry(run).or_default();
                (first.0..).zip(&chunks).for_each(|(seq, chunk)| tail.push(Seq(seq), chunk));
                false
            }
            Some(StreamEvent::Reset { run, keep, .. }) => {
                self.tails.entry(run).or_default().reset(keep);
                false
            }
            Some(_) => true,
            None => false,
        }
    }

    /// The cells as they are now.
    pub fn set_cells(&mut self, cells: Vec<CellView>) {
        // Of runs that no cell shows any more nothing has to be kept.
        self.tails.retain(|run, _| cells.iter().any(|cell| cell.run == Some(*run)));
        self.cells = cells;
    }

    /// The session as it was told last.
    pub const fn session(&self) -> Option<&SessionView> {
        self.watch.session.as_ref()
    }

    /// What a terminal's window is called.
    pub fn title(&self) -> String {
        let title = self.session().map_or("outlive", |session| &session.title);
        format!("{} – outlive", terminal::one_line(title))
    }

    /// The screen, at most `height` lines of `width` columns. The last cell that runs is on it, unless somebody went
    /// elsewhere.
    pub fn lines(&mut self, width: usize, height: usize, paint: Paint) -> Vec<String> {
        let Some(session) = self.session() else {
            return vec![self.away.clone().unwrap_or_else(|| "…".to_owned())];
        };
        let mut lines = head(session, self.away.as_deref(), width, paint);
        // What is not shown is counted above and below; the last line says what can be done.
        let room = height.saturating_sub(HEAD_LINES + 3);
        let runs = cell::last_runs(self.watch.runs.values());
        let block = |cell: &CellView| {
            let doing = cell::doing(cell, runs.get(cell.id.as_str()).copied());
            self.cell(cell, doing, (width, room.saturating_sub(1)), paint)
        };
        let blocks: Vec<Vec<String>> = self.cells.iter().map(block).collect();
        let active = self.cells.iter().rposition(|cell| cell.state == CellState::Running);
        let shown = window(&blocks.iter().map(Vec::len).collect::<Vec<_>>(), self.top, active, room);
        if shown.start > 0 {
            lines.push(paint.text(Ink::Dim, format!("  … {} above", cells(shown.start))).to_string());
        }
        let below = blocks.len() - shown.end;
        lines.extend(blocks.into_iter().skip(shown.start).take(shown.len()).flatten());
        if below > 0 {
            lines.push(paint.text(Ink::Dim, format!("  … {} below", cells(below))).to_string());
        }
        lines.resize(height.saturating_sub(1), String::new());
        lines.push(paint.text(Ink::Dim, terminal::fit(KEYS, width)).to_string());
        self.shown = shown;
        lines
    }

    /// A cell and what it does, in columns, with so many lines of what it shows at most.
    fn cell(
        &self,
        cell: &CellView,
        (ink, word): (Ink, String),
        (width, shows): (usize, usize),
        paint: Paint,
    ) -> Vec<String> {
        let mark = match cell.kind {
            CellKindName::Code => {
                let count = cell.execution_count.map_or_else(|| " ".to_owned(), |count| count.to_string());
                format!("[{count}]")
            }
            // Its source says what it is.
            CellKindName::Markdown | CellKindName::Raw | CellKindName::Unknown => String::new(),
        };
        let room = width.saturating_sub(7 + console::measure_text_width(&word) + 2);
        let text = terminal::fit(&cell::first_line(&cell.source), room);
        let blank = " ".repeat(room.saturating_sub(console::measure_text_width(&text)) + 2);
        let mut lines = vec![format!(
            "{} {text}{blank}{}",
            paint.text(Ink::Dim, format!("{mark:>6}")),
            paint.text(ink, word)
        )];
        lines.extend(self.output(cell, shows).iter().map(|line| {
            let line = terminal::fit(line, width.saturating_sub(9));
            format!("       {} {line}", paint.text(Ink::Dim, "│"))
        }));
        lines
    }

    /// The end of what a cell shows.
    fn output(&self, cell: &CellView, room: usize) -> Vec<String> {
        let keep = if cell.state == CellState::Running { RUNNING_LINES } else { 1 }.min(room);
        if let Some(tail) = cell.run.and_then(|run| self.tails.get(&run)) {
            return tail.lines(keep);
        }
        let before = self.before.get(&cell.id).filter(|(run, _)| *run == cell.run);
        before.map_or_else(Vec::new, |(_, text)| tail::last_lines(text, keep))
    }
}

fn cells(count: usize) -> String {
    if count == 1 { "1 cell".to_owned() } else { format!("{count} cells") }
}

fn head(session: &SessionView, away: Option<&str>, width: usize, paint: Paint) -> Vec<String> {
    let place = session.path.as_deref().unwrap_or("untitled: it has no file yet");
    let (ink, saved) = saved(session.saved.as_ref());
    let room = width.saturating_sub(console::measure_text_width(&saved) + 2);
    let place = terminal::fit(&terminal::one_line(place), room);
    let blank = " ".repeat(room.saturating_sub(console::measure_text_width(&place)) + 2);
    let peers = match session.peers {
        1 => "1 client".to_owned(),
        peers => format!("{peers} clients"),
    };
    let runs = session.runs;
    let second = format!(
        "{} {} · {} running, {} queued, {} failed · {peers} · {}",
        session.runtime.name,
        state::runtime(&session.runtime.state),
        runs.running,
        runs.queued,
        runs.failed,
        crate::select::short(session.id),
    );
    let mut lines = vec![
        format!("{}{blank}{}", paint.text(Ink::Bold, place), paint.text(ink, saved)),
        terminal::fit(&terminal::one_line(&second), width),
    ];
    let trouble = match (away, &session.saved) {
        (Some(away), _) => away.to_owned(),
        (None, Some(SavedState::Failing { why } | SavedState::Conflict { why, .. })) => why.clone(),
        (None, _) => state::ended(session).unwrap_or_else(|| state::trouble(session)),
    };
    lines.push(paint.text(Ink::Yellow, terminal::fit(&terminal::one_line(&trouble), width)).to_string());
    lines
}

/// Whether the file has everything, in a word.
pub fn saved(state: Option<&SavedState>) -> (Ink, String) {
    let (ink, word) = match state {
        Some(SavedState::Saved { .. }) => (Ink::Green, "saved"),
        Some(SavedState::Unsaved) => (Ink::Yellow, "unsaved"),
        Some(SavedState::Untitled) => (Ink::Yellow, "untitled"),
        Some(SavedState::Failing { .. }) => (Ink::Red, "not saved"),
        Some(SavedState::Conflict { .. }) => (Ink::Red, "conflict"),
        Some(SavedState::Unknown) | None => (Ink::Dim, ""),
    };
    (ink, word.to_owned())
}

/// Which blocks are shown when not all fit: as many as do, from `top` on, or else with `active` (or the last) among them.
fn window(heights: &[usize], top: Option<usize>, active: Option<usize>, room: usize) -> Range<usize> {
    let fixed = match top {
        Some(top) => top.min(heights.len()),
        None => active.map_or(heights.len(), |active| active + 1),
    };
    let (mut start, mut end, mut used) = (fixed, fixed, 0);
    while top.is_none() && start > 0 && used + heights[start - 1] <= room {
        start -= 1;
        used += heights[start];
    }
    while end < heights.len() && used + heights[end] <= room {
        used += heights[end];
        end += 1;
    }
    start..end
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RUN: &str = "cccccccc-0000-4000-8000-000000000001";

    fn board() -> Board {
        let mut board = Board::default();
        let session = json!({"event": "session", "session": {
            "id": "1a2b3c4d-0000-4000-8000-000000000000", "generation": 1, "position": 1,
            "title": "a.ipynb", "kind": "notebook", "path": "/home/u/a.ipynb", "saved": {"state": "unsaved"},
            "created_at": 0, "closed_at": null, "state": "working",
            "runtime": {"id": RUN, "incarnation": 1, "name": "Python 3", "state": {"state": "busy"}, "pid": 1, "since": 0},
            "runs": {"queued": 1, "running": 1, "succeeded": 0, "failed": 0, "cancelled": 0},
            "current": null, "question": null, "last_report": null, "save_problem": null, "peers": 1,
        }});
        assert!(board.take(serde_json::from_value(session).expect("an event")));
        board
    }

    fn cell(n: u32, state: &str, run: Option<&str>) -> CellView {
        serde_json::from_value(json!({
            "id": format!("c{n}"), "kind": "code", "source": format!("print({n})\nmore"), "metadata": {},
            "state": state, "run": run, "execution_count": null,
        }))
        .expect("a cell")
    }

    fn output(text: &str) -> StreamEvent {
        let chunk = json!({"kind": "stdout", "at": 0, "text": text});
        let event = json!({"event": "output", "run": RUN, "attempt": 1, "first": 1, "chunks": [chunk]});
        serde_json::from_value(event).expect("an event")
    }

    #[test]
    fn a_screen_fits_and_shows_what_runs_with_the_end_of_its_output() {
        let mut board = board();
        let mut cells: Vec<_> = (0..40).map(|n| cell(n, "idle", None)).collect();
        cells[20] = cell(20, "running", Some(RUN));
        board.set_cells(cells);
        board.take(output("one\ntwo\u{1b}[2J\n 1%\r 2%"));
        let lines = board.lines(70, 13, Paint::OFF);
        assert_eq!(lines.len(), 13, "{lines:#?}");
        assert!(lines.iter().all(|line| console::measure_text_width(line) <= 70), "{lines:#?}");
        assert!(lines[0].starts_with("/home/u/a.ipynb") && lines[0].ends_with("unsaved"), "{lines:#?}");
        assert!(lines[1].contains("Python 3 busy · 1 running, 1 queued, 0 failed · 1 client · 1a2b3c4d"));
        assert!(lines[12].starts_with("q leaves"), "{lines:#?}");
        let at = lines.iter().position(|line| line.contains("print(20)")).expect("what runs is shown");
        assert!(lines[at].ends_with("running"), "{lines:#?}");
        let shown: Vec<_> = lines[at + 1..=at + 3].iter().map(|line| line.trim()).collect();
        assert_eq!(shown, ["│ one", "│ two", "│  2%"], "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("cells below")), "{lines:#?}");
        let small = board.lines(40, 8, Paint::OFF);
        assert!(small.iter().any(|line| line.contains("print(20)")), "{small:#?}");
        assert!(small.len() == 8 && small.iter().any(|line| line.contains(" 2%")), "{small:#?}");
    }

    #[test]
    fn what_ended_before_somebody_looked_says_how_and_what_it_showed() {
        let mut board = board();
        let mut failed = cell(0, "idle", Some(RUN));
        failed.outputs = Some(vec![
            json!({"output_type": "stream", "name": "stdout", "text": ["a\n", "b\n"]}),
            json!({"output_type": "error", "ename": "E", "evalue": "no", "traceback": ["…\n\u{1b}[31mE\u{1b}[0m: no"]}),
        ]);
        let run = json!({
            "id": RUN, "session": RUN, "index": 0, "cell": 0, "cell_id": "c0", "source": "", "attempt": 1, "head": 2,
            "state": {"state": "ended", "outcome": {"kind": "raised", "ename": "E", "evalue": "no"}},
            "execution_count": 1, "queued_at": 0, "started_at": 0, "ended_at": 1,
        });
        board.begin(vec![serde_json::from_value(run).expect("a run")], vec![failed, cell(1, "idle", None)]);
        let lines = board.lines(70, 12, Paint::OFF);
        assert!(lines[3].contains("print(0) …") && lines[3].ends_with("failed: E"), "{lines:#?}");
        assert_eq!(lines[4].trim(), "│ E: no", "{lines:#?}");
        let other = "cccccccc-0000-4000-8000-000000000002";
        board.set_cells(vec![cell(0, "running", Some(other)), cell(1, "idle", None)]);
        let lines = board.lines(70, 12, Paint::OFF);
        assert!(!lines.iter().any(|line| line.contains("E: no")), "it runs again: {lines:#?}");
    }

    #[test]
    fn somebody_can_look_elsewhere_and_come_back() {
        let mut board = board();
        board.set_cells((0..40).map(|n| cell(n, "idle", None)).collect());
        let mut first = |key: Option<Key>| {
            key.into_iter().for_each(|key| board.go(key));
            let lines = board.lines(70, 16, Paint::OFF);
            let cells: Vec<_> = lines.iter().filter(|line| line.contains("print(")).collect();
            (cells[0].split(['(', ')']).nth(1).expect("a number").to_owned(), cells.len())
        };
        assert_eq!(first(None), ("30".to_owned(), 10));
        assert_eq!(first(Some(Key::Up)).0, "29");
        assert_eq!(first(Some(Key::PageUp)).0, "19");
        assert_eq!(first(Some(Key::First)).0, "0");
        assert_eq!(first(Some(Key::Up)).0, "0");
        assert_eq!(first(Some(Key::PageDown)).0, "10");
        assert_eq!(first(Some(Key::Last)).0, "30");
    }

    #[test]
    fn that_the_daemon_is_away_is_shown_until_something_comes() {
        let mut board = board();
        board.is_away("the daemon does not answer".to_owned());
        assert_eq!(board.lines(70, 12, Paint::OFF)[2], "the daemon does not answer");
        board.take(output("back"));
        assert_eq!(board.lines(70, 12, Paint::OFF)[2], "");
    }

    #[test]
    fn a_kernel_that_has_ended_says_what_starts_it() {
        let mut board = board();
        let mut session = board.session().expect("it was told").clone();
        let exited = json!({"state": "exited", "status": {"kind": "code", "code": 0}, "cause": null});
        session.runtime.state = serde_json::from_value(exited).expect("a state");
        session.generation.0 += 1;
        board.take(StreamEvent::Session { session: Box::new(session) });
        let line = &board.lines(90, 12, Paint::OFF)[2];
        assert!(
            line.starts_with("Python 3 has ended") && line.contains("`outlive restart 1a2b3c4d`"),
            "{line}"
        );
    }

    #[test]
    fn a_title_is_shown_as_it_was_written() {
        let mut board = board();
        let mut title = cell(0, "idle", None);
        (title.kind, title.source) = (CellKindName::Markdown, "# Title".to_owned());
        board.set_cells(vec![title]);
        assert_eq!(board.lines(70, 12, Paint::OFF)[3].trim(), "# Title");
    }

    #[test]
    fn what_is_taken_back_is_not_on_the_screen() {
        let mut board = board();
        board.set_cells(vec![cell(0, "running", Some(RUN))]);
        let texts =
            ["kept", "void"].map(|text| json!({"kind": "stdout", "at": 0, "text": format!("{text}\n")}));
        let output = json!({"event": "output", "run": RUN, "attempt": 1, "first": 1, "chunks": texts});
        board.take(serde_json::from_value(output).expect("an event"));
        assert!(board.lines(70, 12, Paint::OFF).iter().any(|line| line.contains("void")));
        let reset = json!({"event": "reset", "run": RUN, "attempt": 2, "keep": 1});
        board.take(serde_json::from_value(reset).expect("an event"));
        let lines = board.lines(70, 12, Paint::OFF);
        assert!(lines.iter().any(|line| line.contains("kept")), "{lines:#?}");
        assert!(!lines.iter().any(|line| line.contains("void")), "{lines:#?}");
    }

    #[test]
    fn the_window_keeps_what_is_active() {
        assert_eq!(window(&[1; 10], None, None, 4), 6..10);
        assert_eq!(window(&[1; 10], None, Some(2), 5), 0..5);
        assert_eq!(window(&[9, 2, 9], None, Some(1), 4), 1..2);
        assert_eq!(window(&[1; 10], Some(8), Some(2), 5), 8..10);
        assert_eq!(window(&[], None, None, 4), 0..0);
    }
}
