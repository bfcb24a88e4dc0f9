//! The disk under the store fills up, or gives back another table of sessions than was written.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use outlive_e2e::clock::{PATIENCE, eventually, within};
use outlive_e2e::command::Running;
use outlive_e2e::session::runtime_state;
use outlive_e2e::world::binary;
use outlive_e2e::{Daemon, Session, World};
use serde_json::{Value, json};

fn check(world: &World, name: &str) -> Value {
    let doctor = world.api().get("/v1/doctor");
    let checks = doctor["checks"].as_array().expect("a list of checks");
    checks.iter().find(|check| check["name"] == name).expect("it is looked at").clone()
}

fn metric(world: &World, name: &str) -> String {
    let response = world.api().request("GET", "/metrics", None);
    let text = String::from_utf8_lossy(&response.body).into_owned();
    let line = text.lines().find(|line| line.starts_with(name) && !line.starts_with('#'));
    line.and_then(|line| line.rsplit(' ').next()).unwrap_or_default().to_owned()
}

/// Writes until nothing more fits.
fn fill(disk: &Path) -> PathBuf {
    let ballast = disk.join("ballast");
    let mut file = fs::File::create(&ballast).expect("there is room for a name");
    for size in [1 << 20, 1 << 12] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
    ballast
}

/// The same kernel, with what it had in its memory.
fn assert_same_kernel(session: &Session, pid: i32, what: &str) {
    session.wait_until("idle", within(PATIENCE), |view| {
        runtime_state(view) == "idle" && view["runs"]["queued"] == 0 && view["runs"]["running"] == 0
    });
    assert_eq!(session.pid(), pid, "{what}: the same kernel");
    assert_eq!(session.run("print(memory)").stdout(), "all of it\n", "{what}");
}

// C9: the state directory fills up. Rows cannot be written: that is said, what is open goes on, and all of it works again
// by itself when there is room; also for a daemon that was started on the full disk.
#[test]
fn a_full_disk_under_the_tables_is_said_and_passes() {
    let world = World::new();
    // Logs have a disk of their own: what fails is a row, and not by chance a record.
    let daemon = world.daemon_behind(&format!(
        "mkdir {0}/store; mount -t tmpfs -o size=8m tmpfs {0}/store; mkdir {0}/store/sessions; mount -t tmpfs tmpfs {0}/store/sessions",
        world.state().display()
    ));
    let kernel = world.kernel();
    kernel.run("memory = 'all of it'");
    let pid = kernel.pid();
    let untitled: Vec<_> = (0..5)
        .map(|n| {
            let session = world.untitled();
            session.add_cell(&format!("number = {n}"));
            session
        })
        .collect();
    let disk = world.seen_by(&daemon, &world.state().join("store"));
    let ballast = fill(&disk);
    let refused = eventually("it is not ready", within(PATIENCE), || {
        // Another row, as long as one fits into pages that the file has already.
        world.api().request("POST", "/v1/sessions/new", Some(&world.untitled_spec()));
        let response = world.api().request("GET", "/v1/ready", None);
        (response.status == 503).then(|| response.json())
    });
    assert!(refused["detail"].as_str().is_some_and(|why| why.contains("tables")), "{refused}");
    assert_eq!(check(&world, "tables")["level"], "error");
    let trusted = world.api().refused(&untitled[0].path("/trust"), &json!({"trust": "trusted"}));
    assert_eq!(trusted["code"], "store-unavailable", "nothing is said to be noted that is not: {trusted}");
    assert_eq!(metric(&world, "outlive_tables_refused"), "1");
    assert_ne!(metric(&world, "outlive_table_writes_failed_total"), "0");
    fs::remove_file(&ballast).expect("it is there");
    let well_again = |what: &str| {
        eventually(what, within(PATIENCE), || {
            (world.api().request("GET", "/v1/ready", None).status == 200).then_some(())
        });
        for (n, session) in untitled.iter().enumerate() {
            // The first asks may come before it is taken up again.
            eventually(what, within(PATIENCE), || {
                (world.api().request("GET", &session.path("/notebook"), None).status == 200).then_some(())
            });
            assert_eq!(session.sources().last(), Some(&format!("number = {n}")), "{what}");
        }
        assert_same_kernel(&kernel, pid, what);
        assert_eq!(check(&world, "tables")["level"], "ok", "{what}: a full disk damages nothing");
    };
    well_again("there is room");
    let _further = world.untitled();

    let ballast = fill(&disk);
    let ballast = root(pid).join(ballast.strip_prefix(root(daemon.pid())).expect("it is below it"));
    daemon.kill();
    // The disk is still there for whoever lives in its namespace.
    let mut command = world.command("nsenter");
    command.args(["--target", &pid.to_string(), "--mount"]).arg(binary()).arg("serve");
    let running = Running::start(&mut command);
    eventually("a daemon is there on the full disk", within(PATIENCE), || {
        world.api().try_request("GET", "/v1/live", None).ok().filter(|response| response.status == 200)
    });
    fs::remove_file(&ballast).expect("it is there");
    let _daemon = Daemon::wait_ready(running, &world.api());
    well_again("there is room for a daemon that was started without");
}

/// The root directory of what this process sees.
fn root(pid: i32) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join("root")
}

// D6: the table of sessions is damaged, cut, empty or gone: the next daemon puts it aside, says so, and has every session
// again from its log, with kernels, edits, paths and those that have ended.
#[test]
fn a_damaged_table_takes_no_session_along() {
    type Damage = fn(&Path, &str);
    fn change(tables: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut content = fs::read(tables).expect("it is there");
        change(&mut content);
        fs::write(tables, content).expect("the world's own files");
    }
    let damages: [(&str, bool, Damage); 6] = [
        ("a flipped byte in its header", true, |tables, _| change(tables, |file| file[5] ^= 1)),
        ("it is cut to some pages", true, |tables, _| change(tables, |file| file.truncate(0x3000))),
        ("garbage", true, |tables, _| change(tables, |file| file.fill(0x5a))),
        ("a flipped byte in a row", true, |tables, id| {
            change(tables, |file| {
                // Pages that were freed hold it too: whichever counts is among them.
                let windows = file.windows(id.len()).enumerate();
                let places: Vec<usize> =
                    windows.filter(|(_, window)| *window == id.as_bytes()).map(|(at, _)| at).collect();
                assert!(!places.is_empty(), "its row is there");
                places.into_iter().for_each(|at| file[at + 3] ^= 1);
            });
        }),
        ("it is empty", false, |tables, _| change(tables, |file| file.clear())),
        ("it is gone", false, |tables, _| fs::remove_file(tables).expect("it is there")),
    ];
    let world = World::new();
    let mut daemon = world.daemon();
    let kernel = world.kernel();
    kernel.run("memory = 'all of it'");
    let pid = kernel.pid();
    let untitled = world.untitled();
    untitled.add_cell("in_no_file = 1");
    let path = world.notebook("a.ipynb", &["saved = 1"]);
    let saved = Session::open(&world.api(), &path);
    saved.add_cell("added = 2");
    saved.save(&json!({}));
    let ended = world.untitled();
    ended.close(true);
    let store = world.state().join("store");
    for (what, is_damage, damage) in damages {
        daemon.kill();
        damage(&store.join("tables.redb"), &untitled.id);
        daemon = world.daemon();
        assert_same_kernel(&kernel, pid, what);
        assert_eq!(untitled.sources().last().map(String::as_str), Some("in_no_file = 1"), "{what}");
        assert_eq!(Session::open(&world.api(), &path).id, saved.id, "{what}: its path is known");
        assert_eq!(saved.sources(), ["saved = 1", "added = 2"], "{what}");
        assert!(!ended.view()["closed_at"].is_null(), "{what}: what has ended has ended");
        let all = world.api().get("/v1/sessions?all=true");
        assert_eq!(all.as_array().map(Vec::len), Some(4), "{what}: {all}");
        let said = check(&world, "tables");
        assert_eq!(said["level"], "warning", "{what}: {said}");
        let found = said["found"].as_str().unwrap_or_default();
        assert!(found.contains("listed again"), "{what}: {found}");
        if is_damage {
            assert!(found.contains("tables.redb.damaged-"), "{what}: {found}");
        }
    }
    daemon.kill();
    let _daemon = world.daemon();
    assert_same_kernel(&kernel, pid, "the next daemon");
}

// D6: the first records of a log are damaged. That it was never made is not concluded from that: its folder stays, `doctor`
// says what was lost, the notebook's file can be opened, and it can be given up.
#[test]
fn a_log_that_lost_its_beginning_is_kept_and_said() {
    let world = World::new();
    let daemon = world.daemon();
    let path = world.notebook("a.ipynb", &["saved = 1"]);
    let lost = [Session::open(&world.api(), &path), world.untitled()];
    for session in &lost {
        session.add_cell("written = 2");
    }
    lost[0].save(&json!({}));
    daemon.kill();
    let folder = |session: &Session| world.state().join("store/sessions").join(&session.id);
    for session in &lost {
        let log = folder(session).join("00000001.seg");
        let mut content = fs::read(&log).expect("it has a log");
        content[20] ^= 1;
        fs::write(&log, content).expect("the world's own files");
    }
    let daemon = world.daemon();
    let kept = |session: &Session| {
        let files = fs::read_dir(folder(session)).expect("its folder stays");
        files.flatten().any(|entry| {
            let content = fs::read(entry.path()).unwrap_or_default();
            content.windows(11).any(|window| window == b"written = 2")
        })
    };
    for session in &lost {
        assert!(kept(session), "what was written is there for who looks for it");
        let doctor = world.api().get("/v1/doctor").to_string();
        assert!(doctor.contains(&session.id) && doctor.contains(".aside"), "{doctor}");
        let refused = world.api().request("GET", &session.path("/notebook"), None);
        assert!(refused.status >= 500, "{refused:?}");
        assert!(world.api().get("/v1/sessions").to_string().contains(&session.id), "it is listed");
    }
    let again = Session::open(&world.api(), &path);
    assert_eq!(again.sources(), ["saved = 1", "written = 2"], "the file is another session's now");
    daemon.kill();
    let _daemon = world.daemon();
    assert!(lost.iter().all(kept), "also at the next start");
    lost[0].post("/stop", &json!({"force": true}));
    assert!(!lost[0].view()["closed_at"].is_null());
    for session in &lost {
        world.api().delete(&session.path(""));
        assert!(!folder(session).exists(), "forgotten on request");
        assert_eq!(world.api().request("GET", &session.path(""), None).status, 404);
    }
}

// D6: what a notebook is made of, and stands beside its log, is changed or gone. It is not believed, and not written over
// the user's intact file: the session has what its file holds, says so, and goes on; it can also be given up.
#[test]
fn a_damaged_part_of_a_notebook_is_not_written_over_its_file() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 3] = [
        ("a changed letter", |blob| {
            let mut content = fs::read(blob).expect("it is there");
            let at = content.windows(4).position(|window| window == b"mine").expect("the text is in it");
            content[at] = b'f';
            fs::write(blob, content).expect("the world's own files");
        }),
        ("cut off", |blob| {
            fs::File::options()
                .write(true)
                .open(blob)
                .and_then(|file| file.set_len(100))
                .expect("it is there");
        }),
        ("gone", |blob| fs::remove_file(blob).expect("it is there")),
    ];
    let world = World::new();
    let mut daemon = world.daemon();
    for (n, (what, damage)) in damages.into_iter().enumerate() {
        let path = world.notebook(&format!("{n}.ipynb"), &["text = 'mine'", "other = 1"]);
        let before = fs::read(&path).expect("it was written just now");
        let session = Session::open(&world.api(), &path);
        daemon.kill();
        let folder = world.state().join("store/sessions").join(&session.id).join("blobs");
        let blobs: Vec<_> =
            fs::read_dir(&folder).expect("it has blobs").flatten().map(|e| e.path()).collect();
        let [blob] = &blobs[..] else { panic!("{blobs:?}") };
        damage(blob);

        daemon = world.daemon();
        assert_eq!(Session::open(&world.api(), &path).id, session.id, "{what}");
        assert_eq!(session.sources(), ["text = 'mine'", "other = 1"], "{what}");
        assert_eq!(session.view()["saved"]["state"], "saved", "{what}");
        let said = check(&world, "sessions");
        assert!(said["found"].as_str().is_some_and(|found| found.contains(&session.id)), "{what}: {said}");
        assert_eq!(fs::read(&path).expect("it is there"), before, "{what}: nobody has edited it");
        // What is edited now is all that changes, also after another start.
        session.add_cell("added = 2");
        session.save(&json!({}));
        daemon.kill();
        daemon = world.daemon();
        assert_eq!(session.sources(), ["text = 'mine'", "other = 1", "added = 2"], "{what}");
        assert_eq!(check(&world, "sessions")["level"], "ok", "{what}: it is well again");
        session.close(false);
    }
    // Without a file there is less to go on with, and still no dead end.
    let untitled = world.untitled();
    daemon.kill();
    let folder = world.state().join("store/sessions").join(&untitled.id).join("blobs");
    fs::remove_dir_all(&folder).expect("it is there");
    let _daemon = world.daemon();
    assert_eq!(untitled.sources(), Vec::<String>::new());
    untitled.add_cell("goes = 'on'");
    untitled.close(true);
    world.api().delete(&untitled.path(""));
}
