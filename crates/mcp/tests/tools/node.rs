//! The tools over a real node with real files; no kernel is started.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use outlive_core::id::NodeId;
use outlive_node::budget::Budgets;
use outlive_node::clock::SystemClock;
use outlive_node::{Node, NodeConfig};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::agent::{Agent, Answer};

/// The directory that a test's second half finds inside of a namespace where the faults are real.
const INSIDE: &str = "OUTLIVE_TEST_FAULTY_PLACES";

/// A node, and an agent that works in a directory.
struct World {
    node: Arc<Node>,
    agent: Agent,
    _state: TempDir,
}

impl World {
    async fn new(directory: &Path) -> Self {
        let state = tempfile::tempdir().unwrap();
        let config = NodeConfig {
            node: NodeId::from_uuid(Uuid::from_u128(1)),
            state: state.path().to_owned(),
            claims: state.path().join("claims"),
            earlier_claims: None,
            program: state.path().join("no-shim"),
            engine: Arc::new(outlive_store::Embedded::open(&state.path().join("store")).unwrap()),
            clock: Arc::new(SystemClock::default()),
            cache: state.path().join("cache"),
            budgets: Budgets::default(),
            causes: state.path().join("causes.toml"),
            cluster: None,
        };
        let node = Node::start(config).await.unwrap();
        let agent = Agent::in_directory(Arc::clone(&node) as _, directory).await;
        Self { node, agent, _state: state }
    }

    async fn new_notebook(&self) -> Value {
        self.call("new", json!({})).await.structured["session"].clone()
    }

    /// Calls a tool that does what it is asked.
    async fn call(&self, tool: &'static str, arguments: Value) -> Answer {
        let answer = self.agent.call(tool, arguments).await;
        assert!(!answer.is_error, "{tool}: {}", answer.text);
        answer
    }

    /// Calls a tool that refuses, for this reason.
    async fn refused(&self, tool: &'static str, arguments: Value, code: &str) -> Answer {
        let answer = self.agent.call(tool, arguments).await;
        assert!(answer.is_error, "{tool}: {}", answer.text);
        assert_eq!(answer.structured["code"], code, "{tool}: {}", answer.text);
        answer
    }

    async fn leave(self) {
        self.agent.leave().await;
        self.node.stop().await;
    }
}

fn notebook(source: &str) -> String {
    let cell = json!({
        "cell_type": "code", "execution_count": null, "id": "a", "metadata": {}, "outputs": [], "source": [source],
    });
    let kernel = json!({"kernelspec": {"name": "python3", "display_name": "Python 3"}});
    json!({"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}).to_string()
}

// C2
#[tokio::test]
async fn a_file_that_another_session_has_is_left_alone_and_its_holder_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("taken.ipynb");
    fs::write(&path, notebook("theirs")).unwrap();
    let world = World::new(directory.path()).await;
    let holder = world.call("open", json!({"path": "taken"})).await.structured["session"].clone();
    let other = world.new_notebook().await;
    for how in ["save", "save_as", "copy"] {
        let save = json!({"session": other, "path": "taken.ipynb", "how": how, "overwrite": true});
        let answer = world.refused("save", save, "path-already-open").await;
        let (path, holder) = (path.display(), holder.as_str().unwrap());
        let sentence =
            format!("cannot save: {path} is open in session {holder}; close it or choose another path");
        assert_eq!(answer.text, sentence, "{how}");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), notebook("theirs"));
    world.leave().await;
}

// C3
#[test]
fn each_place_that_cannot_be_written_is_said_with_its_reason() {
    if let Ok(directory) = std::env::var(INSIDE) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(in_faulty_places(Path::new(&directory)));
    }
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("frozen")).unwrap();
    let script = "set -e
        mkdir $D/full
        mount -t tmpfs -o size=64k none $D/full
        mount --bind $D/frozen $D/frozen
        mount -o remount,ro,bind $D/frozen
        exec \"$0\" --exact node::each_place_that_cannot_be_written_is_said_with_its_reason --nocapture";
    let done = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .env("D", directory.path())
        .env(INSIDE, directory.path())
        .output()
        .expect("unshare (util-linux) is needed");
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
}

async fn in_faulty_places(directory: &Path) {
    let world = World::new(directory).await;
    let session = world.new_notebook().await;
    let insert = json!({"edit": "insert", "kind": "code", "source": "x".repeat(200_000)});
    world.call("edit", json!({"session": session, "edits": [insert]})).await;
    for (path, code, reason) in [
        ("full/n", "disk-full", "is full"),
        ("frozen/n", "not-writable", "Read-only file system"),
        ("missing/n", "no-such-directory", "missing"),
    ] {
        for how in ["save", "save_as", "copy"] {
            let save = json!({"session": session, "path": path, "how": how});
            let answer = world.refused("save", save, code).await;
            assert!(answer.text.starts_with("cannot save: "), "{}", answer.text);
            assert!(
                answer.text.contains(reason) && answer.text.contains("\nWhat to do: "),
                "{}",
                answer.text
            );
        }
    }
    let saved = world.call("save", json!({"session": session, "path": "n"})).await;
    assert_eq!(saved.structured["path"], json!(directory.join("n.ipynb")), "nothing of it is lost");
    world.leave().await;
}

#[tokio::test]
async fn where_there_is_no_code_that_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::new(directory.path()).await;
    let session = world.new_notebook().await;
    let answer = world.call("run", json!({"session": session, "all": true})).await;
    assert_eq!(answer.structured, json!({"complete": true, "runs": []}));
    assert_eq!(answer.text, "nothing was run: the notebook has no cell with code\n");
    let read = world.call("read", json!({"session": session})).await;
    assert!(read.text.starts_with("untitled notebook: 1 cell\n"), "{}", read.text);
    world.refused("run", json!({"session": session, "cells": []}), "bad-arguments").await;
    world.leave().await;
}

// C7
#[tokio::test]
async fn a_cell_that_somebody_has_changed_is_not_run() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("n.ipynb"), notebook("print('keep')\nprint('danger')")).unwrap();
    let world = World::new(directory.path()).await;
    let session = world.call("open", json!({"path": "n"})).await.structured["session"].clone();
    let seen = world.call("read", json!({"session": session})).await.structured["cells"][0].clone();
    let edit = json!({"edit": "set_source", "cell": "a", "source": "print('keep')"});
    world.call("edit", json!({"session": session, "edits": [edit]})).await;
    let run = json!({"session": session, "cells": ["a"], "expected": {"a": seen["source"]}});
    let answer = world.refused("run", run, "cell-changed").await;
    assert!(answer.text.contains("danger"), "{}", answer.text);
    assert_eq!(answer.structured["facts"]["source"], "print('keep')", "what it is now");
    let runs = world.call("runs", json!({"session": session})).await;
    assert_eq!(runs.structured["runs"], json!([]), "nothing was queued");
    let all = json!({"session": session, "all": true, "expected": {"a": "1"}});
    world.refused("run", all, "bad-arguments").await;
    world.leave().await;
}

#[tokio::test]
async fn a_kernel_that_is_asked_for_in_vain_is_said() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("n.ipynb"), notebook("1")).unwrap();
    let world = World::new(directory.path()).await;
    let opened = world.call("open", json!({"path": "n", "kernel": "python3"})).await;
    assert_eq!(opened.structured["notice"], Value::Null, "it has it");
    let session = &opened.structured["session"];
    // As all other tools call it.
    let again = world.call("open", json!({"session": session, "kernel": "julia"})).await;
    assert_eq!(again.structured["session"], *session);
    assert!(again.text.contains("keeps its kernel (python3): kernel=julia has no effect"), "{}", again.text);
    let untitled = world.new_notebook().await;
    let same = world.call("open", json!({"id": untitled, "kernel": "python3"})).await;
    assert_eq!(same.structured["notice"], Value::Null, "its notebook names it");
    world.leave().await;
}

#[tokio::test]
async fn what_to_do_is_said_in_the_names_of_tools() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::new(directory.path()).await;
    let stranger = json!({"session": "00000000-0000-7000-8000-00000000dead"});
    let answer = world.refused("read", stranger, "no-such-session").await;
    assert_eq!(answer.structured["hint"], "`sessions` with `all` lists them");
    assert!(answer.text.ends_with("What to do: `sessions` with `all` lists them"), "{}", answer.text);
    world.leave().await;
}
