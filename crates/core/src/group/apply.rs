//! What each fact makes of a group.

use super::state::Group;
use crate::session::Fact;

/// Folds one fact into the group. Total: a fact that fits nothing changes nothing but the generation.
pub fn apply(group: &mut Group, _fact: &Fact) {
    group.generation = group.generation.next();
}
