//! A session's notebook on one screen: what its kernel does, where it is saved, and its cells with the end of their output.

use std::collections::{HashMap, VecDeque};

use outlive_core::id::{RunId, Seq};
use outlive_protocol::http::{
    CellKindName, CellState, CellView, ChunkView, RunState, SavedState, SessionView, StreamEvent,
};

use super::watch::Watch;
use super::{notebook, state};
use crate::terminal::{self, Ink, Paint};

/// How much of a cell's output is kept, in bytes.
const TAIL_BYTES_MAX: usize = 4_096;
/// How many lines of output a cell that runs shows; one that does not shows its last.
const RUNNING_LINES: usize = 6;
/// Lines above the cells.
const HEAD_LINES: usize = 3;

/// What is shown.
#[derive(Default)]
pub struct Board {
    watch: Watch,
    cells: Vec<CellView>,
    tails: HashMap<RunId, Tail>,
}

/// The end of a run's output: what each of its last chunks shows, by their numbers.
#[derive(Default)]
struct Tail {
    pieces: VecDeque<(Seq, String)>,
    bytes: usize,
}

impl Tail {
    fn push(&mut self, seq: Seq, chunk: &ChunkView) {
        let mut text = shown(chunk);
        if text.len() > TAIL_BYTES_MAX {
            text.drain(..text.ceil_char_boundary(text.len() - TAIL_BYTES_MAX));
        }
        self.bytes += text.len();
        self.pieces.push_back((seq, text));
        while self.bytes > TAIL_BYTES_MAX {
            let Some((_, first)) = self.pieces.pop_front() else { break };
            self.bytes -= first.len();
        }
    }

    /// Takes back what came after a chunk.
    fn reset(&mut self, keep: Seq) {
        self.pieces.retain(|(seq, _)| *seq <= keep);
        self.bytes = self.pieces.iter().map(|(_, text)| text.len()).sum();
    }

    fn text(&self) -> String {
        self.pieces.iter().map(|(_, text)| text.as_str()).collect()
    }
}

impl Board {
    /// Takes what has happened. Gives whether cells may have changed with it.
    pub fn take(&mut self, event: StreamEvent) -> bool {
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

    /// The screen, at most `height` lines of `width` columns. The last cell that runs is on it.
    pub fn lines(&self, width: usize, height: usize, paint: Paint) -> Vec<String> {
        let Some(session) = self.session() else { return vec!["…".to_owned()] };
        let mut lines = head(session, width, paint);
        let blocks: Vec<Vec<String>> = self.cells.iter().map(|cell| self.cell(cell, width, paint)).collect();
        let active = self.cells.iter().rposition(|cell| cell.state == CellState::Running);
        // What is not shown is counted above and below.
        let room = height.saturating_sub(HEAD_LINES + 2);
        let shown = window(&blocks.iter().map(Vec::len).collect::<Vec<_>>(), active, room);
        if shown.start > 0 {
            lines.push(paint.text(Ink::Dim, format!("  … {} cells above", shown.start)).to_string());
        }
        let below = blocks.len() - shown.end;
        lines.extend(blocks.into_iter().skip(shown.start).take(shown.len()).flatten());
        if below > 0 {
            lines.push(paint.text(Ink::Dim, format!("  … {below} cells below")).to_string());
        }
        lines.truncate(height);
        lines
    }

    fn cell(&self, cell: &CellView, width: usize, paint: Paint) -> Vec<String> {
        let (ink, word) = self.doing(cell);
        let mark = match cell.kind {
            CellKindName::Code => {
                let count = cell.execution_count.map_or_else(|| " ".to_owned(), |count| count.to_string());
                format!("[{count}]")
            }
            CellKindName::Markdown => "  #".to_owned(),
            CellKindName::Raw | CellKindName::Unknown => "  -".to_owned(),
        };
        let mut source = cell.source.lines().map(str::trim_end).filter(|line| !line.is_empty());
        let first = terminal::one_line(source.next().unwrap_or("(empty)"));
        let more = if source.next().is_some() { " …" } else { "" };
        let room = width.saturating_sub(7 + console::measure_text_width(&word) + 2);
        let text = terminal::fit(&format!("{first}{more}"), room);
        let blank = " ".repeat(room.saturating_sub(console::measure_text_width(&text)) + 2);
        let mut lines = vec![format!(
            "{} {text}{blank}{}",
            paint.text(Ink::Dim, format!("{mark:>6}")),
            paint.text(ink, word)
        )];
        let tail = cell.run.and_then(|run| self.tails.get(&run)).map_or_else(String::new, Tail::text);
        let keep = if cell.state == CellState::Running { RUNNING_LINES } else { 1 };
        let output: Vec<&str> = tail.lines().collect();
        lines.extend(output.iter().skip(output.len().saturating_sub(keep)).map(|line| {
            let line = terminal::fit(&terminal::one_line(line), width.saturating_sub(9));
            format!("       {} {line}", paint.text(Ink::Dim, "│"))
        }));
        lines
    }

    /// What a cell does, or how its last run ended.
    fn doing(&self, cell: &CellView) -> (Ink, String) {
        match cell.state {
            CellState::Running => return (Ink::Cyan, "running".to_owned()),
            CellState::Queued => return (Ink::Yellow, "queued".to_owned()),
            CellState::Idle => {}
        }
        match cell.run.and_then(|run| self.watch.runs.get(&run)) {
            Some(run) => match &run.state {
                RunState::Ended { outcome } => notebook::in_words(run, outcome),
                RunState::Queued | RunState::Running | RunState::Unknown => (Ink::Dim, String::new()),
            },
            None => (Ink::Dim, String::new()),
        }
    }
}

/// What a chunk shows as text.
fn shown(chunk: &ChunkView) -> String {
    if let Some(text) = &chunk.text {
        return text.clone();
    }
    let content = chunk.content.as_ref();
    let shown =
        content.and_then(|content| content.pointer("/data/text~1plain").or_else(|| content.get("evalue")));
    shown.and_then(|text| text.as_str()).map_or_else(String::new, |text| format!("{text}\n"))
}

fn head(session: &SessionView, width: usize, paint: Paint) -> Vec<String> {
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
    let trouble = match &session.saved {
        Some(SavedState::Failing { why } | SavedState::Conflict { why, .. }) => why.clone(),
        _ => state::trouble(session),
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

/// Which blocks are shown when not all fit: as many as do, with `active` (else the last) among them.
fn window(heights: &[usize], active: Option<usize>, room: usize) -> std::ops::Range<usize> {
    let end = active.map_or(heights.len(), |active| active + 1);
    let (mut start, mut end, mut used) = (end, end, 0);
    while start > 0 && used + heights[start - 1] <= room {
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

    #[test]
    fn a_screen_fits_and_shows_what_runs_with_the_end_of_its_output() {
        let mut board = board();
        let mut cells: Vec<_> = (0..40).map(|n| cell(n, "idle", None)).collect();
        cells[20] = cell(20, "running", Some(RUN));
        board.set_cells(cells);
        let chunk = json!({"kind": "stdout", "at": 0, "text": "one\ntwo\u{1b}[2J\n"});
        let output = json!({"event": "output", "run": RUN, "attempt": 1, "first": 1, "chunks": [chunk]});
        board.take(serde_json::from_value(output).expect("an event"));
        let lines = board.lines(70, 12, Paint::OFF);
        assert!(lines.len() <= 12, "{lines:#?}");
        assert!(lines.iter().all(|line| console::measure_text_width(line) <= 70), "{lines:#?}");
        assert!(lines[0].starts_with("/home/u/a.ipynb") && lines[0].ends_with("unsaved"), "{lines:#?}");
        assert!(lines[1].contains("Python 3 busy · 1 running, 1 queued, 0 failed · 1 client · 1a2b3c4d"));
        let at = lines.iter().position(|line| line.contains("print(20)")).expect("what runs is shown");
        assert!(lines[at].ends_with("running"), "{lines:#?}");
        assert_eq!(lines[at + 2].trim(), "│ two\u{fffd}[2J", "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("cells below")), "{lines:#?}");
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
        assert_eq!(window(&[1; 10], None, 4), 6..10);
        assert_eq!(window(&[1; 10], Some(2), 5), 0..5);
        assert_eq!(window(&[9, 2, 9], Some(1), 4), 1..2);
        assert_eq!(window(&[], None, 4), 0..0);
    }
}
