//! Watching with a kernel that refuses, breaks and recovers as the test says, and hints as the kernel's events make
//! them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Watching;
use super::board::Board;
use super::hint::LocalWatch;
use super::kernel::{Ear, Heard, Kernel, Refusal};
use super::thread::Periods;
use crate::seams::{FileHint, FileWatch, WatchState};

/// What the kernel of a test does, and what it was asked.
#[derive(Clone)]
struct Fake {
    refuses: Arc<Mutex<Option<Refusal>>>,
    asked: Sender<String>,
}

impl Fake {
    fn refuse(&self, refusal: Option<Refusal>) {
        *self.refuses.lock().unwrap() = refusal;
    }

    fn answer(&self) -> Result<(), Refusal> {
        self.refuses.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

impl Kernel for Fake {
    fn watch(&mut self, directory: &Path) -> Result<(), Refusal> {
        let answer = self.answer();
        self.asked.send(format!("watch {} {}", name(directory), answer.is_ok())).unwrap();
        answer
    }

    fn unwatch(&mut self, directory: &Path) {
        self.asked.send(format!("unwatch {}", name(directory))).unwrap();
    }
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// A directory with `a` and `b` in it, and a watcher over a fake kernel that says what it is asked.
fn desk() -> (tempfile::TempDir, PathBuf, Watching, Fake, Receiver<String>) {
    let place = tempfile::tempdir().unwrap();
    let real = place.path().canonicalize().unwrap();
    ["a", "b"].iter().for_each(|name| fs::create_dir(real.join(name)).unwrap());
    let (asked, calls) = channel();
    let fake = Fake { refuses: Arc::default(), asked };
    let watching = Watching::default();
    let made = fake.clone();
    let make = move |_: Ear| {
        made.asked.send("make".to_owned()).unwrap();
        Ok(Box::new(made.clone()) as Box<dyn Kernel>)
    };
    let periods = Periods { look: Duration::from_millis(10), retry: Duration::from_millis(50) };
    watching.start(|| Box::new(make), periods);
    (place, real, watching, fake, calls)
}

async fn hint(watch: &mut dyn FileWatch) -> FileHint {
    tokio::time::timeout(Duration::from_secs(60), watch.changed()).await.expect("a hint comes")
}

/// Waits for one of the questions to the kernel.
fn until(calls: &Receiver<String>, wanted: &str) -> Vec<String> {
    let mut before = Vec::new();
    loop {
        let call = calls.recv_timeout(Duration::from_secs(60)).unwrap();
        if call == wanted {
            return before;
        }
        before.push(call);
    }
}

fn state(watches: usize, polled: usize, why: Option<&str>) -> WatchState {
    WatchState { watches, polled, why: why.map(str::to_owned) }
}

// C9: what the kernel refuses is asked for again, and taken when it is there.
#[tokio::test]
async fn a_kernel_that_can_watch_again_does() {
    let (_place, real, watching, fake, calls) = desk();
    fake.refuse(Some(Refusal::Cannot("full".to_owned())));
    let path = real.join("a/n.ipynb");
    let mut watch = watching.watch(&path);
    hint(&mut *watch).await;
    assert_eq!(watching.state(), state(1, 1, Some("full")));
    fs::write(&path, "").unwrap();
    assert_eq!(hint(&mut *watch).await, FileHint::Changed, "it is looked at meanwhile");
    fake.refuse(None);
    until(&calls, "watch a true");
    assert_eq!(
        hint(&mut *watch).await,
        FileHint::Changed,
        "what happened while it changed over is found by looking"
    );
    assert_eq!(watching.state(), state(1, 0, None));
    drop(watch);
    assert_eq!(until(&calls, "unwatch a"), Vec::<String>::new());
}

// C9: a listener that has ended takes all its watches with it; another one is made.
#[tokio::test]
async fn a_kernel_that_breaks_is_made_anew() {
    let (_place, real, watching, fake, calls) = desk();
    let mut first = watching.watch(&real.join("a/n.ipynb"));
    hint(&mut *first).await;
    until(&calls, "watch a true");
    fake.refuse(Some(Refusal::Broken));
    let mut second = watching.watch(&real.join("b/n.ipynb"));
    hint(&mut *second).await;
    assert_eq!((watching.state().watches, watching.state().polled), (2, 2));
    fake.refuse(None);
    let asked = [until(&calls, "watch a true"), until(&calls, "watch b true")].concat();
    assert!(asked.contains(&"make".to_owned()), "{asked:?}");
    for watch in [&mut first, &mut second] {
        assert_eq!(
            hint(&mut **watch).await,
            FileHint::Changed,
            "something may have been missed between the two"
        );
    }
    assert_eq!(watching.state(), state(2, 0, None));
}

#[tokio::test]
async fn files_of_one_directory_share_its_watch() {
    let (_place, real, watching, _fake, calls) = desk();
    let mut watches: Vec<_> =
        ["a/1", "a/2", "a/2", "b/1"].map(|path| watching.watch(&real.join(path))).into();
    for watch in &mut watches {
        hint(&mut **watch).await;
    }
    let asked: Vec<_> = calls.try_iter().filter(|call| call.starts_with("watch")).collect();
    assert_eq!(asked, ["watch a true", "watch b true"]);
    watches.drain(1..);
    assert_eq!(until(&calls, "unwatch b"), Vec::<String>::new(), "a is still watched for one file");
    watches.clear();
    until(&calls, "unwatch a");
    assert_eq!(watching.state(), state(0, 0, None));
}

// C5: a directory whose path leads to another one now is noticed although no event tells of it.
#[tokio::test]
async fn a_directory_that_was_replaced_from_above_is_noticed() {
    let (_place, real, watching, _fake, calls) = desk();
    let below = real.join("a/below");
    fs::create_dir(&below).unwrap();
    let mut watch = watching.watch(&below.join("n.ipynb"));
    hint(&mut *watch).await;
    until(&calls, "watch below true");
    fs::rename(real.join("a"), real.join("away")).unwrap();
    assert_eq!(hint(&mut *watch).await, FileHint::Changed, "it is gone");
    assert_eq!(watching.state(), state(1, 1, None));
    fs::create_dir_all(&below).unwrap();
    until(&calls, "watch below true");
    assert_eq!(hint(&mut *watch).await, FileHint::Changed);
}

/// A watch on `/d/n` whose kernel is the test.
fn heard_by_hand() -> (Arc<Board>, LocalWatch) {
    let board = Arc::new(Board::default());
    let slot = board.register(Path::new("/d/n"));
    let held = super::board::Held::ByKernel((1, 1));
    let files = vec![super::board::Watched { path: "/d/n".into(), slot: Arc::clone(&slot) }];
    board.lock().directories.insert("/d".into(), super::board::Directory { held, files });
    let watch = LocalWatch { slot, board: Arc::clone(&board) };
    (board, watch)
}

fn renamed(from: &str, to: &str) -> [Heard; 3] {
    let [from, to] = [from, to].map(PathBuf::from);
    [Heard::Gone(from.clone()), Heard::Touched(to.clone()), Heard::Renamed { from, to }]
}

#[tokio::test]
async fn what_follows_a_rename_within_a_burst() {
    let touched = |path: &str| vec![Heard::Touched(path.into())];
    let gone = |path: &str| vec![Heard::Gone(path.into())];
    let to = |path: &str| FileHint::Renamed(path.into());
    for (burst, wanted) in [
        (vec![renamed("/d/n", "/d/m").to_vec()], to("/d/m")),
        (vec![renamed("/d/n", "/d/m").to_vec(), touched("/d/m")], to("/d/m")),
        (vec![renamed("/d/n", "/d/m").to_vec(), renamed("/d/m", "/d/k").to_vec()], to("/d/k")),
        // An editor's backup.
        (vec![renamed("/d/n", "/d/n~").to_vec(), touched("/d/n"), gone("/d/n~")], FileHint::Changed),
        (vec![renamed("/d/n", "/d/m").to_vec(), renamed("/d/m", "/d/n").to_vec()], FileHint::Changed),
        (vec![renamed("/d/n", "/d/m").to_vec(), gone("/d/m")], FileHint::Changed),
        (vec![vec![Heard::Missed], renamed("/d/n", "/d/m").to_vec()], FileHint::Rescan),
        (vec![touched("/d/other"), touched("/d/n"), touched("/e/n")], FileHint::Changed),
    ] {
        let (board, mut watch) = heard_by_hand();
        burst.iter().flatten().for_each(|heard| board.hear(heard));
        assert_eq!(hint(&mut watch).await, wanted, "{burst:?}");
    }
}

// A call that was given up has taken nothing.
#[tokio::test]
async fn a_hint_survives_a_call_that_is_given_up() {
    let (board, mut watch) = heard_by_hand();
    renamed("/d/n", "/d/m").iter().for_each(|heard| board.hear(heard));
    for _ in 0..5 {
        let ended = tokio::time::timeout(Duration::from_millis(1), watch.changed()).await;
        if let Ok(hint) = ended {
            return assert_eq!(hint, FileHint::Renamed("/d/m".into()), "on a machine that is slow enough");
        }
    }
    assert_eq!(hint(&mut watch).await, FileHint::Renamed("/d/m".into()));
}
