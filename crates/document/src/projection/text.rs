//! The texts of a cell's streams, bounded: the first and the last part of what was printed are kept.

use outlive_core::id::RunId;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StreamName {
    Stdout = 0,
    Stderr = 1,
}

impl StreamName {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The text of one stream output; the middle may be missing.
#[derive(Clone, Debug, Default)]
pub(super) struct CutText {
    pub head: String,
    /// Bytes left out between head and tail.
    pub left_out: u64,
    pub tail: String,
}

impl CutText {
    /// The text with a remark where a part is missing.
    pub fn render(&self, run: RunId) -> std::borrow::Cow<'_, str> {
        if self.left_out == 0 && self.tail.is_empty() {
            return self.head.as_str().into();
        }
        let mut text = self.head.clone();
        if self.left_out > 0 {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            let total = self.left_out + (self.head.len() + self.tail.len()) as u64;
            text.push_str(&notice(
                &format!("{} of {} are left out of the notebook file here", size(self.left_out), size(total)),
                run,
            ));
        }
        text.push_str(&self.tail);
        text.into()
    }
}

/// A remark of Outlive's own, on its own line.
pub(crate) fn notice(what: &str, run: RunId) -> String {
    format!("[outlive: {what}; all that is known: outlive logs {run}]\n")
}

/// A number of bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["bytes", "KiB", "MiB", "GiB"];
    let mut unit = 0;
    let mut scaled = bytes;
    let mut tenths = 0;
    while scaled >= 1024 && unit + 1 < UNITS.len() {
        tenths = scaled % 1024 * 10 / 1024;
        scaled /= 1024;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} bytes") } else { format!("{scaled}.{tenths} {}", UNITS[unit]) }
}

/// Splits bytes into whole characters, with anything invalid replaced, and the begin of a character at their end.
pub(super) fn decode(bytes: &[u8]) -> (std::borrow::Cow<'_, str>, &[u8]) {
    let mut end = bytes.len();
    for back in 1..=bytes.len().min(3) {
        let byte = bytes[bytes.len() - back];
        let needs = match byte {
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF7 => 4,
            0x80..=0xBF => continue,
            _ => break,
        };
        if needs > back {
            end = bytes.len() - back;
        }
        break;
    }
    (String::from_utf8_lossy(&bytes[..end]), &bytes[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_may_come_in_pieces() {
        for text in ["é", "€", "😀", "a😀"] {
            let bytes = text.as_bytes();
            for cut in 0..bytes.len() {
                let (first, rest) = decode(&bytes[..cut]);
                let again = [rest, &bytes[cut..]].concat();
                let (second, left) = decode(&again);
                assert_eq!(format!("{first}{second}"), text, "cut at {cut}");
                assert!(left.is_empty());
            }
        }
        assert_eq!(decode(b"a\xff").0, "a\u{FFFD}");
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!(size(900), "900 bytes");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(10 << 20), "10.0 MiB");
    }
}
