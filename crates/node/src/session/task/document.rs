//! What people and programs ask of the notebook's content, and how each change of it goes: into the log, then to all who
//! edit it live.

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use outlive_core::limits::RUNS_TRIMMED_AT_ONCE;
use outlive_core::session::state::Life;
use outlive_document::live::{ApplyError, CellContent, Edit, Place};
use outlive_document::{CellKey, CellKind, EditError, Notebook};
use outlive_protocol::http::{
    CellEdit, CellKindName, CellView, EditNotebook, Edited, NotebookView, Problem, Where, base64,
};
use outlive_store::Durability;

use super::super::handle::{Answer, DocumentAsk, Peer, denied};
use super::super::journal::WriteError;
use super::super::notebook::document::{Kept, no_such_cell};
use super::super::notebook::record::{Beside, DocumentRecord};
use super::super::notebook::restore::{self, YJS};
use super::super::notebook::{Document, shorten};
use super::super::peers::PeerId;
use super::Task;
use crate::{problem, trust};

/// A change of the shared document, with the peer that made it.
pub(super) type Change = (Option<PeerId>, Vec<u8>);

impl Task {
    pub(super) async fn asked_document(
        &mut self,
        ask: DocumentAsk,
    ) -> Result<Result<Answer, Problem>, WriteError> {
        let Some(plane) = &mut self.notebook else {
            return Ok(Err(denied(self.session.spec.id, &outlive_core::session::Denied::NoNotebook)));
        };
        match ask {
            DocumentAsk::Read { outputs } => {
                let (session_id, path) = (self.session.spec.id, self.session.path.clone());
                let content = plane.document.read(outputs);
                let cells =
                    content.cells.into_iter().map(|cell| view(&plane.document, cell, outputs)).collect();
                let state_vector = base64(&plane.document.live().state_vector());
                let metadata = content.metadata;
                Ok(Ok(Answer::Notebook(Box::new(NotebookView {
                    session_id,
                    path,
                    state_vector,
                    metadata,
                    cells,
                }))))
            }
            DocumentAsk::Outputs(cell) => {
                Ok(plane.document.outputs(&cell).map(Answer::Outputs).ok_or_else(|| no_such_cell(&cell)))
            }
            DocumentAsk::Edit(edits) => self.edit(edits).await,
            DocumentAsk::Join => self.join().await,
        }
    }

    /// Whether what is edited now will still be somewhere. Closing a notebook with a file saves it once more; one
    /// without a file was asked for what nobody has saved before, and not again.
    pub(super) fn takes_edits(&self) -> Result<(), Problem> {
        let is_open = matches!(self.session.life, Life::Open);
        if is_open || self.session.path.is_some() {
            return Ok(());
        }
        Err(problem::closing_untitled(self.session.spec.id))
    }

    async fn edit(&mut self, edits: EditNotebook) -> Result<Result<Answer, Problem>, WriteError> {
        if let Err(problem) = self.takes_edits() {
            return Ok(Err(problem));
        }
        self.share().await?;
        let Some(plane) = &mut self.notebook else { return Ok(Err(gone())) };
        let edits = match to_edits(plane.document.notebook(), edits) {
            Ok(edits) => edits,
            Err(problem) => return Ok(Err(problem)),
        };
        let edited = match plane.document.live().edit(&edits) {
            Ok(edited) => edited,
            Err(error) => return Ok(Err(not_edited(&error))),
        };
        if let Some(update) = edited.update {
            // Whoever asked is answered when a loss of power cannot take it any more.
            self.changed(vec![(None, update)], Durability::Synced).await?;
        }
        let Some(plane) = &mut self.notebook else { return Ok(Err(gone())) };
        let cells = edited.cells.into_iter().map(|cell| cell.map(|cell| cell.as_str().to_owned()));
        Ok(Ok(Answer::Edited(Edited {
            cells: cells.map(Option::unwrap_or_default).collect(),
            state_vector: base64(&plane.document.live().state_vector()),
        })))
    }

    async fn join(&mut self) -> Result<Result<Answer, Problem>, WriteError> {
        self.share().await?;
        self.project_outputs().await?;
        let attendance = Peer::attach(std::sync::Arc::clone(&self.peers), false);
        let Some(plane) = &mut self.notebook else { return Ok(Err(gone())) };
        let joined = plane.peers.join(attendance);
        let (id, peer) = match joined {
            Ok(joined) => joined,
            Err(problem) => return Ok(Err(problem)),
        };
        plane.welcome(id);
        self.show();
        Ok(Ok(Answer::Joined(peer)))
    }

    /// Makes the shared document if there is none yet. It is in the log before anything is made of it.
    pub(super) async fn share(&mut self) -> Result<(), WriteError> {
        let Some(plane) = &mut self.notebook else { return Ok(()) };
        let Some(state) = plane.document.live().share() else { return Ok(()) };
        let kept = plane.document.kept();
        plane.document.keep(Kept { state_bytes: state.len() as u64, update_bytes: 0, ..kept });
        plane.file.edited();
        let record = if DocumentRecord::fits(state.len(), 1) {
            DocumentRecord::State(state)
        } else {
            DocumentRecord::Beside(Beside::State, self.journal.beside(&state, YJS).await?)
        };
        self.journal.document(record.encode()).await?;
        Ok(())
    }

    /// The shared document was changed: into the log, then to everybody but the one who made the change.
    pub(super) async fn changed(
        &mut self,
        changes: Vec<Change>,
        durability: Durability,
    ) -> Result<(), WriteError> {
        self.write_changes(&changes, durability).await?;
        let now = self.context.clock.now().tick;
        let Some(plane) = &mut self.notebook else { return Ok(()) };
        plane.file.changed(now);
        plane.relay(&changes);
        Ok(())
    }

    /// In as few records as they fit.
    async fn write_changes(&mut self, changes: &[Change], durability: Durability) -> Result<(), WriteError> {
        let mut together: Vec<Vec<u8>> = Vec::new();
        let mut bytes = 0;
        for (_, update) in changes {
            if let Some(plane) = &mut self.notebook {
                plane.document.journaled(update.len());
            }
            if !DocumentRecord::fits(bytes + update.len(), together.len() + 1) && !together.is_empty() {
                let record = DocumentRecord::Updates(std::mem::take(&mut together));
                self.journal.update(record.encode(), durability).await?;
                bytes = 0;
            }
            if DocumentRecord::fits(update.len(), 1) {
                bytes += update.len();
                together.push(update.clone());
            } else {
                let blob = self.journal.beside(update, YJS).await?;
                let record = DocumentRecord::Beside(Beside::Update, blob);
                self.journal.update(record.encode(), durability).await?;
            }
        }
        if !together.is_empty() {
            self.journal.update(DocumentRecord::Updates(together).encode(), durability).await?;
        }
        Ok(())
    }

    /// Brings what runs have made into the shared document, if there is one.
    pub(super) async fn project_outputs(&mut self) -> Result<(), WriteError> {
        let now = self.context.clock.now().tick;
        let Some(plane) = &mut self.notebook else { return Ok(()) };
        plane.projected_at = now;
        let Some(update) = plane.document.live().project() else { return Ok(()) };
        let changes = vec![(None, update)];
        self.write_changes(&changes, Durability::Written).await?;
        if let Some(plane) = &mut self.notebook {
            plane.relay(&changes);
        }
        Ok(())
    }

    /// Takes over what another program has made of the file.
    pub(super) async fn merge_document(&mut self, theirs: Notebook) -> Result<(), WriteError> {
        let Some(plane) = &mut self.notebook else { return Ok(()) };
        let (before, said) = (plane.document.trust_key(), trust::key(&theirs));
        let rebased = plane.document.live().rebase(theirs);
        for conflict in &rebased.conflicts {
            tracing::warn!(session = %self.session.spec.id, ?conflict, "both sides have changed a cell: both are kept");
        }
        self.vouched_for(&before, &said).await?;
        // Their outputs are in no run's log, and without a shared document nothing of theirs is. With it goes what is
        // compared with from now on: a crash in between would make conflicts of what was merged already.
        let kept = self.all_that_runs_did();
        let changes = rebased.update.into_iter().map(|update| (None, update)).collect();
        self.snapshot(kept, changes).await
    }

    /// A new snapshot where the updates since the last take too much, or where many runs are forgotten: what they have put
    /// into the notebook stands in it for good, and they leave the log. Not while the file is written: the log says that
    /// it is.
    pub(super) async fn compact(&mut self) -> Result<(), WriteError> {
        let forgets = self.forgotten.len() >= RUNS_TRIMMED_AT_ONCE;
        if let Some(plane) = &self.notebook {
            if plane.file.is_working() || !(forgets || plane.document.is_long()) {
                return Ok(());
            }
            let kept = if forgets { self.all_that_runs_did() } else { plane.document.kept() };
            self.snapshot(kept, Vec::new()).await?;
        }
        if forgets { self.trim_runs().await } else { Ok(()) }
    }

    /// All that runs have done up to now is in the notebook for good, but for the one that goes on.
    fn all_that_runs_did(&self) -> Kept {
        Kept { through: self.journal.position(), but: self.session.running, ..Kept::default() }
    }

    /// Forgotten runs leave the log, beside this task: parts of it are written anew.
    async fn trim_runs(&mut self) -> Result<(), WriteError> {
        let runs = std::mem::take(&mut self.forgotten);
        let trimming = self.journal.forget_runs(runs, &[self.session.process()]).await?;
        self.context.tasks.spawn(trimming);
        Ok(())
    }

    /// Writes all that stands in the notebook into the log at once, and forgets what came before. `kept` says which runs
    /// it stands for; `changes` are in no record of their own.
    async fn snapshot(&mut self, kept: Kept, mut changes: Vec<Change>) -> Result<(), WriteError> {
        let former = self.journal.list_beside().await;
        let Some(plane) = &mut self.notebook else { return Ok(()) };
        changes.extend(plane.document.live().project().map(|update| (None, update)));
        let file = plane.file.stamp().cloned();
        let path = plane.file.path().map(|path| path.display().to_string());
        let base = plane.document.live().base();
        let document = &mut plane.document;
        let written = restore::snapshot(&mut self.journal, document, kept, (file, path), Some(&base)).await;
        let entry = written?;
        plane.relay(&changes);
        self.journal.trim_document(entry.position).await;
        self.context.tasks.spawn(self.journal.remove_replaced(former));
        Ok(())
    }
}

fn gone() -> Problem {
    crate::problem::internal("the notebook is gone")
}

fn view(document: &Document, cell: CellContent, outputs: bool) -> CellView {
    let (state, run) = document.doing(&cell.id);
    CellView {
        kind: kind_name(cell.kind),
        source: cell.source,
        metadata: cell.metadata,
        execution_count: cell.execution_count,
        state,
        run,
        outputs: outputs.then(|| shorten::outputs(cell.id.as_str(), cell.outputs)),
        id: cell.id.as_str().to_owned(),
    }
}

fn kind_name(kind: CellKind) -> CellKindName {
    match kind {
        CellKind::Code => CellKindName::Code,
        CellKind::Markdown => CellKindName::Markdown,
        CellKind::Raw => CellKindName::Raw,
        CellKind::Unknown => CellKindName::Unknown,
    }
}

/// Edits as the document takes them. An id that is taken is drawn instead.
fn to_edits(notebook: &Notebook, edits: EditNotebook) -> Result<Vec<Edit>, Problem> {
    let mut taken: HashSet<String> = HashSet::new();
    let mut all = Vec::with_capacity(edits.edits.len());
    for edit in edits.edits {
        all.push(match edit {
            CellEdit::Insert { at, kind, source, id } => {
                let id = id.filter(|id| {
                    notebook.cell(&CellKey::new(id.clone())).is_none() && taken.insert(id.clone())
                });
                Edit::Insert {
                    at: place(at),
                    kind: to_kind(kind)?,
                    source,
                    id,
                    metadata: serde_json::Map::new(),
                }
            }
            CellEdit::SetSource { cell, source, expected } => {
                Edit::SetSource { cell: CellKey::new(cell), source, expected }
            }
            CellEdit::Delete { cell } => Edit::Delete { cell: CellKey::new(cell) },
            CellEdit::Move { cell, at } => Edit::Move { cell: CellKey::new(cell), at: place(at) },
            CellEdit::SetKind { cell, kind } => {
                Edit::SetKind { cell: CellKey::new(cell), kind: to_kind(kind)? }
            }
            CellEdit::SetMetadata { cell, key, value } => {
                let value = Some(value).filter(|value| !value.is_null());
                Edit::SetMetadata { cell: cell.map(CellKey::new), key, value }
            }
            CellEdit::ClearOutputs { cell } => Edit::ClearOutputs { cell: cell.map(CellKey::new) },
        });
    }
    Ok(all)
}

fn place(at: Where) -> Place {
    match at {
        Where::End => Place::End,
        Where::Index(index) => Place::Index(index),
        Where::After(cell) => Place::After(CellKey::new(cell)),
    }
}

fn to_kind(kind: CellKindName) -> Result<CellKind, Problem> {
    match kind {
        CellKindName::Code => Ok(CellKind::Code),
        CellKindName::Markdown => Ok(CellKind::Markdown),
        CellKindName::Raw => Ok(CellKind::Raw),
        CellKindName::Unknown => {
            Err(bad_edit("a cell can be `code`, `markdown` or `raw`; this kind is unknown here".to_owned()))
        }
    }
}

fn bad_edit(detail: String) -> Problem {
    Problem::new(422, "bad-edit", "The notebook cannot be edited so", detail)
        .hint("nothing was changed; read the notebook again")
}

fn not_edited(error: &EditError) -> Problem {
    match error {
        EditError::NoSuchCell(cell) => no_such_cell(cell.as_str()),
        EditError::SourceDiffers { cell, present } => {
            Problem::new(409, "cell-changed", "The cell was changed by somebody else", error.to_string())
                .hint("nothing was changed; the cell's present source comes with this answer")
                .fact("cell", cell.as_str())
                .fact("source", present.clone())
        }
        error => bad_edit(error.to_string()),
    }
}

/// Why a peer whose update was not taken is let go.
pub(super) fn refused(error: &ApplyError) -> Problem {
    let (code, title) = match error {
        ApplyError::TooFarAhead { .. } => ("edits-missing", "Edits before it are missing"),
        ApplyError::Forged(_) | ApplyError::Broken { .. } | ApplyError::NotShared => {
            ("forged-update", "The update is not valid")
        }
    };
    Problem::new(422, code, title, error.to_string()).hint(
        "join again with the notebook as it is now; what was edited there and not taken must be done again",
    )
}
