//! A session: the stable home of one notebook or one command, and the only unit of ownership.

pub mod event;
pub mod outcome;
pub mod spec;

pub use outcome::{CancelWhy, RunOutcome};
