//! A cell in words: what it does, how its last run ended, what it begins with.

use outlive_protocol::http::{CellState, CellView, RunState, RunView};

use super::notebook;
use crate::terminal::{self, Ink};

/// What a cell does, or how its last run ended.
pub fn doing(cell: &CellView, run: Option<&RunView>) -> (Ink, String) {
    match (cell.state, run.map(|run| (run, &run.state))) {
        (CellState::Running, _) => (Ink::Cyan, "running".to_owned()),
        (CellState::Queued, _) => (Ink::Yellow, "queued".to_owned()),
        (CellState::Idle, Some((run, RunState::Ended { outcome }))) => notebook::in_words(run, outcome),
        (CellState::Idle, Some((_, RunState::Queued | RunState::Running | RunState::Unknown)) | None) => {
            (Ink::Dim, String::new())
        }
    }
}

/// The first line that says something, and whether there is more.
pub fn first_line(source: &str) -> String {
    let mut lines = source.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let first = terminal::one_line(lines.next().unwrap_or("(empty)"));
    if lines.next().is_some() { format!("{first} …") } else { first }
}
