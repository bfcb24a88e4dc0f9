//! Runs and their outputs: waited for, in part, in bounded pieces.

use outlive_protocol::http::RunState;
use serde_json::{Value, json};

use crate::agent::{Agent, Owner, every};
use crate::memory::{Memory, RUN, SESSION, display, failed, print};

/// The text of all items of an answer that printed.
fn printed(run: &Value) -> String {
    let items = run["outputs"].as_array().unwrap();
    items.iter().filter(|item| item["kind"] == "stream").map(|item| item["text"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn run_waits_for_the_end_and_shows_what_came_of_it() {
    let memory = Memory::new();
    for agent in every(&memory).await {
        memory.begin_with(vec![print("one\n"), print("two\n"), display(json!({"image/png": "iVBO"}))]);
        memory.was_run("c0");
        let asked = agent.call("run", json!({"session": SESSION, "cells": ["c0"]}));
        let ends = async {
            memory.submitted().await;
            memory.end(RunState::Ended { outcome: outlive_core::session::RunOutcome::Succeeded });
        };
        let (answer, ()) = tokio::join!(asked, ends);
        assert_eq!(answer.structured["complete"], true, "{}", answer.text);
        assert_eq!(answer.structured["runs"][0]["source"], "x", "what was run may not be what was read");
        let run = &answer.structured["runs"][0];
        assert_eq!((&run["run"], &run["state"]), (&json!(RUN), &json!("succeeded")));
        assert_eq!(printed(run), "one\ntwo\n");
        assert_eq!(run["cursor"], "1.3");
        assert_eq!(answer.images, ["iVBO"]);
        assert!(
            answer.text.contains(
                "of cell c0: succeeded, source: `x`\none\ntwo\n[image: image/png, 4 bytes, attached]"
            ),
            "{}",
            answer.text
        );
        agent.leave().await;
    }
}

#[tokio::test]
async fn when_the_time_is_over_the_run_is_asked_for_by_its_id() {
    let memory = Memory::new();
    for agent in every(&memory).await {
        memory.begin_with(vec![print("one\n")]);
        let answer = agent.call("run", json!({"session": SESSION, "code": "x", "wait_s": 0})).await;
        assert_eq!(answer.structured["complete"], false);
        let run = answer.structured["runs"][0].clone();
        assert_eq!((&run["state"], printed(&run).as_str()), (&json!("running"), "one\n"));
        assert!(answer.text.contains(&format!("Ask `outputs` with run={RUN}")), "{}", answer.text);
        memory.prints(print("two\n"));
        let more = json!({"session": SESSION, "run": RUN, "after": run["cursor"]});
        let answer = agent.call("outputs", more).await;
        assert_eq!(printed(&answer.structured["run"]), "two\n");
        assert_eq!(answer.structured["complete"], false);
        let waits = json!({"session": SESSION, "run": RUN, "after": answer.structured["run"]["cursor"], "wait_s": 30});
        let asked = agent.call("outputs", waits);
        let ends = async {
            memory.watched().await;
            memory.end(failed("ValueError", "no"));
        };
        let (answer, ()) = tokio::join!(asked, ends);
        assert_eq!(answer.structured["run"]["state"], "raised");
        assert_eq!(answer.structured["run"]["why"], "ValueError: no");
        assert!(!answer.is_error, "the tool has done what it was asked");
        agent.leave().await;
    }
}

#[tokio::test]
async fn of_a_long_output_begin_and_end_are_shown_and_all_can_be_read() {
    let memory = Memory::new();
    let lines: Vec<String> = (0..400).map(|number| format!("{number:04} {}\n", "é".repeat(500))).collect();
    memory.begin_with(lines.iter().map(|line| print(line)).collect());
    memory.end(RunState::Ended { outcome: outlive_core::session::RunOutcome::Succeeded });
    for agent in every(&memory).await {
        let answer = agent.call("outputs", json!({"session": SESSION, "run": RUN})).await;
        let run = &answer.structured["run"];
        let text = printed(run);
        assert!(answer.text.len() < 40_000 && text.starts_with("0000 ") && text.ends_with(&lines[399]));
        let notice = run["outputs"].as_array().unwrap().iter().find(|item| item["kind"] == "notice").unwrap();
        let after =
            notice["text"].as_str().unwrap().split("after=").nth(1).unwrap().split(' ').next().unwrap();
        assert_eq!(run["cursor"], "1.400", "what is left out does not come back by itself");

        let (mut read, mut cursor) = (String::new(), json!(after));
        for _ in 0..100 {
            let page = agent.call("outputs", json!({"session": SESSION, "run": RUN, "after": cursor})).await;
            read.push_str(&printed(&page.structured["run"]));
            if cursor == page.structured["run"]["cursor"] {
                break;
            }
            cursor = page.structured["run"]["cursor"].clone();
        }
        let all = lines.concat();
        assert!(all.ends_with(&read), "the pages are the rest of the output");
        let first = all.len() - read.len();
        assert_eq!(&all[..first], &text[..first], "and what was shown first is what stands before them");
        agent.leave().await;
    }
}

#[tokio::test]
async fn runs_that_were_queued_are_named_even_if_the_daemon_goes() {
    let memory = Memory::new();
    for agent in every(&memory).await {
        memory.begin_with(vec![print("one\n")]);
        let asked = agent.call("run", json!({"session": SESSION, "code": "x"}));
        let goes = async {
            memory.submitted().await;
            memory.shut_down();
        };
        let (answer, ()) = tokio::join!(asked, goes);
        assert_eq!(answer.structured["runs"][0]["run"], RUN.to_string());
        assert_eq!(answer.structured["complete"], false);
        assert!(answer.text.contains("[cannot wait for the end: the daemon ends"), "{}", answer.text);
        agent.leave().await;
    }
}

#[tokio::test]
async fn an_agent_that_does_not_want_to_know_any_more_is_not_waited_for() {
    let memory = Memory::new();
    let agent = Agent::over_pipes(&memory).await;
    memory.begin_with(Vec::new());
    let asked = agent.call("run", json!({"session": SESSION, "code": "x", "wait_s": 600}));
    tokio::select! {
        _ = asked => panic!("nothing has ended"),
        () = memory.submitted() => {}
    }
    // The dropped call is cancelled; the watcher goes, the run stays.
    memory.unwatched().await;
    let runs = agent.call("runs", json!({"session": SESSION})).await;
    assert_eq!(runs.structured["runs"][0]["state"], "running");
    agent.leave().await;
}

// E1
#[tokio::test]
async fn a_run_whose_node_is_lost_is_waited_for_on_the_next() {
    let memory = Memory::new();
    memory.begin_with(vec![print("one\n")]);
    let owner = Owner::new(&memory).await;
    let next = Memory::elsewhere(owner.url.clone());
    next.begin_with(vec![print("one\n"), print("two\n")]);
    let agent = Agent::of_node(&next).await;
    let asked = agent.call("run", json!({"session": SESSION, "cells": ["c0"]}));
    let moves = async {
        memory.submitted().await;
        memory.watched().await;
        owner.kill().await;
        next.end(RunState::Ended { outcome: outlive_core::session::RunOutcome::Succeeded });
        next.takes_over();
    };
    let (answer, ()) = tokio::join!(asked, moves);
    assert_eq!(answer.structured["complete"], true, "{}", answer.text);
    assert_eq!(printed(&answer.structured["runs"][0]), "one\ntwo\n");
    assert!(!answer.text.contains("cannot"), "{}", answer.text);
    agent.leave().await;
}

// E11
#[tokio::test]
async fn an_agent_is_told_that_the_node_with_its_session_cannot_be_reached() {
    let agent = Agent::of_node(&Memory::elsewhere("http://127.0.0.1:1".to_owned())).await;
    let answer = agent.call("read", json!({"session": SESSION})).await;
    assert!(answer.is_error);
    assert_eq!(answer.structured["code"], "owner-unreachable");
    assert!(answer.text.contains("n2") && answer.text.contains("What to do: "), "{}", answer.text);
    agent.leave().await;
}
