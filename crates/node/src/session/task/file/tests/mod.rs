//! Rows C1 to C5 over real files and a real store: what a person finds on the disk, and what they are told.

mod crashes;
mod edits;
mod faults;
mod places;
mod trust;
pub(in super::super) mod world;

use std::fs;
use std::path::Path;

use outlive_core::runtime::{StopStep, StopWhy};
use outlive_core::session::spec::Trust;
use outlive_protocol::http::{FileConflict, OpenSession, SaveHow, SaveSession, SavedState, SubmitRuns};

use crate::session::handle::Ask;
use crate::session::open;
use world::{Doom, World, life};

/// A notebook with one code cell for each of these sources, with the ids a, b, c, …
pub(super) fn notebook(sources: &[&str]) -> String {
    let cell = |(n, source): (usize, &&str)| {
        serde_json::json!({
            "cell_type": "code", "execution_count": null, "id": char::from(b'a' + n as u8).to_string(),
            "metadata": {}, "outputs": [], "source": [source],
        })
    };
    let cells: Vec<_> = sources.iter().enumerate().map(cell).collect();
    let notebook = serde_json::json!({
        "cells": cells, "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        "nbformat": 4, "nbformat_minor": 5,
    });
    serde_json::to_string_pretty(&notebook).unwrap()
}

#[tokio::test]
async fn an_untitled_notebook_with_a_busy_kernel_gets_a_file_and_stays_what_it_is() {
    // C1
    let world = World::new();
    let daemon = world.daemon();
    let id = daemon.new_notebook("forever()").await;
    let cell = daemon.notebook(id).await.cells[0].id.clone();
    for code in ["1", "2"] {
        daemon.do_ask(id, Ask::Submit(SubmitRuns::Code { code: code.to_owned() })).await;
    }
    let before = daemon.until(id, |view| view.current.is_some()).await;
    assert_eq!((before.untitled, &before.saved), (true, &Some(SavedState::Untitled)));
    assert_eq!(before.queue.len(), 1);

    let saved = daemon.save_as(id, &world.path("first"), SaveHow::Save).await.unwrap();
    let path = world.path("first.ipynb");
    assert_eq!((saved.session_id, saved.path.as_deref()), (id, path.to_str()));
    let after = daemon.view(id);
    assert_eq!((after.id, after.current, &after.queue), (id, before.current, &before.queue));
    assert_eq!((after.untitled, after.path.as_deref()), (false, path.to_str()));
    assert_eq!(after.runtime.incarnation, before.runtime.incarnation);
    assert_eq!(daemon.kernels.launches(), 1);
    assert!(fs::read_to_string(&path).unwrap().contains("forever()"));
    assert_eq!(world.names(), ["first.ipynb"]);
    let opened = daemon.open(&path).await.unwrap();
    assert_eq!((opened.session_id, opened.path.as_deref()), (id, path.to_str()));

    // From then on it is saved by itself …
    daemon.set_source(id, &cell, "again()").await;
    daemon.until(id, |view| view.saved == Some(SavedState::Unsaved)).await;
    daemon.clock.advance(2_000);
    daemon.until_saved(id).await;
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("again()"), "{text}");
    // … and another program's changes are taken over.
    fs::write(&path, text.replace("again()", "theirs()")).unwrap();
    daemon.clock.advance(1);
    daemon.until_source(id, "theirs()").await;
    assert_eq!(daemon.view(id).current, before.current, "the run goes on");
}

#[tokio::test]
async fn a_notebook_without_a_file_is_never_saved_under_a_name_that_nobody_gave() {
    // C8
    let world = World::new();
    let daemon = world.daemon();
    let id = daemon.new_notebook("1").await;
    let problem = daemon.save(id, SaveSession::default()).await.unwrap_err();
    assert_eq!(problem.code, "no-path");
    let problem = daemon.save_as(id, &world.path(&id.to_string()), SaveHow::Save).await.unwrap_err();
    assert_eq!(problem.code, "use-the-id");
    let relative = SaveSession { path: Some("n.ipynb".to_owned()), ..SaveSession::default() };
    assert_eq!(daemon.save(id, relative).await.unwrap_err().code, "relative-path");
    fs::create_dir(world.path("d.ipynb")).unwrap();
    let problem = daemon.save_as(id, &world.path("d.ipynb"), SaveHow::Save).await.unwrap_err();
    assert_eq!(problem.code, "bad-path");
    // Nor beside a directory whose name was given.
    fs::create_dir(world.path("dir")).unwrap();
    for how in [SaveHow::Save, SaveHow::SaveAs, SaveHow::Copy] {
        let problem = daemon.save_as(id, &world.path("dir"), how).await.unwrap_err();
        assert!(problem.code == "bad-path" && problem.detail.contains("is a directory"), "{problem}");
    }
    fs::write(world.path("dir.ipynb"), notebook(&["1"])).unwrap();
    let problem = daemon.open(&world.path("dir")).await.unwrap_err();
    assert!(problem.code == "bad-path" && problem.detail.contains("is a directory"), "{problem}");
    let problem = daemon.save_as(id, &world.path("none/n"), SaveHow::Save).await.unwrap_err();
    assert_eq!(problem.code, "no-such-directory");
    let problem = daemon.save_as(id, &world.path("dir.ipynb/n"), SaveHow::Save).await.unwrap_err();
    assert!(problem.detail.contains("dir.ipynb\" is no directory"), "{problem}");
    assert!(!problem.hint.unwrap_or_default().contains("mkdir"));
    daemon.clock.advance(60_000);
    daemon.do_ask(id, Ask::Stop { why: StopWhy::User, from: StopStep::Ask }).await;
    daemon.until_ended(id).await;
    assert_eq!(world.names(), ["d.ipynb", "dir", "dir.ipynb"]);
    assert_eq!(world.claims(), 0);
}

#[tokio::test]
async fn a_notebook_with_a_file_moves_only_when_that_is_said() {
    // C3
    let world = World::new();
    let daemon = world.daemon();
    let (first, second, copy) = (world.path("1.ipynb"), world.path("2.ipynb"), world.path("c.ipynb"));
    fs::write(&first, notebook(&["one"])).unwrap();
    let id = daemon.open(&first).await.unwrap().session_id;
    let problem = daemon.save_as(id, &second, SaveHow::Save).await.unwrap_err();
    assert_eq!(
        (problem.code.as_str(), problem.facts["path"].as_str()),
        ("has-a-path", first.to_str().unwrap())
    );
    // Where it is already is no other path.
    daemon.save_as(id, &first, SaveHow::SaveAs).await.unwrap();

    let copied = daemon.save_as(id, &copy, SaveHow::Copy).await.unwrap();
    assert_eq!(copied.path.as_deref(), copy.to_str());
    assert_eq!(copied.session.path.as_deref(), first.to_str(), "the session stays");
    assert_eq!(fs::read(&copy).unwrap(), fs::read(&first).unwrap());
    assert_eq!(world.claims(), 1);

    fs::write(&second, "somebody's").unwrap();
    for how in [SaveHow::SaveAs, SaveHow::Copy] {
        assert_eq!(daemon.save_as(id, &second, how).await.unwrap_err().code, "file-exists");
    }
    assert_eq!(fs::read_to_string(&second).unwrap(), "somebody's");
    let over =
        |path: &Path, how| SaveSession { path: Some(path.display().to_string()), how, overwrite: true };
    // What somebody has decided to write over is kept, and they are told where.
    let was = fs::read(&copy).unwrap();
    fs::write(&copy, notebook(&["somebody's"])).unwrap();
    for (path, how, theirs) in [
        (&copy, SaveHow::Copy, notebook(&["somebody's"])),
        (&second, SaveHow::SaveAs, "somebody's".to_owned()),
    ] {
        let saved = daemon.save(id, over(path, how)).await.unwrap();
        assert_eq!(saved.path.as_deref(), path.to_str());
        assert_eq!(fs::read(path).unwrap(), was);
        let kept = saved.kept.expect("it says where");
        assert!(kept.contains(".outlive-theirs-"), "{kept}");
        assert_eq!(fs::read_to_string(kept).unwrap(), theirs);
    }

    // The old path is free at once, and what becomes of its file does not reach the session.
    let other = daemon.open(&first).await.unwrap().session_id;
    assert_ne!(other, id);
    fs::write(&first, notebook(&["changed in the old file"])).unwrap();
    daemon.until_source(other, "changed in the old file").await;
    assert_eq!(daemon.sources(id).await, ["one"]);
    // The watcher has followed.
    fs::write(&second, notebook(&["changed in the new file"])).unwrap();
    daemon.until_source(id, "changed in the new file").await;
    assert_eq!(daemon.open(&second).await.unwrap().session_id, id);
    assert_eq!(world.claims(), 2);
}

#[tokio::test]
async fn of_two_that_are_saved_to_one_path_one_wins_and_the_other_is_as_it_was() {
    // C2
    let world = World::new();
    let daemon = world.daemon();
    fs::create_dir(world.path("real")).unwrap();
    std::os::unix::fs::symlink(world.path("real"), world.path("link")).unwrap();
    let (one, other) = (daemon.new_notebook("of one").await, daemon.new_notebook("of the other").await);
    for round in 0..100 {
        let target = world.path(&format!("real/{round}.ipynb"));
        let dangling = world.path(&format!("real/dangling-{round}.ipynb"));
        std::os::unix::fs::symlink(&target, &dangling).unwrap();
        let spellings = [
            world.path(&format!("link/{round}.ipynb")),
            world.path(&format!("real/../link/./{round}")),
            dangling.clone(),
            target.clone(),
        ];
        let (ours, theirs) = (&spellings[round % 4], &spellings[(round / 4) % 4]);
        let (a, b) = tokio::join!(
            daemon.save_as(one, ours, SaveHow::SaveAs),
            daemon.save_as(other, theirs, SaveHow::SaveAs)
        );
        let (winner, loser, text, problem) = match (a, b) {
            (Ok(_), Err(problem)) => (one, other, "of one", problem),
            (Err(problem), Ok(_)) => (other, one, "of the other", problem),
            both => panic!("round {round}: {both:?}"),
        };
        assert!(matches!(problem.code.as_str(), "path-already-open" | "file-exists"), "{problem}");
        if problem.code == "path-already-open" {
            assert_eq!(problem.facts["session"], winner.to_string());
        }
        assert!(fs::read_to_string(&target).unwrap().contains(text), "round {round}");
        assert_eq!(daemon.view(winner).path.as_deref(), target.to_str());
        assert_ne!(daemon.view(loser).path.as_deref(), target.to_str());
    }
    assert_eq!(daemon.sources(one).await, ["of one"]);
    assert_eq!(daemon.sources(other).await, ["of the other"]);
    assert!(world.claims() <= 2);
}

#[tokio::test]
async fn a_session_is_closed_when_all_is_in_a_file_or_somebody_says_that_it_may_be_lost() {
    // C1
    let world = World::new();
    let daemon = world.daemon();
    let blank = open::new(&daemon.context, Default::default()).await.unwrap().session_id;
    daemon.close(blank, false).await.unwrap();
    daemon.until_ended(blank).await;

    let untitled = daemon.new_notebook("precious").await;
    assert_eq!(daemon.close(untitled, false).await.unwrap_err().code, "unsaved");
    daemon.close(untitled, true).await.unwrap();
    daemon.until_ended(untitled).await;
    assert_eq!(world.names(), Vec::<String>::new());

    let path = world.path("n.ipynb");
    fs::write(&path, notebook(&["1"])).unwrap();
    let untouched = fs::read(&path).unwrap();
    let id = daemon.open(&path).await.unwrap().session_id;
    daemon.close(id, false).await.unwrap();
    daemon.until_ended(id).await;
    assert_eq!(fs::read(&path).unwrap(), untouched);
    assert_eq!(world.claims(), 0);

    let id = daemon.open(&path).await.unwrap().session_id;
    daemon.set_source(id, "a", "edited").await;
    daemon.close(id, false).await.unwrap();
    daemon.until_ended(id).await;
    assert!(fs::read_to_string(&path).unwrap().contains("edited"));

    // An edit that the file cannot take holds the session back.
    let id = daemon.open(&path).await.unwrap().session_id;
    daemon.set_source(id, "a", "lost").await;
    fs::write(&path, "").unwrap();
    daemon.until(id, |view| matches!(view.saved, Some(SavedState::Conflict { .. }))).await;
    assert_eq!(daemon.close(id, false).await.unwrap_err().code, "unsaved");
    assert_eq!(daemon.sources(id).await, ["lost"], "it goes on");
    daemon.close(id, true).await.unwrap();
    daemon.until_ended(id).await;
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
    assert_eq!((world.names(), world.claims()), (vec!["n.ipynb".to_owned()], 0));
    // And a file that was deleted before stays so.
    fs::write(&path, notebook(&["1"])).unwrap();
    let id = daemon.open(&path).await.unwrap().session_id;
    daemon.set_source(id, "a", "2").await;
    fs::remove_file(&path).unwrap();
    daemon.close(id, true).await.unwrap();
    daemon.until_ended(id).await;
    assert_eq!(world.names(), Vec::<String>::new());
}

#[tokio::test]
async fn ones_own_work_stays_trusted_and_somebody_elses_is_not() {
    // C8
    let world = World::new();
    let daemon = world.daemon();
    let (ours, theirs) = (world.path("ours.ipynb"), world.path("theirs.ipynb"));
    let id = daemon.new_notebook("mine").await;
    daemon.save_as(id, &ours, SaveHow::Save).await.unwrap();
    let cell = daemon.notebook(id).await.cells[0].id.clone();
    daemon.set_source(id, &cell, "mine, later").await;
    daemon.close(id, false).await.unwrap();
    daemon.until_ended(id).await;
    let again = daemon.open(&ours).await.unwrap();
    assert_eq!(again.session.trust, Trust::Trusted);

    fs::write(&theirs, notebook(&["theirs"])).unwrap();
    let opened = daemon.open(&theirs).await.unwrap();
    assert_eq!(opened.session.trust, Trust::Untrusted);
    daemon.trust(opened.session_id, Trust::Trusted).await;
    daemon.close(opened.session_id, false).await.unwrap();
    daemon.until_ended(opened.session_id).await;
    let opened = daemon.open(&theirs).await.unwrap();
    assert_eq!(opened.session.trust, Trust::Trusted);
    daemon.trust(opened.session_id, Trust::Untrusted).await;
    daemon.close(opened.session_id, false).await.unwrap();
    daemon.until_ended(opened.session_id).await;
    assert_eq!(daemon.open(&theirs).await.unwrap().session.trust, Trust::Untrusted);
    assert_eq!(daemon.kernels.launches(), 0, "nothing was started for any of them");
}

#[tokio::test]
async fn whoever_opens_a_path_by_another_spelling_joins() {
    // C1
    let world = World::new();
    let daemon = world.daemon();
    fs::write(world.path("n.ipynb"), notebook(&["1"])).unwrap();
    std::os::unix::fs::symlink(world.path("n.ipynb"), world.path("l.ipynb")).unwrap();
    let first = daemon.open(&world.path("n")).await.unwrap();
    let second = daemon.open(&world.path("l.ipynb")).await.unwrap();
    assert_eq!(first.session_id, second.session_id);
    let by_id = OpenSession { id: Some(first.session_id), ..OpenSession::default() };
    assert_eq!(open::open(&daemon.context, by_id).await.unwrap().path, first.path);
    // A link is written through.
    daemon.set_source(first.session_id, "a", "2").await;
    daemon.save(first.session_id, SaveSession::default()).await.unwrap();
    assert!(fs::symlink_metadata(world.path("l.ipynb")).unwrap().is_symlink());
    assert!(fs::read_to_string(world.path("n.ipynb")).unwrap().contains("\"2\""));
}

#[tokio::test]
async fn a_save_that_somebody_has_decided_on_keeps_what_was_there() {
    // C5
    let world = World::new();
    let daemon = world.daemon();
    let path = world.path("n.ipynb");
    fs::write(&path, notebook(&["ours"])).unwrap();
    let id = daemon.open(&path).await.unwrap().session_id;
    fs::write(&path, "no notebook").unwrap();
    let not_whole = |saved: &Option<SavedState>| {
        matches!(saved, Some(SavedState::Conflict { conflict: FileConflict::NotANotebook, .. }))
    };
    daemon.until(id, |view| not_whole(&view.saved)).await;
    assert_eq!(daemon.save(id, SaveSession::default()).await.unwrap_err().code, "file-changed");
    let decided = SaveSession { overwrite: true, ..SaveSession::default() };
    let saved = daemon.save(id, decided).await.unwrap();
    assert!(fs::read_to_string(&path).unwrap().contains("ours"));
    assert!(matches!(daemon.view(id).saved, Some(SavedState::Saved { .. })));
    let kept: Vec<_> = world.names().into_iter().filter(|name| name.contains("theirs")).collect();
    assert_eq!(kept.len(), 1, "{:?}", world.names());
    assert_eq!(fs::read_to_string(world.path(&kept[0])).unwrap(), "no notebook");
    assert_eq!(saved.kept.as_deref(), world.path(&kept[0]).to_str(), "it says where");
}

#[tokio::test]
async fn who_opens_a_path_that_a_notebook_is_being_saved_to_waits_for_the_end_of_that() {
    // C1
    let world = World::new();
    let doom = Doom::default();
    let daemon = world.doomed(doom.clone());
    let (id, path) = (daemon.new_notebook("1").await, world.path("n.ipynb"));
    let hold = doom.hold_writes();
    let (saved, opened) = tokio::join!(daemon.save_as(id, &path, SaveHow::Save), async {
        daemon.until_log(id, "path_claimed").await;
        let opening = daemon.open(&path);
        tokio::pin!(opening);
        // It waits, and the session answers meanwhile.
        tokio::select! {
            biased;
            opened = &mut opening => panic!("nothing is there yet: {opened:?}"),
            sources = daemon.sources(id) => assert_eq!(sources, ["1"]),
        }
        drop(hold);
        opening.await
    });
    saved.unwrap();
    assert_eq!(opened.unwrap().session_id, id);
}

#[tokio::test]
async fn several_who_want_a_save_share_one_write_and_an_edit_meanwhile_is_saved_later() {
    // C1
    let world = World::new();
    let doom = Doom::default();
    let daemon = world.doomed(doom.clone());
    let path = world.path("n.ipynb");
    fs::write(&path, notebook(&["1"])).unwrap();
    let id = daemon.open(&path).await.unwrap().session_id;
    daemon.set_source(id, "a", "first").await;
    let (before, hold) = (doom.writes(), doom.hold_writes());
    let save = || daemon.save(id, SaveSession::default());
    let (one, two, three, ()) = tokio::join!(save(), save(), save(), async {
        daemon.until_document(id, "rendered").await;
        daemon.set_source(id, "a", "second").await;
        drop(hold);
    });
    for saved in [one, two, three] {
        saved.unwrap();
    }
    assert_eq!(doom.writes() - before, 1);
    assert!(fs::read_to_string(&path).unwrap().contains("first"));
    assert_eq!(daemon.view(id).saved, Some(SavedState::Unsaved));
    daemon.clock.advance(2_000);
    daemon.until_saved(id).await;
    assert!(fs::read_to_string(&path).unwrap().contains("second"));
}

#[tokio::test]
async fn a_second_move_while_one_is_under_way_is_refused_and_a_stop_waits_for_the_first() {
    // C4
    let world = World::new();
    let doom = Doom::default();
    let daemon = world.doomed(doom.clone());
    let (id, path) = (daemon.new_notebook("1").await, world.path("n.ipynb"));
    let hold = doom.hold_writes();
    let (saved, ()) = tokio::join!(daemon.save_as(id, &path, SaveHow::Save), async {
        daemon.until_log(id, "path_claimed").await;
        let problem = daemon.save_as(id, &world.path("other.ipynb"), SaveHow::Save).await.unwrap_err();
        assert_eq!(problem.code, "busy");
        daemon.do_ask(id, Ask::Stop { why: StopWhy::User, from: StopStep::Ask }).await;
        drop(hold);
    });
    assert_eq!(saved.unwrap().path.as_deref(), path.to_str());
    daemon.until_ended(id).await;
    assert!(fs::read_to_string(&path).unwrap().contains("\"1\""));
    assert_eq!((world.names(), world.claims()), (vec!["n.ipynb".to_owned()], 0));
    assert_ne!(daemon.open(&path).await.unwrap().session_id, id, "the path is free");
}

#[test]
fn what_is_not_saved_yet_is_saved_when_the_daemon_ends_and_is_there_afterwards() {
    // C4
    let world = World::new();
    let (titled, broken) = (world.path("n.ipynb"), world.path("broken.ipynb"));
    let (id, untitled, held) = life(async {
        let daemon = world.daemon();
        for path in [&titled, &broken] {
            fs::write(path, notebook(&["1"])).unwrap();
        }
        let untitled = daemon.new_notebook("untitled").await;
        let id = daemon.open(&titled).await.unwrap().session_id;
        daemon.set_source(id, "a", "edited").await;
        let held = daemon.open(&broken).await.unwrap().session_id;
        fs::write(&broken, "").unwrap();
        daemon.until(held, |view| matches!(view.saved, Some(SavedState::Conflict { .. }))).await;
        daemon.set_source(held, "a", "held").await;
        daemon.end().await;
        (id, untitled, held)
    });
    assert!(fs::read_to_string(&titled).unwrap().contains("edited"));
    assert_eq!(world.names(), ["broken.ipynb", "n.ipynb"], "the conflict is not decided by the daemon's end");
    life(async {
        let daemon = world.daemon();
        for (id, source) in [(id, "edited"), (untitled, "untitled"), (held, "held")] {
            assert_eq!(daemon.sources(id).await, [source]);
        }
        let conflict = |saved: &Option<SavedState>| matches!(saved, Some(SavedState::Conflict { .. }));
        daemon.until(held, |view| conflict(&view.saved)).await;
        assert_eq!(fs::read_to_string(&broken).unwrap(), "");
        assert!(daemon.view(untitled).untitled);
    });
}
