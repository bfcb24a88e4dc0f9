//! How much of what a node may use.

use std::time::Duration;

use outlive_core::limits::IDLE_TIMEOUT_S;

/// What the operator allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budgets {
    /// How long a session without a kernel, work and clients stays in memory.
    pub idle_timeout: Duration,
    /// How many sessions may be in memory; beyond it the kernels that were idle longest are stopped.
    pub sessions_max: Option<usize>,
    /// How much memory all kernels may take up, in bytes; beyond it those that were idle longest are stopped.
    pub memory_bytes_max: Option<u64>,
}

impl Default for Budgets {
    fn default() -> Self {
        Self { idle_timeout: Duration::from_secs(IDLE_TIMEOUT_S), sessions_max: None, memory_bytes_max: None }
    }
}
