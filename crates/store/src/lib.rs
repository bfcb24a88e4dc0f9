//! The storage behind logs, tables and blobs: a narrow contract ([`engine`]) and what fulfils it.
//!
//! | module | is |
//! |---|---|
//! | [`engine`] | the trait, its contract in prose, the types that go in and out |
//! | [`error`] | what can go wrong, by operation |
//! | [`table`] | rows, changes, and a watch on them |
//! | [`blob`] | what all engines do alike with blobs |
//! | [`memory`] | everything in memory: for tests |
//! | [`faulty`] | any engine, made to fail on order: for tests |
//! | [`conformance`] | the one suite that every engine passes |
//! | [`transport`] | what nodes tell each other at once, beside the engine |
//! | [`embedded`] | segment files and one table file in a directory: the default |

pub mod blob;
pub mod conformance;
pub mod embedded;
pub mod engine;
pub mod error;
pub mod faulty;
pub mod memory;
pub mod table;
pub mod transport;

pub use embedded::{Embedded, OpenError};
pub use engine::{
    BlobStamp, Dropped, Durability, Engine, Guard, LaneFilter, Page, ReadLimit, TablesState, Usage,
};
pub use error::{AppendError, BlobError, ReadError, TableError, Unavailable};
pub use faulty::{Fault, Faulty, Operation};
pub use memory::Memory;
pub use table::{Change, Row, TableEvent, TableWatch};
pub use transport::{Connection, Heard, MemoryTransport, Topic, Transport};
