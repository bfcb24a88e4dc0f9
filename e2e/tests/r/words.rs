//! What a program says before its end reaches everybody who waits: its exceptions, with all that caused them.

use std::path::Path;

use outlive_e2e::clock::{PATIENCE, within};
use outlive_e2e::events::Event;
use outlive_e2e::runners::{member, member_state};
use outlive_e2e::{Group, Task, World, report};
use serde_json::{Value, json};

use crate::explained;

/// What `fixtures/served.py` raises, outermost first: type, message, how it is shown.
const CHAIN: [(&str, &str, &str); 3] = [
    ("WeightsCorrupt", "checksum of shard 7 differs", "<WeightsCorrupt 'checksum of shard 7 differs'>"),
    ("OSError", "cannot read the index", "OSError(5, 'cannot read the index')"),
    ("KeyError", "shard-7", "KeyError('shard-7')"),
];

/// A group of one that runs a program of the Python SDK, which is started once.
fn served(world: &World, fails: &str) -> Group {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = root.join("fixtures/served.py").to_string_lossy().into_owned();
    let python = world.python().to_string_lossy().into_owned();
    let mut config = world.group_of(vec![world.member("m-0", &[&python, "-m", "outlive.runner", &program])]);
    let env = &mut config["members"][0]["launch"]["env"];
    env["FAILS"] = json!(fails);
    env["PYTHONPATH"] = json!(root.join("../python/outlive/src"));
    config["restart"]["restart"] = json!("temporary");
    Group::up(&world.api(), "g", &config)
}

fn submit(group: &Group, task: &str, input: &Value) -> Task {
    group.submit_with("", &json!({"task": task, "input": input}))
}

/// Checks that a report has the whole chain: types, messages, how each is shown, and tracebacks.
#[track_caller]
fn has_the_chain(report: &Value) {
    let words = &report["evidence"]["last_words"];
    let causes = words["causes"].as_array().into_iter().flatten();
    let said: Vec<&Value> = std::iter::once(words).chain(causes).collect();
    assert_eq!(said.len(), CHAIN.len(), "{report:#}");
    for (said, (kind, message, shown)) in said.iter().zip(CHAIN) {
        let kind_said = said["exception_type"].as_str().unwrap_or_default();
        assert!(kind_said.rsplit('.').next() == Some(kind), "{kind}: {said:#}");
        assert!(said["message"].as_str().is_some_and(|text| text.contains(message)), "{message}: {said:#}");
        assert_eq!(said["repr"], shown, "{said:#}");
        assert!(said["traceback"].as_str().is_some_and(|text| text.contains("in fail")), "{said:#}");
    }
}

// A11: the program raises before it can say anything, while it loads, and while it warms up: type, message, repr and the
// chained tracebacks are in the report, and a task that waits is told.
#[test]
fn it_raises_before_it_is_ready() {
    let world = World::new();
    let _daemon = world.daemon();
    for fails in ["import", "load", "warm_up"] {
        let group = served(&world, fails);
        // The group may have given up before this comes, and then says so at once.
        let response = world.api().request(
            "POST",
            &group.path("/tasks"),
            Some(&json!({"task": "count", "input": {"n": 1}})),
        );
        let report = group.first_report();
        assert_eq!(report::code(&report), "python-exception", "{fails}: {report:#}");
        assert!(report::summary(&report).contains("WeightsCorrupt"), "{fails}: {}", report::summary(&report));
        has_the_chain(&report);
        assert_eq!(group.reports().len(), 1, "{fails}: {:#?}", group.reports());
        let text = response.json().to_string();
        if response.status == 201 {
            let id = response.json()["id"].as_str().expect("a run has an id").to_owned();
            let ended = group.task(&id).outcome();
            assert_eq!(ended.ended(), "unserved", "{fails}: {:?}", ended.outcome);
            let reason = ended.outcome.expect("it ended")["reason"].to_string();
            assert!(reason.contains("WeightsCorrupt"), "{fails}: {reason}");
        } else {
            assert!(text.contains("WeightsCorrupt"), "{fails}: {text}");
        }
        group.down();
        world.assert_nothing_supervised();
    }
}

// A11: an exception in a task ends that task, with its whole chain, and nothing else; so does `SystemExit`.
#[test]
fn a_task_raises() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = served(&world, "");
    let other = submit(&group, "waits", &json!({}));
    other.wait_said("waiting");
    let ended = submit(&group, "fails", &json!({})).outcome();
    assert_eq!((ended.ended(), ended.said().as_str()), ("raised", "before"));
    let outcome = ended.outcome.as_ref().expect("it ended");
    assert!(outcome["ename"].as_str().is_some_and(|name| name.ends_with("WeightsCorrupt")), "{outcome}");
    assert_eq!(outcome["evalue"], CHAIN[0].1);
    let errors: Vec<&Value> = ended.of_kind("error").collect();
    assert_eq!(errors.len(), 1, "{ended:#?}");
    for (kind, message, _) in CHAIN {
        let told = errors[0]["content"].to_string();
        assert!(told.contains(kind) && told.contains(message), "{kind}: {told}");
    }
    let ended = submit(&group, "leaves", &json!({})).outcome();
    assert_eq!(ended.ended(), "raised", "{:?}", ended.outcome);
    assert_eq!(ended.outcome.expect("it ended")["ename"], "SystemExit");

    assert_eq!(submit(&group, "count", &json!({"n": 3})).outcome().said(), "0\n1\n2\n");
    assert_eq!(other.view()["state"]["state"], "running", "the other one is untouched");
    assert!(group.reports().is_empty(), "{:#?}", group.reports());
    assert_eq!(other.cancel(), 202);
    assert_eq!(other.outcome().ended(), "cancelled");
}

/// What an event of a session says about a task or its member, as one word.
fn told(event: &Event, task: &Task) -> Option<&'static str> {
    let data = &event.data;
    let is_error = |chunk: &Value| chunk["kind"] == "error";
    match event.name.as_str() {
        "output" if data["run"] == task.id.as_str() => {
            data["chunks"].as_array()?.iter().any(is_error).then_some("error chunk")
        }
        // Each record is told in its place; views may come later and stand for several, the newest counts.
        "report" => Some("status"),
        "session" => {
            let state = member_state(member(&data["session"], 0));
            ["exited", "backoff", "gave_up", "down"].contains(&state).then_some("status")
        }
        "run" if data["run"]["id"] == task.id.as_str() => {
            (data["run"]["state"]["state"] == "ended").then_some("terminal")
        }
        _ => None,
    }
}

// A11: it dies with tasks in flight: its last words reach each of them as one error chunk, then everybody is told, then
// comes the terminal.
#[test]
fn last_words_reach_every_task_in_flight() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = served(&world, "");
    group.wait_ready();
    let mut events = group.session().events();
    let tasks = [submit(&group, "waits", &json!({})), submit(&group, "waits", &json!({}))];
    for task in &tasks {
        task.wait_said("waiting");
    }
    let dying = submit(&group, "engine_dies", &json!({}));
    let mut order: Vec<Vec<&str>> = vec![Vec::new(); tasks.len()];
    events.wait_for("every task's end", within(PATIENCE), |event| {
        for (task, order) in tasks.iter().zip(&mut order) {
            if let Some(word) = told(event, task).filter(|word| order.last() != Some(word)) {
                order.push(word);
            }
        }
        order.iter().all(|order| order.contains(&"terminal"))
    });
    for order in &order {
        assert_eq!(order[..3], ["error chunk", "status", "terminal"], "{order:?}");
    }
    for task in tasks.iter().chain([&dying]) {
        let ended = task.outcome();
        let report = explained(&group, &ended);
        assert_eq!(report::code(&report), "python-exception", "{report:#}");
        has_the_chain(&report);
        let shown = ended.chunks.last().expect("the error")["content"].to_string();
        for (kind, message, _) in CHAIN {
            assert!(shown.contains(kind) && shown.contains(message), "{kind} is shown: {shown}");
        }
    }
    assert_eq!(group.reports().len(), 1, "one death: {:#?}", group.reports());
}

// A11: the same in the bare protocol, with words that came right before an abort, and a chunk right before them.
#[test]
fn what_was_said_right_before_an_abort_arrives() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(1);
    let ended = group.run(
        "try:\n    raise KeyError('inner')\nexcept KeyError as error:\n    inner = error\n\
         try:\n    raise RuntimeError('outer') from inner\nexcept RuntimeError as error:\n    outer = error\n\
         for i in range(1000): text(f'{i} ')\n\
         last_words(outer, id=task.id)\nos.abort()",
    );
    let expected: String = (0..1000).map(|i| format!("{i} ")).collect();
    assert_eq!(ended.said(), expected);
    let report = explained(&group, &ended);
    assert_eq!(report["evidence"]["last_words"]["exception_type"], "RuntimeError", "{report:#}");
    assert_eq!(report["evidence"]["last_words"]["causes"][0]["message"], "'inner'", "{report:#}");
    assert_eq!(report["status"]["kind"], "signal", "{report:#}");
}
