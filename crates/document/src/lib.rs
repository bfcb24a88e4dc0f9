//! The notebook model: lossless `.ipynb`, edits, projection of outputs, the file on disk.
//!
//! A notebook goes through this crate in this order: [`file::read`] → [`Notebook::parse`] →
//! [`Notebook::inject_parameters`] → [`Notebook::begin_run`], [`Notebook::apply_chunk`] …, [`Notebook::finish_run`] →
//! [`Notebook::to_bytes`] → [`file::write_atomic`]. Where it is edited while it is open it is held by
//! [`live::Live`], which also merges what other programs make of the file.
//!
//! Nothing here waits; [`file`] blocks on the disk and belongs on a blocking thread.

mod cell;
mod error;
pub mod file;
mod json;
pub mod live;
mod merge;
mod notebook;
pub mod parameters;
mod projection;

pub use cell::{CellKey, CellKind, CellView};
pub use error::{EditError, NotebookError};
pub use notebook::Notebook;
pub use parameters::ParameterError;
pub use projection::{Blobs, NoBlobs, ProjectionError};
