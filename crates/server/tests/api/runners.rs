//! Groups of runners and their tasks over HTTP.

use outlive_core::limits::REQUEST_BYTES_MAX;
use serde_json::{Value, json};

use crate::client::{Server, fill, in_time};
use crate::fake::end;
use crate::group::{config_body, text};
use crate::streams::channel_stream;

const JSON: [(&str, &str); 2] = [("host", "localhost"), ("content-type", "application/json")];
const TASK: &str = "/v1/runners/{name}/tasks/{run}";

#[tokio::test]
async fn a_group_is_brought_up_once() {
    let server = Server::start().await;
    let mut client = server.unix().await;
    let put = async |client: &mut crate::client::Client, members: usize| {
        let body = serde_json::to_vec(&config_body(members)).unwrap();
        client.call("PUT", "/v1/runners/new", &JSON, &body).await
    };
    let made = put(&mut client, 2).await;
    assert_eq!(made.status, 201);
    assert_eq!(made.json()["group"]["members"].as_array().unwrap().len(), 2);
    assert_eq!(put(&mut client, 2).await.status, 200, "the same again changes nothing");
    let other = put(&mut client, 1).await.problem();
    assert_eq!((other.status, other.code.as_str()), (409, "group-is-up"));
    let names: Vec<Value> = client.get("/v1/runners").await.json().as_array().unwrap().clone();
    assert_eq!(names.iter().map(|group| &group["title"]).collect::<Vec<_>>(), ["llm", "new"]);
    let down = client.call("DELETE", "/v1/runners/new", &JSON, br#"{"force":true}"#).await;
    assert_eq!((down.status.as_u16(), &down.json()["title"]), (202, &json!("new")));
    let gone = client.get("/v1/runners/new").await.problem();
    assert_eq!((gone.status, gone.code.as_str()), (404, "no-such-group"));
    assert_eq!(server.fake.calls().last().unwrap(), "down new force=true");
    server.stop().await;
}

#[tokio::test]
async fn members_are_started_stopped_and_restarted() {
    let server = Server::start().await;
    let mut client = server.unix().await;
    let one = json!({ "member": "llm-0", "force": true });
    assert_eq!(client.post("/v1/runners/llm/stop", &one).await.status, 202);
    assert_eq!(client.post("/v1/runners/llm/start", &json!({})).await.status, 202);
    assert_eq!(client.call("POST", "/v1/runners/llm/restart", &[("host", "x")], b"").await.status, 202);
    let expected = [
        "Stop llm member=Some(\"llm-0\") force=true",
        "Start llm member=None force=false",
        "Restart llm member=None force=false",
    ];
    assert_eq!(server.fake.calls(), expected);
    server.stop().await;
}

#[tokio::test]
async fn a_task_is_submitted_seen_and_cancelled() {
    let server = Server::start().await;
    let mut client = server.unix().await;
    let task = json!({ "task": "add", "input": { "a": 1 }, "key": "k", "idempotent": true, "wait_ms": 0 });
    let made = client.post("/v1/runners/llm/tasks", &task).await;
    assert_eq!((made.status.as_u16(), &made.json()["task"]["key"]), (201, &json!("k")));
    let submitted = server.fake.groups.last();
    assert_eq!(
        (submitted.input, submitted.wait_ms, submitted.idempotent),
        (json!({ "a": 1 }), Some(0), true)
    );
    assert_eq!(client.get("/v1/runners/llm/tasks").await.json().as_array().unwrap().len(), 2);
    let path = format!("/v1/runners/llm/tasks/{}", made.json()["id"].as_str().unwrap());
    assert_eq!(client.get(&path).await.json()["task"]["task"], "add");
    let under_way = client.call("DELETE", &path, &JSON, b"").await;
    assert_eq!(under_way.status, 202, "it was queued");
    let over = client.call("DELETE", &path, &JSON, b"").await;
    assert_eq!((over.status.as_u16(), &over.json()["state"]["state"]), (200, &json!("ended")), "idempotent");
    let unknown = client.get("/v1/runners/llm/tasks/01920000-0000-7000-8000-00000000ffff").await.problem();
    assert_eq!((unknown.status, unknown.code.as_str()), (404, "no-such-task"));
    let no_id = client.get("/v1/runners/llm/tasks/7").await.problem();
    assert_eq!((no_id.status, no_id.code.as_str()), (400, "bad-path"));
    server.stop().await;
}

// B6
#[tokio::test]
async fn bodies_that_do_not_fit_do_not_reach_the_group() {
    let server = Server::start().await;
    let mut client = server.unix().await;
    let mut wrong = config_body(1);
    wrong["members"][0]["launch"]["cwd"] = json!(7);
    let body = serde_json::to_vec(&wrong).unwrap();
    let problem = client.call("PUT", "/v1/runners/new", &JSON, &body).await.problem();
    assert_eq!((problem.status, problem.facts["field"].as_str()), (400, "members[0].launch.cwd"));
    let deep = format!("{{\"task\":\"a\",\"input\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let tasks = "/v1/runners/llm/tasks";
    assert_eq!(client.call("POST", tasks, &JSON, deep.as_bytes()).await.problem().code, "json-too-deep");
    let over = vec![b' '; REQUEST_BYTES_MAX + 1];
    assert_eq!(client.call("POST", tasks, &JSON, &over).await.problem().code, "body-too-large");
    let no_task = client.post(tasks, &json!({ "input": 1 })).await.problem();
    assert!(no_task.detail.contains("task"), "{}", no_task.detail);
    assert!(server.fake.calls().is_empty(), "{:?}", server.fake.calls());
    assert_eq!(server.fake.groups.tasks().len(), 1);
    server.stop().await;
}

// B4
#[tokio::test]
async fn a_task_is_attached_to_as_every_run_and_goes_on_without_its_clients() {
    let server = Server::start().await;
    let events = channel_stream(&server);
    let mut client = server.unix().await;
    let path = fill(&format!("{TASK}/attach?cursor=1.4"));
    let mut reader = client.events(&path, &[]).await;
    events.send(text(5, "é")).unwrap();
    let event = reader.next().await.unwrap();
    assert_eq!((event.id.as_deref(), &event.data["chunks"][0]["text"]), (Some("1.5"), &json!("é")));
    drop((reader, client));
    in_time(events.closed()).await;
    assert_eq!(server.fake.calls(), ["attach_run cursor=1.4 follow=true"], "nothing was cancelled");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_asks_for_it_takes_its_task_with_it() {
    let server = Server::start().await;
    let events = channel_stream(&server);
    let mut client = server.unix().await;
    let path = fill(&format!("{TASK}/attach?cancel=true"));
    let mut reader = client.events(&path, &[]).await;
    events.send(text(1, "a")).unwrap();
    reader.next().await.unwrap();
    drop((reader, client));
    server.fake.until(&format!("cancelled {}", crate::fake::RUN)).await;

    let events = channel_stream(&server);
    let mut client = server.unix().await;
    let mut reader = client.events(&path, &[]).await;
    events.send(end()).unwrap();
    assert_eq!(reader.rest().await.len(), 1);
    drop((reader, client));
    in_time(events.closed()).await;
    let cancelled = server.fake.calls().iter().filter(|call| call.starts_with("cancelled")).count();
    assert_eq!(cancelled, 1, "one that has ended is not");
    server.stop().await;
}

#[tokio::test]
async fn a_task_is_attached_to_over_a_websocket() {
    use futures_util::StreamExt as _;
    let server = Server::start().await;
    let events = channel_stream(&server);
    let socket = tokio::net::UnixStream::connect(&server.socket).await.unwrap();
    let path = fill(&format!("{TASK}/attach?cancel=true"));
    let mut socket = crate::websockets::connect(socket, &path, &[]).await;
    events.send(text(1, "a")).unwrap();
    let message = in_time(async {
        loop {
            let message = socket.next().await.unwrap().unwrap();
            if message.is_text() {
                break message.into_text().unwrap();
            }
        }
    });
    let message: Value = serde_json::from_str(&message.await).unwrap();
    assert_eq!((&message["id"], &message["chunks"][0]["text"]), (&json!("1.1"), &json!("a")));
    drop(socket);
    server.fake.until(&format!("cancelled {}", crate::fake::RUN)).await;
    server.stop().await;
}
