//! How a session came to another owner: what is kept of it for whoever asks later.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Member;
use super::liveness::Why;
use crate::diagnosis::evidence::NodeLostEvidence;
use crate::id::Epoch;
use crate::time::WallTime;

/// Why a session has another owner.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TakenWhy {
    /// The node before was silent for too long, and did not answer when it was asked.
    Silent,
    /// The connection of the node before has ended, and it did not answer when it was asked.
    Disconnected,
    /// The node before said goodbye and had not given the session away.
    Left,
    /// The next life of the node before is here.
    Reborn,
    /// Nobody who lives had it: its loss was not noticed by whoever was there then.
    Ownerless,
    /// The node before gave it away.
    Drained,
}

impl TakenWhy {
    /// As it is written in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Disconnected => "disconnected",
            Self::Left => "left",
            Self::Reborn => "reborn",
            Self::Ownerless => "ownerless",
            Self::Drained => "drained",
        }
    }
}

impl From<Why> for TakenWhy {
    fn from(why: Why) -> Self {
        match why {
            Why::Silent => Self::Silent,
            Why::Disconnected => Self::Disconnected,
            Why::Left => Self::Left,
            Why::Reborn => Self::Reborn,
        }
    }
}

impl fmt::Display for TakenWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A session that has another owner, as its new owner writes it into the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Takeover {
    /// Who had it.
    pub from: Member,
    /// What that node is called.
    pub from_name: String,
    /// Who has it.
    pub to: Member,
    /// What that node is called.
    pub to_name: String,
    /// The new owner's claim.
    pub epoch: Epoch,
    /// Why.
    pub why: TakenWhy,
    /// When the old owner was heard last, by the new owner's clock.
    pub last_heard: Option<WallTime>,
    /// When its loss was noticed, or when it gave the session away.
    pub noticed_at: WallTime,
    /// When the claim was written.
    pub claimed_at: WallTime,
    /// When it went on. Filled in by the session when it records this.
    #[serde(default)]
    pub resumed_at: WallTime,
    /// What goes on, what is begun again and what is lost, one line each, for people. Filled in by the session.
    #[serde(default)]
    pub resumed: Vec<String>,
}

impl Takeover {
    /// What is known of the loss, for the reports of what ended with it.
    #[must_use]
    pub fn evidence(&self) -> NodeLostEvidence {
        let silent = |heard: WallTime| self.noticed_at.0.saturating_sub(heard.0) / 1_000;
        NodeLostEvidence {
            node: self.from.node,
            name: self.from_name.clone(),
            why: self.why,
            silent_ms: self.last_heard.map(silent),
        }
    }
}
