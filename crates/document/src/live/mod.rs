//! A notebook that people edit together.
//!
//! [`Live`] holds the [`Notebook`], which is the file's side, and from the moment that somebody wants to edit it a Yjs
//! document in the model of jupyter_ydoc ([`schema`]), which is what peers see. People write source, order and metadata
//! into the document; the notebook follows when it is looked at. Outputs, counts and what runs go the other way: from
//! the runs into the notebook, and with [`Live::project`] into the document.
//!
//! ```text
//! peers, REST, MCP ──► Y document ── reconcile ──► Notebook ──► .ipynb
//!                          ▲                          │  ▲
//!                          └──────── project ─────────┘  └── runs
//! ```
//!
//! Whatever changes the document gives an update. It is journaled before it is sent on; [`Live::restore`] makes the
//! same document of the notebook as it was opened and the updates.

mod apply;
mod base;
mod edit;
mod guard;
mod mirror;
mod project;
mod rebase;
mod reconcile;
mod restore;
mod schema;
mod view;
pub mod wire;
mod ydoc;

use std::collections::HashMap;
use std::ops::Range;

use outlive_core::diagnosis::FailureReport;
use outlive_core::id::{RunId, Seq};
use outlive_core::log::Chunk;
use outlive_core::session::RunOutcome;
use yrs::updates::encoder::Encode;
use yrs::{ReadTxn, StateVector};

pub use apply::{Applied, ApplyError};
pub use edit::{Edit, Edited, Place};
pub use guard::Forged;
pub use mirror::REFERENCE_MIME;
pub use project::Running;
pub use rebase::{Conflict, ConflictKind, Rebased};
pub use restore::{RestoreError, Restoring};
pub use view::{CellContent, NotebookContent};

use crate::cell::{CellKey, CellKind};
use crate::error::EditError;
use crate::notebook::Notebook;
use crate::projection::{Blobs, ProjectionError};
use base::Base;
use reconcile::NewCell;
use schema::{METADATA, Written};
use ydoc::Shared;

/// A notebook that may be edited by many at once.
///
/// Without a Yjs document it costs what its [`Notebook`] costs, and a few words for each cell.
pub struct Live {
    notebook: Notebook,
    shared: Option<Shared>,
    base: Base,
    running: HashMap<CellKey, Running>,
    /// Cells that were restored without outputs, the run that they are of, and whether they have no count either. If
    /// the run's replay gives outputs, somebody had cleared them.
    cleared: HashMap<CellKey, (String, bool)>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cells = self.notebook.cells().len();
        f.debug_struct("Live")
            .field("cells", &cells)
            .field("is_shared", &self.is_shared())
            .finish_non_exhaustive()
    }
}

impl Live {
    /// A notebook as its file has it. There is no Yjs document yet.
    #[must_use]
    pub fn new(notebook: Notebook) -> Self {
        let base = Base::of(&notebook);
        Self { notebook, shared: None, base, running: HashMap::new(), cleared: HashMap::new() }
    }

    /// Begins to make again what was journaled: `notebook` as it was opened, or as it was when older updates were
    /// trimmed.
    #[must_use]
    pub fn restore(notebook: Notebook) -> Restoring {
        Restoring::new(notebook)
    }

    /// The notebook with all that the Yjs document says.
    pub fn notebook(&mut self) -> &Notebook {
        self.reconcile();
        &self.notebook
    }

    fn reconcile(&mut self) {
        if let Some(shared) = &mut self.shared {
            shared.reconcile(&mut self.notebook);
        }
    }

    /// The notebook as bytes of an `.ipynb` file; see [`Notebook::to_bytes`].
    pub fn to_bytes(&mut self, blobs: &dyn Blobs) -> Vec<u8> {
        self.reconcile();
        let mut outputs = HashMap::new();
        let bytes = self.notebook.render(blobs, |key, text| {
            outputs.insert(key.clone(), base::hash(text.as_bytes()));
        });
        self.base.wrote(outputs);
        bytes
    }

    /// Whether there is a Yjs document.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Makes the Yjs document if there is none. Then it gives all of it as an update: journal it before anything else
    /// of the document.
    pub fn share(&mut self) -> Option<Vec<u8>> {
        if self.shared.is_some() {
            return None;
        }
        let mut shared = Shared::empty();
        let notebook = &self.notebook;
        let done = shared.write(|txn, roots| {
            use yrs::{Array, Map};
            roots.meta.insert(txn, "nbformat", schema::whole(4));
            roots.meta.insert(txn, "nbformat_minor", schema::whole(notebook.minor()));
            let metadata: yrs::MapRef = roots.meta.insert(txn, METADATA, yrs::MapPrelim::default());
            for (key, value) in notebook.metadata_json() {
                metadata.insert(txn, key, schema::any_of(&value));
            }
            for (at, cell) in (0..).zip(notebook.cell_list()) {
                let map = NewCell::new(cell.key.as_str(), Written::of(cell)).insert(txn, &roots.cells, at);
                project::show(txn, &map, roots, notebook, cell, None);
            }
            debug_assert_eq!(roots.cells.len(txn) as usize, notebook.cells().len());
        });
        shared.absorb(&done.trace, false);
        // The notebook is what it was made of, and all of it is shown.
        shared.take_stale();
        self.notebook.projection.take_touched();
        for (key, running) in &self.running {
            if *running != Running::Idle {
                self.notebook.projection.touch(key);
            }
        }
        let state = shared.read().encode_state_as_update_v1(&StateVector::default());
        self.shared = Some(shared);
        Some(state)
    }

    /// What the Yjs document contains, as a state vector v1. Empty when there is none.
    #[must_use]
    pub fn state_vector(&self) -> Vec<u8> {
        self.shared
            .as_ref()
            .map_or_else(StateVector::default, |shared| shared.read().state_vector())
            .encode_v1()
    }

    /// Whether all that this state vector names is in the Yjs document. Deletions have no place in a state
    /// vector: see [`Self::contains_snapshot`].
    ///
    /// # Errors
    /// When it is none.
    pub fn contains(&self, state_vector: &[u8]) -> Result<bool, Forged> {
        let asked = wire::state_vector(state_vector)?;
        let ours = self.shared.as_ref().map(|shared| shared.read().state_vector()).unwrap_or_default();
        Ok(asked.iter().all(|(client, clock)| ours.get(client) >= *clock))
    }

    /// Whether all insertions and deletions that this Yjs snapshot v1 names are in the Yjs document.
    ///
    /// # Errors
    /// When it is none.
    pub fn contains_snapshot(&self, snapshot: &[u8]) -> Result<bool, Forged> {
        let (deleted, vector) = wire::snapshot(snapshot)?;
        if !self.contains(vector)? {
            return Ok(false);
        }
        let ours = self.shared.as_ref().map(|shared| shared.read().snapshot().delete_set).unwrap_or_default();
        Ok(deleted.into_iter().all(|(client, asked)| {
            let gone: Vec<_> = ours.get(&client).into_iter().flat_map(|ranges| ranges.iter()).collect();
            // Ranges of one client neither touch nor overlap, so that one holds it all.
            asked.iter().all(|asked| {
                let behind = gone.partition_point(|(gone, ())| gone.start <= asked.start);
                let holds = |(gone, ()): &(Range<u32>, ())| asked.end <= gone.end;
                asked.is_empty() || behind.checked_sub(1).is_some_and(|at| holds(gone[at]))
            })
        }))
    }

    /// What a peer with this state vector lacks, as an update v1.
    ///
    /// # Errors
    /// When it is none.
    pub fn since(&self, state_vector: &[u8]) -> Result<Vec<u8>, Forged> {
        let theirs = wire::state_vector(state_vector)?;
        let Some(shared) = &self.shared else { return Ok(empty_update()) };
        Ok(shared.read().encode_state_as_update_v1(&theirs))
    }

    /// All of the Yjs document, as an update v1.
    #[must_use]
    pub fn state(&self) -> Vec<u8> {
        self.shared.as_ref().map_or_else(empty_update, |shared| {
            shared.read().encode_state_as_update_v1(&StateVector::default())
        })
    }

    /// A run of this cell begins; see [`Notebook::begin_run`].
    ///
    /// # Errors
    /// When there is no such cell, or it is no code (any more): what the run puts out stays in the log.
    pub fn begin_run(&mut self, cell: &CellKey, run: RunId) -> Result<(), EditError> {
        self.reconcile();
        if self.notebook.cell(cell).is_some_and(|cell| cell.kind() != CellKind::Code) {
            return Err(EditError::NotCode(cell.clone()));
        }
        self.notebook.begin_run(cell, run)?;
        self.base.ran(cell);
        Ok(())
    }

    /// Adds a chunk of a run; see [`Notebook::apply_chunk`].
    ///
    /// # Errors
    /// When the run is not a cell's latest, or a chunk before this one is missing.
    pub fn apply_chunk(
        &mut self,
        run: RunId,
        seq: Seq,
        chunk: &Chunk,
        blobs: &dyn Blobs,
    ) -> Result<(), ProjectionError> {
        self.notebook.apply_chunk(run, seq, chunk, blobs)?;
        self.note_output(run);
        Ok(())
    }

    /// Adds output that a run made after its end; see [`Notebook::apply_late`].
    pub fn apply_late(&mut self, run: RunId, chunk: &Chunk, blobs: &dyn Blobs) {
        self.notebook.apply_late(run, chunk, blobs);
        self.note_output(run);
    }

    /// The run's output is cut back; see [`Notebook::truncate`].
    ///
    /// # Errors
    /// When the run is not a cell's latest.
    pub fn truncate(&mut self, run: RunId, keep: Seq) -> Result<Seq, ProjectionError> {
        let kept = self.notebook.truncate(run, keep)?;
        self.note_output(run);
        Ok(kept)
    }

    /// The run has ended; see [`Notebook::finish_run`].
    ///
    /// # Errors
    /// When the run is not a cell's latest.
    pub fn finish_run(
        &mut self,
        run: RunId,
        outcome: &RunOutcome,
        report: Option<&FailureReport>,
    ) -> Result<(), ProjectionError> {
        self.notebook.finish_run(run, outcome, report)?;
        self.note_output(run);
        Ok(())
    }

    fn note_output(&mut self, run: RunId) {
        let Some(cell) = self.notebook.projection.cell_of(run).cloned() else { return };
        self.base.ran(&cell);
        if self.notebook.projection.is_running(&cell) {
            return;
        }
        if let Some((of, with_count)) = self.cleared.get(&cell)
            && *of == run.to_string()
            && (*with_count || self.notebook.projection.has_outputs(&cell))
        {
            self.notebook.clear_outputs(&cell);
        }
    }

    /// What [`Live::to_bytes`] gives now is about to be written to the file.
    pub fn rendered(&mut self) {
        self.reconcile();
        self.base.rendered(&self.notebook);
    }

    /// What later changes of the file are compared with, to be kept with the notebook as it is now
    /// ([`Restoring::base`]).
    ///
    /// # Panics
    /// Never: it is plain data.
    #[must_use]
    pub fn base(&self) -> Vec<u8> {
        serde_json::to_vec(&self.base).expect("it is plain data")
    }

    /// What was rendered last is in the file: later changes of it are compared with that.
    pub fn saved(&mut self) {
        self.base.saved();
    }
}

fn empty_update() -> Vec<u8> {
    yrs::Update::default().encode_v1()
}
