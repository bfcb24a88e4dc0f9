//! What a cell shows, for the live document: outputs one by one, so that only what is new is copied.

use std::collections::HashSet;

use outlive_core::id::RunId;
use outlive_core::log::BlobRef;

use super::output::{Output, Rich, RichKind};
use super::{Before, Projection, text};
use crate::cell::CellKey;
use crate::json::Json;

/// What a cell shows.
pub(crate) enum Shown<'a> {
    /// What stands in its file, with this count if a run has begun meanwhile.
    File(Option<u64>),
    /// What its latest run, or the one before it, has put there.
    Run(RunShown<'a>),
}

/// The outputs of a run.
pub(crate) struct RunShown<'a> {
    pub run: RunId,
    /// Outputs of the same life only grow or are replaced one by one.
    pub life: u64,
    pub count: Option<u64>,
    items: &'a [Output],
}

/// One output of a run.
pub(crate) enum Piece<'a> {
    /// Text of a stream that only grows at its end.
    Stream { name: &'static str, text: &'a str },
    /// A display or a result.
    Rich { count: Option<&'a Json>, content: Content<'a>, revision: u32, bytes: u64 },
    /// An `error`.
    Failure { ename: &'a str, evalue: &'a str, traceback: &'a [String] },
}

/// The content of a display or a result.
pub(crate) enum Content<'a> {
    Here { data: &'a Json, metadata: &'a Json },
    Blob { blob: &'a BlobRef, mimes: &'a [String] },
}

impl RunShown<'_> {
    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn piece(&self, index: usize) -> Piece<'_> {
        match &self.items[index] {
            Output::Stream { name, text } => Piece::Stream { name: name.as_str(), text: &text.head },
            Output::Rich { kind, content, revision, .. } => Piece::Rich {
                count: match kind {
                    RichKind::Display => None,
                    RichKind::Result { count } => Some(count),
                },
                content: match content {
                    Rich::Inline { data, metadata, .. } => Content::Here { data, metadata },
                    Rich::Blob { blob, mimes } => Content::Blob { blob, mimes },
                },
                revision: *revision,
                bytes: content.size(),
            },
            Output::Failure(failure) => Piece::Failure {
                ename: &failure.ename,
                evalue: &failure.evalue,
                traceback: &failure.traceback,
            },
        }
    }
}

impl Projection {
    pub fn shown(&self, cell: &CellKey) -> Shown<'_> {
        let Some(entry) = self.cells.get(cell) else { return Shown::File(None) };
        let (outputs, count) = match &entry.before {
            None => (&entry.outputs, entry.count),
            Some(Before::File) => return Shown::File(entry.count),
            Some(Before::Run(outputs, count)) => (&**outputs, entry.count.or(*count)),
        };
        Shown::Run(RunShown { run: outputs.run, life: outputs.life, count, items: outputs.items() })
    }

    /// The cell whose latest run this is.
    pub fn cell_of(&self, run: RunId) -> Option<&CellKey> {
        self.runs.get(&run).map(|state| &state.cell)
    }

    /// Whether this run is the latest of the cell and has not ended.
    pub fn goes_on(&self, cell: &CellKey, run: RunId) -> bool {
        self.cells.get(cell).is_some_and(|entry| entry.goes_on && entry.run == run)
    }

    /// Whether the latest run of a cell shows something.
    pub fn has_outputs(&self, cell: &CellKey) -> bool {
        self.cells.get(cell).is_some_and(|entry| !entry.outputs.items().is_empty())
    }

    pub fn has_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Notes that a cell may show something else.
    pub fn touch(&mut self, cell: &CellKey) {
        if !self.touched.contains(cell) {
            self.touched.insert(cell.clone());
        }
    }

    /// The cells that may show something else than when this was last asked.
    pub fn take_touched(&mut self) -> HashSet<CellKey> {
        std::mem::take(&mut self.touched)
    }
}

/// A remark of Outlive's own, and a size for people.
pub(crate) use text::{notice, size};
