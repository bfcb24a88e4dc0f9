//! Parameters of a notebook, by papermill's convention.
//!
//! A cell tagged `parameters` declares names with their defaults; a cell tagged `injected-parameters` right after it
//! sets them anew (<https://papermill.readthedocs.io/en/latest/usage-parameterize.html>). Unlike papermill, a name
//! that is not declared is refused: it is a typing mistake far more often than a wish.

use serde_json::Value;

use crate::cell::{CellKey, CellKind};
use crate::notebook::Notebook;

const DECLARED: &str = "parameters";
const INJECTED: &str = "injected-parameters";

/// Why parameters were not injected. The notebook is as before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// No cell has the tag.
    #[error(
        "the notebook takes no parameters: no code cell is tagged `parameters`; \
         tag the cell that assigns the defaults (JupyterLab: property inspector, Cell Tags)"
    )]
    NoParametersCell,
    /// The `parameters` cell does not assign it.
    #[error("the notebook has no parameter {name:?}; its `parameters` cell declares: {}", list(.declared))]
    Undeclared {
        /// The name that was given.
        name: String,
        /// What the cell assigns, in its order.
        declared: Vec<String>,
    },
    /// How to write an assignment is known for Python only.
    #[error("parameters can be given to Python notebooks only; this one's language is {language}")]
    UnsupportedLanguage {
        /// The notebook's language.
        language: String,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

impl Notebook {
    /// The names that the `parameters` cell assigns, in its order; `None` without such a cell.
    #[must_use]
    pub fn declared_parameters(&self) -> Option<Vec<String>> {
        let cell = self.cells().find(|cell| cell.kind() == CellKind::Code && cell.has_tag(DECLARED))?;
        Some(assigned_names(&cell.source()))
    }

    /// Puts a cell that assigns these values after the `parameters` cell, or in the place of an earlier such cell.
    /// Gives its key; `None` when there are no values.
    ///
    /// # Errors
    /// When a name is not declared, nothing declares names, or the notebook is not Python's.
    pub fn inject_parameters(
        &mut self,
        values: &[(String, Value)],
    ) -> Result<Option<CellKey>, ParameterError> {
        if values.is_empty() {
            return Ok(None);
        }
        if let Some(language) = self.language().filter(|language| !language.eq_ignore_ascii_case("python")) {
            return Err(ParameterError::UnsupportedLanguage { language });
        }
        let declared = self.declared_parameters().ok_or(ParameterError::NoParametersCell)?;
        if let Some((name, _)) = values.iter().find(|(name, _)| !declared.contains(name)) {
            return Err(ParameterError::Undeclared { name: name.clone(), declared });
        }
        let mut source = String::from("# Parameters\n");
        for (name, value) in values {
            source.push_str(&format!("{name} = {}\n", python_literal(value)));
        }
        let earlier = self.cells().find(|cell| cell.has_tag(INJECTED)).map(|cell| cell.key().clone());
        if let Some(key) = earlier {
            self.replace_code(&key, &source);
            return Ok(Some(key));
        }
        let after = self.cells().position(|cell| cell.kind() == CellKind::Code && cell.has_tag(DECLARED));
        let index = after.expect("the parameters cell was found above") + 1;
        let key = self.insert_cell(index, CellKind::Code, &source, Some(INJECTED));
        let tags = serde_json::json!([INJECTED]);
        self.set_cell_metadata(&key, "tags", Some(&tags)).expect("the cell was just inserted");
        Ok(Some(key))
    }
}

/// Reads a value as it is typed on a command line: JSON's numbers, `true`, `false`, `null` (also as Python spells
/// them), a quoted string, a JSON list or object; anything else is the text itself. Whole numbers beyond 64 bits
/// stay text, because a float would not be what was typed.
#[must_use]
pub fn typed(text: &str) -> Value {
    match text {
        "True" => return Value::Bool(true),
        "False" => return Value::Bool(false),
        "None" => return Value::Null,
        _ => {}
    }
    if let Some(inner) = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        return Value::String(inner.to_owned());
    }
    match serde_json::from_str(text) {
        Ok(Value::Number(number)) if number.is_f64() && !text.contains(['.', 'e', 'E']) => {
            Value::String(text.to_owned())
        }
        Ok(value) => value,
        Err(_) => Value::String(text.to_owned()),
    }
}

fn python_literal(value: &Value) -> String {
    let each = |items: Vec<String>| items.join(", ");
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => python_string(text),
        Value::Array(items) => format!("[{}]", each(items.iter().map(python_literal).collect())),
        Value::Object(members) => {
            let pair = |(key, value): (&String, &Value)| {
                format!("{}: {}", python_string(key), python_literal(value))
            };
            format!("{{{}}}", each(members.iter().map(pair).collect()))
        }
    }
}

fn python_string(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if u32::from(control) < 0x20 => out.push_str(&format!("\\x{:02x}", u32::from(control))),
            plain => out.push(plain),
        }
    }
    out.push('"');
    out
}

/// Words that can stand before a colon without being declared by it.
const NOT_NAMES: [&str; 4] = ["else", "try", "finally", "lambda"];

/// The names that a Python source assigns or annotates at its top level, in order. Strings, comments, brackets and
/// continued lines are understood; nothing is executed.
fn assigned_names(source: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for statement in top_level_statements(source) {
        let mut parts = split_at_assignments(&statement);
        let last = parts.pop().unwrap_or_default();
        if parts.is_empty() && last.contains(':') {
            parts.push(last);
        }
        for target in parts {
            let target = target.split(':').next().unwrap_or_default();
            for name in target.split(',').map(|name| name.trim().trim_start_matches('*')) {
                let is_name = name.starts_with(|c: char| c.is_alphabetic() || c == '_')
                    && name.chars().all(|c| c.is_alphanumeric() || c == '_')
                    && !NOT_NAMES.contains(&name);
                if is_name && !names.iter().any(|known| known == name) {
                    names.push(name.to_owned());
                }
            }
        }
    }
    names
}

/// The statements that are not indented, without what stands in strings, comments and brackets.
fn top_level_statements(source: &str) -> Vec<String> {
    let (mut statements, mut current, mut depth) = (Vec::new(), String::new(), 0_usize);
    let mut rest = source;
    while let Some(character) = rest.chars().next() {
        let mut length = character.len_utf8();
        match character {
            '#' => length = rest.find('\n').unwrap_or(rest.len()),
            '"' | '\'' => {
                length = string_length(rest);
                current.push('"');
            }
            '\\' => length += rest[1..].chars().next().map_or(0, char::len_utf8),
            '(' | '[' | '{' => {
                depth += 1;
                current.push(character);
            }
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '\n' if depth == 0 => statements.push(std::mem::take(&mut current)),
            ';' if depth == 0 => {
                let indented = current.starts_with([' ', '\t']);
                statements.push(std::mem::take(&mut current));
                let after = &rest[1..];
                length += after.len() - after.trim_start_matches([' ', '\t']).len();
                current.push_str(if indented { " " } else { "" });
            }
            _ if depth == 0 => current.push(character),
            _ => {}
        }
        rest = &rest[length..];
    }
    statements.push(current);
    statements.retain(|statement| !statement.starts_with([' ', '\t']));
    statements
}

/// The length of the string literal that `text` begins with, in bytes.
fn string_length(text: &str) -> usize {
    let quote = &text[..1];
    let triple = quote.repeat(3);
    let (end, mut at) = if text.starts_with(&triple) { (triple.as_str(), 3) } else { (quote, 1) };
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with(end) {
            return at + end.len();
        }
        if rest.starts_with('\n') && end.len() == 1 {
            return at;
        }
        let escaped =
            rest.strip_prefix('\\').and_then(|after| after.chars().next()).map_or(0, char::len_utf8);
        at += escaped + rest.chars().next().map_or(1, char::len_utf8);
    }
    text.len()
}

fn split_at_assignments(statement: &str) -> Vec<&str> {
    let bytes = statement.as_bytes();
    let mut parts = Vec::new();
    let mut from = 0;
    for at in 0..bytes.len() {
        let before = at.checked_sub(1).map(|before| bytes[before]);
        let operator = before.is_some_and(|before| b"=!<>:+-*/%&|^@~".contains(&before));
        if bytes[at] == b'=' && !operator && bytes.get(at + 1) != Some(&b'=') {
            parts.push(&statement[from..at]);
            from = at + 1;
        }
    }
    parts.push(&statement[from..]);
    parts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn finds_what_a_cell_assigns() {
        let source = "\"\"\"doc = 1\n x = 2\"\"\"\nalpha = 0.1  # beta = 2\nname: str = 'a=b'\nrows = \\\n  10\na = b = f(k=1,\n  z=2)\n\
                      c, *d = 1, 2; e = {'q': 1}\nhint: int\nx[0] = 1\nx.y = 2\nx == y\nn += 1\nif a: g = 1\nelse: h = 1\n    indented = 1\nf = lambda q=1: q\n";
        assert_eq!(assigned_names(source), ["alpha", "name", "rows", "a", "b", "c", "d", "e", "hint", "f"]);
        assert!(assigned_names("'''never closed\nx = 1").is_empty());
    }

    #[test]
    fn typed_values() {
        assert_eq!(typed("5"), json!(5));
        assert_eq!(typed("-1.5e3"), json!(-1500.0));
        assert_eq!(typed("true"), json!(true));
        assert_eq!(typed("None"), json!(null));
        assert_eq!(typed("007"), json!("007"));
        assert_eq!(typed("'5'"), json!("5"));
        assert_eq!(typed("\"a b\""), json!("a b"));
        assert_eq!(typed("[1, {\"a\": null}]"), json!([1, {"a": null}]));
        assert_eq!(typed("[broken"), json!("[broken"));
        assert_eq!(typed("123456789012345678901234567890"), json!("123456789012345678901234567890"));
        assert_eq!(typed(""), json!(""));
    }

    #[test]
    fn literals_are_pythons() {
        let value = json!({"a \"q\"": [1, 2.0, true, null, "tab\tnew\nline \\ é \u{1}"]});
        assert_eq!(
            python_literal(&value),
            r#"{"a \"q\"": [1, 2.0, True, None, "tab\tnew\nline \\ é \x01"]}"#
        );
    }
}
