//! JSON that is looked into. Numbers keep their text.

use serde_json::{Map, Value};

use super::scan::{ScanError, Scanner, unescape};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    /// A number, `true`, `false`, `null`, `NaN`, …: as it stands in the text.
    Literal(Box<str>),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    pub fn parse(text: &str) -> Result<Self, ScanError> {
        let mut scanner = Scanner::new(text);
        scanner.space();
        let json = Self::read(&mut scanner)?;
        scanner.end()?;
        Ok(json)
    }

    fn read(scanner: &mut Scanner<'_>) -> Result<Self, ScanError> {
        Ok(match scanner.peek() {
            Some(b'{') => {
                let mut members = Vec::new();
                scanner.object(|scanner, key| {
                    let key = unescape(scanner.text(key));
                    members.push((key, Self::read(scanner)?));
                    Ok(())
                })?;
                Self::Object(members)
            }
            Some(b'[') => {
                let mut items = Vec::new();
                scanner.array(|scanner| {
                    items.push(Self::read(scanner)?);
                    Ok(())
                })?;
                Self::Array(items)
            }
            Some(b'"') => {
                let range = scanner.string()?;
                Self::String(unescape(scanner.text(range)))
            }
            _ => {
                let range = scanner.literal()?;
                Self::Literal(scanner.text(range).into())
            }
        })
    }

    pub fn null() -> Self {
        Self::Literal("null".into())
    }

    pub fn string(text: impl Into<String>) -> Self {
        Self::String(text.into())
    }

    pub fn object<const N: usize>(members: [(&str, Self); N]) -> Self {
        Self::Object(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// The member `key` of an object; the last one where it stands twice.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        members.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Takes the member `key` out of an object.
    pub fn take(&mut self, key: &str) -> Option<Self> {
        let Self::Object(members) = self else { return None };
        let index = members.iter().rposition(|(name, _)| name == key)?;
        Some(members.swap_remove(index).1)
    }

    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    pub fn is_object(&self) -> bool {
        matches!(self, Self::Object(_))
    }

    /// Text that a notebook may hold in one piece or as a list of lines.
    pub fn joined(&self) -> Option<String> {
        match self {
            Self::String(text) => Some(text.clone()),
            Self::Array(lines) => lines.iter().map(Self::as_str).collect(),
            Self::Literal(_) | Self::Object(_) => None,
        }
    }

    /// For callers outside: numbers that do not fit become floats, `NaN` becomes null.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Literal(text) => serde_json::from_str(text).unwrap_or(Value::Null),
            Self::String(text) => Value::String(text.clone()),
            Self::Array(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            Self::Object(members) => Value::Object(
                members.iter().map(|(key, value)| (key.clone(), value.to_value())).collect::<Map<_, _>>(),
            ),
        }
    }

    pub fn from_value(value: &Value) -> Self {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => Self::Literal(value.to_string().into()),
            Value::String(text) => Self::String(text.clone()),
            Value::Array(items) => Self::Array(items.iter().map(Self::from_value).collect()),
            Value::Object(members) => Self::Object(
                members.iter().map(|(key, value)| (key.clone(), Self::from_value(value))).collect(),
            ),
        }
    }
}
