//! The disk gives back something else than what was written.

use std::fs;
use std::path::{Path, PathBuf};

use outlive_e2e::clock::{PATIENCE, within};
use outlive_e2e::session::runtime_state;
use outlive_e2e::{Session, World, process};
use serde_json::Value;

/// The files of a session's log, in order.
fn segments(world: &World, session: &Session) -> Vec<PathBuf> {
    let folder = world.state().join("store/sessions").join(&session.id);
    let mut found: Vec<_> = fs::read_dir(&folder)
        .expect("a session has a folder")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    found.sort();
    found
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut content = fs::read(path).expect("the log is there");
    change(&mut content);
    fs::write(path, content).expect("the world's own files");
}

/// Where in a log the record ends that holds `text`, so that damage can be done behind it.
fn behind(path: &Path, text: &str) -> usize {
    let content = fs::read(path).expect("the log is there");
    let at = content.windows(text.len()).rposition(|window| window == text.as_bytes());
    at.unwrap_or_else(|| panic!("{text:?} is not in the log")) + text.len()
}

/// What `doctor` says of the store.
fn store(world: &World) -> Value {
    let doctor = world.api().get("/v1/doctor");
    let checks = doctor["checks"].as_array().expect("a list of checks");
    checks.iter().find(|check| check["name"] == "store").expect("the store is looked at").clone()
}

/// Waits until the kernel takes work, and shows that it is the same one and does.
fn assert_usable(session: &Session, pid: i32, what: &str) {
    session.wait_until("idle", within(PATIENCE), |view| {
        runtime_state(view) == "idle" && view["runs"]["queued"] == 0 && view["runs"]["running"] == 0
    });
    assert_eq!(session.pid(), pid, "{what}: the same kernel");
    assert_eq!(session.run("print(memory)").stdout(), "all of it\n", "{what}");
}

// D6: the daemon is killed, and its disk has cut or changed a session's log: the next daemon says what it dropped, keeps
// it, and the session goes on with its kernel, whose memory is whole.
#[test]
fn a_damaged_log_is_cut_said_and_gone_on_with() {
    type Damage = fn(&mut Vec<u8>, usize);
    let damages: [(&str, Damage); 4] = [
        ("a torn tail", |log, _| log.truncate(log.len() - 5)),
        ("a truncated segment", |log, behind| log.truncate(behind + 40)),
        ("a flipped byte", |log, behind| log[behind + 40] ^= 0x10),
        ("zeros where the end was", |log, behind| log[behind + 40..].fill(0)),
    ];
    let world = World::new();
    let mut daemon = world.daemon();
    for (what, damage) in damages {
        let session = world.kernel();
        session.run("memory = 'all of it'; print('the first run')");
        let runs: Vec<_> = (0..5).map(|n| session.submit(&format!("print('run number', {n})"))).collect();
        for run in &runs {
            assert_eq!(session.outcome(run, within(PATIENCE)).ended(), "succeeded");
        }
        let pid = session.pid();
        daemon.kill();
        let log = segments(&world, &session).pop().expect("it has a log");
        let good = behind(&log, "the first run");
        let before = fs::read(&log).expect("the log is there");
        change(&log, |log| damage(log, good));

        daemon = world.daemon();
        let said = store(&world);
        assert_eq!(said["level"], "warning", "{what}: {said}");
        let found = said["found"].as_str().unwrap_or_default();
        assert!(found.contains(&session.id) && found.contains("dropped"), "{what}: {found}");
        assert_usable(&session, pid, what);
        let first = session.runs().remove(0);
        assert_eq!(session.outcome(&first, within(PATIENCE)).stdout(), "the first run\n", "{what}");
        for run in session.runs() {
            let ended = session.outcome(&run, within(PATIENCE));
            assert!(!ended.ended().is_empty(), "{what}: run {run} has no end");
        }
        let all: Vec<u8> = fs::read_dir(log.parent().expect("it is in a folder"))
            .expect("a session has a folder")
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().contains("aside"))
            .flat_map(|entry| fs::read(entry.path()).expect("it can be read"))
            .collect();
        if what == "a flipped byte" {
            assert_eq!(all.len(), before.len() - good_end(&before, good), "{what}: what was dropped is kept");
        }
        session.stop();
    }
}

/// Where the last record ends that ends at or before `at`... that is whole in front of damage behind it.
fn good_end(log: &[u8], at: usize) -> usize {
    let mut end = 0;
    // Frames are their length, 12 bytes of a header, and a body (docs/decisions/002).
    while end < at {
        let length: [u8; 4] = log[end..end + 4].try_into().expect("four bytes");
        end += 12 + u32::from_le_bytes(length) as usize;
    }
    end
}

// D6: damage at a log's very beginning leaves nothing to go on with: that session is said to be lost, its kernel is
// stopped instead of left behind, and all others are as they were.
#[test]
fn a_log_without_a_beginning_takes_nobody_along() {
    let world = World::new();
    let daemon = world.daemon();
    let (lost, well) = (world.kernel(), world.kernel());
    well.run("memory = 'all of it'");
    let kernel = process::find(lost.pid()).expect("it is ready");
    let pid = well.pid();
    daemon.kill();
    change(&segments(&world, &lost)[0], |log| log[3..40].fill(0xff));

    let _daemon = world.daemon();
    assert_usable(&well, pid, "the other session");
    let doctor = world.api().get("/v1/doctor").to_string();
    assert!(doctor.contains(&lost.id), "{doctor}");
    assert!(process::wait_gone(&kernel, within(PATIENCE)), "left behind: {kernel:?}");
}
