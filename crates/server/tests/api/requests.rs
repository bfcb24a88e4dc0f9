//! What the node is asked, and how bodies, ids and cursors that do not fit are refused.

use outlive_core::limits::REQUEST_BYTES_MAX;
use serde_json::{Value, json};

use crate::client::{Server, fill};

/// A body for `POST /v1/sessions`.
pub fn create_body() -> Value {
    json!({
        "workload": { "kind": "command" },
        "launch": {
            "program": { "kind": "command", "argv": ["true"] },
            "cwd": "/",
            "env": {},
            "ready_timeout_ms": 1000,
        },
        "restart": {
            "restart": "temporary", "restarts_max": 0, "period_ms": 1, "backoff_ms": 1, "backoff_ms_max": 1,
        },
    })
}

#[tokio::test]
async fn bodies_and_queries_reach_the_node() {
    let server = Server::start().await;
    let mut client = server.unix().await;
    assert_eq!(client.post("/v1/sessions", &create_body()).await.status, 201);
    assert_eq!(client.get("/v1/sessions?all=true").await.json()[0]["title"], "train.ipynb");
    assert_eq!(client.post(&fill("/v1/sessions/{id}/stop"), &json!({ "force": true })).await.status, 202);
    let bare = client.call("POST", &fill("/v1/sessions/{id}/stop"), &[("host", "x")], b"").await;
    assert_eq!(bare.status, 202, "a stop needs no body");
    let answer = client.post(&fill("/v1/sessions/{id}/runs/{run}/input"), &json!({ "value": "42" })).await;
    assert_eq!(answer.status, 202);
    assert_eq!(client.post("/v1/node/stop", &json!({ "keep_runtimes": true })).await.status, 202);
    let calls = server.fake.calls();
    let expected = [
        "create Command { timeout_ms: None }",
        "sessions all=true",
        "stop force=true",
        "stop force=false",
        "input 42",
        "shutdown keep_runtimes=true",
    ];
    assert_eq!(calls, expected);
    server.stop().await;
}

#[tokio::test]
async fn notebooks_are_made_opened_edited_and_saved() {
    let server = Server::start().await;
    let mut client = server.unix().await;
    let bare = client.call("POST", "/v1/sessions/new", &[("host", "x")], b"").await;
    assert_eq!(
        (bare.status.as_u16(), &bare.json()["path"]),
        (201, &Value::Null),
        "a new notebook needs no wish"
    );
    assert_eq!(bare.json()["session_id"], crate::fake::SESSION.to_string());
    let open = json!({ "path": "/a.ipynb", "trust": "trusted" });
    assert_eq!(client.post("/v1/sessions/open", &open).await.status, 200);
    let save = fill("/v1/sessions/{id}/save");
    assert_eq!(client.call("POST", &save, &[("host", "x")], b"").await.status, 200);
    let held = client.post(&save, &json!({ "path": "/held.ipynb", "how": "save_as" })).await.problem();
    assert_eq!(
        (held.status, held.code.as_str(), held.facts["path"].as_str()),
        (409, "path-already-open", "/held.ipynb")
    );
    let edits = json!({ "edits": [{ "edit": "set_source", "cell": "a", "source": "é😀" }] });
    assert_eq!(client.post(&fill("/v1/sessions/{id}/notebook"), &edits).await.json()["cells"], json!(["a"]));
    assert_eq!(client.get(&fill("/v1/sessions/{id}/notebook?outputs=true")).await.status, 200);
    assert_eq!(client.get(&fill("/v1/sessions/{id}/cells/a%2Fb%20c/outputs")).await.json(), json!([]));
    assert_eq!(
        client.post(&fill("/v1/sessions/{id}/trust"), &json!({ "trust": "untrusted" })).await.status,
        200
    );
    assert_eq!(client.post(&fill("/v1/sessions/{id}/rest"), &json!({ "force": true })).await.status, 202);
    assert_eq!(client.post(&fill("/v1/sessions/{id}/close"), &json!({ "discard": true })).await.status, 202);
    let calls = server.fake.calls();
    let expected = [
        "new kernel=None",
        "open path=Some(\"/a.ipynb\") trust=Some(Trusted)",
        "save SaveSession { path: None, how: Save, overwrite: false }",
        "save SaveSession { path: Some(\"/held.ipynb\"), how: SaveAs, overwrite: false }",
        "edit [SetSource { cell: \"a\", source: \"é😀\", expected: None }]",
        "notebook outputs=true",
        "outputs of a/b c",
        "trust Untrusted",
        "rest force=true",
        "close discard=true",
    ];
    assert_eq!(calls, expected);
    server.stop().await;
}

// B6
#[tokio::test]
async fn metrics_are_text_and_want_the_token_too() {
    let server = Server::start().await;
    let answer = server.unix().await.get("/metrics").await;
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(answer.body, "outlive_sessions_open 1\n");
    assert_eq!(server.tcp().await.get("/metrics").await.problem().code, "no-token");
    server.stop().await;
}

#[tokio::test]
async fn a_reader_begins_at_the_head_and_without_output() {
    let server = Server::start().await;
    let mut client = server.unix().await;
    let path = fill("/v1/sessions/{id}/attach");
    client.events(&format!("{path}?after=head&outputs=false"), &[]).await.rest().await;
    client.events(&format!("{path}?after=head"), &[("last-event-id", "7")]).await.rest().await;
    let calls = server.fake.calls();
    assert_eq!(calls[0], "attach after=head interactive=false follow=true outputs=false");
    assert_eq!(calls[1], "attach after=7 interactive=false follow=true outputs=true", "it comes back");
    server.stop().await;
}

#[tokio::test]
async fn what_the_node_refuses_is_passed_on() {
    let server = Server::start().await;
    let mut client = server.unix().await;
    let unknown = client.get("/v1/sessions/01920000-0000-7000-8000-00000000ffff").await.problem();
    assert_eq!((unknown.status, unknown.code.as_str()), (404, "no-such-session"));
    assert!(unknown.facts.contains_key("session"));
    server.stop().await;
}

#[tokio::test]
async fn ids_that_are_none_are_refused_by_name() {
    let server = Server::start().await;
    let mut client = server.unix().await;
    let problem = client.get("/v1/sessions/notebook").await.problem();
    assert_eq!((problem.status, problem.code.as_str()), (400, "bad-path"));
    assert!(
        problem.detail.contains("{id} in /v1/sessions/{id}: this is no id; an id is a UUID"),
        "{}",
        problem.detail
    );
    let problem = client.post("/v1/sessions/open", &json!({ "id": "train.ipynb" })).await.problem();
    assert!(
        problem.detail.starts_with("`id`: this is no id; an id is a UUID, for instance 0f8fad5b-"),
        "{problem}"
    );
    assert!(problem.detail.ends_with("a notebook's file is given as `path`."), "{problem}");
    let problem = client.get(&fill("/v1/sessions/{id}/runs/7")).await.problem();
    assert!(problem.detail.contains("{run}"), "{}", problem.detail);
    let problem = client.get("/v1/sessions?all=perhaps").await.problem();
    assert_eq!((problem.status, problem.code.as_str()), (400, "bad-query"));
    for path in ["/v1/sessions/{id}/attach?after=1.5", "/v1/sessions/{id}/runs/{run}/attach?cursor=7"] {
        let problem = client.get(&fill(path)).await.problem();
        assert_eq!((problem.status, problem.code.as_str()), (400, "bad-cursor"), "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn bodies_that_do_not_fit_name_the_place() {
    let server = Server::start().await;
    let mut client = server.unix().await;
    let mut wrong = create_body();
    wrong["launch"]["ready_timeout_ms"] = "soon".into();
    let problem = client.post("/v1/sessions", &wrong).await.problem();
    assert_eq!((problem.status, problem.code.as_str()), (400, "bad-json"));
    assert!(problem.detail.contains("`launch.ready_timeout_ms`"), "{}", problem.detail);
    assert!(problem.detail.contains("line 1 column"), "{}", problem.detail);

    let json = [("host", "x"), ("content-type", "application/json; charset=utf-8")];
    // A list is not taken for the fields in their order.
    for list in ["[]", " [true]"] {
        let path = fill("/v1/sessions/{id}/rest");
        let problem = client.call("POST", &path, &json, list.as_bytes()).await.problem();
        assert_eq!((problem.status, problem.code.as_str()), (400, "bad-json"), "{list:?}");
    }
    for broken in ["", "{", "[1,]", "{\"value\": \"a\"} {}", "\u{0}", "nul"] {
        let path = fill("/v1/sessions/{id}/runs/{run}/input");
        let problem = client.call("POST", &path, &json, broken.as_bytes()).await.problem();
        assert_eq!((problem.status, problem.code.as_str()), (400, "bad-json"), "{broken:?}");
    }
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp"] {
        let headers = [("host", "x"), ("content-type", media_type)];
        let problem = client.call("POST", "/v1/sessions", &headers, b"{}").await.problem();
        assert_eq!((problem.status, problem.code.as_str()), (415, "wrong-media-type"), "{media_type}");
    }
    let problem = client.call("POST", "/v1/sessions", &[("host", "x")], b"{}").await.problem();
    assert_eq!(problem.code, "wrong-media-type");
    assert!(server.fake.calls().is_empty(), "none of them reached the node");
    server.stop().await;
}

// B6
#[tokio::test]
async fn deep_json_is_refused_before_it_is_built() {
    let server = Server::start().await;
    let mut client = server.unix().await;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let body = format!("{{\"kind\":\"code\",\"code\":{deep}}}");
    let headers = [("host", "x"), ("content-type", "application/json")];
    let problem =
        client.call("POST", &fill("/v1/sessions/{id}/runs"), &headers, body.as_bytes()).await.problem();
    assert_eq!((problem.status, problem.code.as_str()), (400, "json-too-deep"));
    assert_eq!(client.get("/v1/node").await.status, 200, "the connection lives");
    server.stop().await;
}

// B1, B6
#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_one_at_the_limit_is_not() {
    let server = Server::start().await;
    let mut client = server.unix().await;
    let headers = [("host", "x"), ("content-type", "application/json")];
    let path = fill("/v1/sessions/{id}/runs");
    let frame = r#"{"kind":"code","code":""}"#;
    let fitting = format!(r#"{{"kind":"code","code":"{}"}}"#, "x".repeat(REQUEST_BYTES_MAX - frame.len()));
    assert_eq!(client.call("POST", &path, &headers, fitting.as_bytes()).await.status, 201);
    let over = vec![b' '; REQUEST_BYTES_MAX + 1];
    let problem = client.call("POST", &path, &headers, &over).await.problem();
    assert_eq!((problem.status, problem.code.as_str()), (413, "body-too-large"));
    assert!(problem.detail.contains(&(REQUEST_BYTES_MAX + 1).to_string()), "{}", problem.detail);
    assert_eq!(client.get("/v1/node").await.status, 200, "the connection lives");
    server.stop().await;
}

#[tokio::test]
async fn unknown_routes_and_methods() {
    let server = Server::start().await;
    let mut client = server.unix().await;
    for path in ["/", "/v1", "/v2/node", "/v1/sessions/", "/v1/../etc/passwd", "/api/kernels"] {
        let problem = client.get(path).await.problem();
        assert_eq!((problem.status, problem.code.as_str()), (404, "no-such-route"), "{path}");
    }
    let answer = client.call("PUT", "/v1/sessions", &[("host", "x")], b"").await;
    assert_eq!((answer.problem().status, answer.problem().code.as_str()), (405, "wrong-method"));
    let allowed = answer.headers["allow"].to_str().unwrap();
    assert!(allowed.contains("GET") && allowed.contains("POST"), "{allowed}");
    server.stop().await;
}

#[tokio::test]
async fn a_panic_is_one_refused_request() {
    let server = Server::start().await;
    let mut client = server.unix().await;
    let mut body = create_body();
    body["parameters"] = json!({ "panic": true });
    let problem = client.post("/v1/sessions", &body).await.problem();
    assert_eq!((problem.status, problem.code.as_str()), (500, "bug"));
    assert_eq!(client.get("/v1/node").await.status, 200, "the daemon lives, and the connection too");
    server.stop().await;
}

#[tokio::test]
async fn a_client_of_another_version_is_told() {
    let server = Server::start().await;
    let mut client = server.unix().await;
    let answer = client.call("GET", "/v1/node", &[("host", "x"), ("outlive-api", "2")], b"").await;
    assert_eq!(answer.problem().code, "version-mismatch");
    assert_eq!(answer.problem().facts["api"], "1");
    assert_eq!(client.call("GET", "/v1/node", &[("host", "x"), ("outlive-api", "1")], b"").await.status, 200);
    server.stop().await;
}
