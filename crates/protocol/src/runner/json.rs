//! JSON that is handed on and not looked at.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

/// One JSON value as it was written, to the last digit of its numbers.
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    /// A value.
    ///
    /// # Panics
    /// Never: every value can be written.
    #[must_use]
    pub fn new(value: &Value) -> Self {
        Self(to_raw_value(value).expect("a value has string keys"))
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// From anything that is no text; the codec keeps the text instead.
impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(from)?;
        to_raw_value(&value).map(Self).map_err(D::Error::custom)
    }
}

/// A field that is there and `null` is a value.
pub(super) fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(from).map(Some)
}

/// The same, as it is written in the text that is read.
pub(super) fn as_written<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Json>, D::Error> {
    Box::<RawValue>::deserialize(from).map(Json).map(Some)
}
