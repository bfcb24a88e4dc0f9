//! OpenAI's chat API over a group of runners: what its clients get, byte for byte where it matters.

use std::time::Duration;

use axum::http::HeaderMap;
use futures_util::{StreamExt as _, stream};
use outlive_core::limits::CHUNK_BYTES_MAX;
use outlive_core::log::{BlobRef, ChunkKind};
use outlive_core::session::RunOutcome;
use outlive_core::time::WallTime;
use outlive_node::api::Delivered;
use outlive_protocol::http::ChunkView;
use serde_json::{Value, json};

use crate::client::{Answer, Client, EventReader, Server, in_time, request};
use crate::fake::ended;
use crate::group::{chunk, config_body, of_task, reset, text};
use crate::streams::channel_stream;

pub const CHAT: &str = "/v1/chat/completions";
pub const JSON: [(&str, &str); 2] = [("host", "localhost"), ("content-type", "application/json")];

/// A request, with more fields.
pub fn body(more: Value) -> Value {
    let mut body = json!({ "model": "llm", "messages": [{ "role": "user", "content": "Hello" }] });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// What the fake's task says.
pub fn says(server: &Server, events: Vec<Delivered>) {
    *server.fake.events.lock().unwrap() =
        Box::new(move |_| stream::iter(events.clone()).chain(stream::pending()).boxed());
}

pub fn done() -> Delivered {
    ended(RunOutcome::Succeeded)
}

pub fn result(seq: u64, value: Value) -> Delivered {
    chunk(seq, ChunkKind::Result, value)
}

pub async fn streamed(client: &mut Client, more: Value) -> (HeaderMap, EventReader) {
    let mut body = body(more);
    body["stream"] = true.into();
    let response = client.send(request("POST", CHAT, &JSON, &serde_json::to_vec(&body).unwrap())).await;
    let headers = response.headers().clone();
    (headers, EventReader::of(response))
}

/// All data of a stream; checks that it ends with `[DONE]` and nothing behind it.
pub async fn all(reader: &mut EventReader) -> Vec<Value> {
    let mut all = Vec::new();
    while let Some(data) = reader.data().await {
        if data == "[DONE]" {
            assert_eq!(reader.data().await, None, "nothing follows");
            return all;
        }
        all.push(serde_json::from_str(&data).unwrap());
    }
    panic!("the stream ended without [DONE]: {all:?}");
}

/// The text that a client puts together.
pub fn content(chunks: &[Value]) -> String {
    chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect()
}

#[tokio::test]
async fn an_answer_is_streamed_as_openai_does() {
    let server = Server::start().await;
    let usage = json!({ "prompt_tokens": 4, "completion_tokens": 2 });
    let end = json!({ "finish_reason": "length", "usage": usage });
    says(&server, vec![text(1, "Hé"), text(2, "llo\n\n"), result(3, end), done()]);
    let mut client = server.unix().await;
    let wishes = json!({ "key": "k", "idempotent": true, "wait_ms": 7, "timeout_ms": 9 });
    let more = json!({ "temperature": 0.5, "stream_options": { "include_usage": true }, "outlive": wishes });
    let (headers, mut reader) = streamed(&mut client, more).await;
    let chunks = all(&mut reader).await;

    let task = server.fake.groups.tasks().last().unwrap().clone();
    assert_eq!(headers["outlive-run"], task.id.to_string());
    assert_eq!(headers["x-request-id"], task.id.to_string());
    let base = json!({
        "id": format!("chatcmpl-{}", task.id), "object": "chat.completion.chunk", "created": 1_700_000_001,
        "model": "llm",
    });
    let expect = |delta: Value, reason: Value| {
        let mut chunk = base.clone();
        chunk["choices"] = json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": reason }]);
        chunk["usage"] = Value::Null;
        chunk
    };
    let mut last = base.clone();
    last["choices"] = json!([]);
    last["usage"] = json!({ "prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6 });
    let expected = [
        expect(json!({ "role": "assistant", "content": "" }), Value::Null),
        expect(json!({ "content": "Hé" }), Value::Null),
        expect(json!({ "content": "llo\n\n" }), Value::Null),
        expect(json!({}), json!("length")),
        last,
    ];
    assert_eq!(chunks, expected);

    let submitted = server.fake.groups.last();
    assert_eq!(submitted.task, "chat");
    let mut as_it_came = body(json!({ "temperature": 0.5, "stream_options": { "include_usage": true } }));
    as_it_came["stream"] = true.into();
    assert_eq!(submitted.input, as_it_came, "the runner gets the body without what is ours");
    assert_eq!(
        (submitted.key.as_deref(), submitted.idempotent, submitted.wait_ms, submitted.timeout_ms),
        (Some("k"), true, Some(7), Some(9))
    );
    server.stop().await;
}

#[tokio::test]
async fn without_being_asked_no_usage_is_told() {
    let server = Server::start().await;
    let usage = json!({ "prompt_tokens": 4, "completion_tokens": 2 });
    says(&server, vec![text(1, "a"), result(2, json!({ "usage": usage })), done()]);
    let mut client = server.unix().await;
    let (_, mut reader) = streamed(&mut client, json!({})).await;
    let chunks = all(&mut reader).await;
    assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()), "{chunks:?}");
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "stop");
    server.stop().await;
}

#[tokio::test]
async fn an_answer_in_one_piece() {
    let server = Server::start().await;
    let usage = json!({ "prompt_tokens": 1, "completion_tokens": 2, "details": { "cached": 1 } });
    says(&server, vec![text(1, "Hel"), text(2, "lo"), result(3, json!({ "usage": usage })), done()]);
    let answer = server.unix().await.post(CHAT, &body(json!({}))).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["content-type"]),
        (200, &"application/json".parse().unwrap())
    );
    let run = answer.headers["outlive-run"].to_str().unwrap().to_owned();
    let expected = json!({
        "id": format!("chatcmpl-{run}"),
        "object": "chat.completion",
        "created": 1_700_000_001,
        "model": "llm",
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": "Hello" },
            "logprobs": null,
            "finish_reason": "stop",
        }],
        "usage": { "prompt_tokens": 1, "completion_tokens": 2, "details": { "cached": 1 }, "total_tokens": 3 },
    });
    assert_eq!(answer.json(), expected);
    server.stop().await;
}

pub fn tool_calls() -> Vec<Delivered> {
    let delta = |seq, call: Value| chunk(seq, ChunkKind::Json, json!({ "delta": { "tool_calls": [call] } }));
    vec![
        delta(
            1,
            json!({ "index": 0, "id": "a", "type": "function", "function": { "name": "look", "arguments": "" } }),
        ),
        chunk(2, ChunkKind::Json, json!({ "note": "no delta" })),
        chunk(3, ChunkKind::Progress, json!({ "done": 1.0 })),
        delta(4, json!({ "index": 0, "function": { "arguments": "{\"x\":1}" } })),
        result(5, Value::Null),
        done(),
    ]
}

#[tokio::test]
async fn deltas_of_a_runner_pass_as_they_are_and_are_merged_in_one_piece() {
    let server = Server::start().await;
    says(&server, tool_calls());
    let mut client = server.unix().await;
    let (_, mut reader) = streamed(&mut client, json!({})).await;
    let chunks = all(&mut reader).await;
    assert_eq!(chunks.len(), 4, "role, two deltas, the end: {chunks:?}");
    assert_eq!(chunks[2]["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"], "{\"x\":1}");
    assert_eq!(chunks[3]["choices"][0]["finish_reason"], "tool_calls");
    let whole = client.post(CHAT, &body(json!({}))).await.json();
    let call =
        json!({ "id": "a", "type": "function", "function": { "name": "look", "arguments": "{\"x\":1}" } });
    assert_eq!(
        whole["choices"][0]["message"],
        json!({ "role": "assistant", "content": null, "tool_calls": [call] })
    );
    assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(whole.get("usage"), None);
    server.stop().await;
}

#[tokio::test]
async fn a_handler_that_returns_its_text_has_answered_too() {
    let server = Server::start().await;
    says(&server, vec![result(1, json!("Hello")), done()]);
    let mut client = server.unix().await;
    let whole = client.post(CHAT, &body(json!({}))).await.json();
    assert_eq!(whole["choices"][0]["message"]["content"], "Hello");
    let (_, mut reader) = streamed(&mut client, json!({})).await;
    assert_eq!(content(&all(&mut reader).await), "Hello");
    says(&server, vec![done()]);
    let (_, mut reader) = streamed(&mut client, json!({})).await;
    let chunks = all(&mut reader).await;
    assert_eq!(
        chunks[0]["choices"][0]["delta"]["role"], "assistant",
        "nothing is an answer as well: {chunks:?}"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_large_piece_of_text_is_fetched_from_its_blob() {
    let server = Server::start().await;
    let long = "é".repeat(CHUNK_BYTES_MAX);
    let sha256 = "ab".repeat(32);
    std::fs::write(server.fake.blobs.join(&sha256), &long).unwrap();
    let blob = BlobRef { sha256, size: long.len() as u64, mime: "text/plain".to_owned() };
    let kind = ChunkKind::Text;
    let large =
        ChunkView { kind, at: WallTime(1), text: None, base64: None, content: None, blob: Some(blob) };
    says(&server, vec![text(1, "<"), of_task(2, large), text(3, ">"), done()]);
    let mut client = server.unix().await;
    let (_, mut reader) = streamed(&mut client, json!({})).await;
    assert!(content(&all(&mut reader).await) == format!("<{long}>"), "whole and in its place");
    server.stop().await;
}

#[tokio::test]
async fn an_answer_begun_again_is_told_once() {
    let server = Server::start().await;
    let died = chunk(4, ChunkKind::Error, crate::chat_failures::death());
    let again = |seq, piece| text(seq, piece);
    let events = vec![
        text(1, "Once "),
        text(2, "upon "),
        text(3, "a time"),
        died,
        reset(1),
        again(2, "upon a"),
        again(3, " time there"),
        again(4, " was"),
        result(5, Value::Null),
        done(),
    ];
    says(&server, events);
    let mut client = server.unix().await;
    let idempotent = json!({ "outlive": { "idempotent": true } });
    let (_, mut reader) = streamed(&mut client, idempotent.clone()).await;
    assert_eq!(content(&all(&mut reader).await), "Once upon a time there was");
    let whole = client.post(CHAT, &body(idempotent)).await.json();
    assert_eq!(whole["choices"][0]["message"]["content"], "Once upon a time there was");
    server.stop().await;
}

#[tokio::test]
async fn a_quiet_answer_is_kept_alive() {
    let server = Server::start().await;
    let events = channel_stream(&server);
    let mut client = server.unix().await;
    let (_, mut reader) = streamed(&mut client, json!({})).await;
    let ending = async {
        // The silence that is tested: what says nothing to the client does not break it.
        let _ = tokio::time::timeout(Duration::from_millis(500), std::future::pending::<()>()).await;
        events.send(chunk(1, ChunkKind::Progress, json!({ "done": 1 }))).unwrap();
        let _ = tokio::time::timeout(Duration::from_millis(500), std::future::pending::<()>()).await;
        events.send(text(2, "a")).unwrap();
        events.send(done()).unwrap();
    };
    let (chunks, ()) = tokio::join!(all(&mut reader), ending);
    assert_eq!(content(&chunks), "a");
    assert!((2..=5).contains(&reader.comments), "a comment each 250 ms: {}", reader.comments);
    server.stop().await;
}

#[tokio::test]
async fn the_first_piece_does_not_wait() {
    let server = Server::start().await;
    let events = channel_stream(&server);
    events.send(text(1, "a")).unwrap();
    let mut client = server.unix().await;
    let (_, mut reader) = streamed(&mut client, json!({})).await;
    reader.data().await.unwrap();
    assert!(reader.data().await.unwrap().contains("\"content\":\"a\""));
    assert_eq!(reader.comments, 0);
    events.send(done()).unwrap();
    all(&mut reader).await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_does_not_cancel_unless_it_asked() {
    let server = Server::start().await;
    let events = channel_stream(&server);
    let mut client = server.unix().await;
    let (_, reader) = streamed(&mut client, json!({})).await;
    drop((reader, client));
    in_time(events.closed()).await;
    assert!(
        !server.fake.calls().iter().any(|call| call.starts_with("cancelled")),
        "{:?}",
        server.fake.calls()
    );

    let _events = channel_stream(&server);
    let mut client = server.unix().await;
    let (headers, reader) =
        streamed(&mut client, json!({ "outlive": { "cancel_on_disconnect": true } })).await;
    drop((reader, client));
    server.fake.until(&format!("cancelled {}", headers["outlive-run"].to_str().unwrap())).await;
    server.stop().await;
}

#[tokio::test]
async fn nor_does_one_that_waits_for_the_whole() {
    let server = Server::start().await;
    for (cancel, cancelled) in [(false, 0), (true, 1)] {
        let events = channel_stream(&server);
        let mut client = server.unix().await;
        let body =
            serde_json::to_vec(&body(json!({ "outlive": { "cancel_on_disconnect": cancel } }))).unwrap();
        let asked = request("POST", CHAT, &JSON, &body);
        let attached = server.fake.calls().len();
        tokio::select! {
            _ = client.send(asked) => panic!("there is no answer yet"),
            () = async {
                server.fake.until_calls(attached + 1).await;
            } => {}
        }
        drop(client);
        in_time(events.closed()).await;
        let calls = server.fake.calls();
        assert_eq!(calls.iter().filter(|call| call.starts_with("cancelled")).count(), cancelled, "{calls:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_same_key_joins_the_same_task() {
    let server = Server::start().await;
    says(&server, vec![text(1, "a"), done()]);
    let mut client = server.unix().await;
    let body = serde_json::to_vec(&body(json!({}))).unwrap();
    let headers = [JSON[0], JSON[1], ("idempotency-key", "same")];
    let ask = async |client: &mut Client| -> Answer { client.call("POST", CHAT, &headers, &body).await };
    let (one, two) = (ask(&mut client).await, ask(&mut client).await);
    assert_eq!(one.headers["outlive-run"], two.headers["outlive-run"]);
    assert_eq!(one.body, two.body);
    server.stop().await;
}

#[tokio::test]
async fn models_are_the_groups_that_can_chat() {
    let server = Server::start().await;
    server.fake.groups.raise("trainer", serde_json::from_value(config_body(1)).unwrap());
    server.fake.groups.member("trainer", |member| member.capabilities.clear());
    let mut client = server.unix().await;
    let model = json!({
        "id": "llm", "object": "model", "created": 1_700_000_000, "owned_by": "outlive", "capabilities": ["chat"],
    });
    assert_eq!(client.get("/v1/models").await.json(), json!({ "object": "list", "data": [model] }));
    assert_eq!(client.get("/v1/models/llm").await.json(), model);
    assert_eq!(client.get("/v1/models/trainer").await.json()["error"]["code"], "model_not_found");
    server.stop().await;
}
