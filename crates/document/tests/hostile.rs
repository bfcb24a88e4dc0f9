//! Peers that send what no editor makes.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use outlive_core::id::{RunId, Seq};
use outlive_core::limits::{AWARENESS_STATE_BYTES_MAX, DOCUMENT_UPDATE_BYTES_MAX};
use outlive_core::log::{Chunk, ChunkKind};
use outlive_core::time::WallTime;
use outlive_document::live::wire::{Awareness, Message, messages};
use outlive_document::live::{ApplyError, Edit, Live, NotebookContent, Place};
use outlive_document::{CellKey, CellKind, NoBlobs, Notebook};
use proptest::prelude::*;
use uuid::Uuid;
use yrs::{
    Any, Array, ArrayPrelim, ArrayRef, ClientID, Doc, Map, MapPrelim, MapRef, OffsetKind, Options, ReadTxn,
    StateVector, Text, TextPrelim, TextRef, Transact, WriteTxn,
};

const NOTEBOOK: &str = r#"{
 "cells": [
  {"cell_type": "code", "execution_count": 1, "id": "a", "metadata": {"k": [1, {"x": null}]}, "outputs": [
    {"name": "stdout", "output_type": "stream", "text": ["old\n"]}], "source": ["x = 1\n", "é😀"]},
  {"cell_type": "markdown", "id": "b", "metadata": {}, "source": ["text"]}
 ],
 "metadata": {"kernelspec": {"name": "python3", "display_name": "p"}},
 "nbformat": 4,
 "nbformat_minor": 5
}
"#;

fn notebook() -> Notebook {
    Notebook::parse(NOTEBOOK.as_bytes()).unwrap()
}

fn restored(journal: &[Vec<u8>]) -> Live {
    let mut restoring = Live::restore(notebook());
    for update in journal {
        restoring.update(update).unwrap();
    }
    restoring.finish()
}

/// Updates as editors make them, after the first state of the document.
fn editing() -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut live = Live::new(notebook());
    let first = live.share().unwrap();
    let key = |id: &str| CellKey::new(id);
    let edits = [
        Edit::SetSource { cell: key("a"), source: "x = 12\né😀!".to_owned(), expected: None },
        Edit::Insert {
            at: Place::End,
            kind: CellKind::Code,
            source: "new".to_owned(),
            id: Some("n".to_owned()),
            metadata: serde_json::json!({"a": {"b": [1.5, true, "s"]}}).as_object().unwrap().clone(),
        },
        Edit::Splice { cell: key("a"), at: 2, delete: 3, insert: "zz".to_owned() },
        Edit::Move { cell: key("b"), at: Place::Index(0) },
        Edit::ClearOutputs { cell: None },
        Edit::SetMetadata {
            cell: None,
            key: "m".to_owned(),
            value: Some(serde_json::json!({"deep": [[[1]]]})),
        },
        Edit::Delete { cell: key("n") },
    ];
    let mut updates: Vec<Vec<u8>> =
        edits.iter().filter_map(|edit| live.edit(std::slice::from_ref(edit)).unwrap().update).collect();
    let run = RunId::from_uuid(Uuid::from_u128(1));
    live.begin_run(&key("a"), run).unwrap();
    let chunk = Chunk::inline(ChunkKind::Stdout, WallTime(0), &b"printed"[..]);
    live.apply_chunk(run, Seq(1), &chunk, &NoBlobs).unwrap();
    updates.push(live.project().unwrap());
    updates.push(live.state());
    (first, updates)
}

/// Draws numbers (xorshift): the same on every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }

    fn mutate(&mut self, updates: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = updates[self.roll(updates.len())].clone();
        for _ in 0..=self.roll(4) {
            let at = self.roll(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
            match self.roll(6) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.roll(8),
                1 if !bytes.is_empty() => bytes[at] = self.roll(256) as u8,
                2 => bytes.insert(at, self.roll(256) as u8),
                3 if !bytes.is_empty() => drop(bytes.remove(at)),
                4 => bytes.truncate(at),
                _ => {
                    let other = &updates[self.roll(updates.len())];
                    let from = self.roll(other.len());
                    bytes.splice(at..at, other[from..(from + 12).min(other.len())].iter().copied());
                }
            }
        }
        bytes
    }
}

/// What people have written.
fn text(live: &mut Live) -> (serde_json::Value, Vec<(CellKey, CellKind, String, serde_json::Value)>) {
    let NotebookContent { metadata, cells, .. } = live.read(false, &NoBlobs);
    (metadata, cells.into_iter().map(|cell| (cell.id, cell.kind, cell.source, cell.metadata)).collect())
}

#[test]
fn twenty_thousand_mutated_updates_take_nothing_with_them() {
    // Those that panic inside are many: only what this test says is of use.
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.location().is_some_and(|place| place.file().ends_with("hostile.rs")) {
            usual(panic);
        }
    }));
    let (first, updates) = editing();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut accepted, mut refused, mut broken) = (0, 0, 0);
    let mut live = restored(std::slice::from_ref(&first));
    for round in 0..20_000 {
        let update = dice.mutate(&updates);
        let before = live.state_vector();
        match live.apply(&update) {
            Err(ApplyError::Broken { .. }) => {
                broken += 1;
                live = restored(std::slice::from_ref(&first));
                assert!(live.contains(&before).unwrap(), "round {round}: everything from before is there");
            }
            Err(_) => {
                refused += 1;
                assert_eq!(live.state_vector(), before);
            }
            Ok(applied) => {
                accepted += 1;
                live.notebook();
                let projected = live.project();
                Notebook::parse(&live.to_bytes(&NoBlobs)).unwrap();
                if accepted % 10 == 0 {
                    let news = [applied.update, applied.corrections, projected];
                    let journal: Vec<Vec<u8>> =
                        [first.clone()].into_iter().chain(news.into_iter().flatten()).collect();
                    assert_eq!(text(&mut restored(&journal)), text(&mut live), "round {round}");
                }
                // A damaged document may be damaged further without end: each of these meets a whole one.
                live = restored(std::slice::from_ref(&first));
            }
        }
    }
    let _ = std::panic::take_hook();
    assert!(accepted > 1_000 && refused > 1_000, "{accepted} accepted, {refused} refused, {broken} broken");
}

fn shared() -> Live {
    let mut live = Live::new(notebook());
    live.share().unwrap();
    live
}

/// A front end that has the document.
fn peer(live: &Live) -> (Doc, ArrayRef) {
    peer_as(live, ClientID::new(77))
}

fn peer_as(live: &Live, client: ClientID) -> (Doc, ArrayRef) {
    use yrs::updates::decoder::Decode;
    let doc =
        Doc::with_options(Options { offset_kind: OffsetKind::Utf16, ..Options::with_client_id(client) });
    let cells = doc.get_or_insert_array("cells");
    doc.transact_mut().apply_update(yrs::Update::decode_v1(&live.state()).unwrap()).unwrap();
    (doc, cells)
}

fn since(doc: &Doc, live: &Live) -> Vec<u8> {
    use yrs::updates::decoder::Decode;
    let theirs = StateVector::decode_v1(&live.state_vector()).unwrap();
    doc.transact().encode_diff_v1(&theirs)
}

#[test]
fn nobody_writes_in_the_name_of_the_server() {
    let mut live = shared();
    let (doc, cells) = peer(&live);
    let first = cells.get(&doc.transact(), 0).unwrap();
    let yrs::branch::BranchID::Nested(id) = first.try_branch().unwrap().id() else {
        panic!("a cell is nested")
    };
    let us = id.client;
    let (doc, cells) = peer_as(&live, us);
    cells.remove(&mut doc.transact_mut(), 0);
    live.apply(&since(&doc, &live)).unwrap();
    cells.push_back(&mut doc.transact_mut(), "forged");
    let error = live.apply(&since(&doc, &live)).unwrap_err();
    assert!(error.to_string().contains("in the name of the server"), "{error}");
}

#[test]
fn values_that_nest_too_deep_are_refused_before_they_cost_a_stack() {
    let mut live = shared();
    let before = live.state();
    // An update by hand: one client, one plain value below `cells`, nested a million deep.
    let mut update = vec![1, 1, 9, 0, 0x08, 1, 5];
    update.extend_from_slice(b"cells");
    update.push(1);
    update.extend(std::iter::repeat_n([117, 1], 1_000_000).flatten());
    update.extend_from_slice(&[126, 0]);
    let error = live.apply(&update).unwrap_err();
    assert!(matches!(error, ApplyError::Forged(forged) if forged.why.contains("deep")), "{error:?}");
    assert_eq!(live.state(), before);
}

#[test]
fn lengths_that_cannot_be_are_refused_before_they_are_reserved() {
    let mut live = shared();
    for forged in [
        &[0xff, 0xff, 0xff, 0xff, 0x0f][..],
        &[1, 0xff, 0xff, 0xff, 0xff, 0x0f, 9, 0],
        // Plain values, and a text, of 2 GiB.
        &[1, 1, 9, 0, 0x08, 1, 1, b'c', 0xff, 0xff, 0xff, 0xff, 0x07, 126, 0],
        &[1, 1, 9, 0, 0x04, 1, 1, b'c', 0xff, 0xff, 0xff, 0xff, 0x07, b'x', 0],
        // A clock at the end of its range.
        &[1, 1, 9, 0xff, 0xff, 0xff, 0xff, 0x07, 0, 1, 0],
        &[],
    ] {
        let error = live.apply(forged).unwrap_err();
        assert!(matches!(error, ApplyError::Forged(_)), "{error:?}");
    }
    let large = vec![0; DOCUMENT_UPDATE_BYTES_MAX + 1];
    assert!(live.apply(&large).unwrap_err().to_string().contains("longer than an update may be"));
    for forged in [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[1, 2], &[1, 1, 1, 1]] {
        assert!(live.contains(forged).is_err());
        assert!(live.since(forged).is_err());
    }
}

#[test]
fn shared_types_that_nest_too_deep_break_that_document_and_no_more() {
    let mut live = shared();
    let state = live.state();
    let (doc, cells) = peer(&live);
    {
        let mut txn = doc.transact_mut();
        let mut map: MapRef = cells.insert(&mut txn, 0, MapPrelim::default());
        for _ in 0..20_000 {
            map = map.insert(&mut txn, "deeper", MapPrelim::default());
        }
    }
    let update = since(&doc, &live);
    assert!(matches!(live.apply(&update).unwrap_err(), ApplyError::Broken { .. }));
    assert!(!live.is_shared());
    // The same, and deleted with it.
    let mut live = restored(&[state]);
    std::thread::scope(|scope| {
        let work = || cells.remove(&mut doc.transact_mut(), 0);
        std::thread::Builder::new().stack_size(256 << 20).spawn_scoped(scope, work).unwrap().join().unwrap();
    });
    let update = since(&doc, &live);
    live.apply(&update).unwrap();
    assert_eq!(live.notebook().cells().len(), 2);
}

#[test]
fn what_is_no_cell_is_mended_and_told() {
    let mut live = shared();
    let (doc, cells) = peer(&live);
    {
        let mut txn = doc.transact_mut();
        cells.insert(&mut txn, 0, "no cell");
        let bare: MapRef = cells.insert(&mut txn, 1, MapPrelim::default());
        bare.insert(&mut txn, "source", "plain text");
        bare.insert(&mut txn, "cell_type", "code");
        let twin: MapRef = cells.insert(&mut txn, 2, MapPrelim::default());
        twin.insert(&mut txn, "id", "a");
        twin.insert(&mut txn, "cell_type", "markdown");
        let text: TextRef = twin.insert(&mut txn, "source", TextPrelim::new("twin"));
        text.push(&mut txn, "!");
        twin.insert(&mut txn, "metadata", Any::from_json(r#"{"plain": 1}"#).unwrap());
        let same: MapRef = cells.push_back(&mut txn, MapPrelim::default());
        same.insert(&mut txn, "id", "b");
        same.insert(&mut txn, "cell_type", "markdown");
        same.insert(&mut txn, "source", TextPrelim::new("text"));
        same.insert(&mut txn, "metadata", MapPrelim::default());
    }
    let applied = live.apply(&since(&doc, &live)).unwrap();
    {
        use yrs::updates::decoder::Decode;
        let mended = yrs::Update::decode_v1(&applied.corrections.unwrap()).unwrap();
        doc.transact_mut().apply_update(mended).unwrap();
    }
    let sources: Vec<String> = live.notebook().cells().map(|cell| cell.source()).collect();
    assert_eq!(sources, ["plain text", "twin!", "x = 1\né😀", "text"]);
    let keys: Vec<&str> = live.notebook().cells().map(|cell| cell.key().as_str()).collect();
    assert_eq!(keys[2..], ["a", "b"]);
    let txn = doc.transact();
    assert_eq!(cells.len(&txn), 4, "the same cell twice is one");
    for cell in cells.iter(&txn) {
        let yrs::Out::YMap(cell) = cell else { panic!("no cell but {cell:?}") };
        assert!(matches!(cell.get(&txn, "source"), Some(yrs::Out::YText(_))));
        assert!(matches!(cell.get(&txn, "metadata"), Some(yrs::Out::YMap(_))));
    }
}

#[test]
fn outputs_of_no_kind_do_not_get_into_the_file() {
    let mut live = shared();
    let (doc, cells) = peer(&live);
    {
        let mut txn = doc.transact_mut();
        let pasted: MapRef = cells.insert(&mut txn, 0, MapPrelim::default());
        pasted.insert(&mut txn, "id", "pasted");
        pasted.insert(&mut txn, "cell_type", "code");
        pasted.insert(&mut txn, "source", TextPrelim::new("1"));
        pasted.insert(&mut txn, "metadata", MapPrelim::default());
        let outputs: ArrayRef = pasted.insert(&mut txn, "outputs", ArrayPrelim::default());
        outputs.push_back(&mut txn, "no output");
        outputs.push_back(&mut txn, MapPrelim::from([("output_type", "stream")]));
        let good: MapRef =
            outputs.push_back(&mut txn, MapPrelim::from([("output_type", "stream"), ("name", "stdout")]));
        good.insert(&mut txn, "text", TextPrelim::new("1\n2"));
        good.insert(&mut txn, "more", 1);
    }
    live.apply(&since(&doc, &live)).unwrap();
    let expected = serde_json::json!([{"name": "stdout", "output_type": "stream", "text": ["1\n", "2"]}]);
    let outputs = live.notebook().outputs(&CellKey::new("pasted"), &NoBlobs);
    assert_eq!(serde_json::Value::from(outputs), expected);
    live.project().unwrap();
    assert_eq!(live.project(), None);
}

#[test]
fn a_deletion_that_is_on_its_way_is_missed_by_a_snapshot_and_by_no_state_vector() {
    use yrs::updates::encoder::Encode;
    let mut live = shared();
    let (doc, cells) = peer(&live);
    let named =
        |doc: &Doc| (doc.transact().snapshot().encode_v1(), doc.transact().state_vector().encode_v1());
    assert!(live.contains_snapshot(&named(&doc).0).unwrap());
    let mut txn = doc.transact_mut();
    let source = cells.get(&txn, 0).unwrap().cast::<MapRef>().unwrap().get(&txn, "source").unwrap();
    let source = source.cast::<TextRef>().unwrap();
    source.remove_range(&mut txn, 1, 2);
    source.remove_range(&mut txn, 2, 1);
    let update = txn.encode_update_v1();
    drop(txn);
    let (snapshot, vector) = named(&doc);
    assert!(live.contains(&vector).unwrap());
    assert!(!live.contains_snapshot(&snapshot).unwrap());
    live.apply(&update).unwrap();
    assert!(live.contains_snapshot(&snapshot).unwrap());
    // What was inserted is asked for too.
    let mut txn = doc.transact_mut();
    source.insert(&mut txn, 0, "more");
    drop(txn);
    assert!(!live.contains_snapshot(&named(&doc).0).unwrap());
    for forged in [&[][..], &[1, 1, 1], &[0], &[1, 1, 1, 255, 255, 255, 255, 15, 0, 0]] {
        assert!(live.contains_snapshot(forged).is_err(), "{forged:?}");
    }
}

#[test]
fn updates_may_come_before_what_they_build_on_but_not_without_end() {
    let mut live = shared();
    let (doc, _) = peer(&live);
    let mut updates = Vec::new();
    for number in 0..4 {
        let mut txn = doc.transact_mut();
        let text = txn.get_or_insert_map("meta");
        text.insert(&mut txn, "k", number);
        updates.push(txn.encode_update_v1());
    }
    let mut journal = vec![live.state()];
    let mut early = live.apply(&updates[2]).unwrap();
    journal.extend(early.update.take());
    assert_eq!(journal.len(), 2, "what waits is journaled as it came");
    // Also across a restart.
    let mut live = restored(&journal);
    live.apply(&updates[0]).unwrap();
    live.apply(&updates[1]).unwrap();
    live.apply(&updates[3]).unwrap();
    let theirs = doc.transact().state_vector();
    use yrs::updates::encoder::Encode;
    assert!(live.contains(&theirs.encode_v1()).unwrap());
    // A flood of what will never fit ends.
    let mut live = shared();
    let (doc, cells) = peer(&live);
    let mut refused = 0;
    for number in 0..6 {
        let mut txn = doc.transact_mut();
        let _: MapRef = cells.insert(&mut txn, 0, MapPrelim::from([("text", "x".repeat(2 << 20))]));
        let update = txn.encode_update_v1();
        drop(txn);
        if number > 0 {
            refused += usize::from(matches!(live.apply(&update), Err(ApplyError::TooFarAhead { .. })));
        }
    }
    assert!(refused > 0 && refused < 5, "{refused}");
    live.edit(&[Edit::SetSource { cell: CellKey::new("a"), source: "still".to_owned(), expected: None }])
        .unwrap();
    assert_eq!(live.notebook().cells().next().unwrap().source(), "still");
}

fn awareness(states: &[(u64, u64, &str)]) -> Vec<u8> {
    let mut out = vec![u8::try_from(states.len()).unwrap()];
    for (client, clock, json) in states {
        out.extend([u8::try_from(*client).unwrap(), u8::try_from(*clock).unwrap()]);
        let (low, high) = (json.len() & 0x7f, json.len() >> 7);
        out.extend(if high == 0 {
            vec![low as u8]
        } else {
            vec![low as u8 | 0x80, (high & 0x7f) as u8 | 0x80, (high >> 7) as u8]
        });
        out.extend_from_slice(json.as_bytes());
    }
    out
}

#[test]
fn awareness_is_relayed_once_and_goes_with_its_peer() {
    let mut table = Awareness::default();
    assert_eq!(table.all(), None);
    let states = awareness(&[(1, 1, r#"{"user":"a"}"#), (2, 5, r#"{"user":"b"}"#)]);
    let noticed = table.apply(&states).unwrap();
    assert_eq!((noticed.relay.as_ref(), noticed.clients), (Some(&states), vec![1, 2]));
    assert_eq!(table.apply(&states).unwrap().relay, None, "nothing new");
    assert_eq!(table.apply(&awareness(&[(2, 4, "{}")])).unwrap().relay, None, "older than what is known");
    let newer = awareness(&[(2, 6, "{}")]);
    assert_eq!(table.apply(&newer).unwrap().relay.unwrap(), newer);
    assert_eq!(table.all().unwrap(), awareness(&[(1, 1, r#"{"user":"a"}"#), (2, 6, "{}")]));
    assert_eq!(table.remove(&[1, 9]).unwrap(), awareness(&[(1, 1, "null")]));
    assert_eq!(table.remove(&[1]), None);
    // It says itself that it goes.
    assert!(table.apply(&awareness(&[(2, 6, "null")])).unwrap().relay.is_some());
    assert_eq!(table.all(), None);
    let long = "x".repeat(AWARENESS_STATE_BYTES_MAX + 1);
    assert!(table.apply(&awareness(&[(1, 1, &long)])).is_err());
    assert_eq!(table.all(), None);
}

#[test]
fn messages_are_those_of_y_protocols() {
    let sent = [
        Message::Step1(&[1, 2]),
        Message::Step2(&[3; 200]),
        Message::Update(&[]),
        Message::Awareness(&[0]),
        Message::AwarenessQuery,
        Message::Other(300, &[9, 9]),
    ];
    assert_eq!(sent[0].encode(), [0, 0, 2, 1, 2]);
    assert_eq!(sent[1].encode()[..4], [0, 1, 200, 1]);
    let frame: Vec<u8> = sent.iter().flat_map(Message::encode).collect();
    let read: Vec<Message<'_>> = messages(&frame).map(Result::unwrap).collect();
    assert_eq!(read, sent);
    assert!(messages(&[0, 2, 5, 1]).next().unwrap().is_err());
    assert!(messages(&[0, 7]).next().unwrap().is_err());
}

proptest! {
    #[test]
    fn no_frame_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        for message in messages(&bytes).flatten() {
            if let Message::Awareness(states) = message {
                let _ = Awareness::default().apply(states);
            }
        }
        let _ = Awareness::default().apply(&bytes);
        let mut live = shared();
        let _ = live.apply(&bytes);
        let _ = live.contains(&bytes);
        let _ = live.contains_snapshot(&bytes);
        let _ = live.since(&bytes);
    }
}
