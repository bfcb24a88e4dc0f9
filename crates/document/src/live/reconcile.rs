//! From the document to the notebook, and a notebook's cells as they go into a document.
//!
//! Only what differs is touched in the notebook, so that the file keeps its bytes everywhere else.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use yrs::{Any, Array, ArrayPrelim, Map, MapPrelim, MapRef, Out, ReadTxn, TextPrelim, TransactionMut};

use super::schema::{
    self, COUNT, ID, KIND, METADATA, OUTPUTS, RUN_STATE, SOURCE, Written, any_of, is_own, json_of, same,
};
use super::ydoc::{Shared, Stale};
use crate::cell::{Cell, CellKey, CellKind, MEMBER_LEVEL};
use crate::json::{Json, format};
use crate::notebook::Notebook;

impl Shared {
    /// Brings all that the document says into the notebook.
    pub fn reconcile(&mut self, notebook: &mut Notebook) {
        let stale = self.take_stale();
        if stale.is_empty() {
            return;
        }
        let txn = self.read();
        if stale.contains(&Stale::Order) {
            self.reconcile_order(&txn, notebook);
        }
        if stale.contains(&Stale::Metadata) {
            reconcile_metadata(&txn, &self.roots.meta, notebook);
        }
        // A document that was restored is all stale, and nearly all of it is the same.
        let cells = stale.into_iter().filter_map(|what| match what {
            Stale::Cell(key) => Some(key),
            Stale::Order | Stale::Metadata => None,
        });
        let different: Vec<(CellKey, Written)> = notebook
            .some_cells(&cells.collect())
            .into_iter()
            .filter_map(|cell| {
                let written = Written::read(&txn, &self.cell(&txn, &cell.key)?);
                (!written.is_same(&Written::of(cell))).then(|| (cell.key.clone(), written))
            })
            .collect();
        for (key, written) in different {
            notebook.take_written(&key, &written);
        }
    }

    fn reconcile_order(&self, txn: &impl ReadTxn, notebook: &mut Notebook) {
        let order = self.order(txn);
        let here: HashSet<CellKey> = notebook.cells().map(|cell| cell.key().clone()).collect();
        let gone: Vec<CellKey> = here.iter().filter(|key| !self.has(key)).cloned().collect();
        for key in &gone {
            notebook.delete_cell(key).expect("it was just listed");
        }
        for (index, key) in order.iter().enumerate() {
            if here.contains(key) {
                continue;
            }
            if let Some(map) = self.cell(txn, key) {
                notebook.insert_written(index, key, &Written::read(txn, &map), &outputs_of(txn, &map));
            }
        }
        notebook.arrange(&order);
    }
}

/// Outputs and count of a cell of the document, as plain values.
fn outputs_of(txn: &impl ReadTxn, map: &MapRef) -> (Any, Any) {
    let plain = |member: &str| map.get(txn, member).map_or(Any::Null, |out| schema::plain(txn, &out, 0));
    (plain(OUTPUTS), plain(COUNT))
}

fn reconcile_metadata(txn: &impl ReadTxn, meta: &MapRef, notebook: &mut Notebook) {
    // Without the map there is nothing that a person could have meant.
    if !matches!(meta.get(txn, METADATA), Some(Out::YMap(_) | Out::Any(Any::Map(_)))) {
        return;
    }
    let wanted = schema::members_of(txn, meta, METADATA);
    let present = members(notebook.metadata_json());
    for (key, value) in changes(&present, &wanted) {
        notebook.set_metadata_json(key, value.map(json_of).as_ref());
    }
}

/// Members as plain values.
pub(super) fn members(members: Vec<(String, Json)>) -> BTreeMap<String, Any> {
    members.iter().map(|(key, value)| (key.clone(), any_of(value))).collect()
}

/// What to set, and with `None` what to remove, to make `present` the same as `wanted`.
pub(super) fn changes<'a>(
    present: &'a BTreeMap<String, Any>,
    wanted: &'a BTreeMap<String, Any>,
) -> Vec<(&'a str, Option<&'a Any>)> {
    let removed = present.keys().filter(|key| !wanted.contains_key(*key)).map(|key| (key.as_str(), None));
    let set = wanted
        .iter()
        .filter(|(key, value)| present.get(*key).is_none_or(|old| !same(old, value)))
        .map(|(key, value)| (key.as_str(), Some(value)));
    removed.chain(set).collect()
}

impl Written {
    /// What people have written of a cell of the notebook.
    pub fn of(cell: &Cell) -> Self {
        let metadata = match cell.json(METADATA) {
            Some(Json::Object(metadata)) => members(metadata),
            _ => BTreeMap::new(),
        };
        let kind = cell.json(KIND).and_then(|kind| kind.as_str().map(str::to_owned));
        let rest = cell.fields.names().filter(|name| !is_own(name));
        Self {
            kind: kind.unwrap_or_default(),
            source: cell.source(),
            metadata,
            rest: rest.filter_map(|name| Some((name.to_owned(), any_of(&cell.json(name)?)))).collect(),
        }
    }
}

impl Notebook {
    /// Writes into a cell what is different in it.
    pub(super) fn take_written(&mut self, key: &CellKey, written: &Written) {
        let Ok(cell) = self.cell_mut(key) else { return };
        let present = Written::of(cell);
        if present.kind != written.kind && !written.kind.is_empty() {
            self.set_kind(key, &written.kind);
        }
        if present.source != written.source {
            self.set_source(key, &written.source).expect("the cell is there");
        }
        for (entry, value) in changes(&present.metadata, &written.metadata) {
            self.set_cell_metadata_json(key, entry, value.map(json_of).as_ref()).expect("the cell is there");
        }
        for (member, value) in changes(&present.rest, &written.rest) {
            self.set_member(key, member, value);
        }
    }

    fn set_member(&mut self, key: &CellKey, member: &str, value: Option<&Any>) {
        let style = self.style.clone();
        let cell = self.cell_mut(key).expect("the cell is there");
        match value {
            Some(value) => cell.set(member, &json_of(value), &style),
            None => cell.fields.remove(member),
        }
    }

    /// Makes a cell of another kind. Only code has outputs.
    pub(super) fn set_kind(&mut self, key: &CellKey, word: &str) {
        let style = self.style.clone();
        let kind = CellKind::parse(word);
        let Ok(cell) = self.cell_mut(key) else { return };
        cell.kind = kind;
        cell.set(KIND, &Json::string(word), &style);
        if kind == CellKind::Code {
            self.ensure_output_fields(key).expect("the cell is there");
        } else {
            cell.fields.remove(OUTPUTS);
            cell.fields.remove(COUNT);
            self.projection.forget(key);
        }
    }

    /// Puts a cell of the document at `index`, with outputs that came along with it.
    pub(super) fn insert_written(
        &mut self,
        index: usize,
        key: &CellKey,
        written: &Written,
        (outputs, count): &(Any, Any),
    ) {
        let kind = CellKind::parse(&written.kind);
        let key = self.insert_cell(index, kind, &written.source, Some(key.as_str()));
        self.take_written(&key, written);
        if kind == CellKind::Code {
            self.set_file_outputs(&key, outputs, count);
        }
    }

    /// Gives a cell outputs that no run of ours has made.
    pub(super) fn set_file_outputs(&mut self, key: &CellKey, outputs: &Any, count: &Any) {
        let style = self.style.clone();
        let Ok(cell) = self.cell_mut(key) else { return };
        if let Any::Array(items) = outputs {
            let items: Vec<Json> =
                items.iter().filter_map(whole_output).map(|output| file_output(&output)).collect();
            let mut text = String::new();
            format::write(&mut text, &Json::Array(items), &style, MEMBER_LEVEL);
            cell.fields.set(OUTPUTS, text.into(), &style, MEMBER_LEVEL);
        }
        cell.set(COUNT, &json_of(count), &style);
    }

    /// Gives the cell of the same key the outputs that this cell of another notebook has.
    pub(super) fn take_file_outputs(&mut self, from: &Cell) {
        let style = self.style.clone();
        let Ok(cell) = self.cell_mut(&from.key) else { return };
        for member in [OUTPUTS, COUNT] {
            if let Some(text) = from.fields.get(member) {
                cell.fields.set(member, text.clone(), &style, MEMBER_LEVEL);
            }
        }
    }

    /// Takes away what a cell shows, and its count.
    pub(super) fn clear_outputs(&mut self, key: &CellKey) {
        self.projection.clear(key);
        let Ok(cell) = self.cell_mut(key) else { return };
        if cell.kind == CellKind::Code {
            self.set_file_outputs(key, &Any::Array([].into()), &Any::Null);
        }
    }
}

/// Outputs and count of a cell as its file has them.
pub(super) fn file_outputs(cell: &Cell) -> (Vec<Json>, Any) {
    let outputs = match cell.json(OUTPUTS) {
        Some(Json::Array(outputs)) => outputs,
        _ => Vec::new(),
    };
    (outputs, cell.json(COUNT).map_or(Any::Null, |count| any_of(&count)))
}

/// An output that a peer has brought, with the members that such an output has; `None` when one is missing.
fn whole_output(output: &Any) -> Option<Any> {
    let Any::Map(members) = output else { return None };
    let text = |name: &str| members.get(name).filter(|value| matches!(value, Any::String(_)));
    let map = |name: &str| members.get(name).filter(|value| matches!(value, Any::Map(_)));
    let Some(Any::String(kind)) = members.get("output_type") else { return None };
    let names: &[&str] = match &**kind {
        "stream" => text("name").and(text("text")).map(|_| &["name", "text"][..])?,
        "display_data" => map("data").and(map("metadata")).map(|_| &["data", "metadata"][..])?,
        "execute_result" => {
            map("data").and(map("metadata")).map(|_| &["data", "metadata", "execution_count"][..])?
        }
        "error" => match members.get("traceback") {
            Some(Any::Array(lines)) if lines.iter().all(|line| matches!(line, Any::String(_))) => {
                text("ename").and(text("evalue")).map(|_| &["ename", "evalue", "traceback"][..])?
            }
            _ => return None,
        },
        _ => return None,
    };
    let mut whole: HashMap<String, Any> = names
        .iter()
        .map(|name| ((*name).to_owned(), members.get(*name).cloned().unwrap_or(Any::Null)))
        .collect();
    whole.insert("output_type".to_owned(), Any::String(Arc::clone(kind)));
    Some(Any::Map(Arc::new(whole)))
}

/// An output of the document as a file holds it: texts as lists of lines.
fn file_output(output: &Any) -> Json {
    let lines = |json: &mut Json| {
        if let Json::String(text) = json {
            *json = Json::Array(format::lines(text).map(Json::string).collect());
        }
    };
    let mut json = json_of(output);
    let is_stream = json.get("output_type").and_then(Json::as_str) == Some("stream");
    let Json::Object(members) = &mut json else { return json };
    for (member, value) in members {
        match (member.as_str(), value) {
            ("text", value) if is_stream => lines(value),
            ("data", Json::Object(data)) => {
                for (mime, value) in data {
                    if crate::projection::is_text(mime) {
                        lines(value);
                    }
                }
            }
            _ => {}
        }
    }
    json
}

/// A cell on its way into the document.
pub(super) struct NewCell {
    pub id: String,
    pub written: Written,
    /// Outputs, count and state of a cell that is put elsewhere.
    pub outputs: Vec<Any>,
    pub count: Any,
    pub state: Any,
}

impl NewCell {
    pub fn new(id: &str, written: Written) -> Self {
        Self { id: id.to_owned(), written, outputs: Vec::new(), count: Any::Null, state: "idle".into() }
    }

    /// The cell as it stands, to be put elsewhere: Yjs knows no moves.
    pub fn copy<T: ReadTxn>(txn: &T, id: &CellKey, map: &MapRef) -> Self {
        let (outputs, count) = outputs_of(txn, map);
        let outputs = match outputs {
            Any::Array(outputs) => outputs.to_vec(),
            _ => Vec::new(),
        };
        let state = map.get(txn, RUN_STATE).map_or(Any::from("idle"), |out| schema::plain(txn, &out, 0));
        Self { id: id.as_str().to_owned(), written: Written::read(txn, map), outputs, count, state }
    }

    /// Puts it into the list of cells.
    pub fn insert(self, txn: &mut TransactionMut<'_>, cells: &impl Array, at: u32) -> MapRef {
        let map: MapRef = cells.insert(txn, at, MapPrelim::default());
        map.insert(txn, ID, self.id);
        let is_code = self.written.kind == "code";
        map.insert(txn, KIND, self.written.kind);
        map.insert(txn, SOURCE, TextPrelim::new(self.written.source));
        let metadata: MapRef = map.insert(txn, METADATA, MapPrelim::default());
        for (key, value) in self.written.metadata {
            metadata.insert(txn, key, value);
        }
        for (key, value) in self.written.rest {
            // jupyter_ydoc leaves out empty attachments.
            if key != "attachments" || !matches!(&value, Any::Map(members) if members.is_empty()) {
                map.insert(txn, key, value);
            }
        }
        if is_code {
            map.insert(txn, COUNT, self.count);
            map.insert(txn, RUN_STATE, self.state);
            let outputs: yrs::ArrayRef = map.insert(txn, OUTPUTS, ArrayPrelim::default());
            for (at, output) in (0..).zip(self.outputs) {
                insert_output(txn, &outputs, at, &output);
            }
        }
        map
    }
}

/// Puts a plain output into the document; a stream's text becomes one that can grow.
fn insert_output(txn: &mut TransactionMut<'_>, outputs: &yrs::ArrayRef, at: u32, output: &Any) {
    let map: MapRef = outputs.insert(txn, at, MapPrelim::default());
    let Any::Map(members) = output else { return };
    let is_stream = matches!(members.get("output_type"), Some(Any::String(kind)) if &**kind == "stream");
    let sorted: BTreeMap<&String, &Any> = members.iter().collect();
    for (member, value) in sorted {
        match value {
            Any::String(text) if is_stream && member == "text" => {
                map.insert(txn, member.as_str(), TextPrelim::new(text.to_string()));
            }
            _ => drop(map.insert(txn, member.as_str(), value.clone())),
        }
    }
}
