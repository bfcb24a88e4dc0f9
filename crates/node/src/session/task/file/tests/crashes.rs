//! A daemon that is killed at each step of a save, and the one that comes after it.

use std::fs;

use outlive_core::id::SessionId;
use outlive_protocol::http::{SaveHow, SaveSession};

use super::notebook;
use super::world::{Doom, PATIENCE, World, life};
use crate::node;
use crate::session::open;

/// More than any of these saves takes.
const STEPS_MAX: usize = 100;

/// Saves with a daemon that is killed before each of its steps in turn; `check` is given the next one. Returns how many
/// steps there are.
fn at_each_step(
    begin: impl AsyncFn(&World, &super::world::Daemon) -> SessionId,
    save: impl AsyncFn(&World, &super::world::Daemon, SessionId),
    check: impl AsyncFn(&World, &super::world::Daemon, SessionId, bool),
) -> usize {
    for step in 0..STEPS_MAX {
        let world = World::new();
        let (id, done) = life(async {
            let doom = Doom::default();
            let daemon = world.doomed(doom.clone());
            let id = begin(&world, &daemon).await;
            doom.after(step);
            tokio::select! {
                biased;
                () = doom.over() => (id, false),
                () = save(&world, &daemon, id) => (id, true),
            }
        });
        assert_eq!(world.claims_held(), 0, "a claim goes with its daemon");
        life(async {
            let daemon = world.daemon();
            node::recover(&daemon.context).await.unwrap();
            drop(open::wake(&daemon.context, id).await.unwrap());
            check(&world, &daemon, id, done).await;
        });
        // And once more, after a quiet life.
        life(async {
            let daemon = world.daemon();
            drop(open::wake(&daemon.context, id).await.unwrap());
            check(&world, &daemon, id, done).await;
        });
        if done {
            return step;
        }
    }
    panic!("the save never ended");
}

#[test]
fn a_first_save_that_is_cut_off_happened_or_did_not() {
    // C4
    let steps = at_each_step(
        async |_, daemon| daemon.new_notebook("precious").await,
        async |world, daemon, id| {
            daemon.save_as(id, &world.path("n.ipynb"), SaveHow::Save).await.unwrap();
        },
        async |world, daemon, id, done| {
            let path = world.path("n.ipynb");
            let view = daemon.view(id);
            assert_eq!(daemon.sources(id).await, ["precious"]);
            match view.path {
                Some(at) => {
                    assert_eq!(at, path.display().to_string());
                    assert!(fs::read_to_string(&path).unwrap().contains("precious"));
                    assert_eq!(daemon.open(&path).await.unwrap().session_id, id);
                    assert!(!view.untitled);
                }
                None => {
                    assert!(!done, "what was answered is so");
                    assert!(view.untitled);
                    assert_eq!(world.names(), Vec::<String>::new(), "nothing is half there");
                    assert_eq!(world.claims(), 0);
                    return;
                }
            }
            assert_eq!((world.names(), world.claims()), (vec!["n.ipynb".to_owned()], 1));
        },
    );
    assert!(steps >= 6, "claim, fact, write, fact, index and more: {steps}");
}

#[test]
fn a_save_as_that_is_cut_off_happened_or_did_not() {
    // C4
    at_each_step(
        async |world, daemon| {
            fs::write(world.path("old.ipynb"), notebook(&["1"])).unwrap();
            let id = daemon.open(&world.path("old.ipynb")).await.unwrap().session_id;
            daemon.set_source(id, "a", "edited").await;
            id
        },
        async |world, daemon, id| {
            daemon.save_as(id, &world.path("new.ipynb"), SaveHow::SaveAs).await.unwrap();
        },
        async |world, daemon, id, done| {
            let (old, new) = (world.path("old.ipynb"), world.path("new.ipynb"));
            let path = daemon.view(id).path.unwrap();
            assert_eq!(daemon.sources(id).await, ["edited"]);
            assert!(done <= (path == new.display().to_string()), "what was answered is so");
            if path == new.display().to_string() {
                assert!(fs::read_to_string(&new).unwrap().contains("edited"));
                assert!(!fs::read_to_string(&old).unwrap().contains("edited"), "the old file is as it was");
            } else {
                assert_eq!(path, old.display().to_string());
                assert!(!new.exists());
            }
            assert_eq!(world.claims(), 1);
            assert_eq!(daemon.open(path.as_ref()).await.unwrap().session_id, id);
        },
    );
}

#[test]
fn a_save_that_is_cut_off_is_no_external_edit() {
    // C4
    at_each_step(
        async |world, daemon| {
            fs::write(world.path("n.ipynb"), notebook(&["1", "2"])).unwrap();
            let id = daemon.open(&world.path("n.ipynb")).await.unwrap().session_id;
            daemon.set_source(id, "a", "edited").await;
            id
        },
        async |_, daemon, id| {
            daemon.save(id, SaveSession::default()).await.unwrap();
        },
        async |world, daemon, id, done| {
            if done {
                assert!(fs::read_to_string(world.path("n.ipynb")).unwrap().contains("edited"));
            }
            assert_eq!(daemon.sources(id).await, ["edited", "2"]);
            // Edited here once more, and in the file: if its own write were taken for somebody else's, there would be
            // a conflict.
            daemon.save(id, SaveSession::default()).await.unwrap();
            assert_eq!(daemon.sources(id).await, ["edited", "2"]);
            assert_eq!(world.names(), ["n.ipynb"]);
        },
    );
}

#[test]
fn a_save_that_never_came_into_the_file_is_not_taken_for_one_when_the_file_is_renamed() {
    // C4, C5
    let world = World::new();
    let (old, new) = (world.path("old.ipynb"), world.path("new.ipynb"));
    fs::write(&old, notebook(&["1", "2"])).unwrap();
    let id = life(async {
        let doom = Doom::default();
        let daemon = world.doomed(doom.clone());
        let id = daemon.open(&old).await.unwrap().session_id;
        daemon.set_source(id, "a", "edited").await;
        doom.after(1);
        tokio::select! {
            biased;
            () = doom.over() => id,
            _ = daemon.save(id, SaveSession::default()) => panic!("it is killed before the file is written"),
        }
    });
    assert!(!fs::read_to_string(&old).unwrap().contains("edited"));
    life(async {
        let daemon = world.daemon();
        drop(open::wake(&daemon.context, id).await.unwrap());
        daemon.until_document(id, "rendered").await;
        fs::rename(&old, &new).unwrap();
        daemon.until_document(id, "saved").await;
        assert_eq!(daemon.view(id).path.as_deref(), new.to_str());
    });
    life(async {
        let daemon = world.daemon();
        drop(open::wake(&daemon.context, id).await.unwrap());
        fs::write(&new, notebook(&["1", "2", "theirs"])).unwrap();
        daemon.until_source(id, "theirs").await;
        assert_eq!(daemon.sources(id).await, ["edited", "2", "theirs"]);
    });
}

#[test]
fn a_save_as_that_was_cut_off_before_it_was_indexed_leaves_the_old_path_free() {
    // C4
    at_each_step(
        async |world, daemon| {
            fs::write(world.path("old.ipynb"), notebook(&["1"])).unwrap();
            daemon.open(&world.path("old.ipynb")).await.unwrap().session_id
        },
        async |world, daemon, id| {
            daemon.save_as(id, &world.path("new.ipynb"), SaveHow::SaveAs).await.unwrap();
        },
        async |world, daemon, id, _| {
            let (old, new) = (world.path("old.ipynb"), world.path("new.ipynb"));
            let path = daemon.view(id).path.unwrap();
            let opened = tokio::time::timeout(PATIENCE, daemon.open(&old)).await.expect("it is opened");
            let other = opened.unwrap().session_id;
            assert_eq!(other == id, path == old.display().to_string());
            assert!(path == old.display().to_string() || path == new.display().to_string());
            if other != id {
                daemon.close(other, true).await.unwrap();
                daemon.until_ended(other).await;
            }
        },
    );
}

#[test]
fn what_was_closed_or_left_is_not_brought_back_by_a_restart() {
    // C4
    let world = World::new();
    let path = world.path("n.ipynb");
    let id = life(async {
        let daemon = world.daemon();
        let id = daemon.new_notebook("1").await;
        daemon.save_as(id, &path, SaveHow::Save).await.unwrap();
        daemon.close(id, false).await.unwrap();
        daemon.until_ended(id).await;
        id
    });
    fs::remove_file(&path).unwrap();
    life(async {
        let daemon = world.daemon();
        assert_eq!(open::wake(&daemon.context, id).await.unwrap_err().code, "session-ended");
        daemon.clock.advance(60_000);
        assert_eq!(world.names(), Vec::<String>::new());
        // The path is free, for a session of its own.
        fs::write(&path, notebook(&["other"])).unwrap();
        let other = daemon.open(&path).await.unwrap();
        assert_ne!(other.session_id, id);
    });
}
