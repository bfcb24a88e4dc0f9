//! Other programs and the notebook's file.

use std::collections::BTreeMap;
use std::fs;

use outlive_core::log::{Chunk, ChunkKind};
use outlive_core::runtime::{StopStep, StopWhy};
use outlive_core::time::WallTime;
use outlive_protocol::http::{FileConflict, SaveSession, SavedState, SubmitRuns};
use outlive_protocol::shim::Notice;

use super::notebook;
use super::world::World;
use crate::session::handle::Ask;

fn stdout(text: &str) -> Chunk {
    Chunk::inline(ChunkKind::Stdout, WallTime(0), text.as_bytes())
}

fn is_conflict(saved: &Option<SavedState>, wanted: FileConflict) -> bool {
    matches!(saved, Some(SavedState::Conflict { conflict, .. }) if *conflict == wanted)
}

#[tokio::test]
async fn an_external_edit_of_one_cell_is_taken_over_while_another_runs_and_outputs_survive() {
    // C5
    let world = World::new();
    let daemon = world.daemon();
    let path = world.path("n.ipynb");
    fs::write(&path, notebook(&["print(1)", "2"])).unwrap();
    let id = daemon.open(&path).await.unwrap().session_id;
    let run = SubmitRuns::CellIds { cells: vec!["a".to_owned()], required: None, expected: BTreeMap::new() };
    daemon.do_ask(id, Ask::Submit(run)).await;
    let running = daemon.until(id, |view| view.current.is_some()).await.current.unwrap();
    let chunk = stdout("printed before\n");
    daemon.kernels.says(id, 3, Notice::Output { run: Some(running), chunks: vec![chunk] }).await;
    daemon.until_output(id, "a", "printed before").await;

    fs::write(&path, notebook(&["print(1)", "theirs"])).unwrap();
    daemon.until_source(id, "theirs").await;
    let chunk = stdout("printed after\n");
    daemon.kernels.says(id, 4, Notice::Output { run: Some(running), chunks: vec![chunk] }).await;
    daemon.until_output(id, "a", "printed after").await;
    daemon.clock.advance(20_000);
    daemon.until_saved(id).await;
    let text = fs::read_to_string(&path).unwrap();
    for part in ["printed before", "printed after", "theirs"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn what_both_sides_made_of_one_cell_is_kept_twice() {
    // C5
    let world = World::new();
    let daemon = world.daemon();
    let path = world.path("n.ipynb");
    fs::write(&path, notebook(&["old", "2"])).unwrap();
    let id = daemon.open(&path).await.unwrap().session_id;
    daemon.set_source(id, "a", "ours").await;
    fs::write(&path, notebook(&["theirs", "2"])).unwrap();
    daemon.until_source(id, "theirs").await;
    let cells = daemon.notebook(id).await.cells;
    assert_eq!(cells.iter().map(|cell| cell.source.as_str()).collect::<Vec<_>>(), ["ours", "theirs", "2"]);
    assert!(cells[1].metadata.to_string().contains("conflict"), "{:?}", cells[1]);
    daemon.clock.advance(20_000);
    daemon.until_saved(id).await;
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("ours") && text.contains("theirs"), "{text}");
}

#[tokio::test]
async fn a_file_that_is_no_whole_notebook_takes_nothing_away_and_holds_autosave() {
    // C5
    let world = World::new();
    let daemon = world.daemon();
    let path = world.path("n.ipynb");
    let whole = notebook(&["1", "2"]);
    fs::write(&path, &whole).unwrap();
    let id = daemon.open(&path).await.unwrap().session_id;
    for (n, broken) in ["", &whole[..whole.len() / 2], "[]", "{\"cells\": 1}"].into_iter().enumerate() {
        fs::write(&path, broken).unwrap();
        daemon.until(id, |view| is_conflict(&view.saved, FileConflict::NotANotebook)).await;
        let ours = format!("ours {n}");
        daemon.set_source(id, "a", &ours).await;
        daemon.clock.advance(60_000);
        assert_eq!(daemon.sources(id).await, [ours.as_str(), "2"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), broken, "nobody has decided to write it");
        // Whole again, with a change of theirs: merged, and then saved.
        let theirs = format!("theirs {n}");
        fs::write(&path, whole.replace("\"2\"", &format!("\"{theirs}\""))).unwrap();
        daemon.until_source(id, &theirs).await;
        daemon.clock.advance(20_000);
        daemon.until_saved(id).await;
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(&ours) && text.contains(&theirs), "{text}");
        fs::write(&path, &whole).unwrap();
        daemon.until_source(id, "2").await;
        daemon.clock.advance(20_000);
        daemon.until_saved(id).await;
    }
}

#[tokio::test]
async fn a_deleted_file_is_written_again_only_by_who_says_so() {
    // C5
    let world = World::new();
    let daemon = world.daemon();
    let path = world.path("n.ipynb");
    fs::write(&path, notebook(&["1"])).unwrap();
    let id = daemon.open(&path).await.unwrap().session_id;
    fs::remove_file(&path).unwrap();
    daemon.until(id, |view| is_conflict(&view.saved, FileConflict::Deleted)).await;
    daemon.set_source(id, "a", "2").await;
    daemon.clock.advance(60_000);
    assert_eq!(daemon.sources(id).await, ["2"]);
    assert_eq!(world.names(), Vec::<String>::new());
    daemon.save(id, SaveSession::default()).await.unwrap();
    assert!(fs::read_to_string(&path).unwrap().contains("\"2\""));
    // When it comes back by itself, that is an edit like others.
    fs::remove_file(&path).unwrap();
    daemon.until(id, |view| is_conflict(&view.saved, FileConflict::Deleted)).await;
    fs::write(&path, notebook(&["back"])).unwrap();
    daemon.until_source(id, "back").await;
}

#[tokio::test]
async fn a_wholesale_replacement_is_taken_over() {
    // C5
    let world = World::new();
    let daemon = world.daemon();
    let (path, other) = (world.path("n.ipynb"), world.path("other"));
    fs::write(&path, notebook(&["1", "2", "3"])).unwrap();
    let id = daemon.open(&path).await.unwrap().session_id;
    fs::write(&other, notebook(&["x", "y"]).replace("\"a\"", "\"p\"").replace("\"b\"", "\"q\"")).unwrap();
    fs::rename(&other, &path).unwrap();
    daemon.until_source(id, "y").await;
    assert_eq!(daemon.sources(id).await, ["x", "y"]);
    assert_eq!(world.names(), ["n.ipynb"]);
}

#[tokio::test]
async fn ones_own_saves_are_no_external_edits() {
    // C5
    let world = World::new();
    let daemon = world.daemon();
    let path = world.path("n.ipynb");
    fs::write(&path, notebook(&["1"])).unwrap();
    let id = daemon.open(&path).await.unwrap().session_id;
    for n in 0..20 {
        daemon.set_source(id, "a", &format!("version {n}")).await;
        daemon.save(id, SaveSession::default()).await.unwrap();
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        daemon.clock.advance(20_000);
        assert_eq!(daemon.sources(id).await, [format!("version {n}")]);
        // Saved again, unchanged: not written again.
        daemon.save(id, SaveSession::default()).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written);
    }
    // The marker that follows: the next foreign edit is still heard of.
    fs::write(&path, notebook(&["theirs"])).unwrap();
    daemon.until_source(id, "theirs").await;
    assert_eq!(daemon.sources(id).await, ["theirs"]);
}

#[tokio::test]
async fn a_renamed_file_is_followed() {
    // C3
    let world = World::new();
    let daemon = world.daemon();
    let (before, after) = (world.path("before.ipynb"), world.path("after.ipynb"));
    fs::write(&before, notebook(&["1"])).unwrap();
    let id = daemon.open(&before).await.unwrap().session_id;
    fs::rename(&before, &after).unwrap();
    let view = daemon.until(id, |view| view.path.as_deref() == after.to_str()).await;
    assert_eq!(view.id, id);
    assert_eq!(daemon.open(&after).await.unwrap().session_id, id);
    daemon.set_source(id, "a", "2").await;
    daemon.save(id, SaveSession::default()).await.unwrap();
    assert_eq!(world.names(), ["after.ipynb"]);
    assert_eq!(world.claims(), 1);
    // What is at the old path now is another notebook.
    fs::write(&before, notebook(&["other"])).unwrap();
    assert_ne!(daemon.open(&before).await.unwrap().session_id, id);
    fs::write(&after, notebook(&["theirs"])).unwrap();
    daemon.until_source(id, "theirs").await;
}

#[tokio::test]
async fn a_file_that_was_renamed_onto_anothers_is_that_others() {
    // C3
    let world = World::new();
    let daemon = world.daemon();
    let (a, b) = (world.path("a.ipynb"), world.path("b.ipynb"));
    fs::write(&a, notebook(&["of a"])).unwrap();
    fs::write(&b, notebook(&["of b"])).unwrap();
    let (of_a, of_b) = (daemon.open(&a).await.unwrap().session_id, daemon.open(&b).await.unwrap().session_id);
    fs::rename(&a, &b).unwrap();
    daemon.until(of_a, |view| is_conflict(&view.saved, FileConflict::Claimed)).await;
    daemon.until_source(of_b, "of a").await;
    // Neither writes over the other; who says so gets the old path back.
    daemon.set_source(of_a, "a", "of a, later").await;
    daemon.clock.advance(60_000);
    daemon.until_saved(of_b).await;
    assert_eq!(world.names(), ["b.ipynb"]);
    daemon.save(of_a, SaveSession::default()).await.unwrap();
    assert!(fs::read_to_string(&a).unwrap().contains("of a, later"));
    assert!(!fs::read_to_string(&b).unwrap().contains("later"));
}

#[tokio::test]
async fn an_editor_that_moves_the_file_away_and_writes_it_anew_is_no_rename() {
    // C5
    let world = World::new();
    let daemon = world.daemon();
    let path = world.path("n.ipynb");
    fs::write(&path, notebook(&["1"])).unwrap();
    let id = daemon.open(&path).await.unwrap().session_id;
    fs::rename(&path, world.path("n.ipynb~")).unwrap();
    fs::write(&path, notebook(&["edited"])).unwrap();
    daemon.until_source(id, "edited").await;
    assert_eq!(daemon.view(id).path.as_deref(), path.to_str());
}

#[tokio::test]
async fn a_session_that_is_stopped_in_a_conflict_leaves_its_notebook_beside_and_brings_no_file_back() {
    // C4
    let world = World::new();
    let daemon = world.daemon();
    let (broken, deleted) = (world.path("broken.ipynb"), world.path("deleted.ipynb"));
    for path in [&broken, &deleted] {
        fs::write(path, notebook(&["old"])).unwrap();
    }
    let (held, gone) =
        (daemon.open(&broken).await.unwrap().session_id, daemon.open(&deleted).await.unwrap().session_id);
    fs::write(&broken, "no notebook").unwrap();
    fs::remove_file(&deleted).unwrap();
    daemon.until(held, |view| is_conflict(&view.saved, FileConflict::NotANotebook)).await;
    daemon.until(gone, |view| is_conflict(&view.saved, FileConflict::Deleted)).await;
    for id in [held, gone] {
        daemon.set_source(id, "a", "precious").await;
        daemon.do_ask(id, Ask::Stop { why: StopWhy::User, from: StopStep::Ask }).await;
        daemon.until_ended(id).await;
    }
    assert_eq!(fs::read_to_string(&broken).unwrap(), "no notebook");
    let names = world.names();
    let [_, beside] = &names[..] else { panic!("{names:?}") };
    assert!(fs::read_to_string(world.path(beside)).unwrap().contains("precious"), "{names:?}");
    let row = daemon.context.indexed(held).await.unwrap().unwrap();
    assert!(row.view.save_problem.unwrap().contains(beside.as_str()));
    let row = daemon.context.indexed(gone).await.unwrap().unwrap();
    assert!(row.view.save_problem.unwrap().contains("was deleted"));
}
