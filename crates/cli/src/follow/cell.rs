//! A cell in words: what it does, how its last run ended, what it begins with.

use std::collections::HashMap;

use outlive_protocol::http::{CellState, CellView, RunState, RunView};

use super::notebook;
use crate::terminal::{self, Ink};

/// The last run of each cell, by the cell's id. One that was skipped counts, though the cell shows what it showed before.
pub fn last_runs<'a>(runs: impl IntoIterator<Item = &'a RunView>) -> HashMap<&'a str, &'a RunView> {
    let mut last: HashMap<&str, &RunView> = HashMap::new();
    for run in runs {
        let Some(cell) = run.cell_id.as_deref() else { continue };
        let known = last.entry(cell).or_insert(run);
        if known.index < run.index {
            *known = run;
        }
    }
    last
}

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
