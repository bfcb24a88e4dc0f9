//! An edit of the file by another program: three ways, cell by cell.
//!
//! What only they changed is theirs, what only we changed is ours. A source that both have changed stays ours, and
//! theirs comes right after it as a cell of its own. Nothing that anybody wrote is lost; what had to be decided is told
//! as a [`Conflict`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use yrs::{Any, Array, Map, TransactionMut};

use super::Live;
use super::base::{Agreed, Facts, hash, hash_any};
use super::edit::{write_metadata, write_source};
use super::reconcile::{NewCell, changes};
use super::schema::{self, METADATA, OUTPUTS, Written, json_of};
use super::ydoc::{Roots, Shared, draw_id, id_of, map_of};
use crate::cell::{Cell, CellKey, CellKind};
use crate::merge::same_cells;
use crate::notebook::Notebook;
use crate::projection::{NoBlobs, Shown};

/// What an external edit has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebased {
    /// What is to be journaled and sent to all peers; `None` when nothing of the Yjs document has changed, or there is
    /// none.
    pub update: Option<Vec<u8>>,
    /// What both sides wanted differently.
    pub conflicts: Vec<Conflict>,
    /// Whether the notebook is another than before.
    pub changed: bool,
}

/// A cell that both sides have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The cell of ours, or that has come back.
    pub cell: CellKey,
    /// What has happened.
    pub kind: ConflictKind,
}

/// What both sides have done to a cell. Both are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConflictKind {
    /// It was changed here and in the file: theirs is the cell `theirs`, right after ours.
    BothChanged {
        /// Their version. Its metadata has `outlive.conflict`.
        theirs: CellKey,
    },
    /// It was deleted in the file and changed here: it stays.
    DeletedInFile,
    /// It was deleted here and changed in the file: it has come back.
    DeletedHere,
}

impl Live {
    /// Takes over what another program has made of the file. Outputs are theirs where nothing was run since the file
    /// was last read or written, else ours.
    ///
    /// Without a Yjs document the result is nowhere but here and in their file: journal the notebook's bytes anew when
    /// it has `changed`. With one the same is wise when outputs are large: those stand in the document as references.
    pub fn rebase(&mut self, theirs: Notebook) -> Rebased {
        self.reconcile();
        let before = self.notebook.to_bytes(&NoBlobs);
        let base = &self.base.agreed.cells;
        let is_new_here = |cell: &Cell| !base.contains_key(&cell.key);
        let was_there = |cell: &Cell| cell.id().is_some_and(|id| base.contains_key(&CellKey::new(id)));
        let pairs = same_cells(self.notebook.cell_list(), theirs.cell_list(), (is_new_here, was_there));
        let mut merged = theirs;
        merged.take_keys(&self.notebook, &pairs);
        let agreed = Agreed::of(&merged);
        let merge =
            Merge { base: &self.base.agreed, ours: &self.notebook, conflicts: Vec::new(), added: Vec::new() };
        let conflicts = merge.cells(&mut merged);
        merge_metadata(&self.base.agreed, &self.notebook, &mut merged);
        self.take_outputs(&mut merged);
        self.notebook = merged;
        let kept = &self.notebook;
        self.running.retain(|key, _| kept.cell(key).is_some());
        let outputs = std::mem::take(&mut self.base.agreed.outputs);
        self.base.read(Agreed { outputs, ..agreed });
        let changed = self.notebook.to_bytes(&NoBlobs) != before;
        let update = if changed { self.follow() } else { None };
        Rebased { update, conflicts, changed }
    }

    /// Decides whose outputs each cell shows. Ours move over.
    fn take_outputs(&mut self, merged: &mut Notebook) {
        merged.projection = std::mem::take(&mut self.notebook.projection);
        let cells: Vec<(CellKey, bool, Option<u64>)> = merged
            .cell_list()
            .iter()
            .map(|cell| {
                (
                    cell.key.clone(),
                    cell.kind == CellKind::Code,
                    cell.fields.get(OUTPUTS).map(|text| hash(text.as_bytes())),
                )
            })
            .collect();
        let here: HashSet<&CellKey> = cells.iter().map(|(key, ..)| key).collect();
        for key in self.notebook.cells().map(|cell| cell.key().clone()) {
            if !here.contains(&key) {
                merged.projection.forget(&key);
            }
        }
        for (key, is_code, outputs) in &cells {
            if matches!(merged.projection.shown(key), Shown::File(_)) {
                // Theirs, unless a run goes on or somebody has cleared ours.
                merged.projection.touch(key);
                if let Some(ours) =
                    self.notebook.cell(key).filter(|_| *is_code && self.base.ran.contains(key))
                {
                    merged.take_file_outputs(ours.cell);
                }
            }
            if !merged.projection.has(key) {
                continue;
            }
            let is_untouched = outputs.is_some() && *outputs == self.base.agreed.outputs.get(key).copied();
            let is_ours = merged.projection.is_running(key) || self.base.ran.contains(key) || is_untouched;
            if *is_code && is_ours {
                merged.ensure_output_fields(key).expect("the cell was just listed");
            } else {
                merged.projection.forget(key);
            }
        }
    }

    /// Makes the Yjs document say what the notebook says.
    fn follow(&mut self) -> Option<Vec<u8>> {
        let shared = self.shared.as_mut()?;
        let (before, notebook) = (shared.order(&shared.read()), &self.notebook);
        let done = shared.write(|txn, roots| {
            let mut follower = Follower { shared, roots, notebook, fresh: HashMap::new() };
            follower.arrange(txn, &before);
            follower.write_cells(txn);
            let minor = schema::whole(notebook.minor());
            super::ydoc::set_plain(txn, &roots.meta, "nbformat_minor", minor);
            let present = schema::members_of(txn, &roots.meta, METADATA);
            let wanted = super::reconcile::members(notebook.metadata_json());
            for (entry, value) in changes(&present, &wanted) {
                write_metadata(txn, &roots.meta, entry, value.cloned());
            }
        });
        shared.absorb(&done.trace, false);
        // The notebook says this already.
        shared.take_stale();
        done.update
    }
}

fn merge_metadata(base: &Agreed, ours: &Notebook, merged: &mut Notebook) {
    let ours = super::reconcile::members(ours.metadata_json());
    let theirs = super::reconcile::members(merged.metadata_json());
    let (wanted, _) = merge_members(Some(&base.metadata), &ours, &theirs);
    for (key, value) in changes(&theirs, &wanted) {
        merged.set_metadata_json(key, value.map(json_of).as_ref());
    }
}

/// Members of both sides; and whether both have changed one of them differently, where ours stands.
fn merge_members(
    base: Option<&BTreeMap<String, u64>>,
    ours: &BTreeMap<String, Any>,
    theirs: &BTreeMap<String, Any>,
) -> (BTreeMap<String, Any>, bool) {
    let mut merged = BTreeMap::new();
    let mut clash = false;
    let keys: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for key in keys {
        let (our, their) = (ours.get(key), theirs.get(key));
        let was = base.and_then(|base| base.get(key)).copied();
        let (our_hash, their_hash) = (our.map(hash_any), their.map(hash_any));
        let value = if our_hash == their_hash || our_hash == was {
            their
        } else {
            clash |= their_hash != was;
            our.or(their.filter(|_| their_hash != was))
        };
        if let Some(value) = value {
            merged.insert(key.clone(), value.clone());
        }
    }
    (merged, clash)
}

struct Merge<'a> {
    base: &'a Agreed,
    ours: &'a Notebook,
    conflicts: Vec<Conflict>,
    /// Cells of theirs that go after one of ours.
    added: Vec<(CellKey, CellKey, Written)>,
}

impl Merge<'_> {
    /// Makes of their cells the merged ones.
    fn cells(mut self, merged: &mut Notebook) -> Vec<Conflict> {
        let mut deleted = Vec::new();
        let keys: Vec<CellKey> = merged.cells().map(|cell| cell.key().clone()).collect();
        for key in &keys {
            let theirs = Written::of(merged.cell(key).expect("it was just listed").cell);
            match self.ours.cell(key) {
                Some(ours) => {
                    let wanted = self.both(key, &Written::of(ours.cell), theirs);
                    merged.take_written(key, &wanted);
                }
                None if self.is_deleted_here(key, &theirs) => deleted.push(key.clone()),
                None => {}
            }
        }
        let their_order: Vec<CellKey> = keys.iter().filter(|key| !deleted.contains(key)).cloned().collect();
        for key in &deleted {
            merged.delete_cell(key).expect("it was just listed");
        }
        let kept = self.kept_cells(&keys);
        for cell in kept.iter().rev() {
            merged.adopt(cell.clone());
        }
        let order = self.order(&their_order, &kept);
        merged.arrange(&order);
        for (after, key, written) in std::mem::take(&mut self.added) {
            let at = merged.cell(&after).map_or(usize::MAX, |cell| cell.index() + 1);
            let nothing = (Any::Array([].into()), Any::Null);
            merged.insert_written(at, &key, &written, &nothing);
        }
        self.conflicts
    }

    /// What becomes of a cell that both have.
    fn both(&mut self, key: &CellKey, ours: &Written, theirs: Written) -> Written {
        let base = self.base.cells.get(key);
        let pick = |our: &String, their: &String, was: Option<u64>| {
            let (ours, theirs) = (Some(hash(our.as_bytes())), Some(hash(their.as_bytes())));
            if our == their || ours == was { (their.clone(), false) } else { (our.clone(), theirs != was) }
        };
        let (source, other_source) = pick(&ours.source, &theirs.source, base.map(|base| base.source));
        let (kind, other_kind) = pick(&ours.kind, &theirs.kind, base.map(|base| base.kind));
        let (metadata, other_metadata) =
            merge_members(base.map(|base| &base.metadata), &ours.metadata, &theirs.metadata);
        let (rest, other_rest) = merge_members(base.map(|base| &base.rest), &ours.rest, &theirs.rest);
        if other_source || other_kind || other_metadata || other_rest {
            self.keep_theirs(key, theirs);
        }
        Written { kind, source, metadata, rest }
    }

    fn keep_theirs(&mut self, key: &CellKey, mut theirs: Written) {
        let new = CellKey::new(draw_id());
        let mut ours: HashMap<String, Any> = match theirs.metadata.get("outlive") {
            Some(Any::Map(members)) => (**members).clone(),
            _ => HashMap::new(),
        };
        let of: HashMap<String, Any> = [("of".to_owned(), key.as_str().into())].into();
        ours.insert("conflict".to_owned(), Any::Map(Arc::new(of)));
        theirs.metadata.insert("outlive".to_owned(), Any::Map(Arc::new(ours)));
        self.added.push((key.clone(), new.clone(), theirs));
        self.conflicts.push(Conflict { cell: key.clone(), kind: ConflictKind::BothChanged { theirs: new } });
    }

    /// Whether a cell of theirs is one that was deleted here, and nothing has become of it there.
    fn is_deleted_here(&mut self, key: &CellKey, theirs: &Written) -> bool {
        let facts = Facts::of(theirs);
        match self.base.cells.get(key) {
            Some(base) if *base == facts => true,
            Some(_) => {
                self.conflicts.push(Conflict { cell: key.clone(), kind: ConflictKind::DeletedHere });
                false
            }
            // Without ids a cell that we do not have has a new key: look at what it says.
            None if self.ours.has_ids() => false,
            None => self.base.cells.iter().any(|(key, base)| *base == facts && self.ours.cell(key).is_none()),
        }
    }

    /// Cells of ours that their file does not have and that stay.
    fn kept_cells(&mut self, theirs: &[CellKey]) -> Vec<Cell> {
        let theirs: HashSet<&CellKey> = theirs.iter().collect();
        let mut kept = Vec::new();
        for cell in self.ours.cell_list().iter().filter(|cell| !theirs.contains(&cell.key)) {
            match self.base.cells.get(&cell.key) {
                Some(base) if *base == Facts::of(&Written::of(cell)) => continue,
                Some(_) => {
                    self.conflicts
                        .push(Conflict { cell: cell.key.clone(), kind: ConflictKind::DeletedInFile });
                }
                None => {}
            }
            kept.push(cell.clone());
        }
        kept
    }

    /// Their order if ours is as it was, else ours; cells that only one side has stand behind their predecessors.
    fn order(&self, theirs: &[CellKey], kept: &[Cell]) -> Vec<CellKey> {
        let kept: HashSet<&CellKey> = kept.iter().map(|cell| &cell.key).collect();
        let in_theirs: HashSet<&CellKey> = theirs.iter().collect();
        let ours: Vec<CellKey> = self
            .ours
            .cells()
            .map(|cell| cell.key().clone())
            .filter(|key| in_theirs.contains(key) || kept.contains(key))
            .collect();
        let in_ours: HashSet<&CellKey> = ours.iter().collect();
        let was = self.base.order.iter().filter(|key| in_ours.contains(key));
        let in_base: HashSet<&CellKey> = self.base.order.iter().collect();
        let is_unmoved = was.eq(ours.iter().filter(|key| in_base.contains(key)));
        if is_unmoved { weave(theirs, &ours) } else { weave(&ours, theirs) }
    }
}

/// `main`, with what only `other` has behind what stands before it there.
fn weave(main: &[CellKey], other: &[CellKey]) -> Vec<CellKey> {
    let known: HashSet<&CellKey> = main.iter().collect();
    let mut first = Vec::new();
    let mut behind: HashMap<&CellKey, Vec<CellKey>> = HashMap::new();
    let mut last = None;
    for key in other {
        if known.contains(key) {
            last = Some(key);
        } else {
            last.map_or(&mut first, |last| behind.entry(last).or_default()).push(key.clone());
        }
    }
    for key in main {
        first.push(key.clone());
        first.extend(behind.remove(key).unwrap_or_default());
    }
    first
}

/// Brings the Yjs document in line with a notebook.
struct Follower<'a> {
    shared: &'a Shared,
    roots: &'a Roots,
    notebook: &'a Notebook,
    fresh: HashMap<CellKey, yrs::ID>,
}

impl Follower<'_> {
    fn id(&self, key: &CellKey) -> Option<yrs::ID> {
        self.fresh.get(key).copied().or_else(|| self.shared.map_id(key))
    }

    /// Deletes, inserts and moves. As many cells as can be stay where they are: a move is a new cell to Yjs.
    fn arrange(&mut self, txn: &mut TransactionMut<'_>, before: &[CellKey]) {
        let wanted: Vec<&CellKey> = self.notebook.cells().map(|cell| cell.key()).collect();
        let rank: HashMap<&CellKey, usize> = wanted.iter().enumerate().map(|(at, key)| (*key, at)).collect();
        let ranks: Vec<Option<usize>> = before.iter().map(|key| rank.get(key).copied()).collect();
        let stay: HashSet<usize> = longest_rising(&ranks).into_iter().collect();
        let mut copies = HashMap::new();
        for (at, (key, rank)) in (0u32..).zip(before.iter().zip(&ranks)).collect::<Vec<_>>().into_iter().rev()
        {
            if rank.is_some_and(|rank| stay.contains(&rank)) {
                continue;
            }
            if rank.is_some()
                && let Some(map) = self.shared.cell(txn, key)
            {
                copies.insert(key.clone(), NewCell::copy(txn, key, &map));
            }
            self.roots.cells.remove(txn, at);
        }
        for (at, (rank, key)) in (0u32..).zip(wanted.into_iter().enumerate()) {
            if stay.contains(&rank) {
                continue;
            }
            let cell = copies.remove(key).unwrap_or_else(|| {
                let cell = self.notebook.cell(key).expect("it was just listed");
                NewCell::new(key.as_str(), Written::of(cell.cell))
            });
            let map = cell.insert(txn, &self.roots.cells, at);
            let id = id_of(&yrs::Out::YMap(map)).expect("a cell's map is nested");
            self.fresh.insert(key.clone(), id);
        }
    }

    fn write_cells(&mut self, txn: &mut TransactionMut<'_>) {
        for (at, cell) in (0u32..).zip(self.notebook.cell_list()) {
            let Some(map) = self.id(&cell.key).and_then(|id| map_of(txn, id)) else { continue };
            let (present, wanted) = (Written::read(txn, &map), Written::of(cell));
            if present.is_same(&wanted) {
                continue;
            }
            if present.kind != wanted.kind {
                // Front ends take a cell's kind for given: it is a new cell to them.
                let copy = NewCell { written: wanted, ..NewCell::copy(txn, &cell.key, &map) };
                self.roots.cells.remove(txn, at);
                copy.insert(txn, &self.roots.cells, at);
                continue;
            }
            write_source(txn, &map, &wanted.source);
            for (entry, value) in changes(&present.metadata, &wanted.metadata) {
                write_metadata(txn, &map, entry, value.cloned());
            }
            for (member, value) in changes(&present.rest, &wanted.rest) {
                match value {
                    Some(value) => drop(map.insert(txn, member, value.clone())),
                    None => drop(map.remove(txn, member)),
                }
            }
        }
    }
}

/// The ranks of a longest rising row among `ranks`.
fn longest_rising(ranks: &[Option<usize>]) -> Vec<usize> {
    // `ends[n]` is the place of the smallest rank that ends a row of n + 1.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; ranks.len()];
    for (at, rank) in ranks.iter().enumerate() {
        let Some(rank) = rank else { continue };
        let length = ends.partition_point(|&end| ranks[end].is_some_and(|end| end < *rank));
        before[at] = length.checked_sub(1).map(|length| ends[length]);
        if length == ends.len() {
            ends.push(at);
        } else {
            ends[length] = at;
        }
    }
    let mut row = Vec::new();
    let mut at = ends.last().copied();
    while let Some(place) = at {
        row.extend(ranks[place]);
        at = before[place];
    }
    row
}
