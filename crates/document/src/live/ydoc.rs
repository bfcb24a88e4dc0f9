//! The Yjs document itself, with an index of its cells.
//!
//! Each transaction leaves a trace: the shared types that it changed, each followed by its parents up to a root. The
//! trace is read by [`Shared::absorb`], so that an edit costs what it changes, whatever the number of cells; only when
//! cells come, go or move are all cells walked over.
//!
//! Pointers into the document are never kept, only ids: the library frees what is deleted.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use yrs::branch::{Branch, BranchID};
use yrs::{
    Any, Array, ArrayRef, Doc, GetString, ID, Map, MapRef, Nested, OffsetKind, Options, Out, ReadTxn, Text,
    TextPrelim, TextRef, Transact, TransactionMut,
};

use super::mirror::Mirror;
use super::schema::{
    self, CELLS, ID as CELL_ID, KIND, META, METADATA, OUTPUTS, SHOWN, SOURCE, STATE, is_shallow,
};
use crate::cell::{CellKey, is_id};

/// The Yjs document.
pub(super) struct Shared {
    doc: Doc,
    pub roots: Roots,
    trace: Trace,
    entries: HashMap<CellKey, Entry>,
    keys: HashMap<ID, CellKey>,
    /// What the notebook has not been told yet.
    stale: HashSet<Stale>,
    /// What waits in the library for updates before it.
    pub waiting: Waiting,
    /// Whether everything that other clients would stumble over has been mended.
    pub is_mended: bool,
}

/// Updates that came before what they build on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waiting {
    pub bytes: usize,
    pub nested: usize,
}

/// The shared types at the top.
#[derive(Clone)]
pub(super) struct Roots {
    pub cells: ArrayRef,
    pub meta: MapRef,
    pub shown: MapRef,
}

struct Entry {
    map: ID,
    /// What has been put into its outputs; `None` when that is to be found out.
    mirror: Option<Mirror>,
}

/// Something of the document that the notebook has not got.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Stale {
    Order,
    Metadata,
    Cell(CellKey),
}

/// Changed types, each followed by its parents.
type Trace = Arc<Mutex<Vec<BranchID>>>;

/// What a transaction did.
pub(super) struct Done<R> {
    pub result: R,
    /// `None` when it changed nothing.
    pub update: Option<Vec<u8>>,
    pub trace: Vec<BranchID>,
}

/// What a trace says.
#[derive(Default, Debug)]
pub(super) struct Absorbed {
    /// Cells with another source than before, and new ones.
    pub sources: BTreeSet<CellKey>,
    /// Cells whose outputs, count or state were written, and new ones.
    pub outputs: BTreeSet<CellKey>,
    /// Those of them whose list of outputs was written: it may be empty now.
    pub listed: BTreeSet<CellKey>,
    /// Shared types nest too deep.
    pub is_too_deep: bool,
    fixes: Vec<Fix>,
}

/// What is mended in a document that a peer has left in a state that other clients stumble over.
#[derive(Debug)]
enum Fix {
    /// An entry of the list of cells that is none.
    NoCell,
    /// The same cell twice: two peers have moved it at once.
    Twin(ID),
    /// No id, one that cannot be one, or another cell's.
    Id(ID),
    /// No kind, or no source or metadata that can be shared.
    Parts(ID),
}

impl Shared {
    /// A document without content.
    pub fn empty() -> Self {
        // 32 bits, as yjs draws them: not every client reads more.
        let client = uuid::Uuid::new_v4().as_u64_pair().0 >> 32;
        let options =
            Options { offset_kind: OffsetKind::Utf16, ..Options::with_client_id(yrs::ClientID::new(client)) };
        let doc = Doc::with_options(options);
        let roots = Roots {
            cells: doc.get_or_insert_array(CELLS),
            meta: doc.get_or_insert_map(META),
            shown: doc.get_or_insert_map(SHOWN),
        };
        doc.get_or_insert_map(STATE);
        let trace = Trace::default();
        let tracer = Arc::clone(&trace);
        doc.observe_after_transaction("trace", move |txn| {
            let mut trace = tracer.lock().expect("nobody panics while holding it");
            trace.extend(txn.changed_parent_types().iter().map(|branch| branch.id()));
        })
        .expect("no transaction is under way in a new document");
        Self {
            doc,
            roots,
            trace,
            entries: HashMap::new(),
            keys: HashMap::new(),
            stale: HashSet::new(),
            waiting: Waiting::default(),
            is_mended: true,
        }
    }

    pub fn read(&self) -> yrs::Transaction<'_> {
        self.doc.transact()
    }

    /// What this side goes by in the document, and its clock.
    pub fn us(&self) -> (u64, u64) {
        let client = self.doc.client_id();
        (client.get(), self.read().state_vector().get(&client).into())
    }

    /// The document itself, for transactions that may panic.
    pub fn doc(&self) -> Doc {
        self.doc.clone()
    }

    /// Writes in one transaction of our own.
    pub fn write<R>(&self, write: impl FnOnce(&mut TransactionMut<'_>, &Roots) -> R) -> Done<R> {
        let mut txn = self.doc.transact_mut();
        let result = write(&mut txn, &self.roots);
        txn.commit();
        let update = txn.has_changes().then(|| txn.encode_update_v1());
        drop(txn);
        Done { result, update, trace: self.take_trace() }
    }

    pub fn take_trace(&self) -> Vec<BranchID> {
        std::mem::take(&mut *self.trace.lock().expect("nobody panics while holding it"))
    }

    /// Whether the document has a cell of this id.
    pub fn has(&self, key: &CellKey) -> bool {
        self.entries.contains_key(key)
    }

    pub fn keys(&self) -> impl Iterator<Item = &CellKey> {
        self.entries.keys()
    }

    /// The cell of this id.
    pub fn cell<T: ReadTxn>(&self, txn: &T, key: &CellKey) -> Option<MapRef> {
        map_of(txn, self.entries.get(key)?.map)
    }

    /// The place that a cell's map has in the document, for writers that hold no borrow of this.
    pub fn map_id(&self, key: &CellKey) -> Option<ID> {
        self.entries.get(key).map(|entry| entry.map)
    }

    pub fn take_mirror(&mut self, key: &CellKey) -> Option<Mirror> {
        self.entries.get_mut(key)?.mirror.take()
    }

    pub fn keep_mirror(&mut self, key: &CellKey, mirror: Mirror) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.mirror = Some(mirror);
        }
    }

    pub fn take_stale(&mut self) -> HashSet<Stale> {
        std::mem::take(&mut self.stale)
    }

    /// The cells in their order.
    pub fn order<T: ReadTxn>(&self, txn: &T) -> Vec<CellKey> {
        let cells = self.roots.cells.iter(txn);
        cells.filter_map(|out| self.keys.get(&id_of(&out)?).cloned()).collect()
    }

    /// Reads a transaction's trace. `with_depth` looks for types that nest too deep, which costs as much as what was
    /// changed holds.
    pub fn absorb(&mut self, trace: &[BranchID], with_depth: bool) -> Absorbed {
        let mut absorbed = Absorbed::default();
        let doc = self.doc.clone();
        let txn = doc.transact();
        let mut is_reordered = false;
        for path in trace.split_inclusive(|branch| matches!(branch, BranchID::Root(_))) {
            let Some((BranchID::Root(root), below)) = path.split_last() else { continue };
            match (&**root, below) {
                (CELLS, []) => is_reordered = true,
                // One that could not be admitted may be a cell now.
                (CELLS, [BranchID::Nested(cell)]) if !self.keys.contains_key(cell) => is_reordered = true,
                (CELLS, [.., BranchID::Nested(cell)]) => {
                    self.absorb_cell(&txn, *cell, &below[..below.len() - 1], with_depth, &mut absorbed);
                }
                (META, _) => drop(self.stale.insert(Stale::Metadata)),
                _ => {}
            }
            let is_cell = &**root == CELLS;
            if with_depth && !is_cell && txn.get(&**root).is_some_and(|out| !is_shallow(&txn, &out, 0)) {
                absorbed.is_too_deep = true;
            }
        }
        if is_reordered {
            self.index(&txn, with_depth, &mut absorbed);
        }
        absorbed
    }

    /// Something of one cell was changed: `below` leads from what it was to the cell, without the cell itself.
    fn absorb_cell(
        &mut self,
        txn: &impl ReadTxn,
        cell: ID,
        below: &[BranchID],
        with_depth: bool,
        to: &mut Absorbed,
    ) {
        let (Some(key), Some(map)) = (self.keys.get(&cell).cloned(), map_of(txn, cell)) else { return };
        if with_depth && !is_shallow(txn, &Out::YMap(map.clone()), 1) {
            to.is_too_deep = true;
        }
        let part = below.last();
        let is = |member: &str| map.get(txn, member).and_then(|out| branch_of(&out)).as_ref() == part;
        if part.is_none() {
            if schema::text_of(txn, &map, CELL_ID).as_deref() != Some(key.as_str()) {
                self.forget(&key);
                self.stale.insert(Stale::Order);
                self.admit(txn, cell, &map, to);
                return;
            }
            if !has_parts(txn, &map) {
                to.fixes.push(Fix::Parts(cell));
            }
            to.sources.insert(key.clone());
            to.outputs.insert(key.clone());
        } else if is(SOURCE) {
            to.sources.insert(key.clone());
        } else if !is(METADATA) {
            if is(OUTPUTS) {
                to.listed.insert(key.clone());
                to.outputs.insert(key);
            }
            return;
        }
        self.stale.insert(Stale::Cell(key));
    }

    /// Brings the index in line with the list of cells.
    pub fn index(&mut self, txn: &impl ReadTxn, with_depth: bool, to: &mut Absorbed) {
        self.stale.insert(Stale::Order);
        let (mut known, mut new) = (0, Vec::new());
        for out in self.roots.cells.iter(txn) {
            match (id_of(&out), out) {
                (Some(id), _) if self.keys.contains_key(&id) => known += 1,
                (Some(id), Out::YMap(map)) => new.push((id, map)),
                _ => to.fixes.push(Fix::NoCell),
            }
        }
        if known < self.keys.len() {
            let there: HashSet<ID> = self.roots.cells.iter(txn).filter_map(|out| id_of(&out)).collect();
            let gone: Vec<CellKey> =
                self.keys.iter().filter(|(id, _)| !there.contains(id)).map(|(_, key)| key.clone()).collect();
            for key in gone {
                self.forget(&key);
            }
        }
        for (id, map) in new {
            if with_depth && !is_shallow(txn, &Out::YMap(map.clone()), 1) {
                to.is_too_deep = true;
                continue;
            }
            self.admit(txn, id, &map, to);
        }
    }

    fn forget(&mut self, key: &CellKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.keys.remove(&entry.map);
        }
    }

    /// Takes a cell into the index, or notes why not.
    fn admit(&mut self, txn: &impl ReadTxn, id: ID, map: &MapRef, to: &mut Absorbed) {
        let key = schema::text_of(txn, map, CELL_ID).filter(|id| is_id(id)).map(CellKey::new);
        let Some(key) = key else { return to.fixes.push(Fix::Id(id)) };
        if let Some(other) = self.cell(txn, &key) {
            let twin = schema::Written::read(txn, &other).is_same(&schema::Written::read(txn, map));
            return to.fixes.push(if twin { Fix::Twin(id) } else { Fix::Id(id) });
        }
        if !has_parts(txn, map) {
            to.fixes.push(Fix::Parts(id));
        }
        self.keys.insert(id, key.clone());
        self.entries.insert(key.clone(), Entry { map: id, mirror: None });
        self.stale.insert(Stale::Cell(key.clone()));
        to.sources.insert(key.clone());
        to.outputs.insert(key);
    }

    /// Looks through a document that was restored for what is to be mended.
    pub fn mend(&mut self) -> (Option<Vec<u8>>, Absorbed) {
        let mut absorbed = Absorbed::default();
        if std::mem::replace(&mut self.is_mended, true) {
            return (None, absorbed);
        }
        let doc = self.doc.clone();
        self.index(&doc.transact(), false, &mut absorbed);
        (self.fix(&mut absorbed), absorbed)
    }

    /// Mends what other clients would stumble over; gives the update.
    pub fn fix(&mut self, absorbed: &mut Absorbed) -> Option<Vec<u8>> {
        let fixes = std::mem::take(&mut absorbed.fixes);
        if fixes.is_empty() {
            return None;
        }
        let done = self.write(|txn, roots| fixes.into_iter().for_each(|fix| mend(txn, roots, fix)));
        // What was mended is admitted now; a drawn id is free.
        let mut after = self.absorb(&done.trace, false);
        let doc = self.doc.clone();
        self.index(&doc.transact(), false, &mut after);
        absorbed.sources.append(&mut after.sources);
        absorbed.outputs.append(&mut after.outputs);
        done.update
    }
}

fn mend(txn: &mut TransactionMut<'_>, roots: &Roots, fix: Fix) {
    let place = |txn: &TransactionMut<'_>, id: ID| {
        roots.cells.iter(txn).position(|out| id_of(&out) == Some(id)).and_then(|at| u32::try_from(at).ok())
    };
    match fix {
        Fix::NoCell => {
            let at = roots.cells.iter(txn).position(|out| !matches!(out, Out::YMap(_)));
            if let Some(at) = at.and_then(|at| u32::try_from(at).ok()) {
                roots.cells.remove(txn, at);
            }
        }
        Fix::Twin(id) => {
            if let Some(at) = place(txn, id) {
                roots.cells.remove(txn, at);
            }
        }
        Fix::Id(id) => {
            if let Some(cell) = map_of(txn, id) {
                cell.insert(txn, CELL_ID, draw_id());
                give_parts(txn, &cell);
            }
        }
        Fix::Parts(id) => {
            if let Some(cell) = map_of(txn, id) {
                give_parts(txn, &cell);
            }
        }
    }
}

/// An id for a new cell.
pub(super) fn draw_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..12].to_owned()
}

fn has_parts(txn: &impl ReadTxn, cell: &MapRef) -> bool {
    matches!(cell.get(txn, SOURCE), Some(Out::YText(_)))
        && matches!(cell.get(txn, METADATA), Some(Out::YMap(_)))
}

fn give_parts(txn: &mut TransactionMut<'_>, cell: &MapRef) {
    if schema::text_of(txn, cell, KIND).is_none_or(|kind| kind.is_empty()) {
        cell.insert(txn, KIND, "raw");
    }
    if !matches!(cell.get(txn, SOURCE), Some(Out::YText(_))) {
        let text = schema::text_of(txn, cell, SOURCE).unwrap_or_default();
        cell.insert(txn, SOURCE, TextPrelim::new(text));
    }
    if !matches!(cell.get(txn, METADATA), Some(Out::YMap(_))) {
        let members = schema::members_of(txn, cell, METADATA);
        let metadata: MapRef = cell.insert(txn, METADATA, yrs::MapPrelim::default());
        for (key, value) in members {
            metadata.insert(txn, key, value);
        }
    }
}

/// The map of this id, if it is still there.
pub(super) fn map_of<T: ReadTxn>(txn: &T, id: ID) -> Option<MapRef> {
    Nested::<MapRef>::new(id).get(txn).filter(|map| {
        let branch: &Branch = map.as_ref();
        !branch.is_deleted()
    })
}

fn branch_of(out: &Out) -> Option<BranchID> {
    out.try_branch().map(Branch::id)
}

/// The id of a nested map.
pub(super) fn id_of(out: &Out) -> Option<ID> {
    match out {
        Out::YMap(map) => match AsRef::<Branch>::as_ref(map).id() {
            BranchID::Nested(id) => Some(id),
            BranchID::Root(_) => None,
        },
        _ => None,
    }
}

/// Makes `text` read `wanted` by changing as little as can be, so that what others write meanwhile stays.
pub(super) fn set_text(txn: &mut TransactionMut<'_>, text: &TextRef, wanted: &str) {
    let present = text.get_string(txn);
    let head: usize =
        present.chars().zip(wanted.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    let (old, new) = (&present[head..], &wanted[head..]);
    let tail: usize =
        old.chars().rev().zip(new.chars().rev()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    splice(txn, text, units(&present[..head]), units(&old[..old.len() - tail]), &new[..new.len() - tail]);
}

/// Replaces `delete` UTF-16 units at `at`.
pub(super) fn splice(txn: &mut TransactionMut<'_>, text: &TextRef, at: u32, delete: u32, insert: &str) {
    if delete > 0 {
        text.remove_range(txn, at, delete);
    }
    if !insert.is_empty() {
        text.insert(txn, at, insert);
    }
}

/// The length of a text in UTF-16 units.
pub(super) fn units(text: &str) -> u32 {
    u32::try_from(text.encode_utf16().count()).expect("a text of a document is far shorter than 4 GiB")
}

/// Sets a member unless it reads so already.
pub(super) fn set_plain(txn: &mut TransactionMut<'_>, map: &MapRef, member: &str, value: Any) {
    let is_same = match map.get(txn, member) {
        Some(Out::Any(present)) => {
            schema::same(&present, &value) && matches!(present, Any::Null) == matches!(value, Any::Null)
        }
        _ => false,
    };
    if !is_same {
        map.insert(txn, member, value);
    }
}
