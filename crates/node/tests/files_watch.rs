//! Watching real files, with the real inotify and without it.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use outlive_node::files::LocalFiles;
use outlive_node::seams::{FileHint, FileWatch, Files};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

fn desk() -> (TempDir, LocalFiles, PathBuf) {
    let place = TempDir::new().unwrap();
    let real = place.path().canonicalize().unwrap();
    let files = LocalFiles::new(real.join("claims"));
    (place, files, real)
}

async fn hint(watch: &mut Box<dyn FileWatch>) -> FileHint {
    timeout(Duration::from_secs(60), watch.changed()).await.expect("a hint comes")
}

/// Takes hints until this one. On a machine that is busy one change may be told in two.
async fn told(watch: &mut Box<dyn FileWatch>, wanted: FileHint) {
    while hint(watch).await != wanted {}
}

async fn told_of_a_change(watch: &mut Box<dyn FileWatch>) {
    told(watch, FileHint::Changed).await;
}

/// A watch that stands.
async fn standing(files: &LocalFiles, path: &Path) -> Box<dyn FileWatch> {
    let mut watch = files.watch(path);
    assert_eq!(hint(&mut watch).await, FileHint::Changed, "the first comes by itself");
    watch
}

// C5: whatever is done to a file is told, also when its inode is another one afterwards, and when it is not there.
#[tokio::test]
async fn what_is_done_to_a_file_is_told() {
    let (_place, files, real) = desk();
    let (path, aside) = (real.join("n.ipynb"), real.join("aside"));
    let mut watch = standing(&files, &path).await;
    fs::write(&path, "made").unwrap();
    told_of_a_change(&mut watch).await; // made
    fs::write(&path, "written in place").unwrap();
    told_of_a_change(&mut watch).await; // written
    fs::write(&aside, "replaced, as editors do").unwrap();
    fs::rename(&aside, &path).unwrap();
    told_of_a_change(&mut watch).await; // replaced
    let (_, stamp) = files.read(&path).await.unwrap();
    files.write(&path, b"saved, as we do".to_vec(), Some(stamp)).await.unwrap();
    told_of_a_change(&mut watch).await; // saved
    fs::remove_file(&path).unwrap();
    told_of_a_change(&mut watch).await; // removed
    fs::write(&path, "back").unwrap();
    told_of_a_change(&mut watch).await; // made again
    fs::write(&path, "and written").unwrap();
    told_of_a_change(&mut watch).await; // written again
    assert_eq!(files.watching().polled, 0, "the kernel told all that");
}

// C3: a rename underneath is told with the new name; an editor's backup is no rename.
#[tokio::test]
async fn a_rename_is_told_with_the_new_name() {
    let (_place, files, real) = desk();
    let [first, second, third] = ["1.ipynb", "2.ipynb", "3.ipynb"].map(|name| real.join(name));
    let elsewhere = TempDir::new().unwrap();
    fs::write(&first, "").unwrap();
    let mut watch = standing(&files, &first).await;
    fs::rename(&first, &second).unwrap();
    told(&mut watch, FileHint::Renamed(second.clone())).await;
    fs::rename(&second, &first).unwrap();
    told_of_a_change(&mut watch).await; // it is back
    fs::rename(&first, &second).unwrap();
    fs::rename(&second, &third).unwrap();
    told(&mut watch, FileHint::Renamed(third.clone())).await; // twice at once
    fs::rename(&third, &first).unwrap();
    told_of_a_change(&mut watch).await; // it is back

    fs::rename(&first, real.join("1.ipynb~")).unwrap();
    fs::write(&first, "the editor's").unwrap();
    told_of_a_change(&mut watch).await; // kept as a backup, and written anew

    fs::rename(&first, elsewhere.path().join("far.ipynb")).unwrap();
    told_of_a_change(&mut watch).await; // nobody watches where it went
    fs::rename(elsewhere.path().join("far.ipynb"), &first).unwrap();
    told_of_a_change(&mut watch).await; // it is back

    let _other = standing(&files, &elsewhere.path().join("any.ipynb")).await;
    fs::rename(&first, elsewhere.path().join("far.ipynb")).unwrap();
    let far = elsewhere.path().canonicalize().unwrap().join("far.ipynb");
    told(&mut watch, FileHint::Renamed(far)).await; // a directory that is watched too
}

// Who is told of a change reads the file: that must not tell of the next one.
#[tokio::test]
async fn reading_a_file_is_no_change() {
    let (_place, files, real) = desk();
    let [path, marker] = ["n.ipynb", "marker"].map(|name| real.join(name));
    fs::write(&path, "").unwrap();
    let mut watch = standing(&files, &path).await;
    let mut later = standing(&files, &marker).await;
    fs::read(&path).unwrap();
    files.read(&path).await.unwrap();
    files.stat(&path).await.unwrap();
    fs::write(&marker, "").unwrap();
    told_of_a_change(&mut later).await;
    // What had been heard before the marker would be told by now.
    assert!(timeout(Duration::from_millis(1), watch.changed()).await.is_err());
}

#[tokio::test]
async fn a_link_is_watched_where_it_leads() {
    let (_place, files, real) = desk();
    fs::create_dir(real.join("far")).unwrap();
    symlink("far/real.ipynb", real.join("link.ipynb")).unwrap();
    let mut watch = standing(&files, &real.join("link.ipynb")).await;
    fs::write(real.join("far/real.ipynb"), "made").unwrap();
    told_of_a_change(&mut watch).await;
    fs::rename(real.join("far/real.ipynb"), real.join("far/new.ipynb")).unwrap();
    assert_eq!(hint(&mut watch).await, FileHint::Renamed(real.join("far/new.ipynb")));
}

// C5: the directory may go, come back, be moved away and be replaced by another one.
#[tokio::test]
async fn a_directory_that_goes_and_comes_back() {
    let (_place, files, real) = desk();
    let (folder, away) = (real.join("folder"), real.join("away"));
    let path = folder.join("below/n.ipynb");
    let make = || {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
    };
    let mut watch = standing(&files, &path).await;
    assert_eq!(files.watching().polled, 1, "its directory is not there yet");
    assert_eq!(files.watching().why, None, "which is nothing that the machine lacks");
    for take_away in [
        |folder: &Path, _: &Path| fs::remove_dir_all(folder),
        |folder: &Path, away: &Path| fs::rename(folder.join("below"), away),
    ] {
        make();
        until(&files, &mut watch, &path, true).await;
        take_away(&folder, &away).unwrap();
        until(&files, &mut watch, &path, false).await;
    }
    make();
    until(&files, &mut watch, &path, true).await;
    while files.watching().polled > 0 {
        hint(&mut watch).await;
    }
    fs::write(&path, "by the kernel again").unwrap();
    told_of_a_change(&mut watch).await;
}

/// Takes hints until the file is there, or is not.
async fn until(files: &LocalFiles, watch: &mut Box<dyn FileWatch>, path: &Path, there: bool) {
    loop {
        hint(watch).await;
        if files.stat(path).await.unwrap().is_some() == there {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_that_does_not_end_is_told_all_the_same() {
    let (_place, files, real) = desk();
    let path = real.join("n.ipynb");
    fs::write(&path, "").unwrap();
    let mut watch = standing(&files, &path).await;
    let heard = AtomicBool::new(false);
    let (heard, told) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut writes = 0_u32;
            while !heard.load(Ordering::SeqCst) {
                fs::write(&path, writes.to_string()).unwrap();
                writes += 1;
            }
            writes
        });
        let began = Instant::now();
        let told = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                // Some calls are given up, as in a `select!`.
                while timeout(Duration::from_millis(20), watch.changed()).await.is_err() {}
                began.elapsed()
            })
        });
        heard.store(true, Ordering::SeqCst);
        (writer.join().unwrap(), told)
    });
    assert!(heard > 10, "it was a burst of {heard} writes");
    assert!(told >= Duration::from_millis(40), "not at its first write: {told:?}");
    assert!(told < Duration::from_secs(20), "{told:?}");
}

/// What a second half of a test finds: the directory to work in.
const INSIDE: &str = "OUTLIVE_TEST_INSIDE";

/// Runs a test of this file again in a user namespace with this limit of inotify.
fn with_limit(test: &str, limit: &str, place: &Path) {
    let script = format!("{limit} && exec \"$0\" --exact {test} --nocapture");
    let done = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(INSIDE, place)
        .output()
        .expect("unshare (util-linux) is needed");
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
}

// C9: without inotify files are looked at now and then, and it is said why.
#[test]
fn without_an_inotify_instance() {
    match std::env::var(INSIDE) {
        Ok(place) => block_on(looked_at_now_and_then(Path::new(&place))),
        Err(_) => {
            let place = TempDir::new().unwrap();
            let limit = "echo 0 > /proc/sys/user/max_inotify_instances";
            with_limit("without_an_inotify_instance", limit, place.path());
        }
    }
}

fn block_on<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

async fn looked_at_now_and_then(place: &Path) {
    let real = place.canonicalize().unwrap();
    let files = LocalFiles::new(real.join("claims"));
    let (path, moved) = (real.join("n.ipynb"), real.join("moved.ipynb"));
    let mut watch = standing(&files, &path).await;
    let state = files.watching();
    assert_eq!((state.watches, state.polled), (1, 1));
    assert!(state.why.as_ref().is_some_and(|why| why.contains("max_user_instances")), "{state:?}");
    fs::write(&path, "made").unwrap();
    told_of_a_change(&mut watch).await; // made
    fs::write(&path, "written in place").unwrap();
    told_of_a_change(&mut watch).await; // written
    fs::rename(&path, &moved).unwrap();
    told(&mut watch, FileHint::Renamed(moved)).await; // found by its inode
    fs::write(&path, "another").unwrap();
    told_of_a_change(&mut watch).await; // made
    fs::remove_file(&path).unwrap();
    told_of_a_change(&mut watch).await; // removed
}

// C9: the directories beyond the limit of watches are looked at, those below it are watched; one that is given back
// serves the next.
#[test]
fn with_one_watch_of_inotify() {
    match std::env::var(INSIDE) {
        Ok(place) => block_on(one_by_the_kernel_one_by_looks(Path::new(&place))),
        Err(_) => {
            let place = TempDir::new().unwrap();
            let limit = "echo 1 > /proc/sys/user/max_inotify_watches";
            with_limit("with_one_watch_of_inotify", limit, place.path());
        }
    }
}

async fn one_by_the_kernel_one_by_looks(place: &Path) {
    let real = place.canonicalize().unwrap();
    let files = LocalFiles::new(real.join("claims"));
    let [first, second, third] = ["a", "b", "c"].map(|name| real.join(name).join("n.ipynb"));
    for path in [&first, &second, &third] {
        fs::create_dir(path.parent().unwrap()).unwrap();
    }
    let mut by_kernel = standing(&files, &first).await;
    let _same_directory = standing(&files, &first.with_file_name("m.ipynb")).await;
    let mut by_looks = standing(&files, &second).await;
    let state = files.watching();
    assert_eq!((state.watches, state.polled), (3, 1));
    assert!(state.why.as_ref().is_some_and(|why| why.contains("max_user_watches")), "{state:?}");
    for (watch, path) in [(&mut by_kernel, &first), (&mut by_looks, &second)] {
        fs::write(path, "").unwrap();
        assert_eq!(hint(watch).await, FileHint::Changed, "{path:?}");
    }
    drop((by_kernel, _same_directory, by_looks));
    // What has ended is given back before something new begins.
    let _third = standing(&files, &third).await;
    let state = files.watching();
    assert_eq!((state.watches, state.polled, state.why), (1, 0, None));
}

// C9: one directory under two paths, of which the kernel tells by one only.
#[test]
fn one_directory_in_two_places() {
    match std::env::var(INSIDE) {
        Ok(place) => block_on(watched_in_two_places(Path::new(&place))),
        Err(_) => {
            let place = TempDir::new().unwrap();
            for name in ["a", "b"] {
                fs::create_dir(place.path().join(name)).unwrap();
            }
            let script = format!("mount --bind {0}/a {0}/b", place.path().display());
            with_limit("one_directory_in_two_places", &script, place.path());
        }
    }
}

async fn watched_in_two_places(place: &Path) {
    let real = place.canonicalize().unwrap();
    let files = LocalFiles::new(real.join("claims"));
    let [here, there] = ["a/n.ipynb", "b/n.ipynb"].map(|name| real.join(name));
    let mut watches = [standing(&files, &here).await, standing(&files, &there).await];
    fs::write(&here, "").unwrap();
    for watch in &mut watches {
        assert_eq!(hint(watch).await, FileHint::Changed);
    }
}

/// The inotify instances of this process and their watches.
fn inotify() -> (usize, usize) {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let ours: Vec<_> = descriptors
        .filter(|path| fs::read_link(path).is_ok_and(|link| link.as_os_str() == "anon_inode:inotify"))
        .collect();
    let watches = ours.iter().map(|path| {
        let number = path.file_name().unwrap().to_str().unwrap();
        let told = fs::read_to_string(Path::new("/proc/self/fdinfo").join(number)).unwrap();
        told.lines().filter(|line| line.starts_with("inotify wd")).count()
    });
    (ours.len(), watches.sum())
}

// C6: a thousand watches are one instance, and leave nothing behind. Counts descriptors, so alone in its process.
#[test]
fn a_thousand_watches_share_one_instance_and_leave_nothing() {
    match std::env::var(INSIDE) {
        Ok(place) => block_on(a_thousand_watches(Path::new(&place))),
        Err(_) => {
            let place = TempDir::new().unwrap();
            with_limit("a_thousand_watches_share_one_instance_and_leave_nothing", "true", place.path());
        }
    }
}

async fn a_thousand_watches(place: &Path) {
    let real = place.canonicalize().unwrap();
    let files = LocalFiles::new(real.join("claims"));
    let directories: Vec<_> = (0..50).map(|number| real.join(number.to_string())).collect();
    directories.iter().for_each(|directory| fs::create_dir(directory).unwrap());
    for _ in 0..2 {
        let mut watches = Vec::new();
        for number in 0..1_000 {
            watches.push(files.watch(&directories[number % 50].join(format!("{number}.ipynb"))));
        }
        for watch in &mut watches {
            assert_eq!(hint(watch).await, FileHint::Changed);
        }
        assert_eq!(inotify(), (1, 50));
        assert_eq!(files.watching().watches, 1_000);
        fs::write(directories[49].join("999.ipynb"), "").unwrap();
        assert_eq!(hint(&mut watches[999]).await, FileHint::Changed);
        drop(watches);
        // What has ended is given back before something new begins.
        let last = standing(&files, &directories[0].join("0.ipynb")).await;
        assert_eq!((inotify(), files.watching().watches), ((1, 1), 1));
        drop(last);
    }
}
