//! What a daemon finds when it looks at what it needs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What `doctor` finds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DoctorView {
    /// Each check with its result.
    pub checks: Vec<DoctorCheck>,
}

/// One check.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DoctorCheck {
    /// What was looked at, for instance `cgroup`.
    pub name: String,
    /// `ok`, `warning` or `error`.
    pub level: DoctorLevel,
    /// What was found.
    pub found: String,
    /// What to do, when something should be done.
    pub hint: Option<String>,
}

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DoctorLevel {
    /// As it should be.
    Ok,
    /// Works, with less than the best.
    Warning,
    /// Does not work.
    Error,
}
