//! What follows from a group's state alone.

use std::time::Duration;

use super::input::{Decision, Effect, Timer};
use super::state::Group;
use crate::time::Now;

/// The next thing that follows from the state, or nothing. Called after every change until it answers nothing;
/// each answer changes the state, so that this ends.
#[must_use]
pub fn advance(_group: &Group, _now: Now) -> Decision {
    Decision::default()
}

/// What has to be done again after the daemon was away. Every effect is safe to repeat (a shim ignores a run and attempt
/// that it knows).
#[must_use]
pub fn recover(_group: &Group) -> Vec<Effect> {
    Vec::new()
}

/// The deadlines that the state asks for, from now.
#[must_use]
pub fn timers(_group: &Group, _now: Now) -> Vec<(Timer, Duration)> {
    Vec::new()
}
