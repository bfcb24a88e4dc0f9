//! How much of what a node may use.

use std::time::Duration;

use outlive_core::id::SessionId;
use outlive_core::limits::{
    IDLE_TIMEOUT_S, KEEP_BYTES_MIN, SESSION_FDS, SHIM_MEMORY_BYTES_MAX, SHIM_MEMORY_BYTES_MOST, SPARE_FDS,
    SPOOL_BYTES_MAX,
};
use outlive_core::time::Tick;
use outlive_process::descriptors;
use outlive_protocol::http::Problem;

/// What the operator allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budgets {
    /// How long a session without a kernel, work and clients stays in memory.
    pub idle_timeout: Duration,
    /// How many sessions may be in memory; beyond it the kernels that were idle longest are stopped.
    pub sessions_max: Option<usize>,
    /// How much memory all kernels may take up, in bytes; beyond it those that were idle longest are stopped.
    pub memory_bytes_max: Option<u64>,
    /// How much of one process's output waits while no daemon takes it.
    pub keep: Keep,
}

/// What a shim keeps of its process's output until it is stored; then the process waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keep {
    memory_bytes: u64,
    spool_bytes: u64,
}

impl Default for Keep {
    fn default() -> Self {
        Self { memory_bytes: SHIM_MEMORY_BYTES_MAX as u64, spool_bytes: SPOOL_BYTES_MAX }
    }
}

/// A budget that is outside its bounds.
#[derive(Debug, thiserror::Error)]
#[error("{what} of {bytes} bytes is outside its bounds: {least} to {most} bytes")]
pub struct OutOfBounds {
    what: &'static str,
    bytes: u64,
    least: u64,
    most: u64,
}

impl Keep {
    /// So much in memory, in bytes, and so much on disk beyond that.
    ///
    /// # Errors
    /// When one is outside of what `core::limits` allows.
    pub fn new(memory_bytes: u64, spool_bytes: u64) -> Result<Self, OutOfBounds> {
        let check = |what, bytes, most| {
            let least = KEEP_BYTES_MIN;
            (least..=most).contains(&bytes).then_some(()).ok_or(OutOfBounds { what, bytes, least, most })
        };
        check("a shim's memory", memory_bytes, SHIM_MEMORY_BYTES_MOST)?;
        check("a spool", spool_bytes, u64::MAX)?;
        Ok(Self { memory_bytes, spool_bytes })
    }

    /// In memory, in bytes.
    #[must_use]
    pub const fn memory_bytes(self) -> u64 {
        self.memory_bytes
    }

    /// On disk, in bytes.
    #[must_use]
    pub const fn spool_bytes(self) -> u64 {
        self.spool_bytes
    }
}

/// A kernel without work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdleKernel {
    /// Its session.
    pub id: SessionId,
    /// Since when it executes nothing.
    pub idle_since: Tick,
    /// What it takes up with all that it has started.
    pub bytes: u64,
    /// How many are attached to it.
    pub there: u32,
}

/// What is in use.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// Sessions in memory, but for those that are about to leave.
    pub sessions: usize,
    /// What all kernels take up.
    pub bytes: u64,
    /// Those that could be stopped.
    pub idle: Vec<IdleKernel>,
}

/// The kernels to stop, so that the budgets are kept: those first that nobody looks at, and of them those that were idle
/// longest. To stop a kernel that somebody looks at frees its memory, and not its session.
#[must_use]
pub fn to_rest(load: &Load, budgets: &Budgets) -> Vec<IdleKernel> {
    let mut sessions = load.sessions.saturating_sub(budgets.sessions_max.unwrap_or(usize::MAX));
    let mut bytes = load.bytes.saturating_sub(budgets.memory_bytes_max.unwrap_or(u64::MAX));
    let mut idle = load.idle.clone();
    idle.sort_by_key(|kernel| (kernel.there > 0, kernel.idle_since, kernel.id));
    idle.retain(|kernel| {
        let frees_session = sessions > 0 && kernel.there == 0;
        let frees_bytes = bytes > 0 && kernel.bytes > 0;
        if frees_session || frees_bytes {
            sessions = sessions.saturating_sub(usize::from(kernel.there == 0));
            bytes = bytes.saturating_sub(kernel.bytes);
        }
        frees_session || frees_bytes
    });
    idle
}

/// Whether there is room for one more session: files that a session needs, beside those that are kept free for clients
/// and for what goes on.
///
/// # Errors
/// `too-many-files`.
pub fn room() -> Result<(), Problem> {
    let Some(limit) = descriptors::limit() else { return Ok(()) };
    // Where even that cannot be found out, there is no room.
    let used = descriptors::used().unwrap_or(limit);
    if used + SESSION_FDS + SPARE_FDS <= limit {
        return Ok(());
    }
    let detail = format!("the daemon has {used} of {limit} files open, and {SPARE_FDS} are kept free");
    Err(Problem::new(503, "too-many-files", "Too many files are open", detail)
        .hint("close sessions, or raise `ulimit -n` and start the daemon again")
        .fact("used", used.to_string())
        .fact("limit", limit.to_string()))
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(IDLE_TIMEOUT_S),
            sessions_max: None,
            memory_bytes_max: None,
            keep: Keep::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn kernel(n: u128, idle_since: u64, bytes: u64, there: u32) -> IdleKernel {
        IdleKernel {
            id: SessionId::from_uuid(Uuid::from_u128(n)),
            idle_since: Tick(idle_since),
            bytes,
            there,
        }
    }

    fn chosen(load: &Load, sessions_max: Option<usize>, memory_bytes_max: Option<u64>) -> Vec<u64> {
        let budgets = Budgets { sessions_max, memory_bytes_max, ..Budgets::default() };
        to_rest(load, &budgets).iter().map(|kernel| kernel.idle_since.0).collect()
    }

    // A9
    #[test]
    fn the_longest_idle_go_first_and_only_as_many_as_it_takes() {
        let idle =
            vec![kernel(1, 30, 10, 0), kernel(2, 10, 10, 0), kernel(3, 5, 10, 1), kernel(4, 20, 10, 0)];
        let load = Load { sessions: 6, bytes: 100, idle };
        assert_eq!(chosen(&load, None, None), [] as [u64; 0], "without a budget a kernel is never stopped");
        assert_eq!(chosen(&load, Some(6), Some(100)), [] as [u64; 0]);
        assert_eq!(chosen(&load, Some(4), None), [10, 20]);
        assert_eq!(chosen(&load, None, Some(85)), [10, 20]);
        assert_eq!(chosen(&load, Some(1), None), [10, 20, 30], "one that is watched frees no session");
        assert_eq!(
            chosen(&load, None, Some(1)),
            [10, 20, 30, 5],
            "but memory, when all others are not enough"
        );
    }
}
