//! A notebook: parsed, looked at, edited, exported.

use std::collections::{HashMap, HashSet};

use outlive_core::limits::JSON_DEPTH_MAX;
use serde_json::Value;

use crate::cell::{Cell, CellKey, CellKind, CellView, MEMBER_LEVEL};
use crate::error::{EditError, NotebookError};
use crate::json::lossless::{split_array, split_object};
use crate::json::scan::TOO_DEEP;
use crate::json::{Json, Members, ScanError, Scanner, Sequence, Style, format};
use crate::projection::{Blobs, Projection};

/// A notebook of nbformat 4 in memory, with the outputs of its runs projected into it.
///
/// Invariant: [`Notebook::to_bytes`] gives back the bytes that were parsed, but for what was changed since (tests in
/// `tests/lossless.rs`). Unknown keys, cell types, output types and minor versions are kept.
#[derive(Clone, Debug)]
pub struct Notebook {
    pub(crate) style: Style,
    /// What stands before and after the outermost object: a byte order mark, white space.
    around: (Box<str>, Box<str>),
    top: Members<Field>,
    minor: u64,
    /// The number in the next made-up key of a notebook without ids.
    next_key: usize,
    pub(crate) projection: Projection,
}

#[derive(Clone, Debug)]
enum Field {
    Text(Box<str>),
    Cells(Sequence<Cell>),
}

/// Members of the outermost object stand at this depth.
const TOP_LEVEL: usize = 1;
/// Cells stand at this depth.
const CELL_LEVEL: usize = 2;

impl Notebook {
    /// An empty notebook of nbformat 4.5 for a kernel.
    ///
    /// # Panics
    /// Never: its text is fixed.
    #[must_use]
    pub fn empty(kernel: &str) -> Self {
        let mut name = String::new();
        format::write_string(&mut name, kernel);
        let text = format!(
            "{{\n \"cells\": [],\n \"metadata\": {{\n  \"kernelspec\": {{\n   \"display_name\": {name},\n   \
             \"name\": {name}\n  }}\n }},\n \"nbformat\": 4,\n \"nbformat_minor\": 5\n}}\n"
        );
        Self::parse(text.as_bytes()).expect("the empty notebook is one")
    }

    /// Reads the bytes of an `.ipynb` file.
    ///
    /// # Errors
    /// When they are not a whole notebook of nbformat 4; the error says where and what to do.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotebookError> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let at = error.valid_up_to();
            let line = 1 + bytes[..at].iter().filter(|&&byte| byte == b'\n').count();
            NotebookError::NotText { line, byte: bytes[at] }
        })?;
        if text.trim_start_matches('\u{feff}').trim().is_empty() {
            return Err(NotebookError::Empty);
        }
        let mark = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let body = &text[mark..];
        Self::read(text, mark, body).map_err(|problem| match problem {
            Problem::Scan(error) => not_json(body, &error),
            Problem::Notebook(error) => error,
        })
    }

    fn read(text: &str, mark: usize, body: &str) -> Result<Self, Problem> {
        let mut scanner = Scanner::new(body);
        scanner.space();
        let start = scanner.pos();
        if scanner.peek() != Some(b'{') {
            scanner.value()?;
            scanner.end()?;
            return Err(NotebookError::NotANotebook { what: "it is not an object" }.into());
        }
        let mut bad = None;
        let top = Members::split(&mut scanner, |scanner, key| {
            if key == "cells" && scanner.peek() == Some(b'[') {
                return Ok(Field::Cells(read_cells(scanner, &mut bad)?));
            }
            let range = scanner.value()?;
            Ok(Field::Text(scanner.text(range).into()))
        })?;
        let end = scanner.pos();
        scanner.end()?;
        let minor = check_format(&top)?;
        if let Some(error) = bad {
            return Err(error.into());
        }
        let mut notebook = Self {
            style: Style::of(top.sequence()),
            around: (text[..mark + start].into(), body[end..].into()),
            top,
            minor,
            next_key: 0,
            projection: Projection::default(),
        };
        notebook.name_cells();
        Ok(notebook)
    }

    /// Gives each cell its key: its id, or a made-up one where it has none or shares it with a cell before.
    fn name_cells(&mut self) {
        let mut taken = HashSet::new();
        let ids: HashSet<String> =
            self.sequence().items().iter().filter_map(|cell| cell.id().map(str::to_owned)).collect();
        for (index, cell) in self.cells_mut().items_mut().iter_mut().enumerate() {
            let key = match cell.id() {
                Some(id) if taken.insert(id.to_owned()) => CellKey::new(id),
                _ => CellKey::made_up(index, |key| ids.contains(key)),
            };
            cell.key = key;
        }
        self.next_key = self.sequence().items().len();
    }

    /// The keys of all cells in their order, where some are not in the file: who keeps the notebook's bytes keeps them
    /// too, and gives them back to the cells with [`Notebook::name_again`]. `None` where each cell's key is its id.
    #[must_use]
    pub fn made_up_keys(&self) -> Option<Vec<CellKey>> {
        let cells = self.sequence().items();
        let all_have_ids = cells.iter().all(|cell| cell.id() == Some(cell.key.as_str()));
        (!all_have_ids).then(|| cells.iter().map(|cell| cell.key.clone()).collect())
    }

    /// Gives the cells of a notebook that was just parsed the keys that they had. Does nothing when there are more or
    /// fewer of them, or a key twice.
    pub fn name_again(&mut self, keys: Vec<CellKey>) {
        let distinct: HashSet<&CellKey> = keys.iter().collect();
        if distinct.len() != keys.len() || keys.len() != self.sequence().items().len() {
            return;
        }
        for (cell, key) in self.cells_mut().items_mut().iter_mut().zip(keys) {
            cell.key = key;
        }
    }

    /// The notebook as bytes of an `.ipynb` file. Large outputs are read from `blobs`; one that cannot be read is
    /// replaced by a text that says so.
    #[must_use]
    pub fn to_bytes(&self, blobs: &dyn Blobs) -> Vec<u8> {
        self.render(blobs, |_, _| ())
    }

    /// The same; `wrote` is told the outputs of each cell that runs have filled, as text.
    pub(crate) fn render(&self, blobs: &dyn Blobs, mut wrote: impl FnMut(&CellKey, &str)) -> Vec<u8> {
        let mut out = String::from(&*self.around.0);
        self.top.write(&mut out, |out, _, field| match field {
            Field::Text(text) => out.push_str(text),
            Field::Cells(cells) => cells.write(out, |out, cell| {
                cell.fields.write(out, |out, name, text| {
                    let start = out.len();
                    if !self.projection.write_field(out, &cell.key, name, &self.style, blobs) {
                        out.push_str(text);
                    } else if name == "outputs" {
                        wrote(&cell.key, &out[start..]);
                    }
                });
            }),
        });
        out.push_str(&self.around.1);
        out.into_bytes()
    }

    /// All cells in their order.
    pub fn cells(&self) -> impl ExactSizeIterator<Item = CellView<'_>> {
        self.sequence().items().iter().enumerate().map(|(index, cell)| CellView { cell, index })
    }

    /// One cell.
    #[must_use]
    pub fn cell(&self, key: &CellKey) -> Option<CellView<'_>> {
        self.cells().find(|view| view.key() == key)
    }

    /// The outputs of a cell as nbformat's JSON, with texts as lists of lines.
    #[must_use]
    pub fn outputs(&self, key: &CellKey, blobs: &dyn Blobs) -> Vec<Value> {
        let mut text = String::new();
        if !self.projection.write_field(&mut text, key, "outputs", &self.style, blobs) {
            let Some(original) = self.cell(key).and_then(|view| view.cell.fields.get("outputs")) else {
                return Vec::new();
            };
            text.push_str(original);
        }
        match Json::parse(&text).map(|json| json.to_value()) {
            Ok(Value::Array(outputs)) => outputs,
            _ => Vec::new(),
        }
    }

    /// All of the notebook's metadata.
    pub(crate) fn metadata_json(&self) -> Vec<(String, Json)> {
        let Some(Field::Text(text)) = self.top.get("metadata") else { return Vec::new() };
        match Json::parse(text) {
            Ok(Json::Object(members)) => members,
            _ => Vec::new(),
        }
    }

    /// The minor version of its format 4.
    pub(crate) const fn minor(&self) -> u64 {
        self.minor
    }

    /// The notebook's metadata, for instance `kernelspec` or `outlive`.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<Value> {
        let Some(Field::Text(text)) = self.top.get("metadata") else { return None };
        Some(Json::parse(text).ok()?.get(key)?.to_value())
    }

    /// What the notebook says about its kernel: of its metadata `kernelspec`, `language_info` and `outlive`, those that
    /// are there.
    #[must_use]
    pub fn kernel_metadata(&self) -> Value {
        let said = ["kernelspec", "language_info", "outlive"];
        Value::Object(said.iter().filter_map(|key| Some(((*key).to_owned(), self.metadata(key)?))).collect())
    }

    /// The name of the kernel that the notebook asks for.
    #[must_use]
    pub fn kernel_name(&self) -> Option<String> {
        self.metadata("kernelspec")?.get("name")?.as_str().map(str::to_owned)
    }

    /// The language of the notebook's code, as its metadata says it.
    #[must_use]
    pub fn language(&self) -> Option<String> {
        let of = |section: &str, key: &str| self.metadata(section)?.get(key)?.as_str().map(str::to_owned);
        of("language_info", "name").or_else(|| of("kernelspec", "language"))
    }

    /// Sets one entry of the notebook's metadata; `None` removes it.
    pub fn set_metadata(&mut self, key: &str, value: Option<&Value>) {
        self.set_metadata_json(key, value.map(Json::from_value).as_ref());
    }

    pub(crate) fn set_metadata_json(&mut self, key: &str, value: Option<&Json>) {
        let text = match self.top.get("metadata") {
            Some(Field::Text(text)) => text.clone(),
            _ => "{}".into(),
        };
        let changed = set_member(&text, key, value, &self.style, TOP_LEVEL + 1);
        self.top.set("metadata", Field::Text(changed), &self.style, TOP_LEVEL);
    }

    /// Sets one entry of a cell's metadata; `None` removes it.
    ///
    /// # Errors
    /// When there is no such cell.
    pub fn set_cell_metadata(
        &mut self,
        key: &CellKey,
        entry: &str,
        value: Option<&Value>,
    ) -> Result<(), EditError> {
        self.set_cell_metadata_json(key, entry, value.map(Json::from_value).as_ref())
    }

    pub(crate) fn set_cell_metadata_json(
        &mut self,
        key: &CellKey,
        entry: &str,
        value: Option<&Json>,
    ) -> Result<(), EditError> {
        let style = self.style.clone();
        let cell = self.cell_mut(key)?;
        let text = cell.fields.get("metadata").cloned().unwrap_or_else(|| "{}".into());
        let changed = set_member(&text, entry, value, &style, MEMBER_LEVEL + 1);
        cell.fields.set("metadata", changed, &style, MEMBER_LEVEL);
        Ok(())
    }

    /// Replaces the source of a cell.
    ///
    /// # Errors
    /// When there is no such cell.
    pub fn set_source(&mut self, key: &CellKey, source: &str) -> Result<(), EditError> {
        let style = self.style.clone();
        let cell = self.cell_mut(key)?;
        if cell.source() != source {
            cell.set_lines("source", source, &style);
        }
        Ok(())
    }

    /// Puts a new cell at `index` (at the end when that lies beyond). `wish` is the id that it gets if the notebook
    /// has ids and this one is free; else it is drawn.
    pub fn insert_cell(&mut self, index: usize, kind: CellKind, source: &str, wish: Option<&str>) -> CellKey {
        let key = self.new_key(wish);
        let mut json = vec![("metadata".to_owned(), Json::Object(Vec::new()))];
        let word = kind.word();
        json.push(("cell_type".to_owned(), Json::string(word)));
        if self.has_ids() {
            json.push(("id".to_owned(), Json::string(key.as_str())));
        }
        if kind == CellKind::Code {
            json.push(("execution_count".to_owned(), Json::null()));
            json.push(("outputs".to_owned(), Json::Array(Vec::new())));
        }
        json.push(("source".to_owned(), Json::Array(format::lines(source).map(Json::string).collect())));
        let mut text = String::new();
        format::write(&mut text, &Json::Object(json), &self.style, CELL_LEVEL);
        let fields = split_object(&mut Scanner::new(&text)).expect("what was just written is JSON");
        let mut cell = Cell::new(CellKind::parse(word), fields);
        cell.key = key.clone();
        let style = self.style.clone();
        let cells = self.cells_mut();
        let index = index.min(cells.items().len());
        cells.insert(index, cell, "", &style, CELL_LEVEL);
        key
    }

    /// Removes a cell. Runs that still go on for it have nowhere to put their output but the log.
    ///
    /// # Errors
    /// When there is no such cell.
    pub fn delete_cell(&mut self, key: &CellKey) -> Result<(), EditError> {
        let index = self.cell(key).ok_or_else(|| EditError::NoSuchCell(key.clone()))?.index();
        self.cells_mut().remove(index);
        self.projection.forget(key);
        Ok(())
    }

    /// Gives a code cell a new source and takes its outputs away; does nothing when the source is the same.
    pub(crate) fn replace_code(&mut self, key: &CellKey, source: &str) {
        let style = self.style.clone();
        let Ok(cell) = self.cell_mut(key) else { return };
        if cell.source() == source {
            return;
        }
        cell.set_lines("source", source, &style);
        cell.set("outputs", &Json::Array(Vec::new()), &style);
        cell.set("execution_count", &Json::null(), &style);
        self.projection.forget(key);
    }

    /// Gives a cell the members that a run fills, where they are missing.
    pub(crate) fn ensure_output_fields(&mut self, key: &CellKey) -> Result<(), EditError> {
        let style = self.style.clone();
        let fields = &mut self.cell_mut(key)?.fields;
        for (name, nothing) in [("outputs", "[]"), ("execution_count", "null")] {
            if fields.get(name).is_none() {
                fields.set(name, nothing.into(), &style, MEMBER_LEVEL);
            }
        }
        Ok(())
    }

    /// Takes a cell of another notebook as it is, in front of all others.
    pub(crate) fn adopt(&mut self, cell: Cell) {
        let style = self.style.clone();
        self.cells_mut().insert(0, cell, "", &style, CELL_LEVEL);
    }

    /// The cells of these keys, in their order. Looks for few of them one by one, and goes through all for many.
    pub(crate) fn some_cells(&self, keys: &HashSet<CellKey>) -> Vec<&Cell> {
        const FEW: usize = 8;
        let cells = self.cell_list();
        if keys.len() > FEW {
            return cells.iter().filter(|cell| keys.contains(&cell.key)).collect();
        }
        let mut places: Vec<usize> =
            keys.iter().filter_map(|key| cells.iter().position(|cell| cell.key == *key)).collect();
        places.sort_unstable();
        places.into_iter().map(|place| &cells[place]).collect()
    }

    pub(crate) fn cell_list(&self) -> &[Cell] {
        self.sequence().items()
    }

    /// Names the cells as they are named in `other`, of which `pairs` says which is which (index there, index here);
    /// the rest get names that neither has.
    pub(crate) fn take_keys(&mut self, other: &Self, pairs: &HashMap<usize, usize>) {
        let named: HashMap<usize, CellKey> =
            pairs.iter().map(|(&there, &here)| (here, other.cell_list()[there].key.clone())).collect();
        let mut taken: HashSet<CellKey> = other.cells().map(|cell| cell.key().clone()).collect();
        let mut next = self.next_key.max(other.next_key);
        for (index, cell) in self.cells_mut().items_mut().iter_mut().enumerate() {
            cell.key = match named.get(&index) {
                Some(key) => key.clone(),
                None => {
                    let own = cell.id().map(CellKey::new).filter(|key| !taken.contains(key));
                    own.unwrap_or_else(|| {
                        next += 1;
                        CellKey::made_up(next - 1, |key| taken.contains(&CellKey::new(key)))
                    })
                }
            };
            taken.insert(cell.key.clone());
        }
        self.next_key = next;
    }

    pub(crate) fn cell_mut(&mut self, key: &CellKey) -> Result<&mut Cell, EditError> {
        let cell = self.cells_mut().items_mut().iter_mut().find(|cell| cell.key == *key);
        cell.ok_or_else(|| EditError::NoSuchCell(key.clone()))
    }

    pub(crate) fn has_ids(&self) -> bool {
        self.minor >= 5
    }

    fn new_key(&mut self, wish: Option<&str>) -> CellKey {
        if !self.has_ids() && wish.is_none() {
            self.next_key += 1;
            return CellKey::made_up(self.next_key - 1, |key| self.cell(&CellKey::new(key)).is_some());
        }
        let drawn = std::iter::repeat_with(|| uuid::Uuid::new_v4().simple().to_string()[..8].to_owned());
        wish.map(str::to_owned)
            .into_iter()
            .chain(drawn)
            .map(CellKey::new)
            .find(|key| self.cell(key).is_none())
            .expect("one of endless draws is free")
    }

    /// Puts the cells into this order. Keys that are no cell's are passed over, cells that are not named stay behind.
    pub(crate) fn arrange(&mut self, order: &[CellKey]) {
        let rank: HashMap<&CellKey, usize> =
            order.iter().enumerate().map(|(rank, key)| (key, rank)).collect();
        let cells = self.cells_mut().items_mut();
        let place = |cell: &Cell| rank.get(&cell.key).copied().unwrap_or(usize::MAX);
        if !cells.is_sorted_by_key(place) {
            cells.sort_by_key(place);
        }
    }

    fn sequence(&self) -> &Sequence<Cell> {
        let Some(Field::Cells(cells)) = self.top.get("cells") else {
            unreachable!("parse has found the cells")
        };
        cells
    }

    fn cells_mut(&mut self) -> &mut Sequence<Cell> {
        let Some(Field::Cells(cells)) = self.top.get_mut("cells") else {
            unreachable!("parse has found the cells")
        };
        cells
    }
}

enum Problem {
    Scan(ScanError),
    Notebook(NotebookError),
}

impl From<ScanError> for Problem {
    fn from(error: ScanError) -> Self {
        Self::Scan(error)
    }
}

impl From<NotebookError> for Problem {
    fn from(error: NotebookError) -> Self {
        Self::Notebook(error)
    }
}

/// Reads the cells. The first that is none goes to `bad`: a syntax error further on matters more.
fn read_cells(
    scanner: &mut Scanner<'_>,
    bad: &mut Option<NotebookError>,
) -> Result<Sequence<Cell>, ScanError> {
    let mut number = 0;
    split_array(scanner, |scanner| {
        number += 1;
        let mut refuse = |what| {
            bad.get_or_insert(NotebookError::BadCell { number, what });
        };
        let fields = if scanner.peek() == Some(b'{') {
            split_object(scanner)?
        } else {
            scanner.value()?;
            refuse("is not an object");
            split_object(&mut Scanner::new("{}"))?
        };
        let mut cell = Cell::new(CellKind::Unknown, fields);
        match cell.json("cell_type") {
            Some(Json::String(word)) => cell.kind = CellKind::parse(&word),
            _ => refuse("has no cell_type; it should be \"code\", \"markdown\" or \"raw\""),
        }
        if cell.json("source").is_some_and(|source| source.joined().is_none()) {
            refuse("has a source that is neither text nor a list of lines");
        }
        if cell.json("metadata").is_some_and(|metadata| !metadata.is_object()) {
            refuse("has metadata that is not an object");
        }
        Ok(cell)
    })
}

/// Checks `nbformat`, `metadata` and `cells`; gives the minor version.
fn check_format(top: &Members<Field>) -> Result<u64, NotebookError> {
    let wrong = |what| Err(NotebookError::NotANotebook { what });
    let number = |key: &str| match top.get(key) {
        Some(Field::Text(text)) => text.parse::<u64>().ok(),
        _ => None,
    };
    match number("nbformat") {
        None if top.get("nbformat").is_none() => return wrong("it has no `nbformat`"),
        None => return wrong("its `nbformat` is not a whole number"),
        Some(4) => {}
        Some(major @ 0..4) => return Err(NotebookError::TooOld { major }),
        Some(major) => return Err(NotebookError::TooNew { major }),
    }
    let Some(minor) = number("nbformat_minor") else {
        return wrong("its `nbformat_minor` is missing or not a whole number");
    };
    if !matches!(top.get("cells"), Some(Field::Cells(_))) {
        return wrong("it has no list of `cells`");
    }
    match top.get("metadata") {
        Some(Field::Text(text)) if !text.starts_with('{') => wrong("its `metadata` is not an object"),
        _ => Ok(minor),
    }
}

fn not_json(body: &str, error: &ScanError) -> NotebookError {
    let before = &body[..error.at];
    let line = 1 + before.matches('\n').count();
    if error.what == TOO_DEEP {
        return NotebookError::TooDeep { line, limit: JSON_DEPTH_MAX };
    }
    let column = 1 + before[before.rfind('\n').map_or(0, |at| at + 1)..].chars().count();
    NotebookError::NotJson { line, column, what: error.what }
}

/// Sets or removes one member of the object `text`, whose members stand at `level`.
fn set_member(text: &str, key: &str, value: Option<&Json>, style: &Style, level: usize) -> Box<str> {
    let mut members =
        split_object(&mut Scanner::new(text)).expect("parse has checked that metadata is an object");
    match value {
        None => members.remove(key),
        Some(value) => {
            let mut out = String::new();
            format::write(&mut out, value, style, level);
            members.set(key, out.into(), style, level);
        }
    }
    let mut changed = String::new();
    members.write(&mut changed, |out, _, text| out.push_str(text));
    changed.into()
}
