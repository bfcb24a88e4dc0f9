//! Updates of peers.

use std::panic::{AssertUnwindSafe, catch_unwind};

use outlive_core::limits::{
    DOCUMENT_NESTED_HARD_MAX, DOCUMENT_NESTED_MAX, DOCUMENT_STACK_BYTES, DOCUMENT_UPDATE_BYTES_MAX,
};
use yrs::updates::decoder::Decode;
use yrs::{Array, Map, Out, ReadTxn, Transact, Update};

use super::Live;
use super::guard::{Forged, check_update};
use super::schema::OUTPUTS;
use super::shared::{Absorbed, Shared, Waiting};
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
        let (integrated, absorbed) = self.take_in(update)?;
        let shared = self.shared.as_mut().expect("take_in has used it");
        let mut absorbed = absorbed;
        let corrections = shared.fix(&mut absorbed);
        for key in &absorbed.listed {
            if !self.notebook.projection.is_running(key) && is_emptied(shared, key) {
                self.notebook.clear_outputs(key);
            }
        }
        Ok(Applied { update: integrated, corrections, cells: absorbed.sources.into_iter().collect() })
    }

    /// Applies an update and reads what it did. What peers have written into outputs is to be overwritten.
    pub(super) fn take_in(&mut self, update: &[u8]) -> Result<(Option<Vec<u8>>, Absorbed), ApplyError> {
        let shared = self.shared.as_mut().ok_or(ApplyError::NotShared)?;
        let weight = check_update(update)?;
        let waiting = Waiting {
            bytes: shared.waiting.bytes + update.len(),
            nested: shared.waiting.nested + weight.nested,
        };
        if shared.waiting.bytes > 0
            && (waiting.bytes > DOCUMENT_UPDATE_BYTES_MAX || waiting.nested > DOCUMENT_NESTED_HARD_MAX)
        {
            return Err(ApplyError::TooFarAhead { bytes: shared.waiting.bytes });
        }
        let was_waiting = shared.waiting.bytes > 0;
        let integrated = guarded(waiting.nested, || integrate(shared, update));
        let integrated = match integrated {
            Ok(Ok(integrated)) => integrated,
            Ok(Err(forged)) => return Err(forged.into()),
            Err(why) => return Err(self.give_up(why)),
        };
        let with_depth = weight.nested > 0 || was_waiting;
        let shared = self.shared.as_mut().expect("it was there");
        let absorbed = guarded(waiting.nested, || {
            let trace = shared.take_trace();
            shared.absorb(&trace, with_depth)
        });
        let absorbed = match absorbed {
            Ok(absorbed) if absorbed.is_too_deep => return Err(self.give_up("its contents nest too deep")),
            Ok(absorbed) => absorbed,
            Err(why) => return Err(self.give_up(why)),
        };
        let shared = self.shared.as_mut().expect("it was there");
        shared.waiting = if shared.read().has_missing_updates() { waiting } else { Waiting::default() };
        for key in &absorbed.outputs {
            self.notebook.projection.touch(key.clone());
            // What was remembered of them does not hold any more.
            drop(shared.take_mirror(key));
        }
        Ok((integrated, absorbed))
    }

    fn give_up(&mut self, why: &'static str) -> ApplyError {
        if let Some(shared) = self.shared.take() {
            // Whatever state it is in, it must not take more with it.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(shared)));
        }
        ApplyError::Broken { why }
    }
}

/// Applies; gives what it brought, `None` when that is nothing.
fn integrate(shared: &mut Shared, update: &[u8]) -> Result<Option<Vec<u8>>, Forged> {
    let decoded = Update::decode_v1(update).map_err(|_| Forged {
        what: "update",
        why: "it cannot be decoded",
        at: 0,
    })?;
    let doc = shared.doc();
    // Outside of what is caught: a transaction that is dropped by a panic would commit, and could panic again.
    let mut txn = Some(doc.transact_mut());
    let applied = catch_unwind(AssertUnwindSafe(|| {
        let txn = txn.as_mut().expect("it was just made");
        txn.apply_update(decoded).map(|()| {
            txn.commit();
            let is_new = txn.has_changes();
            match (txn.has_missing_updates(), is_new) {
                // What waits is in no update but the one that brought it.
                (true, _) => Some(update.to_vec()),
                (false, true) => Some(txn.encode_update_v1()),
                (false, false) => None,
            }
        })
    }));
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(txn)));
    match (applied, dropped) {
        (Ok(Ok(new)), Ok(())) => Ok(new),
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
    let outputs = shared.cell(&txn, key).and_then(|map| map.get(&txn, OUTPUTS));
    matches!(outputs, Some(Out::YArray(outputs)) if outputs.len(&txn) == 0)
}
