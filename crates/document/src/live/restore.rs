//! The same notebook again, from what was journaled.

use super::Live;
use super::apply::ApplyError;
use super::base::Base;
use super::guard::Origin;
use super::mirror;
use super::project;
use super::reconcile::file_outputs;
use super::schema::{self, COUNT, RUN_STATE};
use super::ydoc::Shared;
use crate::notebook::Notebook;
use yrs::{Any, Map};

/// A journaled update that cannot be applied: the log does not hold what was written to it.
#[derive(Debug, thiserror::Error)]
#[error("update {number} of the journal of the live document cannot be applied")]
pub struct RestoreError {
    /// Which one, from 1.
    pub number: u64,
    /// Why.
    #[source]
    pub source: ApplyError,
}

/// A [`Live`] that is being made again. Feed it what was journaled, in the order of the log; then [`Restoring::finish`],
/// and replay the runs.
#[derive(Debug)]
pub struct Restoring {
    live: Live,
    updates: u64,
}

impl Restoring {
    pub(super) fn new(notebook: Notebook) -> Self {
        Self { live: Live::new(notebook), updates: 0 }
    }

    /// An update or a state that was journaled.
    ///
    /// # Errors
    /// When it is damaged. What came before it stands.
    pub fn update(&mut self, update: &[u8]) -> Result<(), RestoreError> {
        self.updates += 1;
        let number = self.updates;
        if self.live.shared.is_none() {
            self.live.shared = Some(Shared::empty());
        }
        let (_, absorbed) =
            self.live.take_in(update, Origin::Journal).map_err(|source| RestoreError { number, source })?;
        self.live.overwrite(&absorbed.outputs);
        Ok(())
    }

    /// The notebook was rendered here to be written to its file.
    pub fn rendered(&mut self) {
        self.live.rendered();
    }

    /// What was rendered last was in the file here.
    pub fn saved(&mut self) {
        self.live.saved();
    }

    /// What [`Live::base`] gave here.
    ///
    /// # Errors
    /// When it did not give this. The notebook is compared with itself as it was in the beginning then.
    pub fn base(&mut self, base: &[u8]) -> serde_json::Result<()> {
        self.live.base = serde_json::from_slice::<Base>(base)?;
        Ok(())
    }

    /// What has come of it. Replay the runs, then [`Live::project`]: it also mends what a daemon that died had no time
    /// to mend.
    #[must_use]
    pub fn finish(mut self) -> Live {
        self.live.reconcile();
        let Live { shared, notebook, cleared, .. } = &mut self.live;
        if let Some(shared) = shared {
            shared.is_mended = false;
            let txn = shared.read();
            let (mut running, mut brought) = (Vec::new(), Vec::new());
            for cell in notebook.cell_list() {
                let key = &cell.key;
                let Some(map) = shared.cell(&txn, key) else { continue };
                if schema::text_of(&txn, &map, RUN_STATE).is_some_and(|state| state != "idle") {
                    // What ran when the daemon died is told anew.
                    running.push(key.clone());
                }
                match project::marked_run(&txn, &shared.roots, key) {
                    // What the run showed has gone, and what stood there before it.
                    Some(run) if project::is_empty(&txn, &map) => {
                        let count =
                            map.get(&txn, COUNT).map_or(Any::Null, |out| schema::plain(&txn, &out, 0));
                        cleared.insert(key.clone(), (run, matches!(count, Any::Null)));
                        brought.push((key.clone(), Any::Array([].into()), count));
                    }
                    // The run's replay brings them.
                    Some(_) => {}
                    None => {
                        let (outputs, _) = file_outputs(cell);
                        if let Some(outputs) = mirror::is_newer(&txn, &map, key, &outputs) {
                            let count =
                                map.get(&txn, COUNT).map_or(Any::Null, |out| schema::plain(&txn, &out, 0));
                            brought.push((key.clone(), outputs, count));
                        }
                    }
                }
            }
            for key in running {
                notebook.projection.touch(&key);
            }
            for (key, outputs, count) in brought {
                notebook.set_file_outputs(&key, &outputs, &count);
            }
        }
        self.live
    }
}
