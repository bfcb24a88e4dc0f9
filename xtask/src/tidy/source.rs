//! A Rust file with its comments and literals told apart from its code, and its tests from the rest.
//!
//! No parser: the rules need to know where code is, and which braces belong together. A lexer of strings, comments
//! and brackets is enough for that, keeps this command quick to build, and works on code that does not compile yet.

use std::ops::Range;
use std::path::{Path, PathBuf};

/// One Rust file.
pub struct Source {
    /// Relative to the repository.
    pub path: PathBuf,
    /// As it stands on disk.
    pub text: String,
    /// The same length, with comments and the insides of literals blanked out.
    pub code: String,
    /// Byte ranges of `#[cfg(test)] mod … { … }`; the whole file when it is a test itself.
    tests: Vec<Range<usize>>,
}

impl Source {
    /// Reads what is code and what is test out of `text`.
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        let (path, text) = (path.into(), text.into());
        let code = blank(&text);
        let everything = 0..text.len();
        let tests = if is_test_file(&path) { Vec::from([everything]) } else { test_modules(&code) };
        Self { path, text, code, tests }
    }

    /// Whether this byte is test code.
    pub fn is_test(&self, at: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&at))
    }

    /// The line of a byte, from 1.
    pub fn line(&self, at: usize) -> usize {
        self.text[..at].matches('\n').count() + 1
    }

    /// How many lines are not test code.
    pub fn lines_outside_tests(&self) -> usize {
        let in_tests: usize = self.tests.iter().map(|range| self.text[range.clone()].lines().count()).sum();
        self.text.lines().count().saturating_sub(in_tests)
    }
}

/// Test files are those in a `tests` folder (and programs that tests run), and modules named `tests`.
fn is_test_file(path: &Path) -> bool {
    path.components().any(|part| ["tests", "fixtures"].iter().any(|name| part.as_os_str() == *name))
        || path.file_stem().is_some_and(|stem| stem == "tests")
}

fn test_modules(code: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (at, _) in code.match_indices("#[cfg(test)]") {
        let Some(open) = code[at..].find(['{', ';']).map(|offset| at + offset) else { continue };
        if code.as_bytes()[open] == b'{' && code[at..open].contains("mod ") {
            found.push(at..closing(code, open));
        }
    }
    found
}

/// The byte after the bracket that closes the one at `open`; the end of the file when none does.
pub fn closing(code: &str, open: usize) -> usize {
    let bytes = code.as_bytes();
    let (left, right) = match bytes[open] {
        b'(' => (b'(', b')'),
        b'[' => (b'[', b']'),
        _ => (b'{', b'}'),
    };
    let mut depth = 0_usize;
    for (at, byte) in bytes.iter().enumerate().skip(open) {
        if *byte == left {
            depth += 1;
        } else if *byte == right {
            depth -= 1;
            if depth == 0 {
                return at + 1;
            }
        }
    }
    code.len()
}

/// Blanks comments and the insides of literals; line ends stay.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        let Some(end) = end else {
            at += 1;
            continue;
        };
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(code).expect("whole characters were replaced by spaces")
}

/// The end of the comment or literal that begins at `at`, if one does.
fn literal_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let after_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    match rest {
        [b'/', b'/', ..] => Some(position(rest, b"\n").map_or(bytes.len(), |offset| at + offset)),
        [b'/', b'*', ..] => Some(block_comment_end(bytes, at)),
        [b'"', ..] => Some(string_end(bytes, at)),
        [b'b' | b'c', b'"', ..] if !after_word => Some(string_end(bytes, at + 1)),
        [b'r', b'"' | b'#', ..] if !after_word => raw_string_end(bytes, at + 1),
        [b'b' | b'c', b'r', b'"' | b'#', ..] if !after_word => raw_string_end(bytes, at + 2),
        [b'\'', ..] => char_end(bytes, at),
        _ => None,
    }
}

fn position(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start + 2, 1);
    while at < bytes.len() && depth > 0 {
        match &bytes[at..] {
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            [b'*', b'/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    at.min(bytes.len())
}

fn string_end(bytes: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// `hashes` is where the hashes (or the quote) of a raw string begin; a raw identifier is none.
fn raw_string_end(bytes: &[u8], hashes: usize) -> Option<usize> {
    let count = bytes[hashes..].iter().take_while(|byte| **byte == b'#').count();
    let quote = hashes + count;
    if bytes.get(quote) != Some(&b'"') {
        return None;
    }
    let end = [&b"\""[..], &b"#".repeat(count)].concat();
    let inside = &bytes[quote + 1..];
    Some(position(inside, &end).map_or(bytes.len(), |offset| quote + 1 + offset + end.len()))
}

/// A character literal, not a lifetime.
fn char_end(bytes: &[u8], quote: usize) -> Option<usize> {
    if bytes.get(quote + 1) == Some(&b'\\') {
        return position(&bytes[quote + 3..], b"'").map(|offset| quote + 3 + offset + 1);
    }
    // At most four bytes of UTF-8 stand between the quotes.
    let text = std::str::from_utf8(&bytes[quote + 1..]).ok()?;
    let width = text.chars().next()?.len_utf8();
    (bytes.get(quote + 1 + width) == Some(&b'\'')).then_some(quote + 2 + width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_no_code() {
        let text = "let a = \"fs::read\"; // std::fs\nlet b = r#\"{ \"x\" }\"#; /* { /* { */ */ let c = '{'; let d: &'static str = b\"\\\"{\";";
        let code = blank(text);
        assert_eq!(code.len(), text.len());
        assert!(!code.contains("fs::"), "{code}");
        assert!(!code.contains(['{', '}']), "{code}");
        assert!(code.contains("let d: &'static str ="), "{code}");
    }

    #[test]
    fn tests_are_told_from_the_rest() {
        let source = Source::new(
            "crates/x/src/a.rs",
            "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn t() { {} }\n}\nfn b() {}\n",
        );
        assert!(source.is_test(source.text.find("fn t").unwrap()));
        assert!(!source.is_test(source.text.find("fn b").unwrap()));
        assert_eq!(source.lines_outside_tests(), 2);
        assert!(Source::new("crates/x/tests/a.rs", "fn a() {}").is_test(3));
    }
}
