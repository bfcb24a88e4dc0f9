//! The cells of a notebook: read, edit.

use std::collections::HashMap;

use outlive_core::id::{RunId, SessionId};
use outlive_core::limits::{MCP_LISTED_MAX, MCP_TEXT_BYTES_MAX};
use outlive_protocol::http::{
    CellEdit, CellKindName, CellState, CellView, EditNotebook, Edited, NotebookView, Problem, RunView,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::brief::Run;
use crate::outputs::{self, Image, Item};
use crate::tool::{Call, Reply};

/// `read`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// The session's id.
    session: SessionId,
    /// Only these cells, by id.
    #[serde(default)]
    cells: Option<Vec<String>>,
    /// With what the cells show.
    #[serde(default)]
    outputs: bool,
    /// Leave out the cells before this index (0 is the first).
    #[serde(default)]
    from: usize,
}

/// A notebook, or a part of it.
#[derive(Serialize, JsonSchema)]
pub struct Notebook {
    /// The session.
    session: SessionId,
    /// Its file.
    path: Option<String>,
    /// How many cells it has.
    cells_in_all: usize,
    /// The cells that were asked for, in order.
    cells: Vec<Cell>,
    /// The index to go on `from`, when not all of them fit.
    next: Option<usize>,
}

/// A cell.
#[derive(Serialize, JsonSchema)]
struct Cell {
    /// Its place, from 0; it changes when cells are moved.
    index: usize,
    /// Its id, which stays.
    id: String,
    /// What it is.
    kind: CellKindName,
    /// Its source.
    source: String,
    /// Whether it runs or waits.
    state: CellState,
    /// Its last run.
    run: Option<RunId>,
    /// How that stands: `queued`, `running`, `succeeded`, `raised`, `failed`, `timed_out` or `cancelled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    went: Option<&'static str>,
    /// What ended it, when it did not succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// The kernel's count.
    execution_count: Option<u64>,
    /// What it shows, when that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    outputs: Option<Vec<Item>>,
}

pub async fn read(call: Call, input: Read) -> Result<Reply<Notebook>, Problem> {
    let NotebookView { path, cells: all, .. } = call.host.notebook(input.session).await?;
    let cells_in_all = all.len();
    if let Some(wanted) = &input.cells
        && let Some(missing) = wanted.iter().find(|id| !all.iter().any(|cell| &cell.id == *id))
    {
        let detail = format!("the notebook has no cell {missing}");
        return Err(Problem::new(404, "no-such-cell", "There is no such cell", detail)
            .hint("read the notebook without `cells` to see them all")
            .fact("cell", missing.clone()));
    }
    let is_wanted = |cell: &CellView| input.cells.as_ref().is_none_or(|wanted| wanted.contains(&cell.id));
    let wanted: Vec<_> =
        all.into_iter().enumerate().skip(input.from).filter(|(_, cell)| is_wanted(cell)).collect();
    let was_run = wanted.iter().any(|(_, cell)| cell.run.is_some());
    let runs = if was_run { call.host.runs(input.session).await? } else { Vec::new() };
    let runs: HashMap<RunId, &RunView> = runs.iter().map(|run| (run.id, run)).collect();
    let (mut cells, mut images, mut room, mut next) = (Vec::new(), Vec::new(), MCP_TEXT_BYTES_MAX, None);
    for (index, view) in wanted {
        let full = view.source.len() > room || cells.len() == MCP_LISTED_MAX;
        if full && !cells.is_empty() {
            next = Some(index);
            break;
        }
        room = room.saturating_sub(view.source.len());
        let shows = input.outputs && view.kind == CellKindName::Code;
        let outputs =
            if shows { Some(shown(&call, input.session, &view.id, room, &mut images).await?) } else { None };
        room = room.saturating_sub(outputs.as_deref().map_or(0, |items| outputs::text(items).len()));
        let run = view.run.and_then(|run| runs.get(&run)).map(|run| Run::from(*run));
        cells.push(cell(index, view, run, outputs));
    }
    let noun = if cells_in_all == 1 { "cell" } else { "cells" };
    let mut text = format!("{}: {cells_in_all} {noun}\n", path.as_deref().unwrap_or("untitled notebook"));
    cells.iter().for_each(|cell| text.push_str(&cell_text(cell)));
    if let Some(next) = next {
        text.push_str(&format!("\n[there are more cells: read on with from={next}]\n"));
    }
    let answer = Notebook { session: input.session, path, cells_in_all, cells, next };
    Ok(Reply { answer, text, images })
}

async fn shown(
    call: &Call,
    session: SessionId,
    cell: &str,
    room: usize,
    images: &mut Vec<Image>,
) -> Result<Vec<Item>, Problem> {
    let all = call.host.cell_outputs(session, cell.to_owned()).await?;
    Ok(outputs::of_cell(session, cell, &all, room, images))
}

fn cell(index: usize, view: CellView, run: Option<Run>, outputs: Option<Vec<Item>>) -> Cell {
    let mut source = view.source;
    if source.len() > MCP_TEXT_BYTES_MAX {
        let kept = source.floor_char_boundary(MCP_TEXT_BYTES_MAX);
        let left = source.len() - kept;
        source.truncate(kept);
        source.push_str(&format!("\n[{left} more bytes of this source are in the notebook's file]"));
    }
    Cell {
        index,
        id: view.id,
        kind: view.kind,
        source,
        state: view.state,
        run: view.run,
        went: run.as_ref().map(|run| run.state),
        why: run.and_then(|run| run.why),
        execution_count: view.execution_count,
        outputs,
    }
}

fn cell_text(cell: &Cell) -> String {
    let kind = match cell.kind {
        CellKindName::Code => "code",
        CellKindName::Markdown => "markdown",
        CellKindName::Raw | CellKindName::Unknown => "raw",
    };
    let count = cell.execution_count.map_or_else(String::new, |count| format!(" [{count}]"));
    let why = cell.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    let state = match (cell.state, cell.went) {
        (CellState::Queued, _) => ", queued".to_owned(),
        (CellState::Running, _) => ", running".to_owned(),
        (CellState::Idle, None | Some("succeeded")) => String::new(),
        (CellState::Idle, Some(went)) => format!(", {went}{why}"),
    };
    let mut text =
        format!("\n--- cell {} (index {}, {kind}{state}){count}\n{}\n", cell.id, cell.index, cell.source);
    if let Some(items) = cell.outputs.as_deref().filter(|items| !items.is_empty()) {
        text.push_str(&format!("--- its outputs\n{}\n", outputs::text(items).trim_end_matches('\n')));
    }
    text
}

/// `edit`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The session's id.
    session: SessionId,
    /// The edits, in order.
    edits: Vec<CellEdit>,
}

/// What edits have made.
#[derive(Serialize, JsonSchema)]
pub struct Done {
    /// For each edit the id of its cell; empty for edits of the whole notebook.
    cells: Vec<String>,
}

pub async fn edit(call: Call, input: Edit) -> Result<Reply<Done>, Problem> {
    let Edited { cells, .. } = call.host.edit(input.session, EditNotebook { edits: input.edits }).await?;
    let names: Vec<&str> =
        cells.iter().map(|id| if id.is_empty() { "the notebook" } else { id.as_str() }).collect();
    let text = format!("edited: {}\n", names.join(", "));
    Ok(Reply::new(Done { cells }, text))
}
