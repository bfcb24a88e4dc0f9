//! One cell.

use std::fmt;

use outlive_core::limits::CELL_ID_BYTES_MAX;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::json::{Json, Members, Style, format};

/// Names one cell of one notebook.
///
/// It is the cell's own id where the notebook has ids (nbformat 4.5). Older notebooks have none, and some have ids that
/// cannot name a cell, which stay in the file: there it is `cell-` and the cell's index when the notebook was parsed,
/// which stays with the cell while other cells come and go, but not across a new parse. Who stores such a key stores
/// the notebook's bytes of the same moment with it. The live document has the same keys as ids; they do not go into the
/// file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct CellKey(String);

impl CellKey {
    /// A key as it was stored or sent.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The key of a cell without an id of its own, by its index or number; always the same one for the same notebook.
    pub(crate) fn made_up(number: usize, is_taken: impl Fn(&str) -> bool) -> Self {
        let mut text = format!("cell-{number}");
        while is_taken(&text) {
            text.push('_');
        }
        Self(text)
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CellKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a cell can be known by this id. Wider than nbformat's own rule, which many files do not keep.
pub(crate) fn is_id(text: &str) -> bool {
    (1..=CELL_ID_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Whether a new cell may have this id: nbformat's rule, so that the file is valid.
pub(crate) fn is_new_id(text: &str) -> bool {
    is_id(text) && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

/// What a cell is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CellKind {
    /// Can be executed.
    Code,
    /// Text for people.
    Markdown,
    /// Text for a converter.
    Raw,
    /// A type that this version does not know: kept, never executed.
    Unknown,
}

impl CellKind {
    /// As nbformat writes it. A cell of an unknown type is never made here.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Markdown => "markdown",
            Self::Raw | Self::Unknown => "raw",
        }
    }

    pub(crate) fn parse(word: &str) -> Self {
        match word {
            "code" => Self::Code,
            "markdown" => Self::Markdown,
            "raw" => Self::Raw,
            _ => Self::Unknown,
        }
    }
}

/// A cell's members in their file's text. Members of a cell stand at this depth.
pub(crate) const MEMBER_LEVEL: usize = 3;

#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub key: CellKey,
    pub kind: CellKind,
    /// The id that stands in the file, if it can name the cell.
    id: Option<Box<str>>,
    /// Each value as its text.
    pub fields: Members<Box<str>>,
}

impl Cell {
    pub fn new(kind: CellKind, fields: Members<Box<str>>) -> Self {
        let mut cell = Self { key: CellKey::new(""), kind, id: None, fields };
        let id = cell.json("id");
        cell.id = id.as_ref().and_then(Json::as_str).filter(|id| is_id(id)).map(Into::into);
        cell
    }

    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    pub fn json(&self, field: &str) -> Option<Json> {
        // The scanner has accepted every value before it was stored.
        Json::parse(self.fields.get(field)?).ok()
    }

    pub fn source(&self) -> String {
        self.json("source").and_then(|json| json.joined()).unwrap_or_default()
    }

    pub fn set_lines(&mut self, field: &str, text: &str, style: &Style) {
        let mut out = String::new();
        format::write_lines(&mut out, text, style, MEMBER_LEVEL);
        self.fields.set(field, out.into(), style, MEMBER_LEVEL);
    }

    pub fn set(&mut self, field: &str, json: &Json, style: &Style) {
        let mut out = String::new();
        format::write(&mut out, json, style, MEMBER_LEVEL);
        self.fields.set(field, out.into(), style, MEMBER_LEVEL);
    }
}

/// One cell, to look at.
#[derive(Clone, Copy, Debug)]
pub struct CellView<'a> {
    pub(crate) cell: &'a Cell,
    pub(crate) index: usize,
}

impl<'a> CellView<'a> {
    /// Its name.
    #[must_use]
    pub fn key(&self) -> &'a CellKey {
        &self.cell.key
    }

    /// Its place, from 0.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.index
    }

    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> CellKind {
        self.cell.kind
    }

    /// Its source in one piece.
    #[must_use]
    pub fn source(&self) -> String {
        self.cell.source()
    }

    /// One entry of its metadata.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<Value> {
        Some(self.cell.json("metadata")?.get(key)?.to_value())
    }

    /// Whether `metadata.tags` names this tag.
    #[must_use]
    pub fn has_tag(&self, tag: &str) -> bool {
        match self.cell.json("metadata").as_ref().and_then(|metadata| metadata.get("tags")) {
            Some(Json::Array(tags)) => tags.iter().any(|entry| entry.as_str() == Some(tag)),
            _ => false,
        }
    }

    /// Whether an exception of this cell is expected and does not end the run: tag `raises-exception`, as nbclient
    /// and nbval have it.
    #[must_use]
    pub fn may_raise(&self) -> bool {
        self.has_tag("raises-exception")
    }
}
