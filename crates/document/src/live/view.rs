//! A notebook as plain data, for those who read it without Yjs.

use serde_json::Value;

use super::Live;
use crate::cell::{CellKey, CellKind, CellView};
use crate::json::Json;
use crate::projection::{Blobs, Shown};

/// A notebook to read.
#[derive(Clone, PartialEq, Debug)]
pub struct NotebookContent {
    /// The notebook's metadata.
    pub metadata: Value,
    /// The minor version of its format 4.
    pub nbformat_minor: u64,
    /// Its cells, in their order.
    pub cells: Vec<CellContent>,
}

/// A cell to read.
#[derive(Clone, PartialEq, Debug)]
pub struct CellContent {
    /// Its id.
    pub id: CellKey,
    /// What it is.
    pub kind: CellKind,
    /// Its source in one piece.
    pub source: String,
    /// Its metadata.
    pub metadata: Value,
    /// The kernel's count of the execution that it shows.
    pub execution_count: Option<u64>,
    /// Its outputs as nbformat has them, with texts as lists of lines; empty when they were not asked for.
    pub outputs: Vec<Value>,
}

impl Live {
    /// The whole notebook, with or without outputs. Large outputs are read from `blobs`.
    pub fn read(&mut self, outputs: bool, blobs: &dyn Blobs) -> NotebookContent {
        self.reconcile();
        let cells = self.notebook.cells().map(|cell| self.content(cell, outputs, blobs)).collect();
        let metadata = Json::Object(self.notebook.metadata_json()).to_value();
        NotebookContent { metadata, nbformat_minor: self.notebook.minor(), cells }
    }

    /// One cell, with or without outputs.
    pub fn read_cell(&mut self, key: &CellKey, outputs: bool, blobs: &dyn Blobs) -> Option<CellContent> {
        self.reconcile();
        self.notebook.cell(key).map(|cell| self.content(cell, outputs, blobs))
    }

    fn content(&self, view: CellView<'_>, outputs: bool, blobs: &dyn Blobs) -> CellContent {
        let key = view.key();
        let in_file = || view.cell.json(super::schema::COUNT).and_then(|count| count.to_value().as_u64());
        CellContent {
            id: key.clone(),
            kind: view.kind(),
            source: view.source(),
            metadata: view
                .cell
                .json(super::schema::METADATA)
                .map_or_else(|| Value::Object(serde_json::Map::new()), |json| json.to_value()),
            execution_count: match self.notebook.projection.shown(key) {
                Shown::File(count) => count.or_else(in_file),
                Shown::Run(shown) => shown.count,
            },
            outputs: if outputs { self.notebook.outputs(key, blobs) } else { Vec::new() },
        }
    }
}
