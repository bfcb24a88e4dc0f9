//! A notebook's path leads to something else than it did: a link has come in its place or above it, or a directory was
//! moved, removed or made anew.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use outlive_core::id::SessionId;
use outlive_protocol::http::{FileConflict, SaveHow, SaveSession, SavedState};
use uuid::Uuid;

use super::notebook;
use super::world::{World, life};
use crate::files::LocalFiles;
use crate::seams::{ClaimError, Files};

fn is_conflict(saved: &Option<SavedState>, wanted: FileConflict) -> bool {
    matches!(saved, Some(SavedState::Conflict { conflict, .. }) if *conflict == wanted)
}

/// Who has a path, as another daemon on this machine is told.
async fn holder(world: &World, path: &Path) -> Option<SessionId> {
    let claims = world.path("").ancestors().nth(1).unwrap().join("claims");
    match LocalFiles::new(claims).claim(path, SessionId::from_uuid(Uuid::from_u128(7))).await {
        Err(ClaimError::Held { session, .. }) => Some(session),
        Ok(_) => None,
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn nothing_is_written_or_read_through_a_link_that_has_come_in_a_notebooks_place() {
    // C2
    let world = World::new();
    let daemon = world.daemon();
    let (a, b) = (world.path("a.ipynb"), world.path("b.ipynb"));
    fs::write(&a, notebook(&["of a"])).unwrap();
    fs::write(&b, notebook(&["of b"])).unwrap();
    let (of_a, of_b) = (daemon.open(&a).await.unwrap().session_id, daemon.open(&b).await.unwrap().session_id);
    daemon.set_source(of_a, "a", "of a, edited").await;
    fs::remove_file(&a).unwrap();
    symlink(&b, &a).unwrap();
    daemon.until(of_a, |view| is_conflict(&view.saved, FileConflict::Elsewhere)).await;
    daemon.clock.advance(60_000);
    // Whoever asks is told; also one who would replace what is there.
    for overwrite in [false, true] {
        let refused =
            daemon.save(of_a, SaveSession { overwrite, ..SaveSession::default() }).await.unwrap_err();
        assert_eq!(refused.code, "file-changed", "{refused:?}");
        assert!(refused.detail.contains(b.to_str().unwrap()), "it says where the path leads: {refused:?}");
    }
    assert_eq!(daemon.sources(of_a).await, ["of a, edited"], "nothing of the other notebook is taken over");
    assert_eq!(fs::read_to_string(&b).unwrap(), notebook(&["of b"]), "and nothing written into it");
    assert_eq!(daemon.sources(of_b).await, ["of b"]);
    // The way out: another path. Or the link goes.
    daemon.save_as(of_a, &world.path("c"), SaveHow::SaveAs).await.unwrap();
    assert!(fs::read_to_string(world.path("c.ipynb")).unwrap().contains("of a, edited"));
    fs::remove_file(world.path("c.ipynb")).unwrap();
    symlink(&b, world.path("c.ipynb")).unwrap();
    daemon.until(of_a, |view| is_conflict(&view.saved, FileConflict::Elsewhere)).await;
    fs::remove_file(world.path("c.ipynb")).unwrap();
    daemon.until(of_a, |view| is_conflict(&view.saved, FileConflict::Deleted)).await;
    daemon.save(of_a, SaveSession::default()).await.unwrap();
    assert!(!world.path("c.ipynb").is_symlink());
}

#[test]
fn a_session_that_comes_back_to_a_link_in_its_place_takes_nothing_over() {
    // C2
    let world = World::new();
    let (a, b) = (world.path("a.ipynb"), world.path("b.ipynb"));
    fs::write(&a, notebook(&["of a"])).unwrap();
    fs::write(&b, notebook(&["of b"])).unwrap();
    let id = life(async {
        let daemon = world.daemon();
        let id = daemon.open(&a).await.unwrap().session_id;
        daemon.set_source(id, "a", "of a, edited").await;
        id
    });
    fs::remove_file(&a).unwrap();
    symlink(&b, &a).unwrap();
    life(async {
        let daemon = world.daemon();
        for source in ["edited again", "and again"] {
            // Whose notebook is edited wants to know what others do to its file.
            daemon.set_source(id, "a", source).await;
            daemon.until(id, |view| is_conflict(&view.saved, FileConflict::Elsewhere)).await;
            daemon.clock.advance(60_000);
            let refused = daemon.save(id, SaveSession::default()).await.unwrap_err();
            assert_eq!(refused.code, "file-changed", "{refused:?}");
            assert_eq!(daemon.sources(id).await, [source], "nothing of the other notebook is taken over");
        }
        assert_eq!(fs::read_to_string(&b).unwrap(), notebook(&["of b"]), "and nothing written into it");
    });
}

#[tokio::test]
async fn a_directory_that_became_a_link_to_another_is_not_written_through() {
    // C2
    let world = World::new();
    let daemon = world.daemon();
    for directory in ["r1", "r2"] {
        fs::create_dir(world.path(directory)).unwrap();
        fs::write(world.path(directory).join("n.ipynb"), notebook(&[directory])).unwrap();
    }
    let path = world.path("r1/n.ipynb");
    let id = daemon.open(&path).await.unwrap().session_id;
    fs::rename(world.path("r1"), world.path("r1old")).unwrap();
    symlink(world.path("r2"), world.path("r1")).unwrap();
    daemon.set_source(id, "a", "edited").await;
    let refused = daemon.save(id, SaveSession::default()).await.unwrap_err();
    assert_eq!(refused.code, "file-changed", "{refused:?}");
    assert!(is_conflict(&daemon.view(id).saved, FileConflict::Elsewhere));
    assert_eq!(fs::read_to_string(world.path("r2/n.ipynb")).unwrap(), notebook(&["r2"]));
    // What it had is where its directory is now, and nobody keeps it from that.
    let overwrite = SaveSession {
        path: world.path("r1old/n.ipynb").to_str().map(str::to_owned),
        how: SaveHow::SaveAs,
        overwrite: true,
    };
    daemon.save(id, overwrite).await.unwrap();
    assert!(fs::read_to_string(world.path("r1old/n.ipynb")).unwrap().contains("edited"));
}

#[tokio::test]
async fn a_directory_that_was_made_anew_is_claimed_anew() {
    // C2: as a checkout of another branch and back makes it
    let world = World::new();
    let daemon = world.daemon();
    let directory = world.path("p");
    let path = directory.join("n.ipynb");
    fs::create_dir(&directory).unwrap();
    fs::write(&path, notebook(&["1"])).unwrap();
    let id = daemon.open(&path).await.unwrap().session_id;
    // The old one stays somewhere, so that the new one is surely not the same inode.
    fs::rename(&directory, world.path("away")).unwrap();
    fs::create_dir(&directory).unwrap();
    fs::write(&path, notebook(&["of the branch"])).unwrap();
    daemon.set_source(id, "a", "ours").await;
    daemon.save(id, SaveSession::default()).await.unwrap();
    assert_eq!(holder(&world, &path).await, Some(id), "for every daemon of this machine");
    assert_eq!(holder(&world, &world.path("away/n.ipynb")).await, None, "what it is not at is nobody's");
    assert_eq!(world.claims(), 1);
}

#[tokio::test]
async fn a_path_that_somebody_else_has_by_now_is_not_written() {
    // C2
    let world = World::new();
    let daemon = world.daemon();
    let directory = world.path("p");
    let path = directory.join("n.ipynb");
    fs::create_dir(&directory).unwrap();
    fs::write(&path, notebook(&["1"])).unwrap();
    let id = daemon.open(&path).await.unwrap().session_id;
    fs::rename(&directory, world.path("away")).unwrap();
    fs::create_dir(&directory).unwrap();
    fs::write(&path, notebook(&["theirs"])).unwrap();
    let claims = LocalFiles::new(world.path("").ancestors().nth(1).unwrap().join("claims"));
    let theirs = claims.claim(&path, SessionId::from_uuid(Uuid::from_u128(7))).await.unwrap();
    daemon.set_source(id, "a", "ours").await;
    let refused = daemon.save(id, SaveSession::default()).await.unwrap_err();
    assert_eq!(refused.code, "path-already-open", "{refused:?}");
    assert!(is_conflict(&daemon.view(id).saved, FileConflict::Claimed));
    assert_eq!(fs::read_to_string(&path).unwrap(), notebook(&["theirs"]));
    drop(theirs);
    daemon.save(id, SaveSession::default()).await.unwrap();
    assert!(fs::read_to_string(&path).unwrap().contains("ours"));
}

#[tokio::test]
async fn a_session_whose_directory_was_renamed_can_be_saved_there_and_others_can_open_what_is_there() {
    // C2
    let world = World::new();
    let daemon = world.daemon();
    for name in ["n.ipynb", "m.ipynb"] {
        fs::create_dir_all(world.path("q")).unwrap();
        fs::write(world.path("q").join(name), notebook(&[name])).unwrap();
    }
    let n = daemon.open(&world.path("q/n.ipynb")).await.unwrap().session_id;
    let m = daemon.open(&world.path("q/m.ipynb")).await.unwrap().session_id;
    fs::rename(world.path("q"), world.path("q2")).unwrap();
    daemon.until(n, |view| is_conflict(&view.saved, FileConflict::Deleted)).await;
    let there = SaveSession {
        path: world.path("q2/n.ipynb").to_str().map(str::to_owned),
        how: SaveHow::SaveAs,
        overwrite: true,
    };
    assert_eq!(daemon.save(n, there).await.unwrap().session_id, n);
    assert_eq!(daemon.open(&world.path("q2/n.ipynb")).await.unwrap().session_id, n);
    let other = daemon.open(&world.path("q2/m.ipynb")).await.unwrap().session_id;
    assert_ne!(other, m);
    // The one that was there does not come between.
    daemon.save(m, SaveSession::default()).await.unwrap_err();
    assert_eq!(fs::read_to_string(world.path("q2/m.ipynb")).unwrap(), notebook(&["m.ipynb"]));
}
