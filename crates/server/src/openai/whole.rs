//! An answer in one piece.

use outlive_core::id::Seq;
use outlive_core::limits::CHAT_ANSWER_BYTES_MAX;
use outlive_protocol::http::{ChatChoice, ChatCompletion};
use serde_json::{Map, Value};

use super::fault::Fault;
use super::piece::{Closing, Piece, calls_tools, merge};
use super::turn::{Heard, Turn};

/// Waits for the end of a task and puts its answer together. An attempt that was rewound leaves no trace.
pub(super) async fn collect(turn: &mut Turn) -> Result<ChatCompletion, Box<Fault>> {
    let mut pieces: Vec<(Seq, Piece)> = Vec::new();
    let mut bytes = 0_usize;
    loop {
        match turn.next().await {
            Heard::Piece(seq, piece) => {
                bytes += size(&piece);
                if bytes > CHAT_ANSWER_BYTES_MAX {
                    return Err(Box::new(Fault::too_large(turn.model(), CHAT_ANSWER_BYTES_MAX)));
                }
                pieces.push((seq, piece));
            }
            Heard::Rewound(keep) => {
                pieces.retain(|(seq, _)| *seq <= keep);
                bytes = pieces.iter().map(|(_, piece)| size(piece)).sum();
            }
            Heard::Over(ended) => {
                ended?;
                return Ok(completion(turn, pieces));
            }
        }
    }
}

/// How much memory a piece takes, roughly.
fn size(piece: &Piece) -> usize {
    size_of::<(Seq, Piece)>()
        + match piece {
            Piece::Text(text) => text.len(),
            Piece::Delta(delta) => delta.iter().map(|(name, value)| name.len() + weight(value)).sum(),
            Piece::Result(value) => weight(value),
        }
}

fn weight(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(weight).sum(),
            Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + weight(value)).sum(),
        }
}

fn completion(turn: &Turn, pieces: Vec<(Seq, Piece)>) -> ChatCompletion {
    let (mut content, mut extra, mut result) = (None::<String>, Map::new(), None);
    for (_, piece) in pieces {
        match piece {
            Piece::Text(text) => content.get_or_insert_default().push_str(&text),
            Piece::Delta(mut delta) => {
                if let Some(Value::String(text)) = delta.remove("content") {
                    content.get_or_insert_default().push_str(&text);
                }
                merge(&mut extra, delta);
            }
            Piece::Result(value) => result = Some(value),
        }
    }
    let closing = Closing::of(result, calls_tools(&extra));
    let silent = content.is_none() && extra.is_empty();
    let content = if silent { Some(closing.text.unwrap_or_default()) } else { content };
    let mut message = Map::from_iter([
        ("role".to_owned(), Value::from("assistant")),
        ("content".to_owned(), content.map_or(Value::Null, Value::from)),
    ]);
    without_indexes(&mut extra);
    merge(&mut message, extra);
    let run = turn.run();
    ChatCompletion {
        id: format!("chatcmpl-{}", run.id),
        object: "chat.completion".to_owned(),
        created: run.queued_at.0 / 1_000_000,
        model: turn.model().to_owned(),
        choices: vec![ChatChoice { index: 0, message, logprobs: None, finish_reason: closing.finish_reason }],
        usage: closing.usage,
    }
}

/// The index of a tool call only says which pieces belong together.
fn without_indexes(message: &mut Map<String, Value>) {
    let Some(Value::Array(calls)) = message.get_mut("tool_calls") else { return };
    for call in calls.iter_mut().filter_map(Value::as_object_mut) {
        call.remove("index");
    }
}
