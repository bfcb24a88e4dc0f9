//! JSON that is handed on and not looked at.

use std::fmt;

use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

/// How deep a value may be nested. Who reads it later takes 128 levels (serde_json), and wraps it in some of its own.
const DEPTH_MAX: usize = 100;

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

/// Whether these bytes are one JSON value, not nested too deeply.
#[must_use]
pub fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(bytes).is_ok() && depth(bytes) <= DEPTH_MAX
}

/// How deep well-formed JSON is nested.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = json.iter();
    let mut is_string = false;
    while let Some(byte) = bytes.next() {
        match (is_string, byte) {
            (true, b'\\') => drop(bytes.next()),
            (_, b'"') => is_string = !is_string,
            (false, b'[' | b'{') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// A field that is there and `null` is a value.
pub(super) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// The same, as it is written in the text that is read.
pub(super) fn as_written<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Json>, D::Error> {
    let raw = Box::<RawValue>::deserialize(from)?;
    if depth(raw.get().as_bytes()) > DEPTH_MAX {
        return Err(D::Error::custom(format_args!("it is nested deeper than {DEPTH_MAX} levels")));
    }
    Ok(Some(Json(raw)))
}
