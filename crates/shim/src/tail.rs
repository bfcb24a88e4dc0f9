//! The last bytes of a stream, for evidence.

use outlive_core::limits::STDERR_TAIL_BYTES_MAX;

/// Keeps between one and two times [`STDERR_TAIL_BYTES_MAX`], so that bytes are moved rarely.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    kept: Vec<u8>,
    total: u64,
}

impl Tail {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let bytes = &bytes[bytes.len().saturating_sub(STDERR_TAIL_BYTES_MAX)..];
        if self.kept.len() + bytes.len() > 2 * STDERR_TAIL_BYTES_MAX {
            let kept_on = STDERR_TAIL_BYTES_MAX - bytes.len();
            self.kept.drain(..self.kept.len() - kept_on);
        }
        self.kept.extend_from_slice(bytes);
    }

    /// How many bytes there were in all.
    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    /// At most [`STDERR_TAIL_BYTES_MAX`] bytes, from the start of a line where one was cut; invalid UTF-8 replaced.
    pub(crate) fn text(&self) -> String {
        let from = self.kept.len().saturating_sub(STDERR_TAIL_BYTES_MAX);
        let tail = &self.kept[from..];
        let is_cut = self.total > tail.len() as u64;
        let whole_line =
            if is_cut { tail.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1) } else { 0 };
        String::from_utf8_lossy(&tail[whole_line..]).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_without_line_ends_is_bounded_and_keeps_its_end() {
        // A13
        let mut tail = Tail::default();
        for _ in 0..1_000 {
            tail.push(&[b'x'; 10_000]);
        }
        tail.push(b"\xff the end");
        assert_eq!(tail.total(), 10_000_009);
        assert!(tail.kept.capacity() <= 8 * STDERR_TAIL_BYTES_MAX);
        assert!(tail.text().ends_with("x\u{fffd} the end"));
    }

    #[test]
    fn a_cut_tail_begins_with_a_whole_line() {
        let mut tail = Tail::default();
        for number in 0..20_000 {
            tail.push(format!("line {number}\n").as_bytes());
        }
        let text = tail.text();
        assert!(text.starts_with("line ") && text.ends_with("line 19999\n"));
        assert!(text.len() <= STDERR_TAIL_BYTES_MAX);
    }
}
