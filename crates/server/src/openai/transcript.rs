//! What a client has been shown. When another runner begins a task again, the client sees on from where it was, or is
//! told that this cannot be: it never sees anything twice, and never an answer that was glued together.
//!
//! ```text
//!   shown   H e l l o ,   w o r         the client has this
//!   marks   1   2     3       4         the chunk that ends there
//!   rewind(2)    at ─► after "Hello": what comes now must be ", wor…" until `at` has reached the end
//! ```
//! Where one chunk ends and the next begins does not matter: text is compared with text.

use outlive_core::id::Seq;
use outlive_core::limits::CHAT_ANSWER_BYTES_MAX;
use serde_json::{Map, Value};

/// Bytes that no UTF-8 has: they set a delta apart from text.
const DELTA_BEGINS: u8 = 0xFF;
const DELTA_ENDS: u8 = 0xFE;

/// What was shown, and where the present attempt is in it.
#[derive(Default)]
pub(super) struct Transcript {
    shown: Vec<u8>,
    at: usize,
    marks: Vec<(Seq, usize)>,
    keeps: Keeps,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Keeps {
    /// All that was shown.
    #[default]
    All,
    /// Nothing: it was too much.
    Nothing,
}

/// The present attempt says something else than was shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Differs;

impl Transcript {
    /// A text chunk: the part of it that is new to the client.
    pub(super) fn text<'a>(&mut self, seq: Seq, text: &'a str) -> Result<&'a str, Differs> {
        let known = self.take(seq, text.as_bytes())?;
        // What was shown ends with a whole character.
        Ok(text.get(known..).unwrap_or_default())
    }

    /// A delta: whether it is new to the client.
    pub(super) fn delta(&mut self, seq: Seq, delta: &Map<String, Value>) -> Result<bool, Differs> {
        let mut bytes = vec![DELTA_BEGINS];
        serde_json::to_writer(&mut bytes, delta).expect("a map with string keys");
        bytes.push(DELTA_ENDS);
        self.take(seq, &bytes).map(|known| known < bytes.len())
    }

    /// Output after this chunk does not count any more; what was shown stays shown.
    pub(super) fn rewind(&mut self, keep: Seq) -> Result<(), Differs> {
        if self.keeps == Keeps::Nothing {
            return Err(Differs);
        }
        let counts = self.marks.partition_point(|(seq, _)| *seq <= keep);
        self.marks.truncate(counts);
        self.at = self.marks.last().map_or(0, |(_, end)| *end);
        Ok(())
    }

    /// The present attempt has ended: it must have said all that was shown.
    pub(super) const fn finish(&self) -> Result<(), Differs> {
        if self.at < self.shown.len() { Err(Differs) } else { Ok(()) }
    }

    /// How many of these bytes the client knows already.
    fn take(&mut self, seq: Seq, bytes: &[u8]) -> Result<usize, Differs> {
        if self.keeps == Keeps::Nothing {
            return Ok(0);
        }
        let ahead = &self.shown[self.at..];
        let known = ahead.len().min(bytes.len());
        if ahead[..known] != bytes[..known] {
            return Err(Differs);
        }
        self.shown.extend_from_slice(&bytes[known..]);
        self.at += bytes.len();
        self.marks.push((seq, self.at));
        if self.shown.len() + self.marks.len() * size_of::<(Seq, usize)>() > CHAT_ANSWER_BYTES_MAX {
            *self = Self { keeps: Keeps::Nothing, ..Self::default() };
        }
        Ok(known)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Says texts with rising numbers after `from`; what was new of them.
    fn say(transcript: &mut Transcript, from: u64, texts: &[&str]) -> Result<String, Differs> {
        let mut new = String::new();
        for (seq, text) in (from + 1..).zip(texts) {
            new.push_str(transcript.text(Seq(seq), text)?);
        }
        Ok(new)
    }

    #[test]
    fn what_was_shown_is_not_shown_again_however_it_is_cut() {
        let mut transcript = Transcript::default();
        assert_eq!(say(&mut transcript, 0, &["Hé", "llo", ", ", "wor"]).unwrap(), "Héllo, wor");
        transcript.rewind(Seq(0)).unwrap();
        assert_eq!(say(&mut transcript, 0, &["H", "éllo, w", "orld", "!"]).unwrap(), "ld!");
        transcript.finish().unwrap();
    }

    #[test]
    fn a_checkpoint_is_where_the_next_attempt_goes_on() {
        let mut transcript = Transcript::default();
        say(&mut transcript, 0, &["one ", "two ", "three "]).unwrap();
        transcript.rewind(Seq(2)).unwrap();
        assert_eq!(say(&mut transcript, 2, &["three ", "four"]).unwrap(), "four");
        transcript.rewind(Seq(2)).unwrap();
        assert_eq!(say(&mut transcript, 2, &["three four", " five"]).unwrap(), " five", "and again");
    }

    #[test]
    fn other_text_is_no_continuation() {
        let mut transcript = Transcript::default();
        say(&mut transcript, 0, &["Hello"]).unwrap();
        transcript.rewind(Seq(0)).unwrap();
        assert_eq!(say(&mut transcript, 0, &["Hel", "p"]), Err(Differs));
    }

    #[test]
    fn an_attempt_that_says_less_is_none_either() {
        let mut transcript = Transcript::default();
        say(&mut transcript, 0, &["Hello"]).unwrap();
        transcript.rewind(Seq(0)).unwrap();
        say(&mut transcript, 0, &["Hell"]).unwrap();
        assert_eq!(transcript.finish(), Err(Differs));
    }

    #[test]
    fn deltas_are_told_apart_from_text_that_looks_like_them() {
        let delta = |value: Value| value.as_object().unwrap().clone();
        let call = delta(json!({ "tool_calls": [] }));
        let mut transcript = Transcript::default();
        assert!(transcript.delta(Seq(1), &call).unwrap());
        transcript.rewind(Seq(0)).unwrap();
        assert_eq!(transcript.text(Seq(1), "{\"tool_calls\":[]}"), Err(Differs));
        assert!(!transcript.delta(Seq(1), &call).unwrap(), "the same again is not new");
        transcript.rewind(Seq(0)).unwrap();
        assert_eq!(transcript.delta(Seq(1), &delta(json!({ "tool_calls": [1] }))), Err(Differs));
    }

    #[test]
    fn what_is_too_long_to_compare_cannot_be_begun_again() {
        let mut transcript = Transcript::default();
        let long = "x".repeat(CHAT_ANSWER_BYTES_MAX);
        assert_eq!(transcript.text(Seq(1), &long).unwrap().len(), long.len());
        assert!(transcript.shown.is_empty(), "nothing is held");
        assert_eq!(transcript.text(Seq(2), "more").unwrap(), "more");
        transcript.finish().unwrap();
        assert_eq!(transcript.rewind(Seq(0)), Err(Differs));
    }
}
