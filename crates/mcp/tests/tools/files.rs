//! Sessions, files and cells; what is refused is refused with what to do.

use outlive_protocol::http::RunState;
use serde_json::json;

use crate::agent::every;
use crate::memory::{Memory, SESSION, failed};

#[tokio::test]
async fn a_relative_path_is_the_agents_own_over_pipes_and_refused_over_http() {
    let memory = Memory::new();
    for agent in every(&memory).await {
        let answer = agent.call("open", json!({"path": "a/train.ipynb", "trust": true})).await;
        match agent.transport {
            "pipes" => {
                assert!(!answer.is_error, "{}", answer.text);
                assert_eq!(answer.structured["path"], "/home/ada/work/a/train.ipynb");
                assert_eq!(answer.structured["trust"], "trusted");
                assert!(answer.text.contains(&SESSION.to_string()), "{}", answer.text);
            }
            _ => {
                assert!(answer.is_error);
                assert_eq!(answer.structured["code"], "relative-path");
                assert!(answer.text.starts_with("cannot open: a/train.ipynb is relative"), "{}", answer.text);
                assert!(answer.text.contains("What to do: "), "{}", answer.text);
            }
        }
        agent.leave().await;
    }
}

#[tokio::test]
async fn a_collision_is_said_in_the_same_words_as_everywhere() {
    for agent in every(&Memory::new()).await {
        let answer = agent.call("save", json!({"session": SESSION, "path": "/held.ipynb"})).await;
        assert!(answer.is_error);
        let holder = "00000000-0000-7000-8000-00000000beef";
        let sentence =
            format!("cannot save: /held.ipynb is open in session {holder}; close it or choose another path");
        assert_eq!(answer.text, sentence);
        assert_eq!(answer.structured["code"], "path-already-open");
        assert_eq!(answer.structured["facts"]["session"], holder);
        agent.leave().await;
    }
}

#[tokio::test]
async fn save_says_where_the_notebook_is_and_that_its_kernel_stayed() {
    for agent in every(&Memory::new()).await {
        let answer = agent.call("save", json!({"session": SESSION, "path": "/data/b.ipynb"})).await;
        assert_eq!(answer.structured["path"], "/data/b.ipynb");
        assert_eq!(answer.structured["session"], SESSION.to_string());
        assert_eq!(answer.structured["kernel_directory"], "/home/ada");
        assert!(answer.text.contains("Its kernel runs on in /home/ada"), "{}", answer.text);
        agent.leave().await;
    }
}

#[tokio::test]
async fn wrong_arguments_are_the_agents_to_mend() {
    for agent in every(&Memory::new()).await {
        for (tool, arguments, says) in [
            ("open", json!({"pth": "/a"}), "unknown field `pth`"),
            (
                "read",
                json!({"session": "nonsense"}),
                "`session`: this is no id; an id is a UUID, for instance 0f8fad5b-",
            ),
            ("open", json!({"id": "train.ipynb"}), "a notebook's file is given as `path`"),
            (
                "edit",
                json!({"session": SESSION, "edits": [{"edit": "delete", "cell": "a"}, {"edit": "insert", "source": ""}]}),
                "`edits[1]`: missing field `kind`",
            ),
            ("run", json!({"session": SESSION}), "one of `cells`, `all` and `code`"),
            (
                "run",
                json!({"session": SESSION, "code": "1", "all": true}),
                "one of `cells`, `all` and `code`",
            ),
            ("run", json!({"session": SESSION, "code": "1", "wait_s": 601}), "at most 600"),
            ("outputs", json!({"session": SESSION}), "one of `run` and `cell`"),
        ] {
            let answer = agent.call(tool, arguments).await;
            assert!(answer.is_error, "{tool}");
            assert_eq!(answer.structured["code"], "bad-arguments", "{tool}: {}", answer.text);
            assert!(answer.text.contains(says), "{tool}: {}", answer.text);
        }
        agent.leave().await;
    }
}

#[tokio::test]
async fn a_notebook_is_read_in_parts_that_join() {
    let memory = Memory::new();
    let sources: Vec<String> =
        (0..50).map(|number| format!("cell {number}\n{}", "x".repeat(2_000))).collect();
    memory.set_cells(&sources);
    for agent in every(&memory).await {
        let (mut from, mut read) = (json!(0), Vec::new());
        while !from.is_null() {
            let answer = agent.call("read", json!({"session": SESSION, "from": from})).await;
            assert!(answer.text.len() < 40_000, "bounded: {}", answer.text.len());
            let cells = answer.structured["cells"].as_array().unwrap();
            read.extend(cells.iter().map(|cell| cell["source"].as_str().unwrap().to_owned()));
            from = answer.structured["next"].clone();
        }
        assert_eq!(read, sources);
        let one = agent.call("read", json!({"session": SESSION, "cells": ["c7"], "outputs": true})).await;
        assert_eq!(one.structured["cells"][0]["index"], 7);
        assert_eq!(one.structured["cells"][0]["outputs"][0]["text"], "outputs of c7");
        let missing = agent.call("read", json!({"session": SESSION, "cells": ["c7", "gone"]})).await;
        assert_eq!(missing.structured["code"], "no-such-cell");
        agent.leave().await;
    }
}

#[tokio::test]
async fn edits_reach_the_notebook_as_they_are() {
    let memory = Memory::new();
    for agent in every(&memory).await {
        let edits = json!([
            {"edit": "insert", "kind": "code", "source": "1", "at": {"after": "c0"}},
            {"edit": "set_source", "cell": "c0", "source": "2", "expected": "1"},
        ]);
        let answer = agent.call("edit", json!({"session": SESSION, "edits": edits})).await;
        assert_eq!(answer.structured["cells"], json!(["new", "c0"]));
        let got = memory.take_edits();
        assert_eq!(got.len(), 2);
        assert_eq!(got[0]["at"], json!({"after": "c0"}));
        assert_eq!(got[1]["expected"], "1");
        agent.leave().await;
    }
}

#[tokio::test]
async fn an_unknown_session_is_told_as_such() {
    let stranger = "00000000-0000-7000-8000-00000000dead";
    for agent in every(&Memory::new()).await {
        for tool in ["read", "interrupt", "restart", "explain", "runs", "close"] {
            let answer = agent.call(tool, json!({"session": stranger})).await;
            assert!(answer.is_error, "{tool}");
            assert_eq!(answer.structured["code"], "no-such-session", "{tool}");
            assert_eq!(answer.structured["facts"]["session"], stranger, "{tool}");
        }
        agent.leave().await;
    }
}

#[tokio::test]
async fn how_the_last_run_of_a_cell_went_is_read_with_it() {
    let memory = Memory::new();
    memory.was_run("c0");
    for agent in every(&memory).await {
        memory.end(failed("ValueError", "no"));
        let answer = agent.call("read", json!({"session": SESSION})).await;
        let cell = &answer.structured["cells"][0];
        assert_eq!((&cell["went"], &cell["why"]), (&json!("raised"), &json!("ValueError: no")));
        assert!(answer.text.contains("(index 0, code, raised: ValueError: no)"), "{}", answer.text);
        memory.end(RunState::Queued);
        let answer = agent.call("read", json!({"session": SESSION})).await;
        assert!(answer.text.contains("(index 0, code, queued)"), "{}", answer.text);
        agent.leave().await;
    }
}
