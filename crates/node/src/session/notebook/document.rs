//! What stands in the notebook: people's edits, and the outputs of runs, which are projected into it as they are
//! appended to the log.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use outlive_core::id::{Position, RunId, Seq, SessionId};
use outlive_core::limits::DOCUMENT_COMPACT_BYTES_MIN;
use outlive_core::log::fold::Effect;
use outlive_core::log::{BlobRef, Chunk, Entry, FencedBody, Record, RunRecord};
use outlive_core::session::Session;
use outlive_core::session::event::{Happened, NewRun, OnRaise};
use outlive_document::live::{Live, NotebookContent, Running};
use outlive_document::{Blobs, CellKey, CellKind, Notebook, ProjectionError};
use outlive_protocol::http::{CellState, Problem};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::hex;
use crate::trust::{self, TrustKey};

/// The blobs of a session, as files.
#[derive(Clone, Debug)]
pub struct BlobFolder(pub PathBuf);

impl Blobs for BlobFolder {
    fn read(&self, blob: &BlobRef) -> io::Result<Vec<u8>> {
        let content = std::fs::read(self.0.join(&blob.sha256))?;
        if content.len() as u64 == blob.size && hex(&Sha256::digest(&content)) == blob.sha256 {
            return Ok(content);
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "what is kept there is damaged: it does not fit its name",
        ))
    }
}

impl BlobFolder {
    /// Puts what does not fit its name aside, so that the same content can be put again.
    pub fn put_damaged_aside(&self, blobs: &[BlobRef]) {
        for blob in blobs {
            if self.read(blob).is_err_and(|error| error.kind() == io::ErrorKind::InvalidData) {
                let place = self.0.join(&blob.sha256);
                let aside = place.with_extension("damaged");
                if let Err(error) = std::fs::rename(&place, aside) {
                    tracing::warn!(sha256 = blob.sha256, %error, "a damaged blob is not put aside");
                }
            }
        }
    }
}

/// The notebook of a session.
pub struct Document {
    session: SessionId,
    live: Live,
    /// The cells as they were when the notebook was opened: earlier versions knew a run's cell by its index there.
    opened: Vec<CellKey>,
    /// The cells of the runs whose outputs are projected.
    projected: HashMap<RunId, CellKey>,
    cells: HashMap<CellKey, CellRuns>,
    kept: Kept,
    blobs: BlobFolder,
}

/// The runs of one cell.
#[derive(Clone, Copy, Debug, Default)]
struct CellRuns {
    /// The one that was begun last.
    last: Option<RunId>,
    running: Option<RunId>,
    waiting: Option<RunId>,
}

/// What of the notebook is in the log's snapshot already.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept {
    /// What runs did that were opened up to here is in the snapshot for good.
    pub through: Position,
    /// But for this one, which went on.
    pub but: Option<RunId>,
    /// How large the shared document was in the last snapshot, in bytes.
    pub state_bytes: u64,
    /// How much the updates since then take, in bytes.
    pub update_bytes: u64,
}

/// Which cells are to be run.
#[derive(Clone, Copy, Debug)]
pub enum Which<'a> {
    /// All code cells that are not empty.
    All,
    /// By place among all cells, from 0.
    Indexes(&'a [usize]),
    /// By id.
    Ids(&'a [String]),
}

impl Document {
    /// A notebook that was just opened.
    pub fn new(session: SessionId, notebook: Notebook, blobs: BlobFolder) -> Self {
        let opened = notebook.cells().map(|cell| cell.key().clone()).collect();
        Self::taken_up(session, Live::new(notebook), opened, Kept::default(), blobs)
    }

    /// A notebook that was restored from its log; its runs are to be applied again.
    pub fn taken_up(
        session: SessionId,
        live: Live,
        opened: Vec<CellKey>,
        kept: Kept,
        blobs: BlobFolder,
    ) -> Self {
        Self { session, live, opened, projected: HashMap::new(), cells: HashMap::new(), kept, blobs }
    }

    /// The document that people edit. What it gives to be journaled goes through the session's task.
    pub fn live(&mut self) -> &mut Live {
        &mut self.live
    }

    /// Whether it has a shared document.
    pub fn is_shared(&self) -> bool {
        self.live.is_shared()
    }

    /// The same to look at.
    pub fn notebook(&mut self) -> &Notebook {
        self.live.notebook()
    }

    /// Where its large outputs are.
    pub fn blobs(&self) -> &BlobFolder {
        &self.blobs
    }

    /// The whole notebook as plain data, with or without outputs.
    pub fn read(&mut self, outputs: bool) -> NotebookContent {
        self.live.read(outputs, &self.blobs)
    }

    /// The outputs of a cell; `None` when there is no such cell.
    pub fn outputs(&mut self, cell: &str) -> Option<Vec<Value>> {
        let content = self.live.read_cell(&CellKey::new(cell), true, &self.blobs)?;
        Some(content.outputs)
    }

    /// The notebook as bytes of its file.
    #[expect(
        clippy::wrong_self_convention,
        reason = "what the shared document says is brought into it first"
    )]
    pub fn to_bytes(&mut self) -> Vec<u8> {
        self.live.to_bytes(&self.blobs)
    }

    /// What a person has written of it.
    pub fn sources(&mut self) -> Vec<(CellKind, String)> {
        sources(self.live.notebook())
    }

    /// What of it is in the log's snapshot.
    pub fn kept(&self) -> Kept {
        self.kept
    }

    /// There is a new snapshot.
    pub fn keep(&mut self, kept: Kept) {
        self.kept = kept;
    }

    /// So many bytes of updates were journaled.
    pub fn journaled(&mut self, bytes: usize) {
        self.kept.update_bytes += bytes as u64;
    }

    /// Whether its updates take so much that there should be a new snapshot.
    pub fn is_long(&self) -> bool {
        self.kept.update_bytes > DOCUMENT_COMPACT_BYTES_MIN.max(2 * self.kept.state_bytes)
    }

    /// What [`Self::to_bytes`] gives now is about to be written to the file.
    pub fn rendered(&mut self) {
        self.live.rendered();
    }

    /// What was rendered last is in the file.
    pub fn saved(&mut self) {
        self.live.saved();
    }

    /// By what the notebook is known again as trusted.
    pub fn trust_key(&mut self) -> TrustKey {
        trust::key(self.live.notebook())
    }

    /// Whether a cell runs or waits, and its last run.
    pub fn doing(&self, cell: &CellKey) -> (CellState, Option<RunId>) {
        let runs = self.cells.get(cell).copied().unwrap_or_default();
        let state = match runs.now() {
            Running::Idle => CellState::Idle,
            Running::Queued => CellState::Queued,
            Running::Running => CellState::Running,
        };
        (state, runs.last)
    }

    /// Runs for these cells, in order, with their sources as they are now.
    ///
    /// # Errors
    /// `no-such-cell`.
    pub fn runs_for(
        &mut self,
        which: Which<'_>,
        tolerant: bool,
        mut id: impl FnMut() -> RunId,
    ) -> Result<Vec<NewRun>, Problem> {
        let cells: Vec<_> = self.live.notebook().cells().collect();
        let run = |index: usize, id: RunId| {
            let cell = &cells[index];
            let on_raise = if tolerant || cell.may_raise() { OnRaise::GoOn } else { OnRaise::Stop };
            let cell_id = Some(cell.key().as_str().to_owned());
            NewRun { id, cell: Some(index), cell_id, source: cell.source(), on_raise }
        };
        let is_code = |index: usize| cells.get(index).is_some_and(|cell| cell.kind() == CellKind::Code);
        match which {
            Which::All => Ok((0..cells.len())
                .filter(|index| is_code(*index) && !cells[*index].source().trim().is_empty())
                .map(|index| run(index, id()))
                .collect()),
            Which::Indexes(indexes) => {
                let run = |index: &usize| {
                    is_code(*index).then(|| run(*index, id())).ok_or_else(|| no_such_place(*index))
                };
                indexes.iter().map(run).collect()
            }
            Which::Ids(ids) => {
                let places: HashMap<&str, usize> =
                    cells.iter().map(|cell| (cell.key().as_str(), cell.index())).collect();
                let run = |cell: &String| match places.get(cell.as_str()) {
                    Some(index) if is_code(*index) => Ok(run(*index, id())),
                    Some(_) => Err(no_code(cell)),
                    None => Err(no_such_cell(cell)),
                };
                ids.iter().map(run).collect()
            }
        }
    }

    /// Notes what waits and what runs.
    pub fn take_stock(&mut self, session: &Session) {
        for run in session.queue.iter().filter_map(|run| session.runs.get(run)) {
            self.queued(&run.new);
        }
    }

    /// Takes in a record that counts. `session` is the state after it. Says whether the file would be another one.
    pub fn apply(&mut self, entry: &Entry, effect: &Effect, session: &Session) -> bool {
        let Record::Fenced(fenced) = &entry.record else { return false };
        match (&fenced.body, effect) {
            (FencedBody::Journal(events), _) => {
                for event in events {
                    match &event.what {
                        Happened::RunsQueued(runs) => runs.iter().for_each(|run| self.queued(run)),
                        Happened::RunsQueuedInParts { is_last: true, .. } => self.take_stock(session),
                        Happened::RunsForgotten { runs, .. } => self.forget(runs),
                        Happened::RunWaitsAgain { run } => {
                            self.ended(*run, session);
                            session.runs.get(run).into_iter().for_each(|run| self.queued(&run.new));
                        }
                        _ => {}
                    }
                }
                false
            }
            (FencedBody::Run(RunRecord::Open { .. }), Effect::Opened { run, base, .. }) => {
                self.begun(*run, *base, entry.position, session)
            }
            (FencedBody::Run(RunRecord::Data { chunks, .. }), Effect::Appended { run, first, skip, .. }) => {
                if !self.projected.contains_key(run) {
                    return false;
                }
                let new = chunks.iter().skip(usize::try_from(*skip).unwrap_or(usize::MAX));
                let mut seq = *first;
                for chunk in new {
                    self.project(*run, seq, chunk);
                    seq = seq.next();
                }
                self.projected.contains_key(run)
            }
            (FencedBody::Run(RunRecord::End { outcome, report, .. }), Effect::Ended { run, .. }) => {
                self.ended(*run, session);
                self.projected.contains_key(run)
                    && self.live.finish_run(*run, outcome, report.as_deref()).is_ok()
            }
            (FencedBody::Runtime { origin: Some(run), chunks, .. }, Effect::Runtime) => {
                for chunk in chunks {
                    self.live.apply_late(*run, chunk, &self.blobs);
                }
                self.projected.contains_key(run)
            }
            _ => false,
        }
    }

    fn cell_of(&self, run: &NewRun) -> Option<CellKey> {
        match (&run.cell_id, run.cell) {
            (Some(id), _) => Some(CellKey::new(id.clone())),
            (None, Some(index)) => self.opened.get(index).cloned(),
            (None, None) => None,
        }
    }

    fn queued(&mut self, run: &NewRun) {
        if let Some(cell) = self.cell_of(run) {
            self.does(&cell, |runs| runs.waiting = Some(run.id));
        }
    }

    fn begun(&mut self, run: RunId, base: Seq, at: Position, session: &Session) -> bool {
        let Some(cell) = session.runs.get(&run).and_then(|run| self.cell_of(&run.new)) else { return false };
        self.does(&cell, |runs| {
            runs.waiting = runs.waiting.filter(|waiting| *waiting != run);
            runs.running = Some(run);
            runs.last = Some(run);
        });
        if self.projected.contains_key(&run) {
            return self.live.truncate(run, base).is_ok();
        }
        if at <= self.kept.through && self.kept.but != Some(run) {
            return false;
        }
        // A cell that was deleted: its output is in the log alone.
        if self.live.begin_run(&cell, run).is_err() {
            return false;
        }
        self.projected.insert(run, cell);
        true
    }

    fn ended(&mut self, run: RunId, session: &Session) {
        let Some(cell) = session.runs.get(&run).and_then(|run| self.cell_of(&run.new)) else { return };
        self.does(&cell, |runs| {
            runs.waiting = runs.waiting.filter(|waiting| *waiting != run);
            runs.running = runs.running.filter(|running| *running != run);
        });
    }

    /// Of a run whose end has left the log, nothing is known but that it was queued.
    fn forget(&mut self, runs: &[RunId]) {
        let is_forgotten = |run: &RunId| runs.contains(run);
        self.projected.retain(|run, _| !is_forgotten(run));
        let had =
            |runs: &CellRuns| [runs.last, runs.waiting, runs.running].iter().flatten().any(is_forgotten);
        let cells = self.cells.iter().filter(|(_, runs)| had(runs)).map(|(cell, _)| cell.clone());
        for cell in cells.collect::<Vec<_>>() {
            self.does(&cell, |runs| {
                runs.last = runs.last.filter(|run| !is_forgotten(run));
                runs.waiting = runs.waiting.filter(|run| !is_forgotten(run));
                runs.running = runs.running.filter(|run| !is_forgotten(run));
            });
        }
    }

    fn does(&mut self, cell: &CellKey, change: impl FnOnce(&mut CellRuns)) {
        let runs = self.cells.entry(cell.clone()).or_default();
        change(runs);
        let now = runs.now();
        self.live.set_running(cell, now);
    }

    fn project(&mut self, run: RunId, seq: Seq, chunk: &Chunk) {
        match self.live.apply_chunk(run, seq, chunk, &self.blobs) {
            Ok(()) => {}
            // Its cell was deleted: the output is in the log alone.
            Err(ProjectionError::UnknownRun(_)) => drop(self.projected.remove(&run)),
            Err(error @ ProjectionError::OutOfOrder { .. }) => {
                tracing::error!(session = %self.session, %error, "an output does not fit into the notebook");
            }
        }
    }
}

impl CellRuns {
    fn now(self) -> Running {
        match self {
            Self { running: Some(_), .. } => Running::Running,
            Self { waiting: Some(_), .. } => Running::Queued,
            Self { .. } => Running::Idle,
        }
    }
}

/// What a person has written of a notebook.
pub(super) fn sources(notebook: &Notebook) -> Vec<(CellKind, String)> {
    notebook.cells().map(|cell| (cell.kind(), cell.source())).collect()
}

/// No cell has this id.
pub fn no_such_cell(cell: &str) -> Problem {
    Problem::new(422, "no-such-cell", "No such cell", format!("the notebook has no cell {cell}"))
        .hint("read the notebook again: the cell may have been deleted")
        .fact("cell", cell)
}

fn no_code(cell: &str) -> Problem {
    Problem::new(422, "no-such-cell", "No such code cell", format!("cell {cell} is text and cannot be run"))
        .hint("make it a code cell first, or run another one")
        .fact("cell", cell)
}

fn no_such_place(index: usize) -> Problem {
    let detail = format!("cell {index} is no code cell of the notebook");
    Problem::new(422, "no-such-cell", "No such code cell", detail)
        .hint("cells are counted from 0, text cells included")
        .fact("cell", index.to_string())
}
