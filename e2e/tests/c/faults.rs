//! What a system does to a notebook that it should not: it refuses, it runs out of something, it renames underneath. Each
//! fault is real, for root and for an ordinary user.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use outlive_e2e::clock::{PATIENCE, eventually, within};
use outlive_e2e::{Daemon, Peer, Running, Session, World, notebook, process, world};
use serde_json::{Value, json};

/// A daemon without root's privileges, whoever runs the test: in a user namespace without a mapping nobody has any, and
/// files still belong to their owner.
fn unprivileged(world: &World) -> Daemon {
    let mut command = world.command("unshare");
    command.arg("--user").arg(world::binary()).arg("serve");
    Daemon::wait_ready(Running::start(&mut command), &world.api())
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[track_caller]
fn wait_evicted(session: &Session) {
    eventually("it is evicted", within(PATIENCE), || (session.view()["loaded"] == false).then_some(()));
}

// C3, C9: a file and a directory that may not be written: said by name, untouched, nothing lost, and written when they
// may be.
#[test]
fn what_may_not_be_written_is_said_and_written_when_it_may_be() {
    let world = World::new();
    let frozen = world.work().join("frozen");
    fs::create_dir(&frozen).unwrap();
    let inside = frozen.join("inside.ipynb");
    fs::copy(world.notebook("mine.ipynb", &["x = 1"]), &inside).unwrap();
    let mine = world.work().join("mine.ipynb");
    set_mode(&mine, 0o444);
    set_mode(&frozen, 0o555);
    let _daemon = unprivileged(&world);
    let before = fs::read(&mine).unwrap();
    let sessions = [&mine, &inside].map(|path| Session::open(&world.api(), path));
    for session in &sessions {
        session.set_source("cell-0", "x = 2");
        let problem = session.save_refused(&json!({}));
        assert_eq!(problem["code"], "not-writable", "{problem}");
        session.wait_saved("failing");
    }
    let untitled = world.untitled();
    let problem = untitled.save_refused(&json!({"path": frozen.join("new.ipynb")}));
    assert_eq!(problem["code"], "not-writable", "{problem}");
    for path in [&mine, &inside] {
        assert_eq!(fs::read(path).unwrap(), before, "{}", path.display());
    }
    assert_eq!(fs::read_dir(&frozen).unwrap().count(), 1, "nothing is left beside it");
    set_mode(&mine, 0o644);
    set_mode(&frozen, 0o755);
    for (session, path) in sessions.iter().zip([&mine, &inside]) {
        session.save(&json!({}));
        session.wait_saved("saved");
        assert_eq!(notebook::text(&notebook::read(path)["cells"][0]["source"]), "x = 2");
    }
}

// C7: the file cannot be written, and was renamed, while its session waits for the moment in which it leaves memory.
#[test]
fn read_only_or_renamed_while_the_timer_runs() {
    let mut world = World::new();
    world.set("OUTLIVE_IDLE_TIMEOUT_S", "1");
    let folder = world.work().join("folder");
    fs::create_dir(&folder).unwrap();
    let (locked, before, after) =
        (folder.join("locked.ipynb"), folder.join("a.ipynb"), folder.join("b.ipynb"));
    fs::copy(world.notebook("n.ipynb", &["x = 1"]), &locked).unwrap();
    fs::copy(&locked, &before).unwrap();
    let _daemon = unprivileged(&world);

    let session = Session::open(&world.api(), &before);
    session.set_source("cell-0", "x = 'renamed'");
    fs::rename(&before, &after).unwrap();
    wait_evicted(&session);
    assert!(!before.exists(), "no copy comes back");
    assert_eq!(Session::open(&world.api(), &after).id, session.id);
    assert_eq!(session.sources(), ["x = 'renamed'"]);
    session.save(&json!({}));
    assert_eq!(notebook::text(&notebook::read(&after)["cells"][0]["source"]), "x = 'renamed'");

    let session = Session::open(&world.api(), &locked);
    set_mode(&folder, 0o555);
    session.set_source("cell-0", "x = 'locked'");
    wait_evicted(&session);
    assert_eq!(notebook::text(&notebook::read(&locked)["cells"][0]["source"]), "x = 1");
    set_mode(&folder, 0o755);
    assert_eq!(Session::open(&world.api(), &locked).id, session.id);
    assert_eq!(session.sources(), ["x = 'locked'"], "the edit came back with it");
    session.save(&json!({}));
    assert_eq!(notebook::text(&notebook::read(&locked)["cells"][0]["source"]), "x = 'locked'");
}

// C4: what an editor still sends while its session closes makes no copy and no session, now or after a restart.
#[test]
fn late_frames_bring_nothing_back() {
    let world = World::new();
    let mut daemon = world.daemon();
    for round in 0..6 {
        let path = world.notebook("n.ipynb", &["x = 1"]);
        let session = Session::open(&world.api(), &path);
        let mut peer = Peer::join(&session);
        let closed = std::thread::scope(|scope| {
            let typing = scope.spawn(|| {
                for _ in 0..200 {
                    peer.type_into("cell-0", 0, "#");
                }
            });
            let closed = session.close(true);
            typing.join().unwrap();
            closed
        });
        assert_eq!(closed["id"], json!(session.id));
        session.wait_closed();
        let bytes = fs::read(&path).unwrap();
        if round % 2 == 0 {
            daemon.kill();
            daemon = world.daemon();
        }
        assert_eq!(world.api().get("/v1/sessions"), json!([]));
        fs::remove_file(&path).unwrap();
        // What follows is served after all that: nothing was written meanwhile.
        let other = Session::open(&world.api(), &world.notebook("other.ipynb", &["y = 1"]));
        other.save(&json!({}));
        other.close(false);
        fs::remove_file(world.work().join("other.ipynb")).unwrap();
        let left: Vec<_> =
            fs::read_dir(world.work()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.is_empty(), "round {round}: {left:?}; it was {bytes:?}");
    }
}

// C9: no file can be opened any more. What is new is refused, what is open goes on, and all is well when there are some.
#[test]
fn without_descriptors() {
    let world = World::new();
    let daemon = world.daemon();
    let path = world.notebook("n.ipynb", &["x = 1"]);
    let session = Session::open(&world.api(), &path);
    let limit = |files: &str| {
        let pid = daemon.pid().to_string();
        let done = world.command("prlimit").args(["--pid", &pid, &format!("--nofile={files}")]).status();
        assert!(done.expect("prlimit (util-linux) is needed").success());
    };
    let before = fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let hard = before.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let hard = hard.split_whitespace().nth(4).unwrap().to_owned();
    // A few for clients, and none for new sessions.
    limit(&format!("{}:{hard}", process::open_files(daemon.pid()) + 8));
    let problem = world.api().refused("/v1/sessions/new", &world.untitled_spec());
    assert_eq!(problem["code"], "too-many-files", "{problem}");
    session.set_source("cell-0", "x = 2");
    session.save(&json!({}));
    // None at all but what a client gives back: whoever comes is served or told, at once, and the file stays whole.
    session.set_source("cell-0", "x = 3");
    limit(&format!("{}:{hard}", process::open_files(daemon.pid())));
    let ticks = process::find(daemon.pid()).unwrap().cpu_ticks;
    let clients: Vec<_> = (0..20).filter_map(|_| world.api().connect().ok()).collect();
    let answer = world.api().request("GET", &session.path(""), None);
    assert!(
        answer.status == 200 || answer.json()["code"] == "out-of-descriptors",
        "{} {}",
        answer.status,
        answer.json()
    );
    assert_eq!(notebook::read(&path)["cells"].as_array().unwrap().len(), 1);
    drop(clients);
    limit(&format!("{hard}:{hard}"));
    session.save(&json!({}));
    assert_eq!(notebook::text(&notebook::read(&path)["cells"][0]["source"]), "x = 3");
    drop(world.untitled());
    let spent = process::find(daemon.pid()).unwrap().cpu_ticks - ticks;
    assert!(spent < 300, "it did not spin: {spent} ticks");
}

// C9: no inotify for the daemon. Files are looked at; it is said; the kernel watches them again when it can.
#[test]
fn without_inotify() {
    let world = World::new();
    let go = world.root().join("go");
    // The limit is that of a user namespace of its own, and can be raised from inside alone.
    let script = format!(
        "echo 0 > /proc/sys/user/max_inotify_instances
        (while [ ! -e {0} ]; do sleep 0.1; done; echo 100 > /proc/sys/user/max_inotify_instances) &
        exec {1} serve",
        go.display(),
        world::binary().display()
    );
    let mut command = world.command("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", &script]);
    let _daemon = Daemon::wait_ready(Running::start(&mut command), &world.api());
    let path = world.notebook("n.ipynb", &["x = 1"]);
    let session = Session::open(&world.api(), &path);
    let edit = |source: &str| {
        let mut file = notebook::read(&path);
        file["cells"][0]["source"] = json!(source);
        fs::write(&path, file.to_string()).unwrap();
        eventually("it is taken over", within(PATIENCE), || (session.sources() == [source]).then_some(()));
    };
    let polled = || {
        let metrics = world.api().request("GET", "/metrics", None);
        let text = String::from_utf8(metrics.body).unwrap();
        let line =
            text.lines().find(|line| line.starts_with("outlive_file_watches_polled ")).map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next().map(str::to_owned)).unwrap()
    };
    edit("x = 'seen all the same'");
    assert_eq!(polled(), "1");
    let doctor: Value = world.api().get("/v1/doctor");
    assert!(doctor.to_string().contains("inotify"), "{doctor}");
    fs::write(&go, "").unwrap();
    eventually("the kernel watches", within(Duration::from_secs(90)), || (polled() == "0").then_some(()));
    edit("x = 'and seen again'");
}

// C1, C2: where names that differ by case are one file, and the file system keeps a spelling of its own: one winner, and
// each way to write the name leads to it, for ever.
#[test]
#[ignore = "needs /dev/fuse and the Debian package ntfs-3g; run it with --run-ignored all where they are"]
fn sessions_on_a_case_insensitive_directory() {
    let mut world = World::new();
    world.set("OUTLIVE_IDLE_TIMEOUT_S", "1");
    let (image, folding) = (world.root().join("image"), world.work().join("folding"));
    fs::create_dir(&folding).unwrap();
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    let mounts = format!(
        "PATH=$PATH:/usr/sbin:/sbin\nmkntfs -q -F {0} >&2\nlowntfs-3g -o ignore_case {0} {1} >&2",
        image.display(),
        folding.display()
    );
    let daemon = world.daemon_behind(&mounts);
    for n in 0..10 {
        let [asked, other] = ["Report", "rEPORT"].map(|name| folding.join(format!("{name}-{n}.ipynb")));
        let sessions = [world.untitled(), world.untitled()];
        let saved: Vec<_> = std::thread::scope(|scope| {
            let tries = sessions.iter().zip([&asked, &other]).map(|(session, path)| {
                scope.spawn(move || {
                    let body = json!({"path": path});
                    session.api().request("POST", &session.path("/save"), Some(&body))
                })
            });
            let tries: Vec<_> = tries.collect();
            tries.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let won = |n: usize| saved[n].status == 200;
        assert!(won(0) != won(1), "one wins: {:?} {:?}", saved[0].json(), saved[1].json());
        let (winner, loser) = if won(0) { (&sessions[0], &saved[1]) } else { (&sessions[1], &saved[0]) };
        let code = loser.json()["code"].clone();
        assert!(code == "path-already-open" || code == "file-exists", "{code}");
        let spellings = [asked.clone(), other.clone(), folding.join(format!("REPORT-{n}.ipynb"))];
        for path in &spellings {
            assert_eq!(Session::open(&world.api(), path).id, winner.id, "{}", path.display());
            assert_eq!(winner.save(&json!({"path": path}))["session_id"], json!(winner.id));
        }
        // Its path is the one that the directory shows, and stays its own when it comes back.
        let own = Path::new(winner.view()["path"].as_str().unwrap()).to_owned();
        let listed = world.seen_by(&daemon, &folding);
        let names: Vec<_> = fs::read_dir(listed).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.iter().any(|name| Some(&**name) == own.file_name()), "{names:?} {own:?}");
        wait_evicted(winner);
        for path in &spellings {
            assert_eq!(Session::open(&world.api(), path).id, winner.id, "{}", path.display());
        }
        assert_eq!(winner.view()["saved"]["state"], "saved");
        winner.close(false);
        sessions
            .iter()
            .filter(|session| session.id != winner.id)
            .for_each(|session| drop(session.close(true)));
    }
}
