//! An answer as it comes: OpenAI's chunks, one Server-Sent Event each, and `[DONE]`.
//!
//! The events have no `id`: OpenAI's Python client takes a comment line behind an event with an id for an event without
//! data (its decoder as of 3.54), and comments are what keeps a quiet answer alive.

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use outlive_core::id::Seq;
use outlive_protocol::http::{ChatChunk, ChatChunkChoice};
use serde_json::{Map, Value, json};

use super::fault::{DONE, Fault};
use super::piece::{Closing, Piece, calls_tools};
use super::transcript::{Differs, Transcript};
use super::turn::{Heard, Turn};
use crate::stream::Line;

/// The lines of an answer. `first` is what has been heard already.
pub(super) fn lines(turn: Turn, first: Option<Heard>, usage: bool) -> BoxStream<'static, Line> {
    let teller = Teller::new(&turn, usage);
    let state = Some((turn, teller, first));
    stream::unfold(state, async |state| {
        let (mut turn, mut teller, mut first) = state?;
        loop {
            let heard = match first.take() {
                Some(heard) => heard,
                None => turn.next().await,
            };
            let mut bytes = BytesMut::new();
            match teller.tell(heard, &mut bytes) {
                Told::More if bytes.is_empty() => {}
                Told::More => return Some((Line::More(bytes.freeze()), Some((turn, teller, None)))),
                Told::All => return Some((Line::Last(bytes.freeze()), None)),
            }
        }
    })
    .boxed()
}

/// Whether more follows.
enum Told {
    More,
    All,
}

struct Teller {
    id: String,
    created: u64,
    model: String,
    /// As it stands in each chunk: null when it was asked for, else absent.
    usage: Option<Value>,
    /// What was shown, of a task that may be begun again.
    transcript: Option<Transcript>,
    said: Said,
    result: Option<Value>,
}

/// What the client has been told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Said {
    Nothing,
    Something,
    ToolCalls,
}

impl Teller {
    fn new(turn: &Turn, usage: bool) -> Self {
        let run = turn.run();
        Self {
            id: format!("chatcmpl-{}", run.id),
            created: run.queued_at.0 / 1_000_000,
            model: turn.model().to_owned(),
            usage: usage.then_some(Value::Null),
            transcript: turn.may_retry().then(Transcript::default),
            said: Said::Nothing,
            result: None,
        }
    }

    fn tell(&mut self, heard: Heard, out: &mut BytesMut) -> Told {
        let told = match heard {
            Heard::Piece(seq, piece) => self.piece(seq, piece, out).map(|()| Told::More),
            Heard::Rewound(keep) => self.rewind(keep).map(|()| Told::More),
            Heard::Over(Ok(())) => self.finish(out).map(|()| Told::All),
            Heard::Over(Err(fault)) => {
                out.put(fault.last_events());
                Ok(Told::All)
            }
        };
        told.unwrap_or_else(|Differs| {
            out.put(Fault::differs(&self.model).last_events());
            Told::All
        })
    }

    fn piece(&mut self, seq: Seq, piece: Piece, out: &mut BytesMut) -> Result<(), Differs> {
        match piece {
            Piece::Result(value) => self.result = Some(value),
            Piece::Text(text) => {
                let new = match &mut self.transcript {
                    Some(transcript) => transcript.text(seq, &text)?,
                    None => &text,
                };
                if !new.is_empty() {
                    self.delta(content(new), Said::Something, out);
                }
            }
            Piece::Delta(delta) => {
                let is_new = match &mut self.transcript {
                    Some(transcript) => transcript.delta(seq, &delta)?,
                    None => true,
                };
                if is_new {
                    let said = if calls_tools(&delta) { Said::ToolCalls } else { Said::Something };
                    self.delta(delta, said, out);
                }
            }
        }
        Ok(())
    }

    fn rewind(&mut self, keep: Seq) -> Result<(), Differs> {
        self.result = None;
        match &mut self.transcript {
            Some(transcript) => transcript.rewind(keep),
            None if self.said == Said::Nothing => Ok(()),
            None => Err(Differs),
        }
    }

    fn finish(&mut self, out: &mut BytesMut) -> Result<(), Differs> {
        self.transcript.as_ref().map_or(Ok(()), Transcript::finish)?;
        let closing = Closing::of(self.result.take(), self.said == Said::ToolCalls);
        match closing.text {
            Some(text) if self.said == Said::Nothing => self.delta(content(&text), Said::Something, out),
            _ => self.begin(out),
        }
        self.choice(Map::new(), Some(closing.finish_reason), out);
        if let (Some(_), Some(usage)) = (&self.usage, closing.usage) {
            self.chunk(Vec::new(), Some(Value::Object(usage)), out);
        }
        out.put_slice(DONE);
        Ok(())
    }

    /// The role comes first, and once.
    fn begin(&mut self, out: &mut BytesMut) {
        if self.said == Said::Nothing {
            self.said = Said::Something;
            let role =
                Map::from_iter([("role".to_owned(), json!("assistant")), ("content".to_owned(), json!(""))]);
            self.choice(role, None, out);
        }
    }

    fn delta(&mut self, delta: Map<String, Value>, said: Said, out: &mut BytesMut) {
        self.begin(out);
        self.said = self.said.max(said);
        self.choice(delta, None, out);
    }

    fn choice(&self, delta: Map<String, Value>, finish_reason: Option<String>, out: &mut BytesMut) {
        let choice = ChatChunkChoice { index: 0, delta, logprobs: None, finish_reason };
        self.chunk(vec![choice], self.usage.clone(), out);
    }

    fn chunk(&self, choices: Vec<ChatChunkChoice>, usage: Option<Value>, out: &mut BytesMut) {
        let chunk = ChatChunk {
            id: self.id.clone(),
            object: "chat.completion.chunk".to_owned(),
            created: self.created,
            model: self.model.clone(),
            choices,
            usage,
        };
        out.put_slice(b"data: ");
        serde_json::to_writer(out.writer(), &chunk).expect("a chunk has string keys");
        out.put_slice(b"\n\n");
    }
}

fn content(text: &str) -> Map<String, Value> {
    Map::from_iter([("content".to_owned(), Value::from(text))])
}

/// The last words of a stream that the server itself ends.
pub(crate) fn cut(problem: outlive_protocol::http::Problem) -> Bytes {
    Fault::cut(&problem).last_events()
}
