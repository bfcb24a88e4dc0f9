//! How much of what a node may use.

use std::time::Duration;

use outlive_core::limits::{
    IDLE_TIMEOUT_S, KEEP_BYTES_MIN, SHIM_MEMORY_BYTES_MAX, SHIM_MEMORY_BYTES_MOST, SPOOL_BYTES_MAX,
};

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
