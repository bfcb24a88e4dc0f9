//! Pieces of an answer, and what they come to.

use serde_json::{Map, Value};

/// A piece of what a task says.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Piece {
    /// A text chunk: more of the content.
    Text(String),
    /// A JSON chunk `{"delta": {…}}`: more of the message, in OpenAI's form.
    Delta(Map<String, Value>),
    /// The value that the task returned.
    Result(Value),
}

/// What the value that a task returned says about its answer.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Closing {
    /// The content, of a task that did not stream it: the value itself when it is text, else its field `content`.
    pub text: Option<String>,
    /// Its field `finish_reason`.
    pub finish_reason: String,
    /// Its field `usage`, with the total.
    pub usage: Option<Map<String, Value>>,
}

impl Closing {
    /// Reads it off the value.
    pub(super) fn of(value: Option<Value>, calls_tools: bool) -> Self {
        let mut fields = match value {
            Some(Value::Object(fields)) => fields,
            Some(Value::String(text)) => Map::from_iter([("content".to_owned(), Value::String(text))]),
            _ => Map::new(),
        };
        let mut text = |name: &str| match fields.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let (content, reason) = (text("content"), text("finish_reason"));
        let usage = match fields.remove("usage") {
            Some(Value::Object(usage)) => Some(with_total(usage)),
            _ => None,
        };
        let usual = if calls_tools { "tool_calls" } else { "stop" };
        Self { text: content, finish_reason: reason.unwrap_or_else(|| usual.to_owned()), usage }
    }
}

fn with_total(mut usage: Map<String, Value>) -> Map<String, Value> {
    let tokens = |name: &str| usage.get(name).and_then(Value::as_u64);
    let (prompt, completion) = (tokens("prompt_tokens"), tokens("completion_tokens"));
    if let (Some(prompt), Some(completion)) = (prompt, completion) {
        usage.entry("total_tokens").or_insert_with(|| prompt.saturating_add(completion).into());
    }
    usage
}

/// Whether a delta is a call of a tool.
pub(super) fn calls_tools(delta: &Map<String, Value>) -> bool {
    delta.get("tool_calls").is_some_and(|calls| !calls.is_null())
}

/// Adds a delta to a message, as OpenAI's clients do: text is appended, objects are merged, items of a list find each
/// other by `index`.
pub(super) fn merge(message: &mut Map<String, Value>, delta: Map<String, Value>) {
    for (name, value) in delta {
        match message.get_mut(&name) {
            Some(known) => merge_value(&name, known, value),
            None => {
                message.insert(name, value);
            }
        }
    }
}

fn merge_value(name: &str, known: &mut Value, more: Value) {
    match (known, more) {
        (_, Value::Null) => {}
        // Names, not text that grows.
        (known, more) if matches!(name, "index" | "type" | "role" | "id") => *known = more,
        (Value::String(known), Value::String(more)) => known.push_str(&more),
        (Value::Object(known), Value::Object(more)) => merge(known, more),
        (Value::Array(known), Value::Array(more)) => {
            for item in more {
                let place = item.get("index");
                let same =
                    place.and_then(|place| known.iter_mut().find(|one| one.get("index") == Some(place)));
                match same {
                    Some(same) => merge_value("", same, item),
                    None => known.push(item),
                }
            }
        }
        (known, more) => *known = more,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(deltas: &[Value]) -> Value {
        let mut message = Map::new();
        for delta in deltas {
            merge(&mut message, delta.as_object().unwrap().clone());
        }
        Value::Object(message)
    }

    #[test]
    fn a_tool_call_in_pieces_is_one_call() {
        let call = |index: u32, more: Value| {
            let mut call = json!({ "index": index });
            call.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({ "tool_calls": [call] })
        };
        let whole = merged(&[
            call(
                0,
                json!({ "id": "a", "type": "function", "function": { "name": "look", "arguments": "" } }),
            ),
            call(
                1,
                json!({ "id": "b", "type": "function", "function": { "name": "go", "arguments": "{}" } }),
            ),
            call(0, json!({ "type": "function", "function": { "arguments": "{\"x\":" } })),
            call(0, json!({ "function": { "arguments": "1}" } })),
        ]);
        assert_eq!(whole["tool_calls"].as_array().unwrap().len(), 2);
        assert_eq!(whole["tool_calls"][0]["function"], json!({ "name": "look", "arguments": "{\"x\":1}" }));
        assert_eq!(whole["tool_calls"][0]["type"], "function");
        assert_eq!(whole["tool_calls"][1]["id"], "b");
    }

    #[test]
    fn text_grows_and_null_changes_nothing() {
        let whole = merged(&[
            json!({ "reasoning": "a", "refusal": null }),
            json!({ "reasoning": null }),
            json!({ "reasoning": "b", "refusal": "no" }),
        ]);
        assert_eq!(whole, json!({ "reasoning": "ab", "refusal": "no" }));
    }

    #[test]
    fn what_a_task_returns_says_how_it_ended() {
        let closing = Closing::of(
            Some(
                json!({ "finish_reason": "length", "usage": { "prompt_tokens": 2, "completion_tokens": 3 } }),
            ),
            false,
        );
        assert_eq!((closing.finish_reason.as_str(), closing.text), ("length", None));
        assert_eq!(closing.usage.unwrap()["total_tokens"], 5);
        let plain = Closing::of(Some(json!("hello")), false);
        assert_eq!((plain.text.as_deref(), plain.finish_reason.as_str()), (Some("hello"), "stop"));
        assert_eq!(Closing::of(Some(json!([1])), true).finish_reason, "tool_calls");
        assert_eq!(Closing::of(None, false).usage, None);
    }
}
