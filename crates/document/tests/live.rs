//! A notebook that is edited together: edits, peers, runs, restarts.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use outlive_core::id::{RunId, Seq};
use outlive_core::log::{Chunk, ChunkKind};
use outlive_core::session::RunOutcome;
use outlive_core::time::WallTime;
use outlive_document::live::{Edit, Live, Place};
use outlive_document::{CellKey, CellKind, EditError, NoBlobs, Notebook};
use serde_json::{Value, json};
use uuid::Uuid;

fn notebook(sources: &[&str]) -> Notebook {
    let cell = |(index, source): (usize, &&str)| {
        json!({"cell_type": "code", "id": format!("id{index}"), "metadata": {}, "execution_count": null, "outputs": [],
               "source": source})
    };
    let cells: Vec<Value> = sources.iter().enumerate().map(cell).collect();
    let whole = json!({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5});
    Notebook::parse(whole.to_string().as_bytes()).unwrap()
}

fn key(text: &str) -> CellKey {
    CellKey::new(text)
}

fn sources(live: &mut Live) -> Vec<String> {
    live.notebook().cells().map(|cell| cell.source()).collect()
}

fn set(cell: &str, source: &str) -> Edit {
    Edit::SetSource { cell: key(cell), source: source.to_owned(), expected: None }
}

fn insert(at: Place, source: &str, id: &str) -> Edit {
    Edit::Insert {
        at,
        kind: CellKind::Code,
        source: source.to_owned(),
        id: Some(id.to_owned()),
        metadata: serde_json::Map::new(),
    }
}

fn run(number: u128) -> RunId {
    RunId::from_uuid(Uuid::from_u128(number))
}

fn print(live: &mut Live, number: u128, seq: u64, text: &str) {
    let chunk = Chunk::inline(ChunkKind::Stdout, WallTime(0), text.as_bytes());
    live.apply_chunk(run(number), Seq(seq), &chunk, &NoBlobs).unwrap();
}

#[test]
fn edits_are_in_the_notebook_and_in_the_update() {
    let mut live = Live::new(notebook(&["a", "b"]));
    let edits = [
        set("id0", "a😀c"),
        insert(Place::After(key("id0")), "new", "n"),
        Edit::Splice { cell: key("id0"), at: 1, delete: 2, insert: "é".to_owned() },
        Edit::Move { cell: key("id1"), at: Place::Index(0) },
    ];
    let edited = live.edit(&edits).unwrap();
    assert_eq!(sources(&mut live), ["b", "aéc", "new"]);
    let mut restoring = Live::restore(notebook(&["a", "b"]));
    restoring.update(&edited.update.unwrap()).unwrap();
    let mut again = restoring.finish();
    assert_eq!(sources(&mut again), ["b", "aéc", "new"]);
    assert_eq!(again.to_bytes(&NoBlobs), live.to_bytes(&NoBlobs));
}

#[test]
fn outputs_come_to_peers_and_cleared_outputs_stay_cleared() {
    let mut live = Live::new(notebook(&["a"]));
    let first = live.share().unwrap();
    live.begin_run(&key("id0"), run(1)).unwrap();
    print(&mut live, 1, 1, "hello ");
    let second = live.project().unwrap();
    print(&mut live, 1, 2, "world");
    live.finish_run(run(1), &RunOutcome::Succeeded, None).unwrap();
    let third = live.project().unwrap();
    assert!(third.len() < 100, "appending costs what is appended: {}", third.len());
    assert_eq!(live.project(), None);
    let fourth = live.edit(&[Edit::ClearOutputs { cell: None }]).unwrap().update.unwrap();

    let mut restoring = Live::restore(notebook(&["a"]));
    for update in [&first, &second, &third, &fourth] {
        restoring.update(update).unwrap();
    }
    let mut again = restoring.finish();
    again.begin_run(&key("id0"), run(1)).unwrap();
    print(&mut again, 1, 1, "hello ");
    print(&mut again, 1, 2, "world");
    again.finish_run(run(1), &RunOutcome::Succeeded, None).unwrap();
    assert!(again.notebook().outputs(&key("id0"), &NoBlobs).is_empty());
}

#[test]
fn cells_with_ids_that_cannot_name_them_stay_and_keep_their_ids() {
    let long = "i".repeat(65);
    let ids = ["a/b\n", long.as_str(), "", "twice", "twice", "fine"];
    let cells: Vec<Value> = ids
        .iter()
        .map(|id| {
            json!({"cell_type": "code", "id": id, "metadata": {}, "execution_count": null, "outputs": [], "source": "1"})
        })
        .collect();
    let whole = json!({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).to_string();
    let mut live = Live::new(Notebook::parse(whole.as_bytes()).unwrap());
    let first: Vec<CellKey> = live.notebook().cells().map(|cell| cell.key().clone()).collect();
    let edits = first.iter().map(|cell| set(cell.as_str(), "2")).chain([insert(Place::End, "3", "new")]);
    let update = live.edit(&edits.collect::<Vec<_>>()).unwrap().update.unwrap();

    let file = live.to_bytes(&NoBlobs);
    let mut restoring = Live::restore(Notebook::parse(whole.as_bytes()).unwrap());
    restoring.update(&update).unwrap();
    assert_eq!(restoring.finish().to_bytes(&NoBlobs), file, "a restart reads the same");
    let file: Value = serde_json::from_slice(&file).unwrap();
    let in_file: Vec<(&str, &str)> = file["cells"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cell| (cell["id"].as_str().unwrap(), cell["source"][0].as_str().unwrap()))
        .collect();
    let expected: Vec<(&str, &str)> = ids.iter().map(|id| (*id, "2")).chain([("new", "3")]).collect();
    assert_eq!(in_file, expected);
}

#[test]
fn a_new_cell_gets_no_id_that_makes_the_file_invalid() {
    let mut live = Live::new(notebook(&["a"]));
    for id in ["", "a/b", "a b", "a.b", "é", "a\nb", &"i".repeat(65)] {
        let error = live.edit(&[insert(Place::End, "x", id)]).unwrap_err();
        assert!(matches!(&error, EditError::BadId(bad) if bad == id), "{error}");
    }
    live.edit(&[insert(Place::End, "b", "aZ-_9"), insert(Place::End, "c", &"i".repeat(64))]).unwrap();
    assert_eq!(sources(&mut live), ["a", "b", "c"]);
}
