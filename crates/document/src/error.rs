//! Why a file is not taken as a notebook.

use crate::cell::CellKey;

/// A file that is not a notebook that Outlive can hold. Reading has changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotebookError {
    /// Nothing but white space.
    #[error("the notebook file is empty; write a notebook to it, or remove it and begin a new one")]
    Empty,
    /// Not text at all.
    #[error("the notebook is not UTF-8 text: byte {byte:#04x} at line {line}; save it again as UTF-8")]
    NotText {
        /// Line of the first wrong byte, from 1.
        line: usize,
        /// The byte.
        byte: u8,
    },
    /// Not JSON, or only the beginning of it.
    #[error(
        "the notebook is not valid JSON: line {line}, column {column}: {what}; \
         mend that place in a text editor, or take the file from a backup or version control"
    )]
    NotJson {
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// What should stand there.
        what: &'static str,
    },
    /// Nested beyond [`outlive_core::limits::JSON_DEPTH_MAX`].
    #[error("the notebook is nested more than {limit} levels deep at line {line}; no notebook needs that")]
    TooDeep {
        /// Line of the first bracket over the limit, from 1.
        line: usize,
        /// The limit.
        limit: usize,
    },
    /// JSON of another sort.
    #[error(
        "the file is JSON, but not a notebook: {what}; an .ipynb file has `nbformat`, `metadata` and `cells`"
    )]
    NotANotebook {
        /// What is missing or wrong.
        what: &'static str,
    },
    /// nbformat 1 to 3.
    #[error(
        "the notebook has the old format nbformat {major}; convert it first: \
         jupyter nbconvert --to notebook --nbformat 4 --inplace FILE.ipynb"
    )]
    TooOld {
        /// Its nbformat.
        major: u64,
    },
    /// nbformat 5 or later.
    #[error("the notebook has nbformat {major}, which is newer than what this version of Outlive reads (4)")]
    TooNew {
        /// Its nbformat.
        major: u64,
    },
    /// A cell that cannot be understood.
    #[error("cell {number} of the notebook {what}")]
    BadCell {
        /// Its place, from 1.
        number: usize,
        /// What is wrong.
        what: &'static str,
    },
}

/// Why an edit was not made. The notebook is as before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// No cell has this key, or no longer.
    #[error("the notebook has no cell {0}; it may have been deleted")]
    NoSuchCell(CellKey),
    /// Only code can be run.
    #[error("cell {0} is no code cell; make it one, or run another")]
    NotCode(CellKey),
    /// The source is not what the editor has seen.
    #[error("cell {cell} has been changed by somebody else; read it again and decide")]
    SourceDiffers {
        /// The cell.
        cell: CellKey,
        /// What it reads now.
        present: String,
    },
    /// A splice reaches beyond the source, or into the middle of a character.
    #[error(
        "cannot replace {delete} characters at {at} in cell {cell}, whose source has {length} (counted in UTF-16 units, \
         whole characters only)"
    )]
    OutOfRange {
        /// The cell.
        cell: CellKey,
        /// Where it should have begun.
        at: u32,
        /// How much it should have replaced.
        delete: u32,
        /// How long the source is.
        length: u32,
    },
    /// A new cell should have the id of another.
    #[error("the notebook has a cell {0} already; choose another id, or none")]
    IdTaken(CellKey),
    /// No id that a cell can have.
    #[error(
        "{0:?} cannot be the id of a cell: 1 to 64 letters, digits, `-` and `_`; choose another id, or none"
    )]
    BadId(String),
    /// More than one edit may make of a document.
    #[error("the edits hold {bytes} bytes of text, and {limit} are taken at once; send them in parts")]
    TooLarge {
        /// How much it is.
        bytes: usize,
        /// How much it may be.
        limit: usize,
    },
}
