//! Places that a notebook cannot be written to, as they really are.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use outlive_protocol::http::{SaveHow, SaveSession, SavedState};

use super::notebook;
use super::world::{World, life};

/// The directory that a test's second half finds inside of a namespace where the faults are real.
const INSIDE: &str = "OUTLIVE_TEST_FAULTY_PLACES";

/// The beginning of a notebook's cells with one more.
const THEIRS: &str =
    r#""cells": [{"cell_type": "markdown", "id": "theirs", "metadata": {}, "source": ["theirs"]},"#;

#[test]
fn places_that_cannot_be_written() {
    // C3
    if let Ok(directory) = std::env::var(INSIDE) {
        return life(on_faulty_places(Path::new(&directory)));
    }
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("frozen")).unwrap();
    fs::write(directory.path().join("frozen/n.ipynb"), notebook(&["old"])).unwrap();
    let script = "set -e
        mkdir $D/small
        mount -t tmpfs -o size=64k none $D/small
        mount --bind $D/frozen $D/frozen
        mount -o remount,ro,bind $D/frozen
        exec \"$0\" --exact session::task::file::tests::faults::places_that_cannot_be_written --nocapture";
    let done = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .env("D", directory.path())
        .env(INSIDE, directory.path())
        .output()
        .expect("unshare (util-linux) is needed");
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

async fn on_faulty_places(directory: &Path) {
    let world = World::new();
    let daemon = world.daemon();
    let large = "x".repeat(200_000);
    let id = daemon.new_notebook(&large).await;
    let names = |place: &str| fs::read_dir(directory.join(place)).unwrap().count();

    let full = directory.join("small/n.ipynb");
    let problem = daemon.save_as(id, &full, SaveHow::Save).await.unwrap_err();
    assert_eq!(problem.code, "disk-full", "{problem}");
    assert!(problem.hint.is_some());
    assert_eq!(names("small"), 0, "neither the file nor a temporary one");
    let problem = daemon.save_as(id, &directory.join("frozen/new.ipynb"), SaveHow::Save).await.unwrap_err();
    assert!(matches!(problem.code.as_str(), "read-only" | "not-writable"), "{problem}");
    let view = daemon.view(id);
    assert!(view.untitled && view.path.is_none(), "it is where it was");
    assert_eq!(daemon.sources(id).await, [large.as_str()]);
    assert_eq!(world.claims(), 0);
    // Given back: the same path can be had once there is room.
    let cell = daemon.notebook(id).await.cells[0].id.clone();
    daemon.set_source(id, &cell, "small").await;
    daemon.save_as(id, &full, SaveHow::Save).await.unwrap();

    // A file that does not fit any more stays whole, and is written once it fits.
    daemon.set_source(id, &cell, &large).await;
    assert_eq!(daemon.save(id, SaveSession::default()).await.unwrap_err().code, "disk-full");
    assert!(fs::read_to_string(&full).unwrap().contains("small"));
    assert!(matches!(daemon.view(id).saved, Some(SavedState::Failing { .. })));
    assert_eq!(daemon.close(id, false).await.unwrap_err().code, "unsaved");
    assert_eq!(names("small"), 1);
    daemon.set_source(id, &cell, "fits").await;
    daemon.clock.advance(60_000);
    daemon.until_saved(id).await;
    assert!(fs::read_to_string(&full).unwrap().contains("fits"));

    // Save as, to where it cannot be: it stays at its file, which goes on being saved.
    let frozen = directory.join("frozen/other.ipynb");
    daemon.save_as(id, &frozen, SaveHow::SaveAs).await.unwrap_err();
    assert_eq!(daemon.view(id).path.as_deref(), full.to_str());
    daemon.set_source(id, &cell, "still here").await;
    daemon.save(id, SaveSession::default()).await.unwrap();
    assert!(fs::read_to_string(&full).unwrap().contains("still here"));

    // What could not be written is not in the file, also when another program has only touched that: an edit of theirs
    // takes nothing of ours away.
    daemon.set_source(id, &cell, &large).await;
    assert_eq!(daemon.save(id, SaveSession::default()).await.unwrap_err().code, "disk-full");
    fs::File::options().append(true).open(&full).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(daemon.save(id, SaveSession::default()).await.unwrap_err().code, "disk-full");
    let theirs = fs::read_to_string(&full).unwrap().replace("\"cells\": [", THEIRS);
    fs::write(&full, theirs).unwrap();
    daemon.until_source(id, "theirs").await;
    assert_eq!(daemon.sources(id).await, ["theirs", &large]);
    daemon.set_source(id, &cell, "still here").await;
    daemon.save(id, SaveSession::default()).await.unwrap();

    // A notebook on a read-only file system is opened; what is edited is kept, and said to be in no file.
    let opened = daemon.open(&directory.join("frozen/n.ipynb")).await.unwrap().session_id;
    daemon.set_source(opened, "a", "edited").await;
    let problem = daemon.save(opened, SaveSession::default()).await.unwrap_err();
    assert!(matches!(problem.code.as_str(), "read-only" | "not-writable"), "{problem}");
    assert!(matches!(daemon.view(opened).saved, Some(SavedState::Failing { .. })));
    let elsewhere = world.path("moved.ipynb");
    daemon.save_as(opened, &elsewhere, SaveHow::SaveAs).await.unwrap();
    assert!(fs::read_to_string(&elsewhere).unwrap().contains("edited"));
}
