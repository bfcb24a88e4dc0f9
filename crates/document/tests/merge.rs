//! C5: a file that is edited by another program while our runs go on.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use outlive_core::id::{RunId, Seq};
use outlive_core::log::{Chunk, ChunkKind};
use outlive_core::session::RunOutcome;
use outlive_core::time::WallTime;
use outlive_document::live::{Conflict, ConflictKind, Edit, Live, Place};
use outlive_document::{CellKey, CellKind, NoBlobs, Notebook};
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

fn print(live: &mut Live, index: usize, seq: u64, text: &str) {
    let chunk = Chunk::inline(ChunkKind::Stdout, WallTime(0), text.as_bytes());
    live.apply_chunk(run(index), Seq(seq), &chunk, &NoBlobs).unwrap();
}

/// A notebook of which the cells `ran` have printed their index.
fn ran(ids: bool, sources: &[&str], ran: &[usize]) -> Live {
    let mut live = Live::new(notebook(ids, sources));
    for &index in ran {
        let key = key_at(&mut live, index);
        live.begin_run(&key, run(index)).unwrap();
        print(&mut live, index, 1, &format!("out{index}"));
    }
    live
}

fn key_at(live: &mut Live, index: usize) -> CellKey {
    live.notebook().cells().nth(index).unwrap().key().clone()
}

fn set(cell: &CellKey, source: &str) -> Edit {
    Edit::SetSource { cell: cell.clone(), source: source.to_owned(), expected: None }
}

/// A peer that has the document, to see that it follows.
fn peer_of(live: &Live) -> Live {
    let mut restoring = Live::restore(Notebook::empty("python3"));
    restoring.update(&live.state()).unwrap();
    restoring.finish()
}

fn sources(live: &mut Live) -> Vec<String> {
    live.notebook().cells().map(|cell| cell.source()).collect()
}

fn from_file(whole: &Value) -> Notebook {
    Notebook::parse(whole.to_string().as_bytes()).unwrap()
}

fn file_of(live: &mut Live) -> Value {
    serde_json::from_slice(&live.to_bytes(&NoBlobs)).unwrap()
}

/// Source and printed text of each cell, read back from the exported bytes.
fn shown(live: &mut Live) -> Vec<(String, String)> {
    let whole: Value = file_of(live);
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
        let rebased = ours.rebase(notebook(ids, &["a", "b edited", "c"]));
        assert_eq!((rebased.conflicts, rebased.changed), (vec![], true));
        print(&mut ours, 2, 2, " more");
        assert_eq!(
            shown(&mut ours),
            pairs(&[("a", "out0"), ("b edited", ""), ("c", "out2 more")]),
            "ids: {ids}"
        );
    }
}

#[test]
fn the_running_cell_may_be_edited_too() {
    for ids in [true, false] {
        let mut ours = ran(ids, &["a", "b", "c"], &[1]);
        assert!(ours.rebase(notebook(ids, &["a", "b edited", "c"])).conflicts.is_empty());
        assert_eq!(shown(&mut ours)[1], ("b edited".to_owned(), "out1".to_owned()), "ids: {ids}");
    }
}

#[test]
fn cells_that_move_keep_what_is_theirs() {
    // Inserted above, without ids: found by their source.
    let mut ours = ran(false, &["a", "b"], &[0, 1]);
    assert!(ours.rebase(notebook(false, &["new", "a", "b"])).conflicts.is_empty());
    assert_eq!(shown(&mut ours), pairs(&[("new", ""), ("a", "out0"), ("b", "out1")]));
    print(&mut ours, 1, 2, "!");
    let keys: Vec<&str> = ours.notebook().cells().map(|cell| cell.key().as_str()).collect();
    assert_eq!(keys[1..], ["cell-0", "cell-1"], "whoever holds a key still finds its cell");
    assert!(!["cell-0", "cell-1"].contains(&keys[0]));

    // Swapped, with ids.
    let mut ours = ran(true, &["a", "b"], &[0]);
    let mut whole = file_of(&mut ran(true, &["a", "b"], &[]));
    whole["cells"].as_array_mut().unwrap().swap(0, 1);
    assert!(ours.rebase(from_file(&whole)).conflicts.is_empty());
    assert_eq!(shown(&mut ours), pairs(&[("b", ""), ("a", "out0")]));
}

#[test]
fn a_cell_that_they_delete_goes_unless_it_was_changed_here() {
    let mut ours = ran(true, &["a", "b", "c"], &[0, 1]);
    let mut theirs = notebook(true, &["a", "b", "c"]);
    theirs.delete_cell(&CellKey::new("id1")).unwrap();
    theirs.delete_cell(&CellKey::new("id2")).unwrap();
    ours.edit(&[set(&CellKey::new("id2"), "c of ours")]).unwrap();
    let rebased = ours.rebase(theirs);
    let cell = CellKey::new("id2");
    assert_eq!(rebased.conflicts, [Conflict { cell, kind: ConflictKind::DeletedInFile }]);
    assert_eq!(shown(&mut ours), pairs(&[("a", "out0"), ("c of ours", "")]));
    print(&mut ours, 1, 2, "nowhere to go, and no error");
    assert_eq!(sources(&mut peer_of(&ours)), ["a", "c of ours"]);
}

#[test]
fn a_cell_that_we_delete_comes_back_if_it_was_changed_there() {
    for ids in [true, false] {
        let mut ours = ran(ids, &["a", "b", "c"], &[]);
        let (b, c) = (key_at(&mut ours, 1), key_at(&mut ours, 2));
        ours.edit(&[Edit::Delete { cell: b }, Edit::Delete { cell: c }]).unwrap();
        let rebased = ours.rebase(notebook(ids, &["a", "b", "c of theirs"]));
        assert_eq!(sources(&mut ours), ["a", "c of theirs"], "ids: {ids}");
        assert_eq!(sources(&mut peer_of(&ours)), ["a", "c of theirs"]);
        // Without ids it is a new cell to us.
        assert_eq!(rebased.conflicts.len(), usize::from(ids));
    }
}

#[test]
fn each_side_keeps_what_only_it_has_changed() {
    let mut ours = ran(true, &["a", "b", "c", "d"], &[]);
    let id = |index: usize| CellKey::new(format!("id{index}"));
    let tag = |value: &str| Edit::SetMetadata {
        cell: Some(id(0)),
        key: "ours".to_owned(),
        value: Some(json!(value)),
    };
    let new = Edit::Insert {
        at: Place::After(id(2)),
        kind: CellKind::Markdown,
        source: "new of ours".to_owned(),
        id: None,
        metadata: serde_json::Map::new(),
    };
    ours.edit(&[set(&id(0), "a of ours"), tag("x"), new]).unwrap();
    let mut whole = file_of(&mut ran(true, &["a", "b of theirs", "c", "d"], &[]));
    whole["cells"][0]["metadata"]["theirs"] = json!([1]);
    whole["cells"][0]["attachments"] = json!({"x": 1});
    whole["metadata"]["title"] = json!("t");
    whole["unknown"] = json!({"kept": true});
    whole["cells"].as_array_mut().unwrap().swap(0, 3);
    let update = ours.state_vector();
    let rebased = ours.rebase(from_file(&whole));
    assert_eq!(rebased.conflicts, []);
    // Their order, because ours is as it was.
    let expected = ["d", "b of theirs", "c", "new of ours", "a of ours"];
    assert_eq!(sources(&mut ours), expected);
    let file = file_of(&mut ours);
    assert_eq!(file["cells"][4]["metadata"], json!({"ours": "x", "theirs": [1]}));
    assert_eq!((&file["metadata"]["title"], &file["unknown"]["kept"]), (&json!("t"), &json!(true)));
    // Peers get the same, and as little as can be: the texts were not written anew.
    assert!(!ours.contains(&update).unwrap() || rebased.update.is_some());
    let mut peer = peer_of(&ours);
    assert_eq!(sources(&mut peer), expected);
    let facts = |live: &mut Live| {
        let cells = live.read(true, &NoBlobs).cells;
        cells.into_iter().map(|cell| (cell.id, cell.kind, cell.source, cell.metadata)).collect::<Vec<_>>()
    };
    assert_eq!(facts(&mut peer), facts(&mut ours));
    // What was agreed on is what they have written: the same file again changes nothing.
    let again = ours.rebase(from_file(&whole));
    assert_eq!((again.update, again.conflicts, again.changed), (None, vec![], false));
}

#[test]
fn a_source_that_both_changed_is_kept_twice_and_told() {
    for shared in [true, false] {
        let mut ours = ran(true, &["a", "b"], &[]);
        let cell = CellKey::new("id0");
        ours.edit(&[set(&cell, "a of ours")]).unwrap();
        let theirs = notebook(true, &["a of theirs", "b"]);
        let mut ours = if shared { ours } else { peer_of(&ours) };
        if !shared {
            // A base that does not know the cells: both have added them.
            assert!(ours.is_shared());
        }
        let rebased = ours.rebase(theirs);
        assert_eq!(sources(&mut ours), ["a of ours", "a of theirs", "b"]);
        let [Conflict { cell: of, kind: ConflictKind::BothChanged { theirs } }] = &rebased.conflicts[..]
        else {
            panic!("{:?}", rebased.conflicts)
        };
        assert_eq!(*of, cell);
        let conflict = ours.notebook().cell(theirs).unwrap().metadata("outlive").unwrap();
        assert_eq!(conflict, json!({"conflict": {"of": "id0"}}));
        assert_eq!(sources(&mut peer_of(&ours)), ["a of ours", "a of theirs", "b"]);
        // Once only.
        assert_eq!(ours.rebase(notebook(true, &["a of theirs", "b"])).conflicts, []);
    }
}

#[test]
fn text_that_peers_write_meanwhile_stays_when_the_file_is_edited() {
    let mut ours = ran(true, &["first line\nsecond line"], &[]);
    ours.share();
    let mut peer = peer_of(&ours);
    let rebased = ours.rebase(notebook(true, &["first line\nsecond line of theirs"]));
    let typed = peer
        .edit(&[Edit::Splice { cell: CellKey::new("id0"), at: 0, delete: 0, insert: "# ".to_owned() }])
        .unwrap();
    ours.apply(&typed.update.unwrap()).unwrap();
    peer.apply(&rebased.update.unwrap()).unwrap();
    for live in [&mut ours, &mut peer] {
        assert_eq!(sources(live), ["# first line\nsecond line of theirs"]);
    }
}

#[test]
fn outputs_are_theirs_where_nothing_ran_since_the_file_was_written() {
    let output = |text: &str| json!([{"name": "stdout", "output_type": "stream", "text": [text]}]);
    let mut ours = ran(true, &["a", "b", "c"], &[0, 1]);
    for index in [0, 1] {
        ours.finish_run(run(index), &RunOutcome::Succeeded, None).unwrap();
    }
    ours.share();
    let mut whole = file_of(&mut ours);
    ours.rendered();
    ours.saved();
    // Since then: the second has run again, and they have run the first and the third.
    ours.begin_run(&CellKey::new("id1"), run(7)).unwrap();
    print(&mut ours, 7, 1, "new of ours");
    for (index, text) in [(0, "theirs0"), (1, "theirs1"), (2, "theirs2")] {
        whole["cells"][index]["outputs"] = output(text);
    }
    let rebased = ours.rebase(from_file(&whole));
    assert!(rebased.changed);
    assert_eq!(shown(&mut ours), pairs(&[("a", "theirs0"), ("b", "new of ours"), ("c", "theirs2")]));
    ours.project().unwrap();
    let mut peer = peer_of(&ours);
    assert_eq!(shown(&mut peer), pairs(&[("a", "theirs0"), ("b", "new of ours"), ("c", "theirs2")]));
    // The file as we have written it is no news: late output still finds its cell.
    let mut ours = ran(true, &["a"], &[0]);
    ours.finish_run(run(0), &RunOutcome::Succeeded, None).unwrap();
    let written = file_of(&mut ours);
    ours.rendered();
    ours.saved();
    assert!(!ours.rebase(from_file(&written)).changed);
    let late = Chunk::inline(ChunkKind::Stdout, WallTime(0), &b" late"[..]);
    ours.apply_late(run(0), &late, &NoBlobs);
    assert_eq!(shown(&mut ours), pairs(&[("a", "out0 late")]));
}

#[test]
fn a_write_that_did_not_arrive_is_not_agreed_on() {
    let mut ours = ran(true, &["a"], &[]);
    let cell = CellKey::new("id0");
    ours.edit(&[set(&cell, "b")]).unwrap();
    ours.to_bytes(&NoBlobs);
    ours.rendered();
    // The write failed, the file is still "a": that is nobody's edit.
    let rebased = ours.rebase(notebook(true, &["a"]));
    assert_eq!((rebased.conflicts, rebased.changed), (vec![], false));
    assert_eq!(sources(&mut ours), ["b"]);
    // Written, and changed over there after that.
    ours.rendered();
    ours.saved();
    assert_eq!(ours.rebase(notebook(true, &["c"])).conflicts, []);
    assert_eq!(sources(&mut ours), ["c"]);
}

mod random {
    use proptest::prelude::*;

    use super::*;

    /// Cells of one side: which of the five there were it keeps, what it makes of them, and new ones.
    fn side() -> impl Strategy<Value = Vec<(Option<usize>, u8)>> {
        let cells = prop::sample::subsequence((0..5usize).collect::<Vec<_>>(), 0..=5).prop_shuffle();
        (cells, prop::collection::vec(0..3u8, 5), 0..3usize).prop_map(|(cells, edits, new)| {
            let kept = cells.into_iter().map(|cell| (Some(cell), edits[cell]));
            kept.chain((0..new).map(|_| (None, 1))).collect()
        })
    }

    fn source(cell: Option<usize>, edit: u8, who: &str) -> String {
        match (cell, edit) {
            (Some(cell), 0) => format!("cell {cell}"),
            (Some(cell), _) => format!("cell {cell} of {who}"),
            (None, _) => format!("new of {who}"),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
        // C5: whatever both sides do, no text that somebody wrote is lost, and the document follows.
        #[test]
        fn nothing_that_anybody_wrote_is_lost(ours in side(), theirs in side()) {
            let all: Vec<String> = (0..5).map(|cell| source(Some(cell), 0, "")).collect();
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            let mut live = Live::new(notebook(true, &all));
            let mut edits = Vec::new();
            for cell in 0..5 {
                if !ours.iter().any(|(kept, _)| *kept == Some(cell)) {
                    edits.push(Edit::Delete { cell: CellKey::new(format!("id{cell}")) });
                }
            }
            for (at, (cell, edit)) in ours.iter().enumerate() {
                let text = source(*cell, *edit, "us");
                match cell {
                    Some(cell) => {
                        let cell = CellKey::new(format!("id{cell}"));
                        edits.push(set(&cell, &text));
                        edits.push(Edit::Move { cell, at: Place::Index(at) });
                    }
                    None => edits.push(Edit::Insert {
                        at: Place::Index(at), kind: CellKind::Code, source: text, id: None, metadata: serde_json::Map::new(),
                    }),
                }
            }
            live.edit(&edits).unwrap();
            let cells: Vec<Value> = theirs.iter().enumerate().map(|(at, (cell, edit))| {
                let id = cell.map_or_else(|| format!("t{at}"), |cell| format!("id{cell}"));
                json!({"cell_type": "code", "id": id, "metadata": {}, "execution_count": null, "outputs": [],
                    "source": source(*cell, *edit, "them")})
            }).collect();
            let file = json!({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5});
            live.rebase(from_file(&file));
            let have = sources(&mut live);
            for (side, who) in [(&ours, "us"), (&theirs, "them")] {
                for (cell, edit) in side {
                    if cell.is_none() || *edit != 0 {
                        let text = source(*cell, *edit, who);
                        prop_assert!(have.contains(&text), "{text} is lost: {have:?}");
                    }
                }
            }
            for cell in 0..5 {
                let kept = |side: &Vec<(Option<usize>, u8)>| side.iter().find(|(kept, _)| *kept == Some(cell)).map(|(_, edit)| *edit);
                if (kept(&ours), kept(&theirs)) == (None, Some(0)) || (kept(&ours), kept(&theirs)) == (Some(0), None) {
                    prop_assert!(!have.contains(&source(Some(cell), 0, "")), "a deleted cell is back: {have:?}");
                }
            }
            let ids: std::collections::HashSet<String> =
                live.notebook().cells().map(|cell| cell.key().as_str().to_owned()).collect();
            prop_assert_eq!(ids.len(), have.len());
            prop_assert_eq!(sources(&mut peer_of(&live)), have);
            prop_assert!(!live.rebase(from_file(&file)).changed);
        }
    }
}
