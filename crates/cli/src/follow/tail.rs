//! The end of a run's output as a terminal would show it: what its last chunks show, by their numbers.

use std::collections::VecDeque;

use outlive_core::id::Seq;
use outlive_core::log::ChunkKind;
use outlive_protocol::http::ChunkView;

use super::output::{self, Piece};

/// How much of a run's output is kept, in bytes.
pub const TAIL_BYTES_MAX: usize = 4_096;

/// The end of a run's output.
#[derive(Default, Debug)]
pub struct Tail {
    pieces: VecDeque<Shown>,
    bytes: usize,
    /// What comes next replaces what there is (`clear_output(wait=True)`).
    clears: Clears,
}

#[derive(Debug)]
struct Shown {
    seq: Seq,
    text: String,
    form: Form,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Plain,
    /// It replaces an update before it.
    Update,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Clears {
    #[default]
    Nothing,
    WithTheNext,
}

impl Tail {
    /// Takes a chunk.
    pub fn push(&mut self, seq: Seq, chunk: &ChunkView) {
        if chunk.kind == ChunkKind::ClearOutput {
            let content = chunk.content.as_ref();
            if content.is_some_and(|content| content["wait"] == true) {
                self.clears = Clears::WithTheNext;
            } else {
                self.clear();
            }
            return;
        }
        let (text, form) = match output::piece(chunk, false) {
            Piece::Stream(_, bytes) => (String::from_utf8_lossy(&bytes).into_owned(), Form::Plain),
            Piece::Lines(_, text) => (text + "\n", Form::Plain),
            Piece::Fleeting(text) => (text + "\n", Form::Update),
            Piece::Nothing => return,
        };
        if self.clears == Clears::WithTheNext {
            self.clear();
        }
        if form == Form::Update
            && let Some(last) = self.pieces.pop_back_if(|last| last.form == Form::Update)
        {
            self.bytes -= last.text.len();
        }
        self.keep(Shown { seq, text: end(text), form });
    }

    fn keep(&mut self, shown: Shown) {
        self.bytes += shown.text.len();
        self.pieces.push_back(shown);
        while self.bytes > TAIL_BYTES_MAX {
            let Some(first) = self.pieces.pop_front() else { break };
            self.bytes -= first.text.len();
        }
    }

    fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes back what came after a chunk.
    pub fn reset(&mut self, keep: Seq) {
        self.pieces.retain(|shown| shown.seq <= keep);
        self.bytes = self.pieces.iter().map(|shown| shown.text.len()).sum();
    }

    /// Its last lines, at most so many.
    pub fn lines(&self, count: usize) -> Vec<String> {
        let text: String = self.pieces.iter().map(|shown| shown.text.as_str()).collect();
        last_lines(&text, count)
    }
}

/// The end of a text that is too long.
pub fn end(mut text: String) -> String {
    if text.len() > TAIL_BYTES_MAX {
        text.drain(..text.ceil_char_boundary(text.len() - TAIL_BYTES_MAX));
    }
    text
}

/// The last lines of a text as a terminal would show them.
pub fn last_lines(text: &str, count: usize) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(count);
    lines[first..].iter().map(|line| output::as_seen(line)).collect()
}

#[cfg(test)]
mod tests {
    use outlive_core::time::WallTime;
    use serde_json::{Value, json};

    use super::*;

    fn chunk(kind: ChunkKind, text: Option<&str>, content: Option<Value>) -> ChunkView {
        ChunkView { kind, at: WallTime(0), text: text.map(str::to_owned), base64: None, content, blob: None }
    }

    fn tail(chunks: &[ChunkView]) -> Vec<String> {
        let mut tail = Tail::default();
        (1..).zip(chunks).for_each(|(seq, chunk)| tail.push(Seq(seq), chunk));
        tail.lines(3)
    }

    fn print(text: &str) -> ChunkView {
        chunk(ChunkKind::Stdout, Some(text), None)
    }

    fn update(text: &str) -> ChunkView {
        let content = json!({"data": {"text/plain": text}, "transient": {"display_id": "d"}});
        chunk(ChunkKind::UpdateDisplayData, None, Some(content))
    }

    #[test]
    fn a_progress_bar_is_one_line_in_its_newest_state() {
        let bar: Vec<_> = (0..500).map(|n| print(&format!("\r{n}%|####      |"))).collect();
        assert_eq!(tail(&bar), ["499%|####      |"]);
        assert_eq!(tail(&[print("one\n 1%\r 2%"), print("\r 3%\ntwo\n")]), ["one", " 3%", "two"]);
    }

    #[test]
    fn an_update_replaces_the_one_before() {
        assert_eq!(tail(&[print("a\n"), update("1"), update("2"), update("3")]), ["a", "3"]);
        assert_eq!(tail(&[update("1"), print("b\n"), update("2")]), ["1", "b", "2"]);
    }

    #[test]
    fn what_is_cleared_goes_at_once_or_with_what_comes_next() {
        let clear = |wait| chunk(ChunkKind::ClearOutput, None, Some(json!({ "wait": wait })));
        assert_eq!(tail(&[print("a\n"), clear(false)]), [""; 0]);
        assert_eq!(tail(&[print("a\n"), clear(true)]), ["a"]);
        assert_eq!(tail(&[print("a\n"), clear(true), print("b\n")]), ["b"]);
    }
}
