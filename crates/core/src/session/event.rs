//! Facts about a session, past tense.

use serde::{Deserialize, Serialize};

/// One fact. (Defined with the state machine.)
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionEvent {}
