//! How a chat fails: before its first byte by a status, in mid-stream by an error object, always with the cause.

use outlive_core::diagnosis::{CauseCode, Evidence, Failure, FailureReport, NextStep};
use outlive_core::id::{ReportId, SessionId};
use outlive_core::limits::{CHAT_ANSWER_BYTES_MAX, REQUEST_BYTES_MAX};
use outlive_core::log::ChunkKind;
use outlive_core::runtime::ExitStatus;
use outlive_core::runtime::runner::Phase;
use outlive_core::session::{CancelWhy, RunOutcome};
use outlive_core::time::WallTime;
use outlive_node::api::Delivered;
use outlive_protocol::http::{Problem, StreamEvent};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::chat::{CHAT, JSON, all, body, content, done, result, says, streamed};
use crate::client::{Client, Server, TOKEN, in_time};
use crate::fake::ended;
use crate::group::{GROUP, chunk, config_body, reset, text};
use crate::streams::channel_stream;

const REPORT: Uuid = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0009);

/// What an error chunk says of the death of a runner.
pub fn death() -> Value {
    json!({
        "ename": "gpu-out-of-memory",
        "evalue": "the GPU ran out of memory: 2.0 GiB asked for, 1.1 GiB free",
        "traceback": ["runner llm-0 (pid 7) died", "stderr: torch.OutOfMemoryError: CUDA out of memory."],
        "report": REPORT.to_string(),
    })
}

fn died() -> RunOutcome {
    let summary = "the GPU ran out of memory: 2.0 GiB asked for, 1.1 GiB free".to_owned();
    RunOutcome::Failed { code: CauseCode::GpuOutOfMemory, summary, report: ReportId::from_uuid(REPORT) }
}

pub fn raised() -> Vec<Delivered> {
    let error = json!({ "ename": "ValueError", "evalue": "too hot", "traceback": ["Traceback", "ValueError: too hot"] });
    let outcome = RunOutcome::Raised { ename: "ValueError".to_owned(), evalue: "too hot".to_owned() };
    vec![chunk(1, ChunkKind::Error, error), ended(outcome)]
}

async fn refused(client: &mut Client, body: &Value) -> (u16, Value) {
    let answer = client.post(CHAT, body).await;
    assert_eq!(answer.headers["content-type"], "application/json");
    let error = answer.json()["error"].clone();
    for field in ["message", "type", "code"] {
        assert!(error[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {error}");
    }
    assert!(error.as_object().unwrap().contains_key("param"), "{error}");
    (answer.status.as_u16(), error)
}

// B6
#[tokio::test]
async fn bodies_that_do_not_fit_name_the_field() {
    let server = Server::start().await;
    let mut client = server.unix().await;
    let cases = [
        (json!({ "messages": [{ "role": "user" }] }), "model"),
        (body(json!({ "model": 7 })), "model"),
        (json!({ "model": "llm" }), "messages"),
        (body(json!({ "messages": [] })), "messages"),
        (body(json!({ "messages": "Hello" })), "messages"),
        (body(json!({ "messages": [{ "role": "user" }, { "content": "x" }] })), "messages[1]"),
        (body(json!({ "stream": "yes" })), "stream"),
        (body(json!({ "n": 2 })), "n"),
        (body(json!({ "stream_options": {} })), "stream_options"),
        (body(json!({ "outlive": { "cancel": true } })), "outlive"),
        (body(json!({ "outlive": { "wait_ms": -1 } })), "outlive.wait_ms"),
    ];
    for (body, field) in cases {
        let (status, error) = refused(&mut client, &body).await;
        assert_eq!((status, error["type"].as_str()), (400, Some("invalid_request_error")), "{error}");
        let named = error["param"].as_str().is_some_and(|param| param.starts_with(field));
        assert!(named || error["message"].as_str().unwrap().contains(field), "{field}: {error}");
    }
    for broken in [&b""[..], b"{", b"[]", b"\"llm\"", b"nul", b"\xff\xfe"] {
        let answer = client.call("POST", CHAT, &JSON, broken).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (400, &json!("bad-json")));
    }
    let plain = client.call("POST", CHAT, &[("host", "x"), ("content-type", "text/plain")], b"{}").await;
    assert_eq!((plain.status.as_u16(), &plain.json()["error"]["code"]), (415, &json!("wrong-media-type")));
    assert!(server.fake.calls().is_empty(), "none of them became a task");
    server.stop().await;
}

// B1, B6
#[tokio::test]
async fn huge_and_deep_bodies_are_refused_and_the_connection_lives() {
    let server = Server::start().await;
    let mut client = server.unix().await;
    let huge = client.call("POST", CHAT, &JSON, &vec![b' '; REQUEST_BYTES_MAX + 1]).await;
    assert_eq!((huge.status.as_u16(), &huge.json()["error"]["code"]), (413, &json!("body-too-large")));
    let deep = format!("{{\"model\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let deep = client.call("POST", CHAT, &JSON, deep.as_bytes()).await;
    assert_eq!((deep.status.as_u16(), &deep.json()["error"]["code"]), (400, &json!("json-too-deep")));
    assert_eq!(client.get("/v1/models").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn every_refusal_here_is_in_openais_words() {
    let server = Server::start().await;
    let mut tcp = server.tcp().await;
    let stranger = tcp.post(CHAT, &body(json!({}))).await;
    assert_eq!(
        (stranger.status.as_u16(), &stranger.json()["error"]["type"]),
        (401, &json!("authentication_error"))
    );
    let bearer = format!("Bearer {TOKEN}");
    let known = tcp.call("GET", "/v1/models", &[JSON[0], ("authorization", &bearer)], b"").await;
    assert_eq!(known.status, 200, "the API key is the token");
    let method = server.unix().await.get(CHAT).await;
    assert_eq!((method.status.as_u16(), &method.json()["error"]["code"]), (405, &json!("wrong-method")));
    server.stop().await;
}

#[tokio::test]
async fn an_unknown_model_is_told_which_there_are() {
    let server = Server::start().await;
    let mut client = server.unix().await;
    let (status, error) = refused(&mut client, &body(json!({ "model": "gpt-4" }))).await;
    assert_eq!((status, &error["code"], &error["param"]), (404, &json!("model_not_found"), &json!("model")));
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("gpt-4") && message.contains("llm"), "{message}");
    server.fake.groups.member("llm", |member| member.capabilities.clear());
    let (status, error) = refused(&mut client, &body(json!({}))).await;
    assert_eq!((status, &error["code"]), (400, &json!("not-a-chat-model")));
    server.stop().await;
}

#[tokio::test]
async fn a_runner_that_has_not_spoken_yet_may_turn_out_to_chat() {
    let server = Server::start().await;
    server.fake.groups.member("llm", |member| {
        member.capabilities.clear();
        member.phase = Phase::Connecting;
    });
    says(&server, vec![text(1, "a"), done()]);
    let answer = server.unix().await.post(CHAT, &body(json!({}))).await;
    assert_eq!(answer.status, 200, "the task waits for it: {:?}", answer.body);
    server.stop().await;
}

#[tokio::test]
async fn a_task_that_is_not_taken_is_a_status() {
    let server = Server::start().await;
    let mut client = server.unix().await;
    let refusals = [
        (503, "nobody-ready", "server_error", "every member gave up: missing-weights"),
        (429, "queue-full", "rate_limit_error", "10 tasks are queued; at most 10 can be"),
        (413, "task-too-large", "invalid_request_error", "the input has 600000 bytes"),
    ];
    for (status, code, kind, detail) in refusals {
        let problem = Problem::new(status, code, "Refused", detail).hint("Wait.");
        *server.fake.groups.refusal.lock().unwrap() = Some(problem);
        let answer = client.post(CHAT, &body(json!({ "stream": true }))).await;
        let error = &answer.json()["error"];
        assert_eq!(answer.status, status);
        assert_eq!(answer.headers.contains_key("retry-after"), status != 413);
        assert!(!answer.headers.contains_key("x-should-retry"), "nothing was done: a client may ask again");
        assert_eq!((&error["code"], &error["type"]), (&json!(code), &json!(kind)));
        assert_eq!((&error["message"], &error["hint"]), (&json!(detail), &json!("Wait.")));
    }
    server.stop().await;
}

// A11
#[tokio::test]
async fn a_failure_before_the_first_byte_is_a_status() {
    let server = Server::start().await;
    let mut client = server.unix().await;
    let error = || chunk(1, ChunkKind::Error, death());
    let unserved = RunOutcome::Unserved { reason: "llm-0 gave up: missing-weights".to_owned() };
    let cancelled = RunOutcome::Cancelled { why: CancelWhy::User };
    let cases = [
        (raised(), 500, "raised"),
        (vec![error(), ended(died())], 502, "gpu-out-of-memory"),
        (vec![ended(died())], 502, "gpu-out-of-memory"),
        (vec![ended(unserved)], 503, "nobody-ready"),
        (vec![ended(RunOutcome::TimedOut { limit_ms: 7 })], 504, "timed-out"),
        (vec![ended(cancelled)], 409, "cancelled"),
    ];
    for (events, status, code) in cases {
        says(&server, events);
        for stream in [false, true] {
            let answer = client.post(CHAT, &body(json!({ "stream": stream }))).await;
            let error = &answer.json()["error"];
            assert_eq!((answer.status.as_u16(), &error["cause"]), (status, &json!(code)), "{error}");
            assert_eq!(answer.headers["x-should-retry"], "false", "it was done once already");
            assert!(answer.headers.contains_key("outlive-run"));
            assert_eq!(error["diagnostics"]["explain"], "outlive explain llm");
            let is_client = status < 500;
            assert_eq!(error["type"], if is_client { "invalid_request_error" } else { "server_error" });
        }
    }
    server.stop().await;
}

// A11
#[tokio::test]
async fn a_death_in_mid_stream_is_told_at_once_with_its_cause() {
    let server = Server::start().await;
    // Nothing follows the error chunk: the end of the task does not have to be waited for.
    says(&server, vec![text(1, "Hel"), chunk(2, ChunkKind::Error, death())]);
    let mut client = server.unix().await;
    let (_, mut reader) = streamed(&mut client, json!({})).await;
    let chunks = all(&mut reader).await;
    let (last, before) = chunks.split_last().unwrap();
    assert_eq!(content(before), "Hel");
    let error = &last["error"];
    assert_eq!((&error["code"], &error["cause"]), (&json!("gpu-out-of-memory"), &json!("gpu-out-of-memory")));
    assert_eq!((&error["type"], &error["message"]), (&json!("server_error"), &death()["evalue"]));
    let expected = json!({
        "evidence": death()["traceback"], "report": REPORT.to_string(), "explain": "outlive explain llm",
    });
    assert_eq!(error["diagnostics"], expected);
    assert!(last.get("choices").is_none());
    server.stop().await;
}

// A11
#[tokio::test]
async fn a_death_whose_report_is_known_says_what_to_do() {
    let server = Server::start().await;
    let failure = Failure {
        id: ReportId::from_uuid(REPORT),
        session: SessionId::from_uuid(GROUP),
        process: None,
        subject: "runner llm-0 (pid 7)".to_owned(),
        at: WallTime(1),
        lived_ms: Some(5),
        status: Some(ExitStatus::Code { code: 1 }),
        evidence: Evidence::default(),
        interrupted: Vec::new(),
        interrupted_names: Vec::new(),
        next: NextStep::Nothing,
    };
    let report = FailureReport::build(failure);
    let (summary, remedy) = (report.cause().summary.clone(), report.cause().remedy.clone());
    let told = Delivered { cursor: None, event: StreamEvent::Report { report: Box::new(report) } };
    says(&server, vec![chunk(1, ChunkKind::Error, death()), told, ended(died())]);
    let wishes = json!({ "outlive": { "idempotent": true } });
    let (status, error) = refused(&mut server.unix().await, &body(wishes)).await;
    assert_eq!((status, &error["message"], &error["hint"]), (502, &json!(summary), &json!(remedy)));
    let evidence = error["diagnostics"]["evidence"].as_array().unwrap();
    assert!(evidence[0].as_str().unwrap().contains("runner llm-0 (pid 7)"), "{evidence:?}");
    server.stop().await;
}

// A11
#[tokio::test]
async fn an_exception_in_mid_stream_is_told_with_its_traceback() {
    let server = Server::start().await;
    let mut events = vec![text(0, "Hel")];
    events.extend(raised());
    says(&server, events);
    let mut client = server.unix().await;
    for idempotent in [false, true] {
        let (_, mut reader) = streamed(&mut client, json!({ "outlive": { "idempotent": idempotent } })).await;
        let error = all(&mut reader).await.pop().unwrap()["error"].clone();
        assert_eq!((&error["cause"], &error["message"]), (&json!("raised"), &json!("ValueError: too hot")));
        assert_eq!(error["diagnostics"]["evidence"], json!(["Traceback", "ValueError: too hot"]));
        assert_eq!(error["diagnostics"].get("report"), None);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_task_that_may_be_begun_again_has_not_failed_before_its_end() {
    let server = Server::start().await;
    let events = channel_stream(&server);
    let mut client = server.unix().await;
    let (_, mut reader) = streamed(&mut client, json!({ "outlive": { "idempotent": true } })).await;
    events.send(text(1, "Hel")).unwrap();
    events.send(chunk(2, ChunkKind::Error, death())).unwrap();
    events.send(reset(0)).unwrap();
    events.send(text(1, "Hello")).unwrap();
    events.send(chunk(2, ChunkKind::Error, death())).unwrap();
    events.send(ended(died())).unwrap();
    let chunks = all(&mut reader).await;
    assert_eq!(content(&chunks), "Hello");
    let errors: Vec<_> = chunks.iter().filter_map(|chunk| chunk.get("error")).collect();
    assert_eq!(errors.len(), 1, "the second death was the end: {chunks:?}");
    assert_eq!(errors[0]["diagnostics"]["report"], REPORT.to_string());
    server.stop().await;
}

#[tokio::test]
async fn an_answer_that_goes_on_differently_is_not_glued_together() {
    let server = Server::start().await;
    let mut client = server.unix().await;
    let idempotent = json!({ "outlive": { "idempotent": true } });
    for again in [vec![text(1, "Help")], vec![text(1, "He"), result(2, Value::Null), done()]] {
        let mut events = vec![text(1, "Hello"), reset(0)];
        events.extend(again);
        says(&server, events);
        let (_, mut reader) = streamed(&mut client, idempotent.clone()).await;
        let chunks = all(&mut reader).await;
        assert_eq!(content(&chunks), "Hello");
        assert_eq!(chunks.last().unwrap()["error"]["code"], "output-differs", "{chunks:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_task_that_failed_is_not_cancelled_by_those_who_hear_of_it() {
    let server = Server::start().await;
    let events = channel_stream(&server);
    let mut client = server.unix().await;
    let (_, mut reader) = streamed(&mut client, json!({ "outlive": { "cancel_on_disconnect": true } })).await;
    events.send(text(1, "a")).unwrap();
    events.send(chunk(2, ChunkKind::Error, death())).unwrap();
    events.send(ended(died())).unwrap();
    let chunks = all(&mut reader).await;
    assert_eq!(chunks.last().unwrap()["error"]["cause"], "gpu-out-of-memory");
    drop((reader, client));
    in_time(events.closed()).await;
    assert!(
        !server.fake.calls().iter().any(|call| call.starts_with("cancelled")),
        "{:?}",
        server.fake.calls()
    );
    server.stop().await;
}

#[tokio::test]
async fn an_answer_too_large_to_be_held_is_said_to_be() {
    let server = Server::start().await;
    let piece = "x".repeat(CHAT_ANSWER_BYTES_MAX / 16);
    says(&server, (1..=17).map(|seq| text(seq, &piece)).chain([done()]).collect());
    let mut client = server.unix().await;
    let (status, error) = refused(&mut client, &body(json!({}))).await;
    assert_eq!((status, &error["code"]), (500, &json!("answer-too-large")));
    assert!(error["hint"].as_str().unwrap().contains("stream"), "{error}");
    let (_, mut reader) = streamed(&mut client, json!({ "outlive": { "idempotent": true } })).await;
    assert_eq!(content(&all(&mut reader).await).len(), piece.len() * 17, "streamed it has no limit");
    server.stop().await;
}

#[tokio::test]
async fn the_end_of_the_daemon_is_said() {
    let server = Server::start().await;
    server.fake.groups.raise("other", serde_json::from_value(config_body(1)).unwrap());
    says(&server, vec![text(1, "a")]);
    let mut client = server.unix().await;
    let (_, mut reader) = streamed(&mut client, json!({})).await;
    reader.data().await.unwrap();
    let mut waiting = server.unix().await;
    let attached = server.fake.calls().len();
    let request = body(json!({ "model": "other" }));
    let asked = waiting.post(CHAT, &request);
    let ending = async {
        server.fake.until_calls(attached + 1).await;
        server.begin_shutdown();
    };
    let (answer, ()) = tokio::join!(asked, ending);
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (503, &json!("shutting-down")));
    let chunks = all(&mut reader).await;
    assert_eq!(chunks.last().unwrap()["error"]["code"], "shutting-down", "{chunks:?}");
    server.ended().await;
}
