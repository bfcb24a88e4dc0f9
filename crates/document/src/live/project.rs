//! What runs have made, into the document.

use std::collections::HashMap;

use outlive_core::id::RunId;
use yrs::{Any, Array, Map, MapRef, Out, ReadTxn, TransactionMut};

use super::Live;
use super::apply::merged;
use super::mirror::{self, Mirror, outputs_of};
use super::reconcile::file_outputs;
use super::schema::{self, COUNT, OUTPUTS, RUN_STATE};
use super::ydoc::{Roots, set_plain};
use crate::cell::{Cell, CellKey, CellKind};
use crate::notebook::Notebook;
use crate::projection::Shown;

/// What a cell is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Running {
    /// Nothing.
    Idle,
    /// It waits for its turn.
    Queued,
    /// It runs.
    Running,
}

impl Running {
    /// As front ends know it: they show a waiting cell as a running one.
    const fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Queued | Self::Running => "running",
        }
    }
}

impl Live {
    /// Whether [`Live::project`] has something to do.
    #[must_use]
    pub fn has_unprojected(&self) -> bool {
        let is_touched = self.notebook.projection.has_touched();
        self.shared.as_ref().is_some_and(|shared| is_touched || !shared.is_mended)
    }

    /// What a cell is doing, for those who look at it.
    pub fn set_running(&mut self, key: &CellKey, running: Running) {
        let before = match running {
            Running::Idle => self.running.remove(key),
            Running::Queued | Running::Running => self.running.insert(key.clone(), running),
        };
        if before.unwrap_or(Running::Idle) != running {
            self.notebook.projection.touch(key);
        }
    }

    /// Brings outputs, counts and states of the cells that runs have touched since the last call into the Yjs
    /// document. Gives the update; `None` when nothing differs, or there is no document.
    pub fn project(&mut self) -> Option<Vec<u8>> {
        let (mended, absorbed) = self.shared.as_mut()?.mend();
        self.overwrite(&absorbed.outputs);
        self.reconcile();
        let projected = self.project_touched();
        merged(mended, projected)
    }

    fn project_touched(&mut self) -> Option<Vec<u8>> {
        let shared = self.shared.as_mut()?;
        let touched = self.notebook.projection.take_touched();
        let cells = self.notebook.some_cells(&touched);
        let mut mirrors: HashMap<CellKey, Mirror> = cells
            .iter()
            .filter_map(|cell| Some((cell.key.clone(), shared.take_mirror(&cell.key)?)))
            .collect();
        let (notebook, running) = (&self.notebook, &self.running);
        let done = shared.write(|txn, roots| {
            for cell in cells {
                let Some(map) = shared.cell(txn, &cell.key) else { continue };
                let mirror = mirrors.remove(&cell.key);
                if let Some(mirror) = show(txn, &map, roots, notebook, cell, mirror) {
                    mirrors.insert(cell.key.clone(), mirror);
                    let state = running.get(&cell.key).copied().unwrap_or(Running::Idle);
                    set_plain(txn, &map, RUN_STATE, state.word().into());
                }
            }
        });
        for (key, mirror) in mirrors {
            self.cleared.remove(&key);
            shared.keep_mirror(&key, mirror);
        }
        done.update
    }
}

/// Puts what a cell shows into the document; `None` for a cell that shows nothing because it is no code.
pub(super) fn show(
    txn: &mut TransactionMut<'_>,
    map: &MapRef,
    roots: &Roots,
    notebook: &Notebook,
    cell: &Cell,
    mirror: Option<Mirror>,
) -> Option<Mirror> {
    if cell.kind != CellKind::Code {
        return None;
    }
    let key = &cell.key;
    let (mirror, run) = match notebook.projection.shown(key) {
        Shown::File(count) => {
            let (outputs, file_count) = file_outputs(cell);
            let count = count.map_or(file_count, schema::whole);
            (mirror::show_file(txn, map, key, (&outputs, count)), None)
        }
        Shown::Run(shown) => {
            // One that goes on and shows nothing yet may still have something to show.
            let is_shown = shown.len() > 0 || !notebook.projection.goes_on(key, shown.run);
            let run = is_shown.then_some(shown.run);
            (mirror::show_run(txn, map, key, &shown, mirror), run)
        }
    };
    mark(txn, roots, key, run);
    Some(mirror)
}

/// Notes whose outputs stand in a cell, or stood there: who restores the document can tell outputs that were cleared
/// from outputs that were not projected yet.
fn mark(txn: &mut TransactionMut<'_>, roots: &Roots, key: &CellKey, run: Option<RunId>) {
    match run {
        Some(run) => set_plain(txn, &roots.shown, key.as_str(), run.to_string().into()),
        None => {
            if roots.shown.contains_key(txn, key.as_str()) {
                roots.shown.remove(txn, key.as_str());
            }
        }
    }
}

/// The run whose outputs stand in the cell, or stood there until somebody cleared them.
pub(super) fn marked_run<T: ReadTxn>(txn: &T, roots: &Roots, key: &CellKey) -> Option<String> {
    schema::text_of(txn, &roots.shown, key.as_str())
}

/// Whether nothing stands in the outputs of a cell.
pub(super) fn is_empty<T: ReadTxn>(txn: &T, map: &MapRef) -> bool {
    matches!(map.get(txn, OUTPUTS), Some(Out::YArray(outputs)) if outputs.len(txn) == 0)
}

/// Takes the outputs of a cell away in the document, and notes whose they were.
pub(super) fn clear(
    txn: &mut TransactionMut<'_>,
    map: &MapRef,
    roots: &Roots,
    notebook: &Notebook,
    key: &CellKey,
) {
    let outputs = outputs_of(txn, map);
    let length = outputs.len(txn);
    if length > 0 {
        outputs.remove_range(txn, 0, length);
    }
    set_plain(txn, map, COUNT, Any::Null);
    if let Shown::Run(shown) = notebook.projection.shown(key) {
        mark(txn, roots, key, Some(shown.run));
    }
}
