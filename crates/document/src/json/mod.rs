//! JSON that keeps its text.
//!
//! A notebook that is saved must differ from the file that was read only where something was changed, so nothing
//! here turns a number into a float or a space into nothing: [`scan`] finds where values begin and end, [`lossless`]
//! keeps the text between them, [`tree`] is for what is looked into, [`format`] writes what is new the way Python's
//! nbformat writes it.
//!
//! As Python's `json` does, `NaN`, `Infinity`, `-Infinity` and half surrogate pairs are taken: notebooks contain them.

pub(crate) mod format;
pub(crate) mod lossless;
pub(crate) mod scan;
pub(crate) mod tree;

pub(crate) use format::Style;
pub(crate) use lossless::{Members, Sequence};
pub(crate) use scan::{ScanError, Scanner};
pub(crate) use tree::Json;
