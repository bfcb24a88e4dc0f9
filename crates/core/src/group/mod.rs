//! A group of runners: several processes under one name, and the tasks that they serve.
//!
//! It is a session of its own kind: one log, one owner, and the same way of deciding as [`crate::session`]: `decide` answers an
//! input with facts and effects, `apply` folds a fact, `advance` says what follows from the state alone. Its facts are those of
//! sessions ([`Fact`](crate::session::Fact)): what is known of a process and a run has the same form, and [`event::GroupEvent`] adds what only groups have.

pub mod advance;
pub mod apply;
pub mod decide;
pub mod event;
pub mod input;
pub mod outlook;
pub mod spec;
pub mod state;

pub use advance::{advance, recover, recover_member, timers};
pub use apply::apply;
pub use decide::decide;
pub use event::GroupEvent;
pub use input::{Decision, Denied, Effect, Input, Timer};
pub use spec::{GroupSpec, MemberSpec, Strategy};
pub use state::Group;
