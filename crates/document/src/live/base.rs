//! What a notebook was when it and its file were last the same: what later changes on both sides are compared with.
//!
//! Hashes only: a base costs a few words for each cell.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use yrs::Any;

use super::reconcile::members;
use super::schema::{Written, json_of};
use crate::cell::CellKey;
use crate::json::{Style, format};
use crate::notebook::Notebook;

/// What was agreed on with the file, and what has run since.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Base {
    pub agreed: Agreed,
    /// Cells that have run since, or were cleared.
    pub ran: HashSet<CellKey>,
    /// What is being written to the file.
    rendered: Option<Rendered>,
    /// The outputs of cells that runs have filled, as they were written last.
    #[serde(skip)]
    written: HashMap<CellKey, u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Rendered {
    agreed: Agreed,
    ran: HashSet<CellKey>,
}

/// Sources, kinds, metadata and order.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Agreed {
    pub order: Vec<CellKey>,
    pub cells: HashMap<CellKey, Facts>,
    pub metadata: BTreeMap<String, u64>,
    /// Of cells that runs had filled: their outputs in the file.
    pub outputs: HashMap<CellKey, u64>,
}

/// What people had written of a cell.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    pub kind: u64,
    pub source: u64,
    pub metadata: BTreeMap<String, u64>,
    pub rest: BTreeMap<String, u64>,
}

impl Facts {
    pub fn of(written: &Written) -> Self {
        let hashes = |members: &BTreeMap<String, Any>| {
            members.iter().map(|(key, value)| (key.clone(), hash_any(value))).collect()
        };
        Self {
            kind: hash(written.kind.as_bytes()),
            source: hash(written.source.as_bytes()),
            metadata: hashes(&written.metadata),
            rest: hashes(&written.rest),
        }
    }
}

impl Agreed {
    pub fn of(notebook: &Notebook) -> Self {
        let cells = notebook.cell_list();
        Self {
            order: cells.iter().map(|cell| cell.key.clone()).collect(),
            cells: cells.iter().map(|cell| (cell.key.clone(), Facts::of(&Written::of(cell)))).collect(),
            metadata: members(notebook.metadata_json())
                .iter()
                .map(|(key, any)| (key.clone(), hash_any(any)))
                .collect(),
            outputs: HashMap::new(),
        }
    }
}

impl Base {
    pub fn of(notebook: &Notebook) -> Self {
        Self { agreed: Agreed::of(notebook), ran: HashSet::new(), rendered: None, written: HashMap::new() }
    }

    /// The outputs of this cell are others now.
    pub fn ran(&mut self, cell: &CellKey) {
        if !self.ran.contains(cell) {
            self.ran.insert(cell.clone());
        }
        if let Some(rendered) = &mut self.rendered
            && !rendered.ran.contains(cell)
        {
            rendered.ran.insert(cell.clone());
        }
    }

    /// Notes the outputs that were just written as text.
    pub fn wrote(&mut self, outputs: HashMap<CellKey, u64>) {
        self.written = outputs;
    }

    pub fn rendered(&mut self, notebook: &Notebook) {
        let agreed = Agreed { outputs: std::mem::take(&mut self.written), ..Agreed::of(notebook) };
        self.rendered = Some(Rendered { agreed, ran: HashSet::new() });
    }

    pub fn saved(&mut self) {
        if let Some(rendered) = self.rendered.take() {
            self.agreed = rendered.agreed;
            self.ran = rendered.ran;
        }
    }

    /// The file is this now, and was read.
    pub fn read(&mut self, agreed: Agreed) {
        self.agreed = agreed;
        self.rendered = None;
    }
}

pub(super) fn hash(bytes: &[u8]) -> u64 {
    let digest = Sha256::digest(bytes);
    u64::from_le_bytes(digest[..8].try_into().expect("it has 32 bytes"))
}

pub(super) fn hash_any(any: &Any) -> u64 {
    let mut text = String::new();
    format::write(&mut text, &json_of(any), &Style::default(), 0);
    hash(text.as_bytes())
}
