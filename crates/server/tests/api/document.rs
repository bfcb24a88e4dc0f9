//! The OpenAPI document: fresh, and true.

use std::path::Path;

use outlive_server::native::openapi_document;
use serde_json::{Value, json};

use crate::client::{Server, fill};
use crate::group::config_body;
use crate::requests::create_body;

/// `UPDATE=1 cargo nextest run -p outlive-server` writes it anew.
#[test]
fn the_checked_in_document_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let fresh = format!("{:#}\n", openapi_document());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == fresh, "docs/openapi.json is stale: run `UPDATE=1 cargo nextest run -p outlive-server`");
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(value: &Value, document: &Value) {
        match value {
            Value::Object(fields) => {
                if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{reference}");
                }
                fields.values().for_each(|value| walk(value, document));
            }
            Value::Array(items) => items.iter().for_each(|value| walk(value, document)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let document = openapi_document();
    walk(&document, &document);
}

/// A body that each operation takes; one that is missing here fails the test below.
pub fn body_of(operation: &str) -> Value {
    match operation {
        "createSession" => create_body(),
        "stopNode" => json!({ "keep_runtimes": false }),
        "submitRuns" => json!({ "kind": "all" }),
        "answerRun" => json!({ "value": "yes" }),
        "newSession" | "openSession" | "saveSession" => json!({ "path": "/a.ipynb" }),
        "trustSession" => json!({ "trust": "trusted" }),
        "editNotebook" => json!({ "edits": [{ "edit": "delete", "cell": "a" }] }),
        "bringGroupUp" => config_body(1),
        "submitTask" => json!({ "task": "chat", "input": {} }),
        "createChatCompletion" => {
            json!({ "model": "llm", "messages": [{ "role": "user", "content": "Hello" }] })
        }
        "drainNode" => json!({ "cell_grace_ms": 1000 }),
        "bringGroupDown" | "startRunners" | "stopRunners" | "restartRunners" => json!({}),
        "closeSession" | "restSession" | "restartSession" | "stopSession" => json!({}),
        other => panic!("the test has no body for {other}"),
    }
}

#[tokio::test]
async fn every_route_of_the_document_answers_as_it_says() {
    let server = Server::start().await;
    let blob = "cd".repeat(32);
    std::fs::write(server.fake.blobs.join(&blob), "content").unwrap();
    let document = server.unix().await.get("/v1/openapi.json").await.json();
    assert_eq!(document, openapi_document());
    let mut operations = 0;
    for (template, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            operations += 1;
            server.fake.groups.raise("llm", serde_json::from_value(config_body(1)).unwrap());
            let id = operation["operationId"].as_str().unwrap();
            let places = template.matches('{').count();
            let parameters = operation["parameters"].as_array().map_or(0, |all| {
                all.iter().filter(|one| one["in"] == "path" && one["required"] == true).count()
            });
            assert_eq!(parameters, places, "{id}: each part of the path is described");
            let path = fill(template).replace("{sha256}", &blob).replace("{cell}", "a%2Fb");
            let body = operation.get("requestBody").map(|_| serde_json::to_vec(&body_of(id)).unwrap());
            // The fake has no notebook to join: what a WebSocket is granted is in `websockets.rs`.
            let responses = operation["responses"].as_object().unwrap();
            if responses.contains_key("101") {
                let problem = server.unix().await.get(&path).await.problem();
                assert_eq!((problem.status, problem.code.as_str()), (426, "upgrade-required"), "{id}");
                continue;
            }
            let headers = [("host", "localhost"), ("content-type", "application/json")];
            let mut client = server.unix().await;
            let answer =
                client.call(&method.to_uppercase(), &path, &headers, &body.unwrap_or_default()).await;
            let response = responses.get(answer.status.as_str());
            let response = response.unwrap_or_else(|| panic!("{id}: {} {:?}", answer.status, answer.body));
            match response["content"].as_object() {
                Some(content) => {
                    let found = answer.headers["content-type"].to_str().unwrap();
                    assert!(content.contains_key(found), "{id}: {found}");
                }
                None => assert!(answer.body.is_empty(), "{id}"),
            }
        }
    }
    assert_eq!(operations, 51);
    server.stop().await;
}
