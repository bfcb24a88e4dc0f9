//! The binary as a user meets it: what it says and how it ends. No kernel is needed here; `e2e` has those.

mod home;

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use home::{Home, said};

#[test]
fn mistakes_on_the_command_line_are_usage_errors() {
    let home = Home::new();
    for arguments in [
        &["frobnicate"][..],
        &["run"],
        &["run", "a.ipynb", "--", "sh"],
        &["run", "--memory", "lots", "--", "sh"],
        &["run", "--env", "NOVALUE", "--", "sh"],
        &["attach", "--since", "yesterday"],
        &["run", "script.py"],
        &["forget"],
        &["up"],
        &["runner", "start", "A B"],
        &["task", "submit", "llm"],
        &["task", "submit", "llm", "t", "neither json nor named"],
        &["task", "submit", "llm", "t", "--wait", "soon"],
        &["down", "Not/A/Group"],
    ] {
        let (code, out, err) = home.said(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.starts_with("error:") || err.contains("Usage:"), "{arguments:?}: {err}");
    }
    assert!(!home.path().join("outlive").exists(), "nothing was started");
}

// C8
#[test]
fn a_notebook_that_cannot_be_run_is_refused_with_its_name() {
    let home = Home::new();
    let refused = |name: &str, text: Option<&str>| {
        if let Some(text) = text {
            std::fs::write(home.path().join(name), text).expect("written");
        }
        let (code, _, err) = home.said(&["run", name]);
        assert_eq!(code, 5, "{err}");
        assert!(err.contains(name), "{err}");
        if let Some(text) = text {
            assert_eq!(std::fs::read_to_string(home.path().join(name)).expect("there"), text, "untouched");
        }
        err
    };
    assert!(refused("missing.ipynb", None).contains("no file"));
    assert!(refused("broken.ipynb", Some("{\"cells\": [")).contains("not valid JSON"));
    assert!(refused("old.ipynb", Some("{\"nbformat\": 3, \"worksheets\": []}")).contains("nbformat 3"));
    assert!(refused("list.ipynb", Some("[]")).contains("not a notebook"));
    std::fs::create_dir(home.path().join("dir.ipynb")).expect("made");
    assert!(refused("dir.ipynb", None).contains("directory"));
}

#[test]
fn configuration_is_shown_with_its_origin_and_mistakes_with_their_line() {
    let home = Home::new();
    let file = home.path().join(".config/outlive/config.toml");
    std::fs::create_dir_all(file.parent().expect("has one")).expect("made");
    std::fs::write(&file, "log_level = \"debug\"\n").expect("written");
    let (code, out, _) = home.said(&["config", "show", "--json"]);
    assert_eq!(code, 0);
    let shown: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(shown["log_level"]["value"], "debug");
    assert!(shown["log_level"]["from"].as_str().expect("text").ends_with("config.toml:1"));
    assert_eq!(shown["runtime_dir"]["from"], "$OUTLIVE_RUNTIME_DIR");
    std::fs::write(&file, "log_level = \"debug\"\nstat_dir = \"x\"\n").expect("written");
    let (code, _, err) = home.said(&["ps"]);
    assert_eq!(code, 2);
    assert!(
        err.contains("config.toml:2:1: unknown key") && err.contains("did you mean `state_dir`?"),
        "{err}"
    );
    std::fs::remove_file(file).expect("removed");
}

#[test]
fn help_names_the_exit_codes_and_completions_are_for_a_shell() {
    let home = Home::new();
    let (code, out, _) = home.said(&["--help"]);
    assert!(code == 0 && out.contains("128+n") && !out.contains("shim"), "{out}");
    let (code, out, _) = home.said(&["completions", "bash"]);
    assert!(code == 0 && out.contains("OUTLIVE_COMPLETE"), "{out}");
    let (code, _, err) = home.said(&["shim", "/nowhere"]);
    assert!(code == 2 && err.contains("for the daemon"), "{err}");
}

#[test]
fn without_a_daemon_the_way_out_is_said() {
    let home = Home::new();
    let (code, _, err) =
        said(home.command(&["ps"]).env("OUTLIVE_START_DAEMON", "0").output().expect("started"));
    assert!(code == 6 && err.contains("$OUTLIVE_START_DAEMON"), "{err}");
    let (code, _, err) = home.said(&["daemon", "status"]);
    assert!(code == 6 && err.contains("no daemon runs"), "{err}");
    let long = "x".repeat(120);
    let (code, _, err) = said(
        home.command(&["ps"]).env("OUTLIVE_RUNTIME_DIR", home.path().join(long)).output().expect("started"),
    );
    assert!(code == 2 && err.contains("OUTLIVE_RUNTIME_DIR"), "{err}");
}

#[test]
fn a_daemon_that_cannot_start_says_why() {
    let home = Home::new();
    // Something in the way of the store.
    let state = home.path().join(".local/state/outlive");
    std::fs::create_dir_all(&state).expect("made");
    std::fs::write(state.join("store"), "in the way").expect("written");
    let (code, _, err) = home.said(&["ps"]);
    assert_eq!(code, 6, "{err}");
    assert!(err.contains("the daemon cannot start") && err.contains("store"), "{err}");
}

#[test]
fn a_command_is_as_if_it_had_been_run_here() {
    let home = Home::new();
    let (code, out, err) =
        home.said(&["run", "-e", "A=b", "--", "sh", "-c", "echo $A; echo talk >&2; pwd; exit 42"]);
    assert_eq!(code, 42, "{err}");
    assert_eq!(out, format!("b\n{}\n", home.path().display()));
    assert!(err.contains("talk\n"), "{err}");
    let output = home.run(&["run", "--", "sh", "-c", "printf '\\377\\0'; kill -TERM $$"]);
    assert_eq!(output.status.code(), Some(143));
    assert_eq!(output.stdout, [0xff, 0], "bytes come as they are");
}

#[test]
fn what_was_printed_can_be_read_again_and_forgotten() {
    let home = Home::new();
    home.said(&["run", "--", "sh", "-c", "echo hello; echo talk >&2"]);
    let (code, out, err) = home.said(&["logs"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "hello\n", "talk\n"));
    let (code, out, _) = home.said(&["attach"]);
    assert_eq!((code, out.as_str()), (0, "hello\n"));
    let (code, out, _) = home.said(&["ps", "-a", "--json"]);
    let sessions: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, sessions[0]["state"].as_str()), (0, Some("succeeded")));
    let id = sessions[0]["id"].as_str().expect("an id");
    let (code, _, err) = home.said(&["explain", &id[..6]]);
    assert!(code == 0 && err.contains("nothing has died"), "{err}");
    let (code, ..) = home.said(&["forget", &id[..6]]);
    assert_eq!(code, 0);
    let (code, _, err) = home.said(&["logs", id]);
    assert!(code == 8 && err.contains(id), "{err}");
}

/// A kernelspec whose kernel is never started.
fn kernel(home: &Home) {
    let folder = home.path().join(".local/share/jupyter/kernels/none");
    std::fs::create_dir_all(&folder).expect("made");
    let spec = r#"{"argv": ["/bin/false", "{connection_file}"], "display_name": "None", "language": "none"}"#;
    std::fs::write(folder.join("kernel.json"), spec).expect("written");
}

fn notebook(home: &Home, name: &str) -> String {
    let text = r#"{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [
        {"cell_type": "code", "id": "a", "metadata": {}, "source": "1", "outputs": [], "execution_count": null}]}"#;
    std::fs::write(home.path().join(name), text).expect("written");
    text.to_owned()
}

// C2
#[test]
fn a_collision_is_said_in_the_same_words_by_every_command() {
    let home = Home::new();
    kernel(&home);
    let text = notebook(&home, "a.ipynb");
    notebook(&home, "b.ipynb");
    let opened = |arguments: &[&str]| {
        let (code, out, err) = home.said(arguments);
        assert_eq!(code, 0, "{err}");
        out.trim().to_owned()
    };
    let holder = opened(&["open", "a.ipynb"]);
    let other = opened(&["new"]);
    opened(&["open", "b.ipynb"]);
    let path = std::fs::canonicalize(home.path().join("a.ipynb")).expect("it is there");
    let refused = |arguments: &[&str], doing: &str| {
        let (code, out, err) = home.said(arguments);
        let sentence = format!(
            "error: cannot {doing}: {} is open in session {holder}; close it or choose another path\n",
            path.display()
        );
        assert_eq!((code, out.as_str()), (7, ""), "{arguments:?}: {err}");
        assert!(err.starts_with(&sentence), "{arguments:?}: {err}");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), text, "untouched by {arguments:?}");
    };
    refused(&["run", "--kernel", "none", "a.ipynb"], "save");
    refused(&["run", "--kernel", "none", "b.ipynb", "-o", "a.ipynb"], "save");
    refused(&["save", &other, "a.ipynb"], "save");
    refused(&["save-as", "b.ipynb", "a"], "save");
    refused(&["save", "b.ipynb", "--copy", "a.ipynb"], "save");
    // A second daemon of the same user, with a state directory and thereby a socket of its own.
    let state = home.path().join("other");
    let beside = |arguments: &[&str]| {
        let mut command = home.command(arguments);
        command.env_remove("OUTLIVE_RUNTIME_DIR").env("XDG_RUNTIME_DIR", home.path());
        said(command.env("OUTLIVE_STATE_DIR", &state).output().expect("started"))
    };
    let (code, _, err) = beside(&["open", "a.ipynb"]);
    assert_eq!(beside(&["daemon", "stop"]).0, 0);
    let sentence = format!("error: cannot open: {} is open in session {holder}; close it", path.display());
    assert!(code == 7 && err.starts_with(&sentence), "{err}");
}

// C3
#[test]
fn what_stands_against_a_save_is_said_with_its_reason() {
    let home = Home::new();
    notebook(&home, "there.ipynb");
    std::fs::create_dir(home.path().join("dir.ipynb")).expect("made");
    let (_, id, _) = home.said(&["new"]);
    let id = id.trim();
    let refused = |arguments: &[&str], why: &str| {
        let (code, out, err) = home.said(arguments);
        assert!(code != 0 && out.is_empty(), "{arguments:?}: {out}");
        assert!(err.starts_with("error: cannot ") && err.contains(why), "{arguments:?}: {err}");
        assert!(!err.contains("unexpected") && !err.contains("unexplained"), "{err}");
    };
    refused(&["save", id], "never saved");
    refused(&["save", id, "none/x"], "there is no directory");
    refused(&["save", id, "dir"], "directory");
    refused(&["save", id, "there"], "exists");
    refused(&["save-as", id, &"x".repeat(300)], "longer than 255 bytes");
    refused(&["save", id, "--copy", "there.ipynb"], "exists");
    refused(&["open", "nothing.ipynb"], "there is no file");
    refused(&["open", "dir.ipynb"], "directory");
    refused(&["interrupt", id], "nothing is running");
    refused(&["exec", id, "--cell", "x"], "no cell x");
    refused(&["exec", id, "--cell", "x"], &format!("hint: `outlive cells {}` lists them", &id[..8]));
    refused(&["save", id], &format!("hint: `outlive save {} PATH` gives it a file", &id[..8]));
    refused(&["save", id, "there"], "`--overwrite`");
    refused(&["open", "nothing.ipynb"], "`outlive new` makes a new notebook");
    refused(&["forget", id], "is open");
    let (code, out, err) = home.said(&["save", id, "new"]);
    assert_eq!((code, out.trim()), (0, home.path().join("new.ipynb").to_str().expect("text")), "{err}");
    refused(&["save", id, "newer"], "new.ipynb");
    refused(&["save", id, "newer"], &format!("`outlive save-as {} PATH`", &id[..8]));
}

#[test]
fn a_session_is_listed_stopped_and_found_again_by_its_name() {
    let home = Home::new();
    notebook(&home, "a.ipynb");
    for _ in 0..2 {
        assert_eq!(home.said(&["open", "a.ipynb"]).0, 0);
        let (_, out, _) = home.said(&["sessions"]);
        let row = out.lines().nth(1).expect("a row");
        assert!(row.contains("a.ipynb  idle   saved, untrusted  down"), "{out}");
        assert_eq!(home.said(&["stop", "a.ipynb"]).0, 0);
    }
    let (_, out, err) = home.said(&["ps"]);
    assert!(out.is_empty() && err.contains("no session is open"), "{out}{err}");
    let (_, out, _) = home.said(&["ps", "-a", "--json"]);
    let sessions: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let newest = sessions[0]["id"].as_str().expect("an id");
    let (code, _, err) = home.said(&["attach", "a.ipynb"]);
    assert_eq!(code, 9, "{err}");
    assert!(err.contains("2 sessions of a.ipynb have ended") && err.contains(&newest[..8]), "{err}");
    let (code, _, err) = home.said(&["forget", "a.ipynb"]);
    assert!(code == 8 && err.contains("fits 2 sessions"), "{err}");
}

// D5
#[test]
fn a_daemon_whose_socket_was_removed_is_found_by_its_lock() {
    let home = Home::new();
    let (code, out, _) = home.said(&["daemon", "start", "--json"]);
    let node: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(code, 0);
    std::fs::remove_file(home.path().join("outlive/outlive.sock")).expect("removed");
    let pid = node["pid"].to_string();
    for arguments in [&["ps"][..], &["daemon", "status"], &["daemon", "stop"]] {
        let (code, _, err) = home.said(arguments);
        assert_eq!(code, 6, "{arguments:?}: {err}");
        assert!(
            err.contains(&pid) && err.contains("outlive daemon stop --keep-runtimes"),
            "{arguments:?}: {err}"
        );
    }
    let (code, _, err) = home.said(&["daemon", "stop", "--keep-runtimes"]);
    assert!(code == 0 && err.contains(&pid), "{err}");
    assert_eq!(home.said(&["ps"]).0, 0, "the next one starts");
}

// B4
#[test]
fn leaving_ends_the_client_and_not_the_work() {
    let home = Home::new();
    let marker = home.path().join("marker");
    let fifo = home.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .expect("made");
    let script = "echo started; read line < fifo; echo $line > marker; echo $line";
    let mut client = home
        .command(&["run", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("started");
    let mut first = [0; 8];
    client.stdout.as_mut().expect("piped").read_exact(&mut first).expect("it has started");
    assert_eq!(&first, b"started\n");
    let pid = rustix::process::Pid::from_raw(client.id().cast_signed()).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("told");
    let (code, _, err) = said(client.wait_with_output().expect("waited"));
    assert!(code == 143 && err.contains("detached; the run goes on"), "{err}");
    assert!(!marker.exists());
    std::fs::write(&fifo, "later\n").expect("the command reads it");
    // Comes back, sees all of it and the end.
    let (code, out, _) = home.said(&["attach"]);
    assert_eq!((code, out.as_str()), (0, "started\nlater\n"));
    assert_eq!(std::fs::read_to_string(marker).expect("written"), "later\n");
}

#[test]
fn a_reader_who_left_is_no_reason_to_stop_or_to_panic() {
    let home = Home::new();
    // One for each line: a second reader of one pipe could still meet the first writer.
    let [first, second] = ["first", "second"].map(|name| home.path().join(name));
    for fifo in [&first, &second] {
        rustix::fs::mknodat(rustix::fs::CWD, fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .expect("made");
    }
    let mut client = home
        .command(&["run", "--", "sh", "-c", "read line < first; echo $line; read line < second; echo $line"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    drop(client.stdout.take());
    std::fs::write(&first, "nobody reads this\n").expect("the command reads it");
    let (code, _, err) = said(client.wait_with_output().expect("waited"));
    assert_eq!(code, 141, "{err}");
    assert!(!err.contains("panicked") && !err.contains("error"), "{err}");
    std::fs::write(&second, "but it goes on\n").expect("the command reads it");
    let (_, out, _) = home.said(&["attach"]);
    assert_eq!(out, "nobody reads this\nbut it goes on\n");
}

#[test]
fn two_clients_start_one_daemon() {
    let home = Home::new();
    let clients: Vec<_> = (0..4)
        .map(|number| {
            let mut command = home.command(&["run", "--", "echo", &number.to_string()]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started")
        })
        .collect();
    for (number, client) in clients.into_iter().enumerate() {
        let (code, out, err) = said(client.wait_with_output().expect("waited"));
        assert_eq!((code, out), (0, format!("{number}\n")), "{err}");
    }
    let (_, out, _) = home.said(&["ps", "-a", "--json"]);
    let sessions: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(sessions.as_array().expect("a list").len(), 4, "all are in one daemon");
}

// D3: the daemon's own log stands on the disk that is full.
#[test]
fn a_log_that_cannot_be_written_ends_no_daemon() {
    let home = Home::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("it is on every Linux");
    let mut daemon = home.command(&["serve"]).stderr(full).spawn().expect("started");
    // Until it listens; what it logs about that is where it used to die.
    while !home.run(&["daemon", "status"]).status.success() {
        assert!(daemon.try_wait().expect("it is ours").is_none(), "the daemon has ended");
    }
    let (code, out, err) = home.said(&["run", "--", "echo", "hello"]);
    assert_eq!((code, out.as_str()), (0, "hello\n"), "{err}");
    let (_, out, err) = home.said(&["daemon", "status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(status["pid"], daemon.id(), "{err}");
    assert_eq!(home.said(&["daemon", "stop"]).0, 0);
    assert!(daemon.wait().expect("waited").success());
}
