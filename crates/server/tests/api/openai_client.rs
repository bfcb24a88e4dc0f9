//! A client that nobody has written for us.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use outlive_core::log::ChunkKind;
use outlive_node::api::Events;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::chat::{done, result, tool_calls};
use crate::chat_failures::{death, raised};
use crate::client::{Server, TOKEN, in_time};
use crate::group::{chunk, text};

/// The Python environment of the tests: `OUTLIVE_TEST_VENV`, or where `cargo xtask python` puts it.
fn python() -> PathBuf {
    let venv = std::env::var_os("OUTLIVE_TEST_VENV")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-venv"), PathBuf::from);
    let python = venv.join("bin/python");
    assert!(python.exists(), "{} is missing: `cargo xtask python` makes it", python.display());
    python
}

/// Says `before`, is quiet for longer than comments take, then says `after`.
fn quiet_between(before: u64, after: u64) -> Events {
    let piece = |seq| text(seq, if seq == 1 { "Hel" } else { "lo" });
    let silence = stream::once(async {
        let _ = tokio::time::timeout(Duration::from_millis(700), std::future::pending::<()>()).await;
    });
    let silence = silence.filter_map(async |()| None);
    stream::iter([piece(before)]).chain(silence).chain(stream::iter([piece(after), done()])).boxed()
}

#[tokio::test]
async fn the_official_client_of_openai_is_at_home() {
    let server = Server::start().await;
    let usage = json!({ "prompt_tokens": 4, "completion_tokens": 2 });
    let end = || result(3, json!({ "finish_reason": "length", "usage": usage }));
    let answer = || stream::iter([text(1, "Hel"), text(2, "lo"), end(), done()]).boxed();
    let dies = vec![text(1, "Hel"), chunk(2, ChunkKind::Error, death())];
    let scripts: [Events; 7] = [
        answer(),
        answer(),
        quiet_between(1, 2),
        stream::iter(tool_calls()).boxed(),
        stream::iter(dies).chain(stream::pending()).boxed(),
        answer(),
        stream::iter(raised()).boxed(),
    ];
    let count = scripts.len();
    let scripts = Mutex::new(VecDeque::from(scripts));
    *server.fake.events.lock().unwrap() =
        Box::new(move |_| scripts.lock().unwrap().pop_front().expect("one script for each task"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/openai_client.py");
    let client = Command::new(python())
        .arg(script)
        .args([format!("http://{}/v1", server.address), TOKEN.to_owned()])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = in_time(client).await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(told.trim(), "as with OpenAI");
    let tasks = server.fake.groups.tasks();
    assert_eq!(tasks.len() - 1, count, "what has failed was not done again by the client itself");
    assert!(server.fake.groups.last().input.get("outlive").is_none_or(Value::is_null));
    server.stop().await;
}
