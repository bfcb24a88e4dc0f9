//! What nodes of one cluster tell each other at once, as JSON: heartbeats, and questions after a life.
//!
//! Nothing here decides who owns what; a message may be lost, late or come twice. A message of a kind that a node does
//! not know is left alone, and so is a field: nodes of different versions run together during an upgrade.

use std::borrow::Cow;

use outlive_core::failover::Member;
use outlive_core::time::WallTime;
use serde::{Deserialize, Serialize};

use crate::http::NodeState;

/// One message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeMessage<'a> {
    /// I am here; to all.
    #[serde(borrow)]
    Beat(Beat<'a>),
    /// I go, and have given away what I had; to all.
    Goodbye {
        /// Who.
        member: Member,
        /// The number of its last beat.
        seq: u64,
    },
    /// Are you there? To one node.
    Probe {
        /// Who asks.
        from: Member,
    },
    /// I am; to who has asked.
    Answer {
        /// Who answers.
        from: Member,
    },
    /// This member is dead, say those who watch it; to all, in a large cluster.
    Dead {
        /// Who.
        member: Member,
        /// Who says so.
        by: Member,
    },
}

/// A heartbeat.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Beat<'a> {
    /// Whose.
    pub member: Member,
    /// Its number, from 1.
    pub seq: u64,
    /// The node's name.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// Where its API is.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub url: Option<Cow<'a, str>>,
    /// Its version.
    #[serde(borrow)]
    pub version: Cow<'a, str>,
    /// How it stands, as it says itself.
    pub state: NodeState,
    /// Its clock.
    pub wall: WallTime,
}

impl<'a> NodeMessage<'a> {
    /// The bytes.
    ///
    /// # Panics
    /// Never: it is plain data.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a message is plain data")
    }

    /// The message, if it is one of these kinds.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// A row of the table `nodes`, by the node's name: who has the name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeRow {
    /// Who, in which life.
    pub member: Member,
    /// Where its API is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Its version.
    pub version: String,
    /// When it joined, by its own clock.
    pub started_at: WallTime,
    /// Its process, on its machine.
    pub pid: u32,
}
