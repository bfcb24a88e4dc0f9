//! Notebooks whose node dies.

use std::fs;

use outlive_e2e::clock::{PATIENCE, eventually, within};
use outlive_e2e::cluster::Cluster;
use outlive_e2e::notebook::with_cells;
use outlive_e2e::session::runtime_state;
use outlive_e2e::{Session, Transcript, report};
use serde_json::{Value, json};

fn cell_id(session: &Session, place: usize) -> String {
    let cell = &session.notebook()["cells"][place];
    cell["id"].as_str().unwrap_or_else(|| panic!("no id: {cell}")).to_owned()
}

fn outputs_of(session: &Session, place: usize) -> Value {
    session.api().get(&session.path(&format!("/cells/{}/outputs", cell_id(session, place))))
}

fn text_of(outputs: &Value) -> String {
    let lines = |text: &Value| match text {
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
        text => text.as_str().unwrap_or_default().to_owned(),
    };
    outputs.as_array().into_iter().flatten().map(|output| lines(&output["text"])).collect::<String>()
}

// E10: document and outputs are there at once on the new node, the interrupted cell is settled `node-lost`, the kernel is
// started again and says that its memory is gone; what is run then runs.
#[test]
fn the_node_of_a_notebook_is_lost() {
    let mut cluster = Cluster::of(3);
    let path = cluster.volume().join("a.ipynb");
    let slow = "import time\nfor i in range(10_000):\n    print(i, flush=True)\n    time.sleep(0.02)";
    fs::write(&path, with_cells(&["x = 42\nprint('done before')", slow]).to_string())
        .expect("the shared directory");
    let session = Session::open(&cluster.members[0].world.api(), &path);
    assert_eq!(session.run_cell(&cell_id(&session, 0)).ended(), "succeeded");
    let run = session.submit_cells(&[&cell_id(&session, 1)]).remove(0);
    session.set_source(&cell_id(&session, 0), "edited = True");
    let (mut seen, mut events) = (Transcript::default(), session.attach(&run, None));
    while !seen.stdout().contains("1\n") {
        seen.push(&events.next(within(PATIENCE)).expect("the slow cell prints"));
    }
    cluster.members[0].lose();
    let owner = cluster.moved_from(&session.id, 0);
    let moved = cluster.session_at(owner, &session.id);
    let ended = moved.outcome(&run, within(PATIENCE));
    assert_eq!((ended.ended(), ended.cause()), ("failed", "node-lost"), "{:?}", ended.outcome);
    assert!(ended.stdout().starts_with("0\n1\n"), "what it had printed is kept");
    assert_eq!(report::code(&moved.reports()[0]), "node-lost");
    assert_eq!(moved.sources()[0], "edited = True", "an edit that was not saved is there");
    let outputs = outputs_of(&moved, 0);
    assert_eq!(text_of(&outputs), "done before\n", "{outputs}");
    // The kernel's memory is gone, and a new one runs.
    moved.wait_until("the kernel is started again", within(PATIENCE), |view| runtime_state(view) == "idle");
    let lost = moved.run("x");
    assert_eq!(lost.ended(), "raised", "the kernel's memory is gone");
    assert_eq!(moved.run("print(6 * 7)").stdout(), "42\n");
    // From the other survivor it is the same session.
    let other = 3 - owner;
    assert_eq!(cluster.session_at(other, &session.id).sources()[0], "edited = True");
    let explained = cluster.members[other].world.run(&["explain", &session.id]);
    assert!(explained.stdout.contains("n1") && explained.stdout.contains("node-lost"), "{explained}");
}

// E10: the policy `interrupted` runs the interrupted cell again.
#[test]
fn the_interrupted_cell_is_run_again_if_it_was_asked_for() {
    let mut cluster = Cluster::of(2);
    let body = json!({
        "cwd": cluster.volume(), "on_node_loss": {"rerun": "interrupted"},
    });
    let session = Session::untitled(&cluster.members[0].world.api(), &body);
    let mark = cluster.volume().join("began");
    let code = format!(
        "import os, time\nfirst = not os.path.exists({mark:?})\nopen({mark:?}, 'w').close()\n\
         if first: time.sleep(1000)\nprint('second time')",
    );
    let cell = session.add_cell(&code);
    session.submit_cells(&[&cell]);
    eventually("the cell has begun", within(PATIENCE), || fs::metadata(&mark).ok());
    cluster.members[0].lose();
    assert_eq!(cluster.moved_from(&session.id, 0), 1);
    let moved = cluster.session_at(1, &session.id);
    let outputs = moved.path(&format!("/cells/{cell}/outputs"));
    eventually("the cell has been run again", within(PATIENCE), || {
        text_of(&cluster.members[1].world.api().get(&outputs)).contains("second time").then_some(())
    });
}

// E10c: the daemon of a node is killed and back within the kernel's grace: it adopts its kernel again with its memory,
// nobody takes anything over, and the output is complete.
#[test]
fn a_daemon_that_is_back_in_time_keeps_its_kernel() {
    let mut cluster = Cluster::patient(2);
    let session = Session::untitled(&cluster.members[0].world.api(), &json!({"cwd": cluster.volume()}));
    let cell = session.add_cell("x = 42");
    assert_eq!(session.run_cell(&cell).ended(), "succeeded");
    let pid = session.pid();
    let run =
        session.submit("import time\nfor i in range(200):\n    print(i, flush=True)\n    time.sleep(0.01)");
    session.attach(&run, None).wait_for("it prints", within(PATIENCE), |event| event.name == "output");
    cluster.members[0].kill();
    cluster.members[0].begin();
    let lines: String = (0..200).map(|i| format!("{i}\n")).collect();
    let seen = session.outcome(&run, within(PATIENCE));
    assert_eq!(seen.stdout(), lines, "{seen:?}");
    assert_eq!(session.pid(), pid, "the same kernel");
    assert_eq!(session.run("print(x)").stdout(), "42\n", "with its memory");
    assert_eq!(cluster.owner(&session.id), 0);
}

// E10c: after the grace the session is somebody else's, and the node that comes back ends what it no longer owns.
#[test]
fn a_daemon_that_is_back_too_late_has_lost_its_kernel() {
    let mut cluster = Cluster::of(2);
    let session = Session::untitled(&cluster.members[0].world.api(), &json!({"cwd": cluster.volume()}));
    let cell = session.add_cell("x = 42");
    assert_eq!(session.run_cell(&cell).ended(), "succeeded");
    cluster.members[0].kill();
    assert_eq!(cluster.moved_from(&session.id, 0), 1);
    cluster.members[0].begin();
    let mut deadline = within(PATIENCE);
    while let Some(process) = cluster.members[0].world.supervised().first() {
        assert!(outlive_e2e::process::wait_gone(process, deadline), "left behind: {process:?}");
        deadline = within(PATIENCE);
    }
    assert_eq!(cluster.owner(&session.id), 1);
    let view = cluster.session_at(0, &session.id).view();
    assert_eq!(view["node"], "n2", "asked for at the node that came back");
}
