//! Edits by cell: of REST, MCP and Python, and of whoever does not speak Yjs.
//!
//! All edits of one call are one transaction. They are looked through first, against what the edits before them will
//! have made, so that either all are done or none.

use std::collections::HashMap;

use outlive_core::limits::DOCUMENT_UPDATE_BYTES_MAX;
use serde_json::Value;
use yrs::{Any, Array, Map, MapPrelim, MapRef, Out, TextPrelim, TextRef, TransactionMut};

use super::Live;
use super::project;
use super::reconcile::NewCell;
use super::schema::{self, METADATA, SOURCE, Written, any_of};
use super::ydoc::{Roots, Shared, draw_id, id_of, map_of, set_plain, set_text, splice, units};
use crate::cell::{CellKey, CellKind, is_new_id};
use crate::error::EditError;
use crate::json::Json;
use crate::notebook::Notebook;

/// Where a cell goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// To be at this index afterwards; at the end when that lies beyond.
    Index(usize),
    /// Behind this cell.
    After(CellKey),
    /// Behind all cells.
    End,
}

/// One edit.
#[derive(Clone, PartialEq, Debug)]
pub enum Edit {
    /// A new cell.
    Insert {
        /// Where.
        at: Place,
        /// What it is.
        kind: CellKind,
        /// Its source.
        source: String,
        /// Its id; drawn when there is none.
        id: Option<String>,
        /// Its metadata.
        metadata: serde_json::Map<String, Value>,
    },
    /// The whole source of a cell. What others write into it meanwhile stays where it is not replaced.
    SetSource {
        /// The cell.
        cell: CellKey,
        /// What it should read.
        source: String,
        /// What it must read now.
        expected: Option<String>,
    },
    /// A part of a source; counted in UTF-16 units.
    Splice {
        /// The cell.
        cell: CellKey,
        /// Where the part begins.
        at: u32,
        /// How long it is.
        delete: u32,
        /// What stands there instead.
        insert: String,
    },
    /// Removes a cell.
    Delete {
        /// The cell.
        cell: CellKey,
    },
    /// Puts a cell elsewhere. What others write into it at the same moment is lost, as in every Jupyter front end.
    Move {
        /// The cell.
        cell: CellKey,
        /// Where.
        at: Place,
    },
    /// Sets an entry of a cell's metadata, or without a cell of the notebook's; `None` removes it.
    SetMetadata {
        /// The cell.
        cell: Option<CellKey>,
        /// The entry.
        key: String,
        /// Its value.
        value: Option<Value>,
    },
    /// Takes the outputs of a cell away, or of all. A cell that runs keeps them.
    ClearOutputs {
        /// The cell.
        cell: Option<CellKey>,
    },
    /// Makes a cell of another kind.
    SetKind {
        /// The cell.
        cell: CellKey,
        /// The kind.
        kind: CellKind,
    },
}

/// What edits have done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// What is to be journaled and sent to all peers; `None` when all was so already. The whole document, when there
    /// was none before.
    pub update: Option<Vec<u8>>,
    /// The cell of each edit; `None` for one of the whole notebook.
    pub cells: Vec<Option<CellKey>>,
}

impl Edit {
    /// The cell that it is about; `None` for a new one and for the whole notebook.
    const fn cell(&self) -> Option<&CellKey> {
        match self {
            Self::Insert { .. } => None,
            Self::SetSource { cell, .. }
            | Self::Splice { cell, .. }
            | Self::Delete { cell }
            | Self::Move { cell, .. }
            | Self::SetKind { cell, .. } => Some(cell),
            Self::SetMetadata { cell, .. } | Self::ClearOutputs { cell } => cell.as_ref(),
        }
    }

    /// About how many bytes it adds.
    fn weight(&self) -> usize {
        match self {
            Self::Insert { source, metadata, .. } => {
                source.len() + metadata.iter().map(|(key, value)| key.len() + weight(value)).sum::<usize>()
            }
            Self::SetSource { source, .. } => source.len(),
            Self::Splice { insert, .. } => insert.len(),
            Self::SetMetadata { key, value, .. } => key.len() + value.as_ref().map_or(0, weight),
            Self::Delete { .. } | Self::Move { .. } | Self::ClearOutputs { .. } | Self::SetKind { .. } => 0,
        }
    }
}

fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(|item| weight(item) + 1).sum(),
        Value::Object(members) => members.iter().map(|(key, value)| key.len() + weight(value) + 1).sum(),
    }
}

impl Live {
    /// Makes all of these edits, or none. Makes the Yjs document if there is none.
    ///
    /// # Errors
    /// The first that cannot be made. Nothing has changed.
    pub fn edit(&mut self, edits: &[Edit]) -> Result<Edited, EditError> {
        let bytes: usize = edits.iter().map(Edit::weight).sum();
        if bytes > DOCUMENT_UPDATE_BYTES_MAX / 2 {
            return Err(EditError::TooLarge { bytes, limit: DOCUMENT_UPDATE_BYTES_MAX / 2 });
        }
        let is_first = self.share().is_some();
        let shared = self.shared.as_mut().expect("it is shared now");
        let cells = match Check::new(shared).all(edits) {
            Ok(cells) => cells,
            Err(error) => {
                if is_first {
                    self.shared = None;
                }
                return Err(error);
            }
        };
        let notebook = &self.notebook;
        let done = shared.write(|txn, roots| {
            let mut writer = Writer { shared, roots, notebook, fresh: HashMap::new(), cleared: Vec::new() };
            for (edit, cell) in edits.iter().zip(&cells) {
                writer.make(txn, edit, cell.as_ref());
            }
            writer.cleared
        });
        shared.absorb(&done.trace, false);
        for key in &done.result {
            drop(shared.take_mirror(key));
            self.notebook.clear_outputs(key);
            self.base.ran(key);
        }
        let update = if is_first { Some(self.state()) } else { done.update };
        Ok(Edited { update, cells })
    }
}

/// What the edits that were looked through will have made.
struct Check<'a> {
    shared: &'a Shared,
    /// Sources of cells that are new or other than in the document; `None` of those that are gone.
    sources: HashMap<CellKey, Option<String>>,
}

impl<'a> Check<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self { shared, sources: HashMap::new() }
    }

    fn all(mut self, edits: &[Edit]) -> Result<Vec<Option<CellKey>>, EditError> {
        edits.iter().map(|edit| self.one(edit)).collect()
    }

    fn is_there(&self, key: &CellKey) -> bool {
        self.sources.get(key).map_or_else(|| self.shared.has(key), Option::is_some)
    }

    fn source(&self, key: &CellKey) -> String {
        if let Some(source) = self.sources.get(key) {
            return source.clone().unwrap_or_default();
        }
        let txn = self.shared.read();
        let cell = self.shared.cell(&txn, key);
        cell.and_then(|cell| schema::text_of(&txn, &cell, SOURCE)).unwrap_or_default()
    }

    fn one(&mut self, edit: &Edit) -> Result<Option<CellKey>, EditError> {
        let place = match edit {
            Edit::Insert { at: Place::After(cell), .. } | Edit::Move { at: Place::After(cell), .. } => {
                Some(cell)
            }
            _ => None,
        };
        if let Some(missing) = place.into_iter().chain(edit.cell()).find(|key| !self.is_there(key)) {
            return Err(EditError::NoSuchCell(missing.clone()));
        }
        match edit {
            Edit::Insert { id, source, .. } => {
                let key = CellKey::new(id.clone().unwrap_or_else(draw_id));
                if !is_new_id(key.as_str()) {
                    return Err(EditError::BadId(key.as_str().to_owned()));
                }
                if self.is_there(&key) {
                    return Err(EditError::IdTaken(key));
                }
                self.sources.insert(key.clone(), Some(source.clone()));
                return Ok(Some(key));
            }
            Edit::SetSource { cell, source, expected } => {
                if let Some(expected) = expected {
                    let present = self.source(cell);
                    if present != *expected {
                        return Err(EditError::SourceDiffers { cell: cell.clone(), present });
                    }
                }
                self.sources.insert(cell.clone(), Some(source.clone()));
            }
            Edit::Splice { cell, at, delete, insert } => {
                let present = self.source(cell);
                let (head, tail) = cut_out(&present, *at, *delete).ok_or_else(|| EditError::OutOfRange {
                    cell: cell.clone(),
                    at: *at,
                    delete: *delete,
                    length: units(&present),
                })?;
                let source = [&present[..head], insert, &present[tail..]].concat();
                self.sources.insert(cell.clone(), Some(source));
            }
            Edit::Delete { cell } => drop(self.sources.insert(cell.clone(), None)),
            Edit::Move { .. }
            | Edit::SetMetadata { .. }
            | Edit::ClearOutputs { .. }
            | Edit::SetKind { .. } => {}
        }
        Ok(edit.cell().cloned())
    }
}

/// The byte range of `delete` UTF-16 units at `at`, if it is one of whole characters.
fn cut_out(text: &str, at: u32, delete: u32) -> Option<(usize, usize)> {
    let end = at.checked_add(delete)?;
    let (mut from, mut to, mut unit) = (None, None, 0);
    for (index, length) in
        text.char_indices().map(|(index, c)| (index, c.len_utf16())).chain([(text.len(), 0)])
    {
        if unit == at {
            from.get_or_insert(index);
        }
        if unit == end {
            to.get_or_insert(index);
        }
        unit += u32::try_from(length).expect("a character has one unit or two");
    }
    Some((from?, to?))
}

/// Makes edits that were looked through.
struct Writer<'a> {
    shared: &'a Shared,
    roots: &'a Roots,
    notebook: &'a Notebook,
    /// Cells that were made in this transaction.
    fresh: HashMap<CellKey, yrs::ID>,
    cleared: Vec<CellKey>,
}

impl Writer<'_> {
    fn id(&self, key: &CellKey) -> yrs::ID {
        let id = self.fresh.get(key).copied().or_else(|| self.shared.map_id(key));
        id.expect("the edits were looked through: the cell is there")
    }

    fn map(&self, txn: &TransactionMut<'_>, key: &CellKey) -> MapRef {
        map_of(txn, self.id(key)).expect("the edits were looked through: the cell is there")
    }

    fn position(&self, txn: &TransactionMut<'_>, key: &CellKey) -> u32 {
        let id = self.id(key);
        let at = (0..).zip(self.roots.cells.iter(txn)).find(|(_, out)| id_of(out) == Some(id));
        at.expect("the edits were looked through: the cell is there").0
    }

    fn put(&mut self, txn: &mut TransactionMut<'_>, at: u32, cell: NewCell) {
        let key = CellKey::new(cell.id.clone());
        let map = cell.insert(txn, &self.roots.cells, at);
        let id = id_of(&Out::YMap(map)).expect("a cell's map is nested");
        self.fresh.insert(key, id);
    }

    fn make(&mut self, txn: &mut TransactionMut<'_>, edit: &Edit, cell: Option<&CellKey>) {
        match (edit, cell) {
            (Edit::Insert { at, kind, source, metadata, .. }, Some(key)) => {
                let length = self.roots.cells.len(txn);
                let at = match at {
                    Place::Index(index) => u32::try_from(*index).map_or(length, |at| at.min(length)),
                    Place::After(other) => self.position(txn, other) + 1,
                    Place::End => length,
                };
                let metadata = metadata
                    .iter()
                    .map(|(key, value)| (key.clone(), any_of(&Json::from_value(value))))
                    .collect();
                let written = Written {
                    kind: kind.word().to_owned(),
                    source: source.clone(),
                    metadata,
                    rest: std::collections::BTreeMap::new(),
                };
                self.put(txn, at, NewCell::new(key.as_str(), written));
            }
            (Edit::SetSource { source, .. }, Some(key)) => {
                let map = self.map(txn, key);
                write_source(txn, &map, source);
            }
            (Edit::Splice { at, delete, insert, .. }, Some(key)) => {
                let map = self.map(txn, key);
                let text = source_of(txn, &map);
                splice(txn, &text, *at, *delete, insert);
            }
            (Edit::Delete { .. }, Some(key)) => {
                let at = self.position(txn, key);
                self.roots.cells.remove(txn, at);
            }
            (Edit::Move { at, .. }, Some(key)) => self.relocate(txn, key, at),
            (Edit::SetMetadata { key: entry, value, .. }, cell) => {
                let holder = cell.map_or_else(|| self.roots.meta.clone(), |key| self.map(txn, key));
                let value = value.as_ref().map(|value| any_of(&Json::from_value(value)));
                write_metadata(txn, &holder, entry, value);
            }
            (Edit::ClearOutputs { .. }, None) => {
                let mut all: Vec<CellKey> = self.shared.keys().chain(self.fresh.keys()).cloned().collect();
                all.sort();
                all.dedup();
                for key in all {
                    self.clear(txn, &key);
                }
            }
            (Edit::ClearOutputs { .. }, Some(key)) => self.clear(txn, key),
            (Edit::SetKind { kind, .. }, Some(key)) => {
                let map = self.map(txn, key);
                let mut copy = NewCell::copy(txn, key, &map);
                if copy.written.kind != kind.word() {
                    kind.word().clone_into(&mut copy.written.kind);
                    let at = self.position(txn, key);
                    self.roots.cells.remove(txn, at);
                    self.put(txn, at, copy);
                }
            }
            (_, None) => unreachable!("these edits are about a cell"),
        }
    }

    fn relocate(&mut self, txn: &mut TransactionMut<'_>, key: &CellKey, at: &Place) {
        let from = self.position(txn, key);
        let last = self.roots.cells.len(txn) - 1;
        let to = match at {
            Place::Index(index) => u32::try_from(*index).map_or(last, |at| at.min(last)),
            Place::After(other) if other == key => from,
            Place::After(other) => {
                let other = self.position(txn, other);
                if other < from { other + 1 } else { other }
            }
            Place::End => last,
        };
        if to != from {
            let copy = NewCell::copy(txn, key, &self.map(txn, key));
            self.roots.cells.remove(txn, from);
            self.put(txn, to, copy);
        }
    }

    fn clear(&mut self, txn: &mut TransactionMut<'_>, key: &CellKey) {
        // A cell that the edits before have deleted has none.
        let Some(map) = map_of(txn, self.id(key)) else { return };
        if schema::text_of(txn, &map, schema::KIND).as_deref() == Some("code")
            && !self.notebook.projection.is_running(key)
        {
            project::clear(txn, &map, self.roots, self.notebook, key);
            self.cleared.push(key.clone());
        }
    }
}

/// The source of a cell, made shared if a peer has left it plain.
fn source_of(txn: &mut TransactionMut<'_>, map: &MapRef) -> TextRef {
    match map.get(txn, SOURCE) {
        Some(Out::YText(text)) => text,
        _ => {
            let text = schema::text_of(txn, map, SOURCE).unwrap_or_default();
            map.insert(txn, SOURCE, TextPrelim::new(text))
        }
    }
}

/// Gives a cell another source, by changing as little as can be.
pub(super) fn write_source(txn: &mut TransactionMut<'_>, map: &MapRef, source: &str) {
    let text = source_of(txn, map);
    set_text(txn, &text, source);
}

/// Sets or removes an entry of the metadata of a cell, or of `meta`.
pub(super) fn write_metadata(txn: &mut TransactionMut<'_>, holder: &MapRef, entry: &str, value: Option<Any>) {
    let metadata: MapRef = match holder.get(txn, METADATA) {
        Some(Out::YMap(metadata)) => metadata,
        _ => {
            let members = schema::members_of(txn, holder, METADATA);
            let metadata: MapRef = holder.insert(txn, METADATA, MapPrelim::default());
            for (key, value) in members {
                metadata.insert(txn, key, value);
            }
            metadata
        }
    };
    match value {
        Some(value) => set_plain(txn, &metadata, entry, value),
        None => {
            if metadata.contains_key(txn, entry) {
                metadata.remove(txn, entry);
            }
        }
    }
}
