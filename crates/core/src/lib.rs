//! What Outlive decides, without touching the world.
//!
//! Nothing here reads a clock, a file, a socket or a random number: time comes in as a parameter, ids come in
//! made. A decision is a function from state and input to events and effects; folding the events gives the
//! state back, so recovery after a crash and live running are the same code.
//!
//! | module | decides or describes |
//! |---|---|
//! | [`log`] | the records of a session's log, and the fold that says which of them count |
//! | [`session`] | what a session does with each input |
//! | [`group`] | several runners under one name, and the tasks that they serve |
//! | [`failover`] | who is alive, who takes what over, what a node does that is alone |
//! | [`runtime`] | launch specifications, status, restart policy, hang suspicion, the stop ladder |
//! | [`diagnosis`] | evidence in, ranked causes out; the failure report and its text |
//! | [`limits`] | every cap, timeout and queue size, with its reason |

pub mod diagnosis;
pub mod failover;
pub mod group;
pub mod id;
pub mod limits;
pub mod log;
pub mod runtime;
pub mod session;
pub mod time;
