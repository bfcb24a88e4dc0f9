//! What a watcher of one run has seen, put together as a client does it, and checked on the way: nothing twice,
//! nothing missing, one end.

use serde_json::Value;

use crate::clock::Deadline;
use crate::events::{Event, Events, Silence};

/// The folded output of one run.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Transcript {
    /// The chunks that count, in order: the first has number 1.
    pub chunks: Vec<Value>,
    /// How the run ended; `None` while it has not.
    pub outcome: Option<Value>,
    /// The `id:` of the last event, for coming back.
    pub cursor: Option<String>,
    /// How often the output was cut back.
    pub resets: usize,
}

impl Transcript {
    /// Folds one event of the run's stream. Gives whether the run has ended.
    ///
    /// # Panics
    /// When a chunk comes twice or is missing, or when anything follows the end.
    #[track_caller]
    pub fn push(&mut self, event: &Event) -> bool {
        let data = &event.data;
        match event.name.as_str() {
            "output" => {
                assert_eq!(self.outcome, None, "output after the end: {data}");
                let first = data["first"].as_u64().unwrap_or_else(|| panic!("no number on {data}"));
                let head = self.chunks.len() as u64;
                assert_eq!(first, head + 1, "the chunk after {head} has number {first}: {data}");
                self.chunks.extend(data["chunks"].as_array().into_iter().flatten().cloned());
            }
            "reset" => {
                let keep = data["keep"].as_u64().and_then(|keep| usize::try_from(keep).ok());
                let keep = keep.unwrap_or_else(|| panic!("no number on {data}"));
                assert!(keep <= self.chunks.len(), "a reset keeps {keep} of {} chunks", self.chunks.len());
                self.chunks.truncate(keep);
                self.resets += 1;
            }
            "end" => {
                assert_eq!(self.outcome, None, "a second end: {data}");
                self.outcome = Some(data["outcome"].clone());
            }
            "problem" => panic!("the stream ended early: {data}"),
            _ => {}
        }
        self.cursor.clone_from(&event.id);
        self.outcome.is_some()
    }

    /// Folds a stream to the run's end. The stream may end early, with its server; then gives `false`.
    ///
    /// # Panics
    /// At the deadline, and as [`push`](Self::push).
    #[track_caller]
    pub fn follow(&mut self, events: &mut Events, deadline: Deadline) -> bool {
        loop {
            match events.next(deadline) {
                Ok(event) if self.push(&event) => return true,
                Ok(_) => {}
                Err(Silence::Ended) => return false,
                Err(Silence::TimeOver) => {
                    let tail: String = self.stdout().chars().rev().take(200).collect();
                    let tail: String = tail.chars().rev().collect();
                    panic!("the run did not end in time; {} chunks, last text {tail:?}", self.chunks.len());
                }
            }
        }
    }

    /// All text of standard output.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.text("stdout")
    }

    /// All text of standard error.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.text("stderr")
    }

    /// All text that a task said.
    #[must_use]
    pub fn said(&self) -> String {
        self.text("text")
    }

    fn text(&self, kind: &str) -> String {
        self.of_kind(kind).filter_map(|chunk| chunk["text"].as_str()).collect()
    }

    /// The chunks of one kind.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.chunks.iter().filter(move |chunk| chunk["kind"] == kind)
    }

    /// The kind of the outcome: `succeeded`, `raised`, `failed`, …; empty while there is none.
    #[must_use]
    pub fn ended(&self) -> &str {
        self.outcome.as_ref().and_then(|outcome| outcome["kind"].as_str()).unwrap_or_default()
    }

    /// The code of the cause that the outcome names; empty when it names none.
    #[must_use]
    pub fn cause(&self) -> &str {
        self.outcome.as_ref().and_then(|outcome| outcome["code"].as_str()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::clock::now;

    fn event(name: &str, data: Value) -> Event {
        Event { id: None, name: name.to_owned(), data, at: now() }
    }

    fn output(first: u64, text: &str) -> Event {
        event("output", json!({"first": first, "chunks": [{"kind": "stdout", "text": text}]}))
    }

    #[test]
    fn a_reset_forgets_and_the_rest_follows() {
        let mut seen = Transcript::default();
        for event in [output(1, "a"), output(2, "b"), event("reset", json!({"keep": 1})), output(2, "c")] {
            assert!(!seen.push(&event));
        }
        assert!(seen.push(&event("end", json!({"outcome": {"kind": "failed", "code": "signal"}}))));
        assert_eq!((seen.stdout().as_str(), seen.ended(), seen.cause()), ("ac", "failed", "signal"));
    }

    #[test]
    #[should_panic(expected = "the chunk after 1 has number 1")]
    fn a_chunk_that_comes_twice_is_noticed() {
        let mut seen = Transcript::default();
        seen.push(&output(1, "a"));
        seen.push(&output(1, "a"));
    }

    #[test]
    #[should_panic(expected = "the chunk after 1 has number 3")]
    fn a_chunk_that_is_missing_is_noticed() {
        let mut seen = Transcript::default();
        seen.push(&output(1, "a"));
        seen.push(&output(3, "c"));
    }
}
