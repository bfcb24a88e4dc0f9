//! C5: a file that is edited by another program while our runs go on.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use outlive_core::id::{RunId, Seq};
use outlive_core::log::{Chunk, ChunkKind};
use outlive_core::time::WallTime;
use outlive_document::{CellKey, NoBlobs, Notebook};
use serde_json::{Value, json};
use uuid::Uuid;

fn notebook(ids: bool, sources: &[&str]) -> Notebook {
    let cell = |(index, source): (usize, &&str)| {
        let mut cell = json!({"cell_type": "code", "metadata": {}, "execution_count": null, "outputs": [], "source": source});
        if ids {
            cell["id"] = json!(format!("id{index}"));
        }
        cell
    };
    let cells: Vec<Value> = sources.iter().enumerate().map(cell).collect();
    let whole =
        json!({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": if ids { 5 } else { 4 }});
    Notebook::parse(whole.to_string().as_bytes()).unwrap()
}

fn run(index: usize) -> RunId {
    RunId::from_uuid(Uuid::from_u128(index as u128))
}

fn print(notebook: &mut Notebook, index: usize, seq: u64, text: &str) {
    let chunk = Chunk::inline(ChunkKind::Stdout, WallTime(0), text.as_bytes());
    notebook.apply_chunk(run(index), Seq(seq), &chunk, &NoBlobs).unwrap();
}

/// A notebook of which the cells `ran` have printed their index.
fn ran(ids: bool, sources: &[&str], ran: &[usize]) -> Notebook {
    let mut notebook = notebook(ids, sources);
    let keys: Vec<CellKey> = notebook.cells().map(|cell| cell.key().clone()).collect();
    for &index in ran {
        notebook.begin_run(&keys[index], run(index)).unwrap();
        print(&mut notebook, index, 1, &format!("out{index}"));
    }
    notebook
}

/// Source and printed text of each cell, read back from the exported bytes.
fn shown(notebook: &Notebook) -> Vec<(String, String)> {
    let whole: Value = serde_json::from_slice(&notebook.to_bytes(&NoBlobs)).unwrap();
    let text = |value: &Value| {
        value
            .as_array()
            .map(|lines| lines.iter().map(|line| line.as_str().unwrap()).collect())
            .unwrap_or_default()
    };
    let source = |cell: &Value| cell["source"].as_str().map_or_else(|| text(&cell["source"]), str::to_owned);
    whole["cells"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cell| (source(cell), text(&cell["outputs"][0]["text"])))
        .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(source, text)| ((*source).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn their_edit_and_our_outputs_stand_together_and_the_run_goes_on() {
    for ids in [true, false] {
        let mut ours = ran(ids, &["a", "b", "c"], &[0, 2]);
        let lost = ours.rebase(notebook(ids, &["a", "b edited", "c"]));
        assert!(lost.is_empty());
        print(&mut ours, 2, 2, " more");
        assert_eq!(shown(&ours), pairs(&[("a", "out0"), ("b edited", ""), ("c", "out2 more")]), "ids: {ids}");
    }
}

#[test]
fn the_running_cell_may_be_edited_too() {
    for ids in [true, false] {
        let mut ours = ran(ids, &["a", "b", "c"], &[1]);
        assert!(ours.rebase(notebook(ids, &["a", "b edited", "c"])).is_empty());
        assert_eq!(shown(&ours)[1], ("b edited".to_owned(), "out1".to_owned()), "ids: {ids}");
    }
}

#[test]
fn cells_that_move_keep_what_is_theirs() {
    // Inserted above, without ids: found by their source.
    let mut ours = ran(false, &["a", "b"], &[0, 1]);
    assert!(ours.rebase(notebook(false, &["new", "a", "b"])).is_empty());
    assert_eq!(shown(&ours), pairs(&[("new", ""), ("a", "out0"), ("b", "out1")]));
    print(&mut ours, 1, 2, "!");
    let keys: Vec<&str> = ours.cells().map(|cell| cell.key().as_str()).collect();
    assert_eq!(keys[1..], ["cell-0", "cell-1"], "whoever holds a key still finds its cell");
    assert!(!["cell-0", "cell-1"].contains(&keys[0]));

    // Swapped, with ids.
    let mut ours = ran(true, &["a", "b"], &[0]);
    let swapped = notebook(true, &["a", "b"]);
    let mut whole: Value = serde_json::from_slice(&swapped.to_bytes(&NoBlobs)).unwrap();
    whole["cells"].as_array_mut().unwrap().swap(0, 1);
    assert!(ours.rebase(Notebook::parse(whole.to_string().as_bytes()).unwrap()).is_empty());
    assert_eq!(shown(&ours), pairs(&[("b", ""), ("a", "out0")]));
}

#[test]
fn outputs_of_a_deleted_cell_are_a_conflict() {
    let mut ours = ran(true, &["a", "b"], &[0, 1]);
    let mut theirs = notebook(true, &["a", "b"]);
    theirs.delete_cell(&CellKey::new("id1")).unwrap();
    assert_eq!(ours.rebase(theirs), [CellKey::new("id1")]);
    assert_eq!(shown(&ours), pairs(&[("a", "out0")]));
    print(&mut ours, 1, 2, "nowhere to go, and no error");
}
