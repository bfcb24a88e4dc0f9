//! Writes JSON as Python's nbformat does: `json.dumps(…, ensure_ascii=False, indent=1, sort_keys=True,
//! separators=(",", ": "))`, texts as lists of lines (nbformat/v4/rwbase.py). The file's own indent and line ends are
//! kept where they are others.

use super::Json;
use super::lossless::Sequence;

/// How a file is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    /// Line end and one level's indent; `None` for a file without line breaks.
    lines: Option<(Box<str>, Box<str>)>,
    /// What parts two values of a file without line breaks, after the comma.
    space: Box<str>,
    /// What parts key and value.
    pub colon: Box<str>,
}

impl Default for Style {
    fn default() -> Self {
        Self { lines: Some(("\n".into(), " ".into())), space: "".into(), colon: ": ".into() }
    }
}

impl Style {
    /// Reads the layout off a document's outermost object.
    pub fn of<T>(top: &Sequence<(String, T)>) -> Self {
        let (first, second) = top.layout();
        let colon = if top.items().is_empty() {
            ": ".into()
        } else {
            let glue = top.before(0);
            let end = glue.trim_end_matches(|c: char| c.is_whitespace() || c == ':').len();
            glue[end..].into()
        };
        let lines = first.rfind('\n').map(|at| {
            let newline = if first[..at].ends_with('\r') { "\r\n" } else { "\n" };
            (newline.into(), first[at + 1..].into())
        });
        Self { lines, space: second.into(), colon }
    }

    pub fn is_compact(&self) -> bool {
        self.lines.is_none()
    }

    /// What stands before a value at the begin of its container, and before a closing bracket.
    pub fn lead(&self, level: usize) -> String {
        self.lines
            .as_ref()
            .map_or_else(String::new, |(newline, unit)| format!("{newline}{}", unit.repeat(level)))
    }

    /// What stands between the comma and the next value.
    pub fn gap(&self, level: usize) -> String {
        if self.is_compact() { self.space.to_string() } else { self.lead(level) }
    }
}

/// Writes `json`, whose own bracket stands at `level`.
pub(crate) fn write(out: &mut String, json: &Json, style: &Style, level: usize) {
    match json {
        Json::Literal(text) => out.push_str(text),
        Json::String(text) => write_string(out, text),
        Json::Array(items) => write_list(out, ('[', ']'), items, style, level, |out, item| {
            write(out, item, style, level + 1);
        }),
        Json::Object(members) => {
            let mut sorted: Vec<&(String, Json)> = members.iter().collect();
            sorted.sort_by(|a, b| a.0.cmp(&b.0));
            write_list(out, ('{', '}'), &sorted, style, level, |out, (key, value)| {
                write_string(out, key);
                out.push_str(&style.colon);
                write(out, value, style, level + 1);
            });
        }
    }
}

/// Writes `text` as a list of its lines.
pub(crate) fn write_lines(out: &mut String, text: &str, style: &Style, level: usize) {
    let lines: Vec<&str> = lines(text).collect();
    write_list(out, ('[', ']'), &lines, style, level, |out, line| write_string(out, line));
}

pub(crate) fn write_list<T>(
    out: &mut String,
    (open, close): (char, char),
    items: &[T],
    style: &Style,
    level: usize,
    mut each: impl FnMut(&mut String, &T),
) {
    out.push(open);
    for (index, item) in items.iter().enumerate() {
        if index == 0 {
            out.push_str(&style.lead(level + 1));
        } else {
            out.push(',');
            out.push_str(&style.gap(level + 1));
        }
        each(out, item);
    }
    if !items.is_empty() {
        out.push_str(&style.lead(level));
    }
    out.push(close);
}

/// Writes a string with the escapes that Python's `json` uses when it may write any character.
pub(crate) fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        out.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0x08 => out.push_str("\\b"),
            0x0c => out.push_str("\\f"),
            control => out.push_str(&format!("\\u{control:04x}")),
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

/// Python's `str.splitlines(keepends=True)`, which knows more line ends than `\n`.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = line_end(rest).unwrap_or(rest.len());
        let (line, after) = rest.split_at(length);
        rest = after;
        Some(line)
    })
}

/// Where the first line of `text` ends, its line end included.
fn line_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut from = 0;
    loop {
        let candidate = |&byte: &u8| matches!(byte, b'\n' | 0x0b..=b'\r' | 0x1c..=0x1e | 0xc2 | 0xe2);
        let at = from + bytes[from..].iter().position(candidate)?;
        match &bytes[at..] {
            [b'\r', b'\n', ..] | [0xc2, 0x85, ..] => return Some(at + 2),
            [0xe2, 0x80, 0xa8 | 0xa9, ..] => return Some(at + 3),
            [0xc2 | 0xe2, ..] => from = at + 1,
            _ => return Some(at + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_python_ends_them() {
        let cut = |text| lines(text).collect::<Vec<_>>();
        assert_eq!(cut("a\nb\r\nc\rd"), ["a\n", "b\r\n", "c\r", "d"]);
        assert_eq!(cut("a\u{2028}b\u{85}"), ["a\u{2028}", "b\u{85}"]);
        assert!(cut("").is_empty());
    }

    #[test]
    fn writes_as_python_does() {
        let json =
            Json::parse(r#"{"b": [1.0, 12345678901234567890123, {}], "a": "\u00e9\u0001\t\"", "c": []}"#);
        let mut out = String::new();
        write(&mut out, &json.unwrap(), &Style::default(), 0);
        let expected = "{\n \"a\": \"é\\u0001\\t\\\"\",\n \"b\": [\n  1.0,\n  12345678901234567890123,\n  {}\n ],\n \"c\": []\n}";
        assert_eq!(out, expected);
    }
}
