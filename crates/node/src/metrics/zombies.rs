//! What should have gone. Both numbers are 0, but for moments.

use std::collections::HashSet;

use outlive_core::limits::ZOMBIE_GRACE_MS;
use outlive_process::ProcStat;
use std::time::Duration;

use crate::context::Context;

/// Sessions past their deadline that nobody watches, that do nothing and are in memory all the same.
pub fn sessions(context: &Context) -> usize {
    let now = context.clock.now().tick;
    let late = |deadline| now.since(deadline) > Duration::from_millis(ZOMBIE_GRACE_MS);
    context
        .handles()
        .iter()
        .filter(|handle| handle.resident.borrow().residence.deadline().is_some_and(late))
        .count()
}

/// Ended children of ours and of our shims that nobody has waited for, and processes whose session is not here.
pub fn processes(context: &Context) -> usize {
    let found = context.runtimes.found();
    let strangers = found.iter().filter(|shim| !context.is_here(shim.identity.session)).count();
    let mut parents: HashSet<i32> = found.iter().map(|shim| shim.identity.shim_pid).collect();
    parents.insert(i32::try_from(std::process::id()).expect("a pid fits pid_t"));
    strangers + ended_children(&parents)
}

fn ended_children(parents: &HashSet<i32>) -> usize {
    let Ok(all) = std::fs::read_dir("/proc") else { return 0 };
    all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| ProcStat::read(pid).ok())
        .filter(|stat| stat.has_ended() && parents.contains(&stat.parent))
        .count()
}
