//! Two sessions want one path.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;

use outlive_e2e::{Daemon, Response, Running, Session, World, notebook};
use serde_json::json;

/// Two ways to write one path that does not exist yet; the second column needs what [`prepare`] makes.
fn spellings(work: &Path, n: usize) -> [PathBuf; 2] {
    let plain = work.join(format!("folder/target-{n}.ipynb"));
    let other = match n % 5 {
        0 => plain.clone(),
        1 => work.join(format!("link-to-folder/target-{n}.ipynb")),
        2 => work.join(format!("folder/../folder/target-{n}.ipynb")),
        3 => work.join(format!("dangling-{n}.ipynb")),
        _ => work.join(format!("folder/target-{n}")),
    };
    [plain, other]
}

fn prepare(work: &Path, n: usize) {
    if n % 5 == 3 {
        symlink(work.join(format!("folder/target-{n}.ipynb")), work.join(format!("dangling-{n}.ipynb")))
            .unwrap();
    }
}

// C2: a hundred tries, the path spelt differently by the two: one wins; the loser's error names the holder; the file is
// the winner's, the loser's notebook is what it was and can be saved elsewhere.
#[test]
fn two_untitled_sessions_race_for_one_path() {
    let world = World::new();
    let _daemon = world.daemon();
    let work = world.work();
    fs::create_dir(work.join("folder")).unwrap();
    symlink(work.join("folder"), work.join("link-to-folder")).unwrap();
    for n in 0..100 {
        prepare(&work, n);
        let mut paths = spellings(&work, n);
        if n % 2 == 1 {
            paths.reverse();
        }
        let sessions = [0, 1].map(|who| {
            let session = world.untitled();
            session.add_cell(&format!("whose = 'session {who} of try {n}'"));
            session
        });
        let [first, second] = race(&sessions, &paths);
        let winner = match (first.status, second.status) {
            (200..=299, 400..) => 0,
            (400.., 200..=299) => 1,
            _ => panic!("try {n}: {first:?} {second:?}"),
        };
        let (won, lost) = (&sessions[winner], &sessions[1 - winner]);
        let problem = [&first, &second][1 - winner].json();
        let file = work.join(format!("folder/target-{n}.ipynb"));
        assert_eq!(problem["code"], "path-already-open", "try {n}: {problem}");
        assert_eq!(problem["facts"]["session"], won.id, "{problem}");
        assert_eq!(problem["facts"]["path"], json!(file), "{problem}");
        let said = problem["detail"].as_str().unwrap();
        assert!(said.contains(&won.id) && said.contains(&*file.to_string_lossy()), "{said}");

        let sources = |session: &Session| session.sources();
        let written = notebook::read(&file);
        let written: Vec<_> =
            written["cells"].as_array().unwrap().iter().map(|cell| notebook::text(&cell["source"])).collect();
        assert_eq!(written, sources(won), "try {n}: the file is the winner's");
        let view = lost.view();
        assert_eq!((&view["untitled"], &view["path"]), (&json!(true), &json!(null)), "{view}");
        assert!(sources(lost).last().unwrap().contains(&format!("session {} of try {n}", 1 - winner)));
        if n % 10 == 0 {
            let elsewhere = work.join(format!("elsewhere-{n}.ipynb"));
            assert_eq!(lost.save(&json!({"path": elsewhere}))["path"], json!(elsewhere));
            lost.close(false);
        } else {
            lost.close(true);
        }
        won.close(false);
    }
}

fn race(sessions: &[Session; 2], paths: &[PathBuf; 2]) -> [Response; 2] {
    let start = Barrier::new(2);
    let save = |who: usize| {
        let body = json!({"path": paths[who]});
        start.wait();
        sessions[who].api().request("POST", &sessions[who].path("/save"), Some(&body))
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| save(1));
        [save(0), other.join().unwrap()]
    })
}

// C2: many clients open one file at the same moment: they join one session, and one kernel is launched.
#[test]
fn concurrent_opens_join_one_session() {
    let world = World::new();
    let _daemon = world.daemon();
    let path = world.notebook("shared.ipynb", &["import os; print(os.getpid())"]);
    symlink(&path, world.work().join("alias.ipynb")).unwrap();
    let spelt = [path, world.work().join("alias.ipynb"), world.work().join("./shared")];
    let start = Barrier::new(12);
    let open = |path: &Path| {
        start.wait();
        Session::open(&world.api(), path)
    };
    let (open, spelt) = (&open, &spelt);
    let opened: Vec<Session> = thread::scope(|scope| {
        let clients = (0..12).map(|n| scope.spawn(move || open(&spelt[n % 3]))).collect::<Vec<_>>();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert!(opened.iter().all(|session| session.id == opened[0].id), "{opened:#?}");
    let pids: Vec<String> = opened[..3].iter().map(|session| session.run_cell("cell-0").stdout()).collect();
    assert!(pids.iter().all(|pid| *pid == pids[0]), "one kernel: {pids:?}");
    assert_eq!(opened[0].view()["runtime"]["incarnation"], 1);
}

// C2: a file that another daemon on this machine has open is refused by name, whatever directories the two have.
#[test]
fn a_file_that_another_daemon_has_is_refused() {
    let (mut ours, mut theirs) = (World::new(), World::new());
    let claims = tempfile::tempdir().unwrap();
    for world in [&mut ours, &mut theirs] {
        world.set("OUTLIVE_CLAIMS_DIR", claims.path().to_string_lossy());
    }
    let (_one, other) = (ours.daemon(), theirs.daemon());
    let path = ours.notebook("one.ipynb", &["print('theirs')"]);
    let before = fs::read(&path).unwrap();
    let _holder = Session::open(&theirs.api(), &path);
    let problem = ours.api().refused("/v1/sessions/open", &json!({"path": path}));
    assert_eq!(problem["code"], "path-already-open", "{problem}");
    assert_eq!(problem["facts"]["pid"], other.pid().to_string(), "{problem}");
    let session = ours.untitled();
    session.add_cell("print('ours')");
    let problem = session.save_refused(&json!({"path": path, "overwrite": true}));
    assert_eq!(problem["code"], "path-already-open", "{problem}");
    assert_eq!(fs::read(&path).unwrap(), before);
    other.kill();
    let _joined = Session::open(&ours.api(), &path);
}

// C2: nobody says where claims are: neither settings nor a login's variables part two daemons of one user.
#[test]
fn two_daemons_of_one_user_meet_whatever_their_environment_says() {
    let (ours, theirs) = (World::new(), World::new());
    let serve = |world: &World, variables: &[(&str, &Path)]| {
        let mut command = world.outlive(&["serve"]);
        command.env_remove("OUTLIVE_CLAIMS_DIR").envs(variables.iter().copied());
        Daemon::wait_ready(Running::start(&mut command), &world.api())
    };
    // As after a login, and as cron starts it.
    let login = ours.root().join("login");
    fs::create_dir(&login).unwrap();
    let _one = serve(&ours, &[("XDG_RUNTIME_DIR", &login)]);
    let _other = serve(&theirs, &[("TMPDIR", &theirs.root().join("tmp"))]);
    let path = ours.notebook("one.ipynb", &["print('theirs')"]);
    let holder = Session::open(&theirs.api(), &path);
    let problem = ours.api().refused("/v1/sessions/open", &json!({"path": path}));
    assert_eq!(problem["code"], "path-already-open", "{problem}");
    assert!(problem["hint"].as_str().unwrap().contains(&holder.id), "{problem}");
    holder.close(false);
    Session::open(&ours.api(), &path).close(false);
}
