//! Where the values of a JSON text begin and end.

use std::ops::Range;

use outlive_core::limits::JSON_DEPTH_MAX;

/// What is wrong, and at which byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScanError {
    pub at: usize,
    pub what: &'static str,
}

/// Reads one JSON text from front to back. Recursion is bounded by [`JSON_DEPTH_MAX`].
pub(crate) struct Scanner<'a> {
    text: &'a str,
    pos: usize,
    depth: usize,
}

pub(crate) const TOO_DEEP: &str = "nested too deeply";

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, pos: 0, depth: 0 }
    }

    pub fn pos(&self) -> usize {
        self.pos
    }

    pub fn text(&self, range: Range<usize>) -> &'a str {
        &self.text[range]
    }

    pub fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.pos).copied()
    }

    pub fn fail<T>(&self, what: &'static str) -> Result<T, ScanError> {
        Err(ScanError { at: self.pos, what })
    }

    pub fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.pos += 1;
        }
    }

    /// Only white space may be left.
    pub fn end(&mut self) -> Result<(), ScanError> {
        self.space();
        if self.pos == self.text.len() {
            Ok(())
        } else {
            self.fail("there is more after the end of the document")
        }
    }

    /// Steps over one value and checks it.
    pub fn value(&mut self) -> Result<Range<usize>, ScanError> {
        let start = self.pos;
        match self.peek() {
            Some(b'{') => self.object(|scanner, _| scanner.value().map(drop))?,
            Some(b'[') => self.array(|scanner| scanner.value().map(drop))?,
            Some(b'"') => {
                self.string()?;
            }
            _ => {
                self.literal()?;
            }
        }
        Ok(start..self.pos)
    }

    /// Steps over an object. `each` gets the range of a key with its quotes and must step over the value.
    pub fn object(
        &mut self,
        mut each: impl FnMut(&mut Self, Range<usize>) -> Result<(), ScanError>,
    ) -> Result<(), ScanError> {
        self.open(b'{', "an object should begin here")?;
        if self.close(b'}') {
            return Ok(());
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return self.fail("a key in double quotes should stand here");
            }
            let key = self.string()?;
            self.space();
            self.expect(b':', "a colon should follow the key")?;
            self.space();
            each(self, key)?;
            if self.close(b'}') {
                return Ok(());
            }
            self.expect(b',', "a comma or a closing brace should stand here")?;
        }
    }

    /// Steps over an array. `each` must step over the value.
    pub fn array(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<(), ScanError>,
    ) -> Result<(), ScanError> {
        self.open(b'[', "an array should begin here")?;
        if self.close(b']') {
            return Ok(());
        }
        loop {
            self.space();
            each(self)?;
            if self.close(b']') {
                return Ok(());
            }
            self.expect(b',', "a comma or a closing bracket should stand here")?;
        }
    }

    /// Steps over a string; its range includes the quotes.
    pub fn string(&mut self) -> Result<Range<usize>, ScanError> {
        let start = self.pos;
        self.expect(b'"', "a string in double quotes should stand here")?;
        let bytes = self.text.as_bytes();
        loop {
            let plain =
                bytes[self.pos..].iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20);
            let Some(plain) = plain else {
                self.pos = bytes.len();
                return self.fail("the text ends inside a string");
            };
            self.pos += plain;
            match bytes[self.pos] {
                b'"' => {
                    self.pos += 1;
                    return Ok(start..self.pos);
                }
                b'\\' => self.escape()?,
                _ => return self.fail("a control character inside a string (a line break is written \\n)"),
            }
        }
    }

    fn escape(&mut self) -> Result<(), ScanError> {
        let bytes = self.text.as_bytes();
        match bytes.get(self.pos + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.pos += 2,
            Some(b'u') => {
                let digits = bytes.get(self.pos + 2..self.pos + 6);
                if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                    return self.fail("four hexadecimal digits should follow \\u");
                }
                self.pos += 6;
            }
            _ => return self.fail("an unknown escape in a string"),
        }
        Ok(())
    }

    /// Steps over a number, `true`, `false`, `null`, or one of the words that Python writes for odd floats.
    pub fn literal(&mut self) -> Result<Range<usize>, ScanError> {
        let rest = &self.text[self.pos..];
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')));
        let word = &rest[..end.unwrap_or(rest.len())];
        let known = matches!(word, "null" | "true" | "false" | "NaN" | "Infinity" | "-Infinity");
        if !(known || is_number(word)) {
            return self.fail("a value should stand here");
        }
        let start = self.pos;
        self.pos += word.len();
        Ok(start..self.pos)
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), ScanError> {
        if self.peek() != Some(byte) {
            return self.fail(what);
        }
        self.pos += 1;
        Ok(())
    }

    fn open(&mut self, byte: u8, what: &'static str) -> Result<(), ScanError> {
        if self.depth == JSON_DEPTH_MAX {
            return self.fail(TOO_DEEP);
        }
        self.expect(byte, what)?;
        self.depth += 1;
        Ok(())
    }

    fn close(&mut self, byte: u8) -> bool {
        self.space();
        let closes = self.peek() == Some(byte);
        if closes {
            self.pos += 1;
            self.depth -= 1;
        }
        closes
    }
}

/// JSON's grammar of numbers (RFC 8259, section 6).
fn is_number(word: &str) -> bool {
    fn digits(bytes: &[u8]) -> usize {
        bytes.iter().take_while(|byte| byte.is_ascii_digit()).count()
    }
    let bytes = word.strip_prefix('-').unwrap_or(word).as_bytes();
    let whole = digits(bytes);
    if whole == 0 || (whole > 1 && bytes[0] == b'0') {
        return false;
    }
    let mut rest = &bytes[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let count = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = &fraction[count..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = match exponent {
            [b'+' | b'-', after @ ..] => after,
            plain => plain,
        };
        return !exponent.is_empty() && digits(exponent) == exponent.len();
    }
    rest.is_empty()
}

/// The text of a string that [`Scanner::string`] has checked. Half a surrogate pair becomes U+FFFD.
pub(crate) fn unescape(quoted: &str) -> String {
    let inner = &quoted[1..quoted.len() - 1];
    let mut text = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let escaped = &rest[at + 1..];
        let plain = match escaped.as_bytes()[0] {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => {
                let (character, used) = unescape_unicode(escaped);
                text.push(character);
                rest = &escaped[used..];
                continue;
            }
            byte => char::from(byte),
        };
        text.push(plain);
        rest = &escaped[1..];
    }
    text.push_str(rest);
    text
}

/// `escaped` begins with the `u` of an escape. Gives the character and how many bytes of `escaped` it took.
fn unescape_unicode(escaped: &str) -> (char, usize) {
    let unit = |at: usize| -> Option<u32> { u32::from_str_radix(escaped.get(at..at + 4)?, 16).ok() };
    let first = unit(1).unwrap_or(0xFFFD);
    if (0xD800..0xDC00).contains(&first)
        && escaped.get(5..7) == Some("\\u")
        && let Some(second @ 0xDC00..0xE000) = unit(7)
    {
        let code = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
        return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 11);
    }
    (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(text: &str) -> Result<(), ScanError> {
        let mut scanner = Scanner::new(text);
        scanner.space();
        scanner.value()?;
        scanner.end()
    }

    #[test]
    fn takes_what_python_takes() {
        for text in [
            "{}",
            "[]",
            " [1, -0.5e+10, 1.0, NaN, -Infinity] ",
            r#"{"a": {"b": [null, true, "\ud83d\ude00\n"]}}"#,
        ] {
            assert_eq!(accepts(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_json() {
        let wrong = [
            "",
            "{",
            "[1,]",
            "{\"a\" 1}",
            "{a: 1}",
            "01",
            "1.",
            ".5",
            "-",
            "1e",
            "+1",
            "nul",
            "\"\n\"",
            "\"\\x\"",
            "\"\\u12\"",
            "[1] 2",
            "'a'",
        ];
        for text in wrong {
            assert!(accepts(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(accepts(&nested(JSON_DEPTH_MAX)), Ok(()));
        assert_eq!(accepts(&nested(10_000)).unwrap_err().what, TOO_DEEP); // B6
    }

    #[test]
    fn unescapes() {
        assert_eq!(unescape(r#""a\n\"\\\/\u00e9\ud83d\ude00b""#), "a\n\"\\/é😀b");
        assert_eq!(unescape(r#""\ud83d""#), "\u{FFFD}");
        assert_eq!(unescape(r#""\ude00\ud83dx""#), "\u{FFFD}\u{FFFD}x");
    }
}
