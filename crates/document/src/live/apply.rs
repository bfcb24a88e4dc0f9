//! Updates of peers.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use outlive_core::limits::{
    DOCUMENT_NESTED_HARD_MAX, DOCUMENT_NESTED_MAX, DOCUMENT_STACK_BYTES, DOCUMENT_UPDATE_BYTES_MAX,
};
use yrs::updates::decoder::Decode;
use yrs::{Map, MapPrelim, MapRef, Out, ReadTxn, Transact, Update};

use super::Live;
use super::guard::{Forged, Origin, check_update};
use super::project;
use super::schema::METADATA;
use super::ydoc::{Absorbed, Shared, Waiting};
use crate::cell::CellKey;

/// What an update of a peer has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// What is to be journaled and sent to the other peers; `None` when it brought nothing new.
    pub update: Option<Vec<u8>>,
    /// What was mended after it, to be journaled and sent to all peers: a second cell with an id gets another one.
    pub corrections: Option<Vec<u8>>,
    /// The cells whose source has changed, and new ones.
    pub cells: Vec<CellKey>,
}

/// Why an update was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// [`Live::share`] was not called.
    #[error("the notebook is not open for live editing yet; join it first")]
    NotShared,
    /// It is not an update of a notebook. Nothing has changed; close the peer that sent it.
    #[error(transparent)]
    Forged(#[from] Forged),
    /// Too much waits for updates that should have come before. Nothing has changed; the peer should begin anew.
    #[error(
        "the update builds on {bytes} bytes of edits that did not come before it; reload the notebook in that client"
    )]
    TooFarAhead {
        /// What waits already, in bytes.
        bytes: usize,
    },
    /// It has broken the document in memory: make this anew with [`Live::restore`], and close the peer that sent it.
    #[error(
        "the update could not be applied ({why}); the document is read again, reload the notebook in that client"
    )]
    Broken {
        /// What happened.
        why: &'static str,
    },
}

impl Live {
    /// Applies an update v1 of a peer.
    ///
    /// # Errors
    /// See [`ApplyError`]. After [`ApplyError::Broken`] there is no document any more until it is restored.
    pub fn apply(&mut self, update: &[u8]) -> Result<Applied, ApplyError> {
        let (integrated, mut absorbed) = self.take_in(update, self.origin())?;
        let shared = self.shared.as_mut().expect("take_in has used it");
        let corrections = shared.fix(&mut absorbed);
        self.overwrite(&absorbed.outputs);
        let shared = self.shared.as_ref().expect("take_in has used it");
        let mut emptied = absorbed.listed;
        emptied.retain(|key| !self.notebook.projection.is_running(key) && is_emptied(shared, key));
        let cleared = if emptied.is_empty() { None } else { self.clear(&emptied) };
        let corrections = merged(merged(corrections, cleared), self.keep_metadata());
        Ok(Applied { update: integrated, corrections, cells: absorbed.sources.into_iter().collect() })
    }

    /// What an update that comes from outside may not pretend to be.
    fn origin(&self) -> Origin {
        let (us, clock) = self.shared.as_ref().map_or((0, 0), Shared::us);
        Origin::Peer { us, clock }
    }

    /// Follows peers who have cleared outputs.
    fn clear(&mut self, cells: &BTreeSet<CellKey>) -> Option<Vec<u8>> {
        let shared = self.shared.as_mut()?;
        let notebook = &self.notebook;
        let done = shared.write(|txn, roots| {
            for key in cells {
                if let Some(map) = shared.cell(txn, key) {
                    project::clear(txn, &map, roots, notebook, key);
                }
            }
        });
        for key in cells {
            self.notebook.clear_outputs(key);
            self.base.ran(key);
        }
        done.update
    }

    /// Puts the notebook's metadata back into a document whose map of it somebody has taken away: nobody can have
    /// meant that, and the kernel is named there.
    fn keep_metadata(&mut self) -> Option<Vec<u8>> {
        let shared = self.shared.as_mut()?;
        if matches!(shared.roots.meta.get(&shared.read(), METADATA), Some(Out::YMap(_))) {
            return None;
        }
        let members = super::reconcile::members(self.notebook.metadata_json());
        let done = shared.write(|txn, roots| {
            let metadata: MapRef = roots.meta.insert(txn, METADATA, MapPrelim::default());
            for (key, value) in members {
                metadata.insert(txn, key, value);
            }
        });
        shared.absorb(&done.trace, false);
        done.update
    }

    /// Applies an update and reads what it did.
    pub(super) fn take_in(
        &mut self,
        update: &[u8],
        origin: Origin,
    ) -> Result<(Option<Vec<u8>>, Absorbed), ApplyError> {
        let shared = self.shared.as_mut().ok_or(ApplyError::NotShared)?;
        let weight = check_update(update, origin)?;
        let before = shared.waiting;
        let most = Waiting { bytes: before.bytes + update.len(), nested: before.nested + weight.nested };
        let is_too_much = most.bytes > DOCUMENT_UPDATE_BYTES_MAX || most.nested > DOCUMENT_NESTED_HARD_MAX;
        if origin != Origin::Journal && before.bytes > 0 && is_too_much {
            return Err(ApplyError::TooFarAhead { bytes: before.bytes });
        }
        let with_depth = origin != Origin::Journal && most.nested > 0;
        let done = guarded(most.nested, || {
            let integrated = integrate(shared, update);
            let trace = shared.take_trace();
            integrated.map(|integrated| (integrated, shared.absorb(&trace, with_depth)))
        });
        let (integrated, absorbed) = match done {
            Ok(Ok((_, absorbed))) if absorbed.is_too_deep => {
                return Err(self.give_up("its contents nest too deep"));
            }
            Ok(Ok(done)) => done,
            Ok(Err(forged)) => return Err(forged.into()),
            Err(why) => return Err(self.give_up(why)),
        };
        let shared = self.shared.as_mut().expect("it was there");
        shared.waiting = match integrated.waits {
            Waits::Nothing => Waiting::default(),
            Waits::Others => before,
            Waits::This => {
                Waiting { bytes: most.bytes.min(DOCUMENT_UPDATE_BYTES_MAX / 2 + before.bytes), ..most }
            }
        };
        Ok((integrated.new, absorbed))
    }

    /// Lets the next projection overwrite what was written into the outputs of these cells.
    pub(super) fn overwrite(&mut self, cells: &BTreeSet<CellKey>) {
        for key in cells {
            self.notebook.projection.touch(key);
            // What was remembered of them does not hold any more.
            drop(self.shared.as_mut().and_then(|shared| shared.take_mirror(key)));
        }
    }

    fn give_up(&mut self, why: &'static str) -> ApplyError {
        if let Some(shared) = self.shared.take() {
            // Whatever state it is in, it must not take more with it.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(shared)));
        }
        ApplyError::Broken { why }
    }
}

/// Two updates of ours as one.
pub(super) fn merged(first: Option<Vec<u8>>, second: Option<Vec<u8>>) -> Option<Vec<u8>> {
    match (first, second) {
        (Some(first), Some(second)) => {
            Some(yrs::merge_updates_v1([first, second]).expect("both were just made"))
        }
        (first, second) => first.or(second),
    }
}

/// What the library made of an update.
struct Integrated {
    /// What it brought, `None` when that is nothing.
    new: Option<Vec<u8>>,
    waits: Waits,
}

/// What waits in the library for updates that should have come before.
enum Waits {
    Nothing,
    /// Earlier updates.
    Others,
    /// This one, or a part of it.
    This,
}

fn integrate(shared: &mut Shared, update: &[u8]) -> Result<Integrated, Forged> {
    let forged = |_| Forged { what: "update", why: "it cannot be decoded", at: 0 };
    let decoded = Update::decode_v1(update).map_err(forged)?;
    let (blocks, deletions) = (decoded.insertions(true), decoded.delete_set().clone());
    let doc = shared.doc();
    // Outside of what is caught: a transaction that is dropped by a panic would commit, and could panic again.
    let mut txn = Some(doc.transact_mut());
    let applied = catch_unwind(AssertUnwindSafe(|| {
        let txn = txn.as_mut().expect("it was just made");
        txn.apply_update(decoded).map(|()| {
            txn.commit();
            let ours = txn.state_vector();
            let has = |set: &yrs::IdSet| {
                set.iter().all(|(client, ranges)| ranges.iter().all(|range| range.end <= ours.get(client)))
            };
            let is_in = has(&blocks) && has(&deletions);
            let waits = match (txn.has_missing_updates(), is_in && txn.has_changes()) {
                (false, _) => Waits::Nothing,
                (true, true) => Waits::Others,
                (true, false) => Waits::This,
            };
            // As it came: what waits is in no other update, and all who apply the same bytes agree.
            let is_new = txn.has_changes() || matches!(waits, Waits::This);
            let new = is_new.then(|| update.to_vec());
            Integrated { new, waits }
        })
    }));
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(txn)));
    match (applied, dropped) {
        (Ok(Ok(integrated)), Ok(())) => Ok(integrated),
        // What was integrated before the library gave up is in the document: it is of no use any more.
        _ => std::panic::resume_unwind(Box::new("the update could not be integrated")),
    }
}

/// Runs what may panic or recurse; on a stack of its own when it may recurse far.
fn guarded<R: Send>(nested: usize, work: impl FnOnce() -> R + Send) -> Result<R, &'static str> {
    let work = || catch_unwind(AssertUnwindSafe(work)).map_err(|_| "it is inconsistent");
    if nested <= DOCUMENT_NESTED_MAX {
        return work();
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(DOCUMENT_STACK_BYTES).spawn_scoped(scope, work);
        thread.map_err(|_| "there is no room for a thread")?.join().map_err(|_| "it is inconsistent")?
    })
}

/// Whether nothing stands in the outputs of a cell.
fn is_emptied(shared: &Shared, key: &CellKey) -> bool {
    let txn = shared.read();
    shared.cell(&txn, key).is_some_and(|map| project::is_empty(&txn, &map))
}
