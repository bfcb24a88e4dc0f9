//! Notebooks that are opened, edited and saved.

use std::collections::BTreeMap;

use outlive_core::id::{RunId, SessionId};
use outlive_core::session::spec::{OnNodeLoss, StartWhen, Trust};
use outlive_core::time::WallTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::SessionView;

/// An untitled notebook. The kernel starts with the first run unless `start` says otherwise.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NewSession {
    /// The caller's id for it; asking again with the same id gives the same session.
    pub id: Option<SessionId>,
    /// The kernelspec's name; without one, Python.
    pub kernel: Option<String>,
    /// When the kernel starts.
    #[schemars(with = "Option<StartWhen>")]
    pub start: Option<StartWhen>,
    /// Where the kernel runs and relative assets are looked up while it is untitled: absolute; without one, the home
    /// directory of the daemon's user.
    pub cwd: Option<String>,
    /// The kernel's whole environment; without one, the daemon's.
    pub env: Option<BTreeMap<String, String>>,
    /// Memory limit of the kernel in bytes.
    pub memory_bytes_max: Option<u64>,
    /// What goes on by itself on another node.
    pub on_node_loss: OnNodeLoss,
}

/// A notebook by path, or a session by id: one of the two. By path it joins the session that has the file, or makes
/// one. The kernel starts with the first run unless `start` says otherwise and the notebook is trusted.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OpenSession {
    /// The file, absolute; `.ipynb` is appended where it is missing. It must exist.
    pub path: Option<String>,
    /// The session.
    pub id: Option<SessionId>,
    /// The kernelspec's name; without one, what the notebook asks for. Not looked at when the session is there.
    pub kernel: Option<String>,
    /// When the kernel starts.
    #[schemars(with = "Option<StartWhen>")]
    pub start: Option<StartWhen>,
    /// The kernel's whole environment; without one, the daemon's. Not looked at when the session is there.
    pub env: Option<BTreeMap<String, String>>,
    /// Memory limit of the kernel in bytes. Not looked at when the session is there.
    pub memory_bytes_max: Option<u64>,
    /// `trusted`: the caller vouches for the notebook. Without it, the store knows whether somebody has.
    #[schemars(with = "Option<Trust>")]
    pub trust: Option<Trust>,
    /// What goes on by itself on another node. Not looked at when the session is there.
    pub on_node_loss: OnNodeLoss,
}

/// What `new`, `open` and `save` answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Opened {
    /// The session's id, which never changes.
    pub session_id: SessionId,
    /// Its notebook's file, absolute; `None` while it is untitled. For a copy, the copy's file.
    pub path: Option<String>,
    /// Its state.
    pub session: SessionView,
    /// Where that is kept which stood in the file before and was overwritten; absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
}

/// How to save.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SaveSession {
    /// The file, absolute; `.ipynb` is appended where it is missing. Needed unless the session has one and stays there.
    pub path: Option<String>,
    /// What becomes of the session.
    pub how: SaveHow,
    /// Write although somebody else's content stands in the file. It is kept beside it first.
    pub overwrite: bool,
}

/// What a save does to its session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SaveHow {
    /// It stays at its path; an untitled one gets this one.
    #[default]
    Save,
    /// It moves to the path.
    SaveAs,
    /// It stays, and a copy is written to the path.
    Copy,
}

/// How to close a session: its kernel is stopped, its notebook saved, its path free.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Close {
    /// Close although there are edits that no file has. The session's log keeps them until it is forgotten.
    pub discard: bool,
}

/// Who vouches for a notebook.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SetTrust {
    /// Whether it may start by itself, and have what it names installed.
    pub trust: Trust,
}

/// Where a notebook's edits and outputs are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum SavedState {
    /// All in the file.
    Saved {
        /// Since when; `None` when nothing has changed since it was opened.
        at: Option<WallTime>,
    },
    /// All in the store, and not all in the file yet.
    Unsaved,
    /// All in the store; there is no file yet.
    Untitled,
    /// All in the store; the file cannot be written now and is tried again.
    Failing {
        /// Why.
        why: String,
    },
    /// All in the store; the file is not written before somebody decides.
    Conflict {
        /// What stands against it.
        conflict: FileConflict,
        /// The same for people, with what to do.
        why: String,
    },
    /// A state that this client does not know.
    #[serde(other)]
    Unknown,
}

/// Why a file is not written any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileConflict {
    /// It was changed by another program, and what is there cannot be merged.
    Changed,
    /// It is no whole notebook any more: empty, cut off, or something else.
    NotANotebook,
    /// It was deleted.
    Deleted,
    /// It is claimed by somebody else.
    Claimed,
    /// Its path is a link by now, or goes through one, and leads to another file.
    Elsewhere,
    /// A reason that this client does not know.
    #[serde(other)]
    Unknown,
}

/// A notebook as it is now.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct NotebookView {
    /// The session.
    pub session_id: SessionId,
    /// Its file.
    pub path: Option<String>,
    /// What it contains, as a state vector (base64): the `required` of a run that is to see it.
    pub state_vector: String,
    /// Its metadata.
    pub metadata: Value,
    /// Its cells in order.
    pub cells: Vec<CellView>,
}

/// A cell as it is now.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CellView {
    /// Its id.
    pub id: String,
    /// Its kind.
    pub kind: CellKindName,
    /// Its source.
    pub source: String,
    /// Its metadata.
    pub metadata: Value,
    /// The kernel's count of its last run.
    #[serde(default)]
    pub execution_count: Option<u64>,
    /// Whether it runs or waits; text cells are idle.
    pub state: CellState,
    /// Its last run.
    #[serde(default)]
    pub run: Option<RunId>,
    /// Its outputs in nbformat's form, when they were asked for. A large one is a reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Vec<Value>>,
}

/// The kind of a cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CellKindName {
    /// Code.
    Code,
    /// Markdown.
    Markdown,
    /// Neither.
    Raw,
    /// A kind that this client does not know.
    #[serde(other)]
    Unknown,
}

/// Whether a cell runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CellState {
    /// No.
    Idle,
    /// It waits.
    Queued,
    /// Yes.
    Running,
}

/// Edits of one notebook, all or nothing.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EditNotebook {
    /// In this order.
    pub edits: Vec<CellEdit>,
}

/// Where a cell is put.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Where {
    /// Behind all others.
    #[default]
    End,
    /// At this index, from 0.
    Index(usize),
    /// Behind this cell.
    After(String),
}

/// One edit.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "edit")]
pub enum CellEdit {
    /// A new cell.
    Insert {
        /// Where.
        #[serde(default)]
        at: Where,
        /// Its kind.
        kind: CellKindName,
        /// Its source.
        source: String,
        /// Its id; drawn when there is none or it is taken.
        #[serde(default)]
        id: Option<String>,
    },
    /// Another source. What others type at the same time is merged.
    SetSource {
        /// The cell.
        cell: String,
        /// The source.
        source: String,
        /// Refuse unless the source is this now.
        #[serde(default)]
        expected: Option<String>,
    },
    /// The cell goes.
    Delete {
        /// The cell.
        cell: String,
    },
    /// The cell stands somewhere else.
    Move {
        /// The cell.
        cell: String,
        /// Where, among the others.
        at: Where,
    },
    /// Another kind.
    SetKind {
        /// The cell.
        cell: String,
        /// The kind.
        kind: CellKindName,
    },
    /// An entry of the metadata; `null` removes it.
    SetMetadata {
        /// The cell; `None` for the notebook.
        #[serde(default)]
        cell: Option<String>,
        /// The key.
        key: String,
        /// The value.
        value: Value,
    },
    /// The outputs go.
    ClearOutputs {
        /// The cell; `None` for all that do not run.
        #[serde(default)]
        cell: Option<String>,
    },
}

/// What edits have made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Edited {
    /// For each edit its cell; empty for edits of the whole notebook.
    pub cells: Vec<String>,
    /// What the notebook contains now, as a state vector (base64).
    pub state_vector: String,
}
