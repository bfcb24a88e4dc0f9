//! A session: the stable home of one notebook or one command, and the only unit of ownership.
//!
//! ```text
//!  Input ──► decide(&Session, Input, Now) ──► Decision { facts, effects }   nothing has changed yet
//!                                               │ facts are appended to the log (fenced)
//!                                               ▼
//!            apply(&mut Session, &Fact)  ◄──────┘ the only thing that changes state
//!                                               │ effects are carried out
//!            advance(&Session, Now) ◄───────────┘ what follows from the state alone, until nothing does
//! ```
//!
//! [`advance`](advance::advance) is level-triggered: it looks at the state and not at what has just happened. So a
//! daemon that died between any two steps goes on after the fold as if nothing had been, and a second detector of the
//! same death finds nothing left to decide.

pub mod advance;
pub mod apply;
pub mod decide;
pub mod decision;
pub mod event;
pub mod handover;
pub mod input;
pub mod outcome;
pub(crate) mod process;
pub mod residence;
pub mod spec;
pub mod state;

pub use advance::{advance, recover, timers};
pub use apply::apply;
pub use decide::{decide, effective};
pub use event::{Fact, SessionEvent};
pub use handover::{HandOver, can_release};
pub use input::{Decision, Denied, Effect, Input, Timer};
pub use outcome::{CancelWhy, RunOutcome};
pub use spec::SessionSpec;
pub use state::Session;
