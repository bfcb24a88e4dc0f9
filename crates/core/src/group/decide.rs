//! What a group does with each input. Nothing changes here: the facts do that, once they are stored.

use super::input::{Decision, Denied, Input};
use super::state::Group;
use crate::time::Now;

/// Answers one input. What follows from the new state alone is [`super::advance`]'s.
///
/// # Errors
/// [`Denied`] when the input cannot be had; then nothing changes.
pub fn decide(_group: &Group, _input: Input, _now: Now) -> Result<Decision, Denied> {
    Ok(Decision::default())
}
