//! What happens in a session, a line for each change: for files and pipes. A line of output comes when it is finished: of
//! one that rewrites itself, as progress bars do, its end state.

use std::collections::HashMap;

use outlive_core::id::{Attempt, RunId};
use outlive_protocol::http::{CellView, ChunkView, RunState, RunView, SessionView, StreamEvent};

use super::output::{self, Piece};
use super::tail;
use super::updates::Updates;
use super::{board, notebook, state};
use crate::terminal;

/// How many lines are shown of the output of what ended before.
const BEFORE_LINES: usize = 3;

/// What was said, and what is not finished yet.
#[derive(Default)]
pub struct Changes {
    shown: String,
    half: HashMap<RunId, String>,
    updates: Updates,
}

impl Changes {
    /// How the cells have ended that ran before, with the end of what they show.
    pub fn before(runs: &[RunView], cells: &[CellView]) -> Vec<String> {
        let mut lines = Vec::new();
        for cell in cells {
            let run = cell.run.and_then(|id| runs.iter().find(|run| run.id == id));
            let Some((run, RunState::Ended { outcome })) = run.map(|run| (run, &run.state)) else { continue };
            let word = notebook::in_words(run, outcome).1;
            lines.push(format!("cell {} ended before: {word}", terminal::one_line(&cell.id)));
            let text = output::of_cell(cell);
            let (all, last) = (text.lines().count(), tail::last_lines(&text, BEFORE_LINES));
            if all > last.len() {
                lines.push(format!("… {} lines", all - last.len()));
            }
            lines.extend(last);
        }
        lines
    }

    /// What there is to say about an event.
    pub fn of(&mut self, event: &StreamEvent) -> Vec<String> {
        match event {
            StreamEvent::Session { session } => self.session(session).into_iter().collect(),
            StreamEvent::PathChanged { path, .. } => vec![format!("path {}", terminal::one_line(path))],
            StreamEvent::Run { run } => self.run(run),
            StreamEvent::Output { run, attempt, chunks, .. } => {
                let run = run.filter(|_| *attempt != Attempt(0));
                chunks.iter().flat_map(|chunk| self.chunk(run, chunk)).collect()
            }
            StreamEvent::Reset { run, .. } => {
                self.half.remove(run);
                Vec::new()
            }
            StreamEvent::Report { report } => vec![terminal::one_line(&report.cause().summary)],
            StreamEvent::Gap { skipped } => vec![format!("… {skipped} changes were not shown")],
            StreamEvent::Problem { problem } => vec![terminal::one_line(&problem.detail)],
            StreamEvent::Stalled { why } => vec![super::stalled(why.as_deref())],
            StreamEvent::End { .. } | StreamEvent::Unknown => Vec::new(),
        }
    }

    fn session(&mut self, session: &SessionView) -> Option<String> {
        let (_, saved) = board::saved(session.saved.as_ref());
        let text = match state::ended(session) {
            Some(ended) => format!("{ended}, {saved}"),
            None => format!("kernel {}, {saved}", state::runtime(&session.runtime.state)),
        };
        (self.shown != text).then(|| {
            self.shown.clone_from(&text);
            text
        })
    }

    fn run(&mut self, run: &RunView) -> Vec<String> {
        let mut lines = Vec::new();
        let word = match &run.state {
            RunState::Queued => "queued".to_owned(),
            RunState::Running => "running".to_owned(),
            RunState::Ended { outcome } => {
                lines.extend(self.half.remove(&run.id).map(|rest| output::as_seen(&rest)));
                lines.extend(self.updates.take().flat_map(|text| seen(&text)));
                notebook::in_words(run, outcome).1
            }
            RunState::Unknown => return lines,
        };
        let cell = match &run.cell_id {
            Some(cell) => format!("cell {}", terminal::one_line(cell)),
            None => "code".to_owned(),
        };
        lines.push(format!("{cell} {word}"));
        lines
    }

    fn chunk(&mut self, run: Option<RunId>, chunk: &ChunkView) -> Vec<String> {
        let unfinished = |half: &mut HashMap<RunId, String>| run.and_then(|run| half.remove(&run));
        match output::piece(chunk, false) {
            Piece::Stream(_, bytes) => {
                let mut text = unfinished(&mut self.half).unwrap_or_default();
                text.push_str(&String::from_utf8_lossy(&bytes));
                // Output of nobody has no end at which the rest of it could be told.
                let Some(run) = run else { return seen(&text) };
                let rest = text.split_off(text.rfind('\n').map_or(0, |at| at + 1));
                if !rest.is_empty() {
                    self.half.insert(run, tail::end(rest));
                }
                seen(&text)
            }
            Piece::Lines(_, text) => {
                let before = unfinished(&mut self.half).map(|rest| output::as_seen(&rest));
                before.into_iter().chain(seen(&text)).collect()
            }
            Piece::Fleeting(text) => {
                self.updates.put(chunk, tail::end(text)).map_or_else(Vec::new, |text| seen(&text))
            }
            Piece::Nothing => Vec::new(),
        }
    }
}

fn seen(text: &str) -> Vec<String> {
    text.lines().map(output::as_seen).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const RUN: &str = "cccccccc-0000-4000-8000-000000000001";

    fn event(value: Value) -> StreamEvent {
        serde_json::from_value(value).expect("an event")
    }

    fn output(text: &str) -> StreamEvent {
        let chunk = json!({"kind": "stdout", "at": 0, "text": text});
        event(json!({"event": "output", "run": RUN, "attempt": 1, "first": 1, "chunks": [chunk]}))
    }

    fn run(state: &Value) -> RunView {
        serde_json::from_value(json!({
            "id": RUN, "session": RUN, "index": 0, "cell": 0, "cell_id": "c0", "source": "", "state": state,
            "attempt": 1, "head": 0, "execution_count": 1, "queued_at": 0, "started_at": 0, "ended_at": 1,
        }))
        .expect("a run")
    }

    fn succeeded() -> Value {
        json!({"state": "ended", "outcome": {"kind": "succeeded"}})
    }

    #[test]
    fn a_line_comes_when_it_is_finished_and_a_bar_with_its_end_state() {
        let mut changes = Changes::default();
        assert_eq!(changes.of(&output("one\ntw")), ["one"]);
        assert_eq!(changes.of(&output("o\n\r 1%")), ["two"]);
        assert_eq!(changes.of(&output("\r 2%\r 3%")), [""; 0]);
        let ended = StreamEvent::Run { run: Box::new(run(&succeeded())) };
        assert_eq!(changes.of(&ended), [" 3%", "cell c0 ok"]);
    }

    #[test]
    fn a_line_that_never_ends_is_kept_within_bounds() {
        let mut changes = Changes::default();
        for _ in 0..100 {
            assert_eq!(changes.of(&output(&"\rxxxxxxxxx".repeat(100))), [""; 0]);
        }
        assert!(changes.half.values().all(|half| half.len() <= tail::TAIL_BYTES_MAX));
    }

    #[test]
    fn what_ended_before_says_how_and_shows_the_end_of_its_output() {
        let outputs = json!([{"output_type": "stream", "name": "stdout", "text": "1\n2\n3\n4\n"},
            {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["\u{1b}[31mE\u{1b}[0m: v"]}]);
        let cell = |id: &str, run: Option<&str>| -> CellView {
            let cell = json!({"id": id, "kind": "code", "source": "x", "metadata": {}, "state": "idle", "run": run,
                "outputs": outputs});
            serde_json::from_value(cell).expect("a cell")
        };
        let raised =
            run(&json!({"state": "ended", "outcome": {"kind": "raised", "ename": "E", "evalue": "v"}}));
        let lines = Changes::before(&[raised], &[cell("c0", Some(RUN)), cell("c1", None)]);
        assert_eq!(lines, ["cell c0 ended before: failed: E", "… 2 lines", "3", "4", "E: v"]);
    }
}
