//! Somebody answers a question, and the daemon dies in that very moment.

use std::fs;
use std::path::Path;
use std::thread;

use outlive_e2e::World;
use outlive_e2e::clock::{PATIENCE, within};
use serde_json::json;

const SECRET: &str = "correct horse battery staple";

fn files_with(folder: &Path, secret: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, secret));
        } else if fs::read(&path)
            .is_ok_and(|bytes| bytes.windows(secret.len()).any(|w| w == secret.as_bytes()))
        {
            found.push(path.display().to_string());
        }
    }
    found
}

// D1: whenever the daemon dies around an answer, the program gets one: this one, or it is asked again. Nobody waits for
// ever, and what was answered is on no disk.
#[test]
fn an_answer_is_never_lost_without_being_asked_for_again() {
    let world = World::new();
    let mut daemon = world.daemon();
    let session = world.kernel();
    session.run("import getpass");
    for round in 0..6 {
        let attended = world.api().events(&session.path("/attach?follow=true&interactive=true"), None);
        let run = session.submit("print(len(getpass.getpass('secret? ')))");
        session.wait_until("the question", within(PATIENCE), |view| view["question"]["run"] == run);
        let (api, path) = (world.api(), session.path(&format!("/runs/{run}/input")));
        let answer = thread::spawn(move || api.try_request("POST", &path, Some(&json!({"value": SECRET}))));
        // In every third round the daemon is killed when it has said that it took the answer, else around that.
        let answer = if round % 3 == 2 {
            let _heard = answer.join().expect("the thread asks and ends");
            None
        } else {
            Some(answer)
        };
        daemon.kill();
        // Whether it was heard is not known.
        answer.map(|answer| answer.join().expect("the thread asks and ends").ok());
        drop(attended);
        daemon = world.daemon();
        let path = session.path(&format!("/runs/{run}/input"));
        let mut events = session.events();
        loop {
            let event = events.next(within(PATIENCE)).expect("the run ends or asks again");
            if event.name != "session" {
                continue;
            }
            let view = &event.data["session"];
            if view["question"]["run"] == run {
                let status = world.api().request("POST", &path, Some(&json!({"value": SECRET}))).status;
                assert!(status == 202 || status == 409, "answered, or just then ended: {status}");
            }
            if view["runtime"]["state"]["state"] == "idle" {
                break;
            }
        }
        let ended = session.outcome(&run, within(PATIENCE));
        assert_eq!(
            (ended.ended(), ended.stdout()),
            ("succeeded", format!("{}\n", SECRET.len())),
            "round {round}"
        );
        assert_eq!(files_with(&world.state(), SECRET), Vec::<String>::new(), "an answer is written nowhere");
    }
    drop(daemon);
}
