//! From the log of a run to the outputs of its cell.
//!
//! A run is a cell's while the cell has no newer one. What a cell showed before stays until the run shows something
//! or ends, so that a file saved meanwhile is no poorer than before. `\r` is kept as it is: whoever shows a text
//! folds it, as Jupyter's front ends do. Widgets' comm messages are not outputs and stay in the log only.
//!
//! The fold follows nbclient's: streams of one name in a row are one output; `clear_output(wait=True)` clears when
//! the next output comes; a display id updates its outputs in all cells.

mod failure;
mod output;
mod outputs;
mod shown;
mod text;

use std::collections::{HashMap, HashSet};
use std::io;

use outlive_core::diagnosis::FailureReport;
use outlive_core::id::{RunId, Seq};
use outlive_core::limits::NOTEBOOK_OUTPUT_BYTES_MAX;
use outlive_core::log::{BlobRef, Chunk, ChunkKind, Payload};
use outlive_core::session::{CancelWhy, RunOutcome};

use crate::cell::CellKey;
use crate::error::EditError;
use crate::json::{Json, Style};
use crate::notebook::Notebook;
pub(crate) use output::is_text;
use output::{Failure, Output, Rich, RichKind};
use outputs::Outputs;
pub(crate) use shown::{Content, Piece, RunShown, Shown, notice, size};
use text::StreamName;

/// Where the large payloads of a session are.
pub trait Blobs {
    /// The content of a blob.
    ///
    /// # Errors
    /// When it is not there or cannot be read.
    fn read(&self, blob: &BlobRef) -> io::Result<Vec<u8>>;
}

/// For notebooks whose outputs are all in the file.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoBlobs;

impl Blobs for NoBlobs {
    fn read(&self, _: &BlobRef) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// A chunk that cannot be projected where it comes. The notebook is as before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProjectionError {
    /// [`Notebook::begin_run`] was not called, or the cell has a newer run.
    #[error("run {0} is not the latest run of a cell of this notebook")]
    UnknownRun(RunId),
    /// A chunk is missing before this one: feed the run's chunks from `expected` on.
    #[error("chunk {got} of run {run} came where chunk {expected} should: feed it from there on")]
    OutOfOrder {
        /// The run.
        run: RunId,
        /// The chunk that comes next.
        expected: Seq,
        /// The chunk that came.
        got: Seq,
    },
}

/// What the runs of this process have put into the notebook.
#[derive(Clone, Debug, Default)]
pub(crate) struct Projection {
    runs: HashMap<RunId, RunState>,
    cells: HashMap<CellKey, CellRun>,
    /// Where the outputs of each display id are: cell and index. An output that goes takes its entry with it.
    displays: HashMap<String, Vec<(CellKey, usize)>>,
    /// Cells that may show something else than when this was last taken.
    touched: HashSet<CellKey>,
}

#[derive(Clone, Debug)]
struct RunState {
    cell: CellKey,
    applied: Seq,
}

/// The latest run of a cell.
#[derive(Clone, Debug)]
struct CellRun {
    run: RunId,
    /// What the cell shows until the run shows something.
    before: Option<Before>,
    /// The kernel's count, once it has begun to execute.
    count: Option<u64>,
    outputs: Outputs,
    goes_on: bool,
}

#[derive(Clone, Debug)]
enum Before {
    /// What stands in the file.
    File,
    /// What an earlier run put there.
    Run(Box<Outputs>, Option<u64>),
}

impl Notebook {
    /// A run of this cell begins (or is about to be replayed): its chunks come next, from 1.
    ///
    /// # Errors
    /// When there is no such cell.
    pub fn begin_run(&mut self, cell: &CellKey, run: RunId) -> Result<(), EditError> {
        self.ensure_output_fields(cell)?;
        self.projection.begin(cell.clone(), run);
        Ok(())
    }

    /// Adds a chunk of a run. One that was added before is ignored.
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
        let state = self.projection.runs.get_mut(&run).ok_or(ProjectionError::UnknownRun(run))?;
        if seq <= state.applied {
            return Ok(());
        }
        let expected = state.applied.next();
        if seq != expected {
            return Err(ProjectionError::OutOfOrder { run, expected, got: seq });
        }
        state.applied = seq;
        let cell = state.cell.clone();
        self.projection.apply(&cell, run, chunk, blobs);
        Ok(())
    }

    /// Adds output that a run made after its end, for instance a thread's print. Ignored when the cell has a newer
    /// run: the log keeps it.
    pub fn apply_late(&mut self, run: RunId, chunk: &Chunk, blobs: &dyn Blobs) {
        if let Some(state) = self.projection.runs.get(&run) {
            let cell = state.cell.clone();
            self.projection.apply(&cell, run, chunk, blobs);
        }
    }

    /// The run's output is cut back to `keep` chunks. Gives the last chunk that the projection still holds (`keep` or
    /// less): feed it the chunks after that.
    ///
    /// # Errors
    /// When the run is not a cell's latest.
    pub fn truncate(&mut self, run: RunId, keep: Seq) -> Result<Seq, ProjectionError> {
        let state = self.projection.runs.get_mut(&run).ok_or(ProjectionError::UnknownRun(run))?;
        if keep >= state.applied {
            return Ok(state.applied);
        }
        // Outputs that were cleared or updated cannot be brought back: begin anew.
        state.applied = Seq(0);
        let cell = state.cell.clone();
        self.projection.empty(&cell);
        Ok(Seq(0))
    }

    /// The run has ended. What its process died of is put into the cell as an `error` output.
    ///
    /// # Errors
    /// When the run is not a cell's latest.
    pub fn finish_run(
        &mut self,
        run: RunId,
        outcome: &RunOutcome,
        report: Option<&FailureReport>,
    ) -> Result<(), ProjectionError> {
        let cell = self.projection.runs.get(&run).ok_or(ProjectionError::UnknownRun(run))?.cell.clone();
        self.projection.finish(&cell, run, outcome, report);
        Ok(())
    }
}

impl Projection {
    fn begin(&mut self, cell: CellKey, run: RunId) {
        let before = match self.cells.remove(&cell) {
            None => Before::File,
            Some(CellRun { run: old, before, count, outputs, .. }) => {
                self.runs.remove(&old);
                self.drop_displays(&cell, &outputs);
                before.unwrap_or_else(|| Before::Run(Box::new(outputs), count))
            }
        };
        self.runs.insert(run, RunState { cell: cell.clone(), applied: Seq(0) });
        let outputs = Outputs::new(run);
        self.cells.insert(cell, CellRun { run, before: Some(before), count: None, outputs, goes_on: true });
    }

    /// Whether a run has put something into this cell, or is about to.
    pub fn has(&self, cell: &CellKey) -> bool {
        self.cells.contains_key(cell)
    }

    /// Whether the latest run of this cell has not ended.
    pub fn is_running(&self, cell: &CellKey) -> bool {
        self.cells.get(cell).is_some_and(|entry| entry.goes_on)
    }

    /// Takes away what a cell shows, and its count.
    pub fn clear(&mut self, cell: &CellKey) {
        self.empty(cell);
        if let Some(entry) = self.cells.get_mut(cell) {
            entry.count = None;
        }
    }

    /// Forgets a cell that is gone, or shows what its file says.
    pub fn forget(&mut self, cell: &CellKey) {
        self.touch(cell);
        if let Some(gone) = self.cells.remove(cell) {
            self.drop_displays(cell, &gone.outputs);
        }
    }

    /// Takes away all that the cell shows.
    fn empty(&mut self, cell: &CellKey) {
        self.touch(cell);
        if let Some(entry) = self.cells.get_mut(cell) {
            entry.before = None;
            let empty = Outputs::new(entry.run);
            let gone = std::mem::replace(&mut entry.outputs, empty);
            self.drop_displays(cell, &gone);
        }
    }

    fn drop_displays(&mut self, cell: &CellKey, gone: &Outputs) {
        for id in gone.display_ids() {
            if let Some(places) = self.displays.get_mut(id) {
                places.retain(|(place, _)| place != cell);
                if places.is_empty() {
                    self.displays.remove(id);
                }
            }
        }
    }

    fn apply(&mut self, cell: &CellKey, run: RunId, chunk: &Chunk, blobs: &dyn Blobs) {
        if self.cells.get(cell).is_none_or(|entry| entry.run != run) {
            return;
        }
        self.touch(cell);
        match chunk.kind {
            ChunkKind::Stdout => self.stream(cell, StreamName::Stdout, &chunk.payload, blobs),
            ChunkKind::Stderr => self.stream(cell, StreamName::Stderr, &chunk.payload, blobs),
            ChunkKind::DisplayData | ChunkKind::UpdateDisplayData | ChunkKind::ExecuteResult => {
                self.rich(cell, &chunk.kind, &chunk.payload, blobs);
            }
            ChunkKind::Error => match read_json(&chunk.payload, blobs) {
                Ok(content) => self.show(cell).push_failure(Failure::from_content(&content)),
                Err(problem) => self.notice(cell, &format!("an error message is missing here: {problem}")),
            },
            ChunkKind::ClearOutput => {
                let content = read_json(&chunk.payload, blobs).ok();
                let wait = content.and_then(|content| content.get("wait").cloned());
                if wait == Some(Json::Literal("true".into())) {
                    self.entry(cell).outputs.clear_at_next();
                } else {
                    self.empty(cell);
                }
            }
            ChunkKind::Started => {
                let content = read_json(&chunk.payload, blobs).ok();
                let count = content.and_then(|content| content.get("execution_count")?.to_value().as_u64());
                self.entry(cell).count = count;
            }
            ChunkKind::Gap => {
                let content = read_json(&chunk.payload, blobs).ok();
                let reason = content.as_ref().and_then(|content| content.get("reason")?.as_str());
                let reason = reason.unwrap_or("no reason was given");
                self.notice(cell, &format!("output was lost here: {reason}"));
            }
            // No cell makes those of a task.
            ChunkKind::InputRequest
            | ChunkKind::Other
            | ChunkKind::Text
            | ChunkKind::Json
            | ChunkKind::Bytes
            | ChunkKind::Progress
            | ChunkKind::Result => {}
        }
    }

    fn entry(&mut self, cell: &CellKey) -> &mut CellRun {
        self.cells.get_mut(cell).expect("apply has checked that the cell has a run")
    }

    /// The outputs of a cell that shows something now: what stood there before goes.
    fn show(&mut self, cell: &CellKey) -> &mut Outputs {
        if self.entry(cell).outputs.must_clear() {
            self.empty(cell);
        }
        let entry = self.entry(cell);
        entry.before = None;
        &mut entry.outputs
    }

    fn stream(&mut self, cell: &CellKey, name: StreamName, payload: &Payload, blobs: &dyn Blobs) {
        match read_bytes(payload, blobs) {
            Ok(bytes) if bytes.is_empty() => {}
            Ok(bytes) => self.show(cell).push_text(name, &bytes),
            Err(problem) => self.notice(cell, &format!("text is missing here: {problem}")),
        }
    }

    /// A remark of Outlive's own among the outputs.
    fn notice(&mut self, cell: &CellKey, text: &str) {
        self.show(cell).push_notice(text);
    }

    fn rich(&mut self, cell: &CellKey, kind: &ChunkKind, payload: &Payload, blobs: &dyn Blobs) {
        let mut content = match read_json(payload, blobs) {
            Ok(content) => content,
            Err(problem) => return self.notice(cell, &format!("an output is missing here: {problem}")),
        };
        let transient = content.take("transient");
        let id = transient.as_ref().and_then(|transient| transient.get("display_id")?.as_str());
        let count = content.take("execution_count").unwrap_or_else(Json::null);
        let rich = match payload {
            Payload::Inline(bytes) => Rich::inline(content, bytes.len()),
            Payload::Blob(blob) => Rich::blob(blob, &content),
        };
        if let Some(id) = id {
            self.update_displays(id, &rich);
        }
        let kind = match kind {
            ChunkKind::UpdateDisplayData => return,
            ChunkKind::ExecuteResult => RichKind::Result { count },
            _ => RichKind::Display,
        };
        let output = Output::Rich { kind, content: rich, display_id: id.map(str::to_owned), revision: 0 };
        let index = self.show(cell).push_rich(output);
        if let (Some(id), Some(index)) = (id, index) {
            self.displays.entry(id.to_owned()).or_default().push((cell.clone(), index));
        }
    }

    fn update_displays(&mut self, id: &str, rich: &Rich) {
        for (cell, index) in self.displays.get(id).into_iter().flatten() {
            if let Some(entry) = self.cells.get_mut(cell) {
                entry.outputs.update(*index, rich);
                self.touched.insert(cell.clone());
            }
        }
    }

    fn finish(&mut self, cell: &CellKey, run: RunId, outcome: &RunOutcome, report: Option<&FailureReport>) {
        self.touch(cell);
        let Some(entry) = self.cells.get_mut(cell).filter(|entry| entry.run == run) else { return };
        entry.goes_on = false;
        let never_began = entry.before.is_some() && entry.count.is_none();
        if never_began && matches!(outcome, RunOutcome::Cancelled { .. }) {
            // Nothing of it was run: the cell shows what it showed.
            match entry.before.take() {
                Some(Before::Run(outputs, count)) => (entry.outputs, entry.count) = (*outputs, count),
                _ => drop(self.cells.remove(cell)),
            }
            return;
        }
        entry.before = None;
        entry.outputs.end_text();
        let failure = match outcome {
            RunOutcome::Succeeded | RunOutcome::Raised { .. } | RunOutcome::Unserved { .. } => return,
            RunOutcome::Failed { code, summary, .. } => failure::died(run, *code, summary, report),
            RunOutcome::TimedOut { limit_ms } => failure::timed_out(*limit_ms),
            RunOutcome::Cancelled { why } => match why {
                CancelWhy::User => failure::cancelled("somebody cancelled it while it ran"),
                CancelWhy::EarlierFailure => failure::cancelled("a cell before it failed"),
                CancelWhy::Interrupted => failure::cancelled("it was interrupted"),
                CancelWhy::Stopped => failure::cancelled("its kernel was stopped while it ran"),
                CancelWhy::NodeDrained => {
                    failure::cancelled("its node gave the notebook to another while it ran")
                }
            },
        };
        self.show(cell).push_failure(failure);
    }

    /// Writes `outputs` or `execution_count` of a cell. Gives false when the file's text stands.
    pub fn write_field(
        &self,
        out: &mut String,
        cell: &CellKey,
        field: &str,
        style: &Style,
        blobs: &dyn Blobs,
    ) -> bool {
        if !matches!(field, "outputs" | "execution_count") {
            return false;
        }
        let Some(entry) = self.cells.get(cell) else { return false };
        let (outputs, count) = match &entry.before {
            None => (Some(&entry.outputs), Some(entry.count)),
            Some(Before::File) => (None, entry.count.map(Some)),
            Some(Before::Run(outputs, count)) => (Some(&**outputs), Some(entry.count.or(*count))),
        };
        match (field, outputs, count) {
            ("outputs", Some(outputs), _) => outputs.write(out, style, blobs),
            ("execution_count", _, Some(None)) => out.push_str("null"),
            ("execution_count", _, Some(Some(count))) => out.push_str(&count.to_string()),
            _ => return false,
        }
        true
    }
}

/// A payload's bytes, or a text that says why there are none.
fn read_bytes<'a>(payload: &'a Payload, blobs: &dyn Blobs) -> Result<std::borrow::Cow<'a, [u8]>, String> {
    match payload {
        Payload::Inline(bytes) => Ok(bytes[..].into()),
        Payload::Blob(blob) if blob.size > NOTEBOOK_OUTPUT_BYTES_MAX => Err(format!(
            "it has {}, and a notebook file takes {} of one output at most",
            text::size(blob.size),
            text::size(NOTEBOOK_OUTPUT_BYTES_MAX),
        )),
        Payload::Blob(blob) => match blobs.read(blob) {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) => Err(format!(
                "its {} could not be read from blob {}: {error}",
                text::size(blob.size),
                blob.sha256
            )),
        },
    }
}

fn read_json(payload: &Payload, blobs: &dyn Blobs) -> Result<Json, String> {
    let bytes = read_bytes(payload, blobs)?;
    let text = String::from_utf8_lossy(&bytes);
    Json::parse(&text)
        .map_err(|error| format!("the kernel's message is not JSON: {} at byte {}", error.what, error.at))
}
