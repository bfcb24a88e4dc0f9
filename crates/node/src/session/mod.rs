//! One session: its task, what the task keeps, and the handle by which everybody else reaches it.
//!
//! | file | holds |
//! |---|---|
//! | [`handle`] | the mailbox and the last view: all that others see |
//! | [`task`] | the loop: one input at a time into `core`, facts to the log, effects out |
//! | [`journal`] | the log as its owner writes it: claim, append, fold |
//! | [`intake`] | what comes from the shim: output to the run's lane, the rest to `decide` |
//! | [`notebook`] | what stands in the notebook, and its file |
//! | [`peers`] | those who edit it live |
//! | [`open`] | a session made or taken up after a restart |
//! | [`stall`] | whether the store takes what it writes |
//! | [`view`] | the state as clients see it |

pub mod handle;
pub(crate) mod intake;
pub(crate) mod journal;
mod notebook;
pub mod open;
pub mod peers;
pub mod stall;
mod task;
pub mod view;

pub use handle::{Handle, Message};
pub(crate) use notebook::{hex, record as notebook_record, with_sources};
pub(crate) use task::{rearm, report_id};
