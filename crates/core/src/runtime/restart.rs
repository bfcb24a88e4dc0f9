//! When a process that ended is started again (the words are those of OTP's supervisors).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which ends are followed by a restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RestartType {
    /// Every end that nobody asked for.
    Permanent,
    /// Abnormal ends only: not exit code 0.
    Transient,
    /// None.
    Temporary,
}

/// Restart type with its intensity: more than `restarts_max` within `period_ms`, and the supervisor gives up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RestartPolicy {
    /// Which ends count.
    pub restart: RestartType,
    /// How many restarts are allowed within the period.
    pub restarts_max: u32,
    /// The period in milliseconds; a process that stays up for it resets the count and the back-off.
    pub period_ms: u64,
    /// The wait before the first restart, in milliseconds; doubles with each until the maximum.
    pub backoff_ms: u64,
    /// The longest wait, in milliseconds.
    pub backoff_ms_max: u64,
}
