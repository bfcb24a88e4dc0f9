//! What stands in the notebook: outputs are projected into it as they are appended to the log.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use outlive_core::id::{RunId, SessionId};
use outlive_core::log::fold::Effect;
use outlive_core::log::{BlobRef, Chunk, Entry, FencedBody, Record, RunRecord};
use outlive_core::session::Session;
use outlive_core::session::event::{NewRun, OnRaise};
use outlive_document::{Blobs, CellKey, CellKind, Notebook};
use outlive_protocol::http::Problem;

/// The blobs of a session, as files.
#[derive(Clone, Debug)]
pub struct BlobFolder(pub PathBuf);

impl Blobs for BlobFolder {
    fn read(&self, blob: &BlobRef) -> io::Result<Vec<u8>> {
        std::fs::read(self.0.join(&blob.sha256))
    }
}

/// The notebook of a session.
pub struct Document {
    session: SessionId,
    notebook: Notebook,
    cells: Vec<CellKey>,
    /// Cells of runs.
    runs: HashMap<RunId, usize>,
    blobs: BlobFolder,
}

impl Document {
    /// A notebook that was just opened or taken up.
    pub fn new(session: SessionId, notebook: Notebook, blobs: BlobFolder) -> Self {
        let cells = notebook.cells().map(|cell| cell.key().clone()).collect();
        Self { session, notebook, cells, runs: HashMap::new(), blobs }
    }

    /// The notebook as bytes of its file.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.notebook.to_bytes(&self.blobs)
    }

    /// What a person has written of it.
    pub fn sources(&self) -> Vec<(CellKind, String)> {
        sources(&self.notebook)
    }

    /// The place of a cell among all, from 0.
    ///
    /// # Errors
    /// `no-such-cell`.
    pub fn index_of(&self, cell: &str) -> Result<usize, Problem> {
        self.notebook.cells().position(|view| view.key().as_str() == cell).ok_or_else(|| {
            Problem::new(422, "no-such-cell", "No such cell", format!("the notebook has no cell {cell}"))
                .hint("read the notebook again: the cell may have been deleted")
        })
    }

    /// Runs for these cells (all code cells without a list), in order.
    ///
    /// # Errors
    /// The first index that is no code cell.
    pub fn runs_for(
        &self,
        which: Option<&[usize]>,
        tolerant: bool,
        mut id: impl FnMut() -> RunId,
    ) -> Result<Vec<NewRun>, usize> {
        let cells: Vec<_> = self.notebook.cells().collect();
        let run = |index: usize, id: RunId| {
            let cell = &cells[index];
            let on_raise = if tolerant || cell.may_raise() { OnRaise::GoOn } else { OnRaise::Stop };
            NewRun {
                id,
                cell: Some(index),
                cell_id: Some(cell.key().as_str().to_owned()),
                source: cell.source(),
                on_raise,
            }
        };
        match which {
            None => Ok(cells
                .iter()
                .filter(|cell| cell.kind() == CellKind::Code && !cell.source().trim().is_empty())
                .map(|cell| run(cell.index(), id()))
                .collect()),
            Some(indexes) => indexes
                .iter()
                .map(|index| match cells.get(*index).map(outlive_document::CellView::kind) {
                    Some(CellKind::Code) => Ok(run(*index, id())),
                    Some(_) | None => Err(*index),
                })
                .collect(),
        }
    }

    /// Projects a record that counts. `session` is the state after it. Says whether anything has changed.
    pub fn apply(&mut self, entry: &Entry, effect: &Effect, session: &Session) -> bool {
        let Record::Fenced(fenced) = &entry.record else { return false };
        match (&fenced.body, effect) {
            (FencedBody::Run(RunRecord::Open { .. }), Effect::Opened { run, base, .. }) => {
                self.open_run(*run, *base, session)
            }
            (FencedBody::Run(RunRecord::Data { chunks, .. }), Effect::Appended { run, first, skip, .. }) => {
                let new = chunks.iter().skip(usize::try_from(*skip).unwrap_or(usize::MAX));
                let mut seq = *first;
                for chunk in new {
                    self.project(*run, seq, chunk);
                    seq = seq.next();
                }
                true
            }
            (FencedBody::Run(RunRecord::End { outcome, report, .. }), Effect::Ended { run, .. }) => {
                self.notebook.finish_run(*run, outcome, report.as_deref()).is_ok()
            }
            (FencedBody::Runtime { origin: Some(run), chunks, .. }, Effect::Runtime) => {
                for chunk in chunks {
                    self.notebook.apply_late(*run, chunk, &self.blobs);
                }
                true
            }
            _ => false,
        }
    }

    fn open_run(&mut self, run: RunId, base: outlive_core::id::Seq, session: &Session) -> bool {
        if self.runs.contains_key(&run) {
            return self.notebook.truncate(run, base).is_ok();
        }
        let Some(index) = session.runs.get(&run).and_then(|run| run.new.cell) else { return false };
        let Some(key) = self.cells.get(index) else { return false };
        self.runs.insert(run, index);
        self.notebook.begin_run(key, run).is_ok()
    }

    fn project(&mut self, run: RunId, seq: outlive_core::id::Seq, chunk: &Chunk) {
        if !self.runs.contains_key(&run) {
            return;
        }
        if let Err(error) = self.notebook.apply_chunk(run, seq, chunk, &self.blobs) {
            tracing::error!(session = %self.session, %error, "an output does not fit into the notebook");
        }
    }
}

/// What a person has written of a notebook.
pub(super) fn sources(notebook: &Notebook) -> Vec<(CellKind, String)> {
    notebook.cells().map(|cell| (cell.kind(), cell.source())).collect()
}
