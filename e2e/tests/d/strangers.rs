//! What a daemon finds when it starts is not always what it left.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use outlive_e2e::clock::{PATIENCE, within};
use outlive_e2e::process::{self, Signal};
use outlive_e2e::{Running, World, report};
use serde_json::Value;

// D5: the second daemon says who holds the directory, and the first goes on.
#[test]
fn two_daemons() {
    let world = World::new();
    let first = world.daemon();
    let second = world.run(&["serve"]);
    assert_ne!(second.code(), Some(0), "{second}");
    assert!(second.stderr.contains(&first.pid().to_string()), "the holder is named: {second}");
    assert_eq!(world.daemon_pid(), first.pid());
}

// D5: a socket that nobody listens on, and the lock of a daemon that was killed, are no daemon.
#[test]
fn a_stale_socket_and_a_stale_lock() {
    let world = World::new();
    world.daemon().kill();
    if !world.api().socket().exists() {
        drop(UnixListener::bind(world.api().socket()).expect("a socket can be made there"));
    }
    let daemon = world.daemon();
    assert_eq!(world.daemon_pid(), daemon.pid());
}

/// The files below a folder that are JSON objects with this field.
fn records_with(folder: &Path, field: &str) -> Vec<(PathBuf, Value)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(records_with(&path, field));
        } else {
            let record = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
            found.extend(record.filter(|record| record.get(field).is_some()).map(|record| (path, record)));
        }
    }
    found
}

// D5: pids that were given to somebody else meanwhile: nobody is adopted, nobody is killed.
#[test]
fn pids_of_strangers() {
    let world = World::new();
    let daemon = world.daemon();
    let session = world.kernel();
    let run = session.submit("import time; time.sleep(1000)");
    session.wait_runtime("busy");
    let kernel = process::find(session.pid()).expect("it is busy");
    let shim = process::find(kernel.parent).expect("it holds the kernel");
    daemon.kill();
    for process in [&shim, &kernel] {
        process::signal(process.pid, Signal::KILL);
        assert!(process::wait_gone(process, within(PATIENCE)));
    }
    // The machine gives both pids to a stranger.
    let stranger = Running::start(world.command("/bin/sleep").arg("1000"));
    let records = records_with(world.root(), "shim_pid");
    assert!(!records.is_empty(), "a shim's identity is kept where the next daemon finds it");
    for (path, mut record) in records {
        for field in ["shim_pid", "pid"] {
            record[field] = stranger.pid().into();
        }
        fs::write(&path, record.to_string()).unwrap();
    }

    let _daemon = world.daemon();
    let ended = session.outcome(&run, within(PATIENCE));
    assert_eq!((ended.ended(), ended.cause()), ("failed", "shim-lost"), "{:?}", ended.outcome);
    let alive = process::find(stranger.pid()).is_some_and(|process| process.state != 'Z');
    assert!(alive, "the stranger was killed");
}

// D5: a shim whose session nobody knows is refused, stops its process, is gone, and is listed by `doctor`.
#[test]
fn a_shim_that_nobody_knows() {
    let world = World::new();
    let daemon = world.daemon();
    let session = world.kernel();
    let kernel = process::find(session.pid()).expect("it is ready");
    daemon.kill();
    forget(&world.state(), &session.id);

    let _daemon = world.daemon();
    assert!(process::wait_gone(&kernel, within(Duration::from_secs(30))), "left behind: {kernel:?}");
    world.assert_nothing_supervised();
    assert_eq!(world.api().request("GET", &session.path(""), None).status, 404);
    let doctor = world.api().get("/v1/doctor").to_string();
    assert!(doctor.contains("refused") && doctor.contains(&session.id), "{doctor}");
}

// D5: the shim of an incarnation that its session knows nothing of is refused as well: its process has its time to end,
// is gone, and is listed by `doctor`; the session says that the process it knew of is lost.
#[test]
fn a_shim_of_an_unknown_incarnation() {
    let world = World::new();
    let daemon = world.daemon();
    let session = world.kernel();
    let first = session.pid();
    world.run(&["daemon", "stop", "--keep-runtimes"]).assert_code(0);
    daemon.ended().assert_code(0);
    // The state of this moment will be restored when the session has gone on.
    let (store, older) = (world.state().join("store"), world.root().join("older"));
    copy(&store, &older);
    let daemon = world.daemon();
    session.post("/restart", &serde_json::json!({}));
    session.wait_until("another process", within(PATIENCE), |view| {
        outlive_e2e::session::runtime_state(view) == "idle" && view["runtime"]["pid"] != first
    });
    let goodbye = world.work().join("goodbye");
    session
        .run(&format!("import atexit, pathlib; atexit.register(lambda: pathlib.Path({goodbye:?}).touch())"));
    let kernel = process::find(session.pid()).expect("it is ready");
    daemon.kill();
    fs::remove_dir_all(&store).expect("the world's own files");
    copy(&older, &store);

    let _daemon = world.daemon();
    assert!(process::wait_gone(&kernel, within(Duration::from_secs(30))), "left behind: {kernel:?}");
    assert!(goodbye.exists(), "it was asked to end, not just killed");
    let doctor = world.api().get("/v1/doctor").to_string();
    assert!(doctor.contains("gone on without it") && doctor.contains(&session.id), "{doctor}");
    let reports = session.reports();
    assert_eq!(reports.iter().map(report::code).collect::<Vec<_>>(), ["shim-lost"], "{reports:#?}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a new directory can be made");
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("there is room");
        }
    }
}

/// Removes the log of a session, as if its disk had been restored from an older day; the shims' own directories stay.
fn forget(folder: &Path, session: &str) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() && name == session {
            fs::remove_dir_all(&path).expect("the test's own directory can be removed");
        } else if path.is_dir() {
            forget(&path, session);
        }
    }
}
