//! One log for each session: one total order, several lanes, one fence (docs/design/log.md).
//!
//! [`record`] says what can stand in a log, [`fold`] which of it counts, [`follow`] what a reader is given. Readers,
//! the owner, recovery and the tests of every engine use the same fold, so safety comes from the log alone and not
//! from leases or clocks.

pub mod chunk;
pub mod fold;
pub mod follow;
pub mod record;

pub use chunk::{BlobRef, Chunk, ChunkKind, Payload};
pub use record::{Control, Entry, Fenced, FencedBody, Lane, Record, Request, RunRecord, Source};
