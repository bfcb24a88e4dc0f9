//! A group of runners: several processes under one name, and the tasks that they serve.
//!
//! It is a session of its own kind: one log, one owner, and the same way of deciding as [`crate::session`]: [`decide()`] answers an
//! input with facts and effects, [`apply()`] folds a fact, [`advance()`] says what follows from the state alone. Its facts are
//! those of sessions ([`Fact`](crate::session::Fact)): what is known of a process and a run has the same form, and
//! [`GroupEvent`] adds what only groups have.
//!
//! ```text
//!                     a ready member has room                 the runner says how it ended
//!  submit ► queued ─────────────────────────────► running ────────────────────────────────────► ended
//!             ▲ │ nobody is ready in time: unserved  │  cancelled, over its limit: asked, then a while to end ──►│
//!             │ └────────────────────────────────────┼───────────────────────────────────────────────────────►  │
//!             └── its process died, it is ───────────┴── its process died: failed, with the one report ────────►│
//!                 idempotent and may be served
//! ```
//!
//! - **Who gets what.** A member that is ready (greeted, phase ready, answers) and has room and the handler; of those the one with
//!   the least to do, of equals the first. A task goes past those that need a handler that has no room.
//! - **Waiting** is bounded while no ready member has the handler, from the moment since which none has. What nobody will
//!   ever take ends at once, and is refused.
//! - **A death** is told to each task in flight, then to everybody, at once; the tasks end when all that the process wrote is
//!   known. An idempotent one waits again, before all others, at its last checkpoint, but not after
//!   [`TASK_ATTEMPTS_MAX`](crate::limits::TASK_ATTEMPTS_MAX) runners lost. What a runner that is being stopped says of its
//!   tasks, but success, is a consequence of that: its end settles them.
//! - **`one_for_all`**: the first failure takes all down, what follows it follows for all, and none is launched before all are
//!   drained. A wish about one member is about all.
//! - **A cancel that is ignored** ends the task after the grace; its runner gets nothing new and is stopped when it has nothing
//!   else to do.
//!
//! Invariant: each task has one terminal and is with one process at a time, each process one death; no process is launched
//! before its predecessor is drained; nothing waits without a deadline or a process that lives (`tests/group/orders.rs`).

pub mod advance;
pub mod apply;
pub mod decide;
pub mod event;
pub mod handover;
pub mod input;
pub mod outlook;
pub mod spec;
pub mod state;

pub use advance::{advance, recover, recover_member, timers};
pub use apply::apply;
pub use decide::decide;
pub use event::GroupEvent;
pub use handover::can_release;
pub use input::{Decision, Denied, Effect, Input, Timer};
pub use spec::{GroupSpec, MemberSpec, Strategy};
pub use state::Group;
