//! A node gives its work away.

use std::fs;

use outlive_e2e::clock::{PATIENCE, eventually, now, within};
use outlive_e2e::cluster::Cluster;
use outlive_e2e::report;
use serde_json::{Value, json};

use crate::{counts, exact, nothing_left, output};

// E2, A9: SIGTERM hands the work over at a step's boundary. What had finished is not done again, watchers see no reset,
// and nobody calls it a crash.
#[test]
fn a_node_that_is_asked_to_end_hands_over() {
    let mut cluster = Cluster::of(3);
    let group = cluster.runners(0, "g", 1);
    let side = cluster.volume();
    // Stops at a boundary when it is asked to: each step is saved before the next begins.
    let code = format!("count(task, 300, 0.01, side={side:?}, every=1)");
    let task = group.submit_with(&code, &json!({"idempotent": true}));
    let path = output(&group, &task);
    let watchers = cluster.watch_everywhere(&path, 2);
    watchers[1].wait_said("1:50\n");
    let asked = now();
    cluster.members[0].terminate().assert_code(0);
    watchers[1].wait_said("\n2:");
    let first = watchers[1].so_far().first_after(asked).expect("it went on");
    println!("the first output after the drain: {:?}", first.duration_since(asked));
    let attempts = exact(&cluster, watchers, &path, 300);
    assert_eq!(attempts, 2);
    nothing_left(&cluster, 0);
    // Each step wrote `b` before and `a` after it.
    let begun: usize = fs::read_dir(&side)
        .expect("the shared directory")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&task.id))
        .map(|entry| fs::read_to_string(entry.path()).unwrap_or_default().matches('a').count())
        .sum();
    assert!((300..=301).contains(&begun), "{begun} steps were finished, of 300 wanted");
    let group = cluster.group_at(1, "g");
    let reports = group.reports();
    assert!(
        reports.iter().all(|report| report::code(report) == "killed-by-operator"),
        "no crash: {reports:#?}"
    );
}

// E2: the command does the same and says what it gave away; the node stays and takes nothing.
#[test]
fn the_command_drains_a_node_that_goes_on() {
    let cluster = Cluster::of(2);
    let group = cluster.runners(0, "g", 1);
    let task = counts(&group, 200);
    let path = output(&group, &task);
    let watchers = cluster.watch_everywhere(&path, 3);
    watchers[0].wait_said("1:20\n");
    let said = cluster.members[0].world.run(&["drain", "--json"]);
    said.assert_code(0);
    assert_eq!(said.json()["released"], json!([group.session().id]), "{said}");
    assert_eq!(cluster.moved_from(&group.session().id, 0), 1);
    exact(&cluster, watchers, &path, 200);
    nothing_left(&cluster, 0);
    eventually("it is shown as gone", within(PATIENCE), || {
        let nodes = cluster.members[1].nodes();
        let gone = |node: &Value| node["name"] == "n1" && node["state"] == "left";
        nodes.iter().any(gone).then_some(())
    });
    let ready = cluster.members[0].world.api().request("GET", "/v1/ready", None);
    assert_eq!((ready.status, ready.json()["code"].as_str()), (503, Some("draining")));
}

// A9: a kernel that is drained ends in the normal ladder: its exit handlers run, and nobody calls it a crash.
#[test]
fn a_drained_kernel_is_no_crash() {
    let mut cluster = Cluster::of(2);
    let mark = cluster.volume().join("said-goodbye");
    let path = cluster.volume().join("a.ipynb");
    let code = format!(
        "import atexit\natexit.register(lambda: open({:?}, 'w').close())",
        mark.display().to_string()
    );
    let api = cluster.members[0].world.api();
    fs::write(&path, outlive_e2e::notebook::with_cells(&[&code]).to_string()).expect("the shared directory");
    let opened = api.post("/v1/sessions/open", &json!({"path": path}));
    let id = opened["session_id"].as_str().expect("an id").to_owned();
    let session = cluster.session_at(0, &id);
    let cell = session.notebook()["cells"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(session.run_cell(&cell).ended(), "succeeded");
    cluster.members[0].terminate().assert_code(0);
    assert!(mark.exists(), "the kernel's exit handlers ran");
    assert_eq!(cluster.moved_from(&id, 0), 1);
    let reports = cluster.session_at(1, &id).reports();
    assert!(
        reports.iter().all(|report| report::code(report) == "killed-by-operator"),
        "no crash: {reports:#?}"
    );
    nothing_left(&cluster, 0);
}
