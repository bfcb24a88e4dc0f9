//! Three peers, edits by cell, runs and restarts, with delays: all end with the same notebook, and it is the file's.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use outlive_core::id::{RunId, Seq};
use outlive_core::log::{Chunk, ChunkKind};
use outlive_core::session::RunOutcome;
use outlive_core::time::WallTime;
use outlive_document::live::{Edit, Live, Place};
use outlive_document::{CellKey, CellKind, NoBlobs, Notebook};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};
use uuid::Uuid;
use yrs::types::ToJson;
use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;
use yrs::{
    Any, Array, ArrayPrelim, ArrayRef, ClientID, Doc, GetString, In, Map, MapPrelim, MapRef, OffsetKind,
    Options, Out, ReadTxn, StateVector, Text, TextPrelim, Transact, Update,
};

const PEERS: usize = 3;
const CASES: u32 = 300;

const NOTEBOOK: &str = r#"{
 "cells": [
  {"cell_type": "code", "execution_count": 1, "id": "a", "metadata": {}, "outputs": [
    {"name": "stdout", "output_type": "stream", "text": ["old\n"]}], "source": ["x = 1"]},
  {"cell_type": "markdown", "id": "b", "metadata": {"tags": []}, "source": ["text"]},
  {"cell_type": "code", "execution_count": null, "id": "c", "metadata": {}, "outputs": [], "source": []}
 ],
 "metadata": {"kernelspec": {"name": "python3", "display_name": "p"}},
 "nbformat": 4,
 "nbformat_minor": 5
}
"#;

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// A peer writes.
    Peer(usize, Write),
    /// An edit by cell.
    Edit(ByCell),
    /// A run of a cell begins, prints or ends.
    Begin(Index),
    Print(Index, String),
    End(Index),
    Project,
    /// The first waiting message between a peer and the server arrives.
    Up(usize),
    Down(usize),
    /// A peer's connection breaks and is made again.
    Reconnect(usize),
    /// The daemon is killed and comes back.
    Restart,
    /// The file is written.
    Save,
    /// Another program edits the file as it is: a cell's source, a cell less, a cell more.
    External(Index, String, u8),
    Look,
}

#[derive(Clone, Debug)]
enum Write {
    Type(Index, Index, String),
    Erase(Index, Index),
    Insert(Index, bool),
    Delete(Index),
    Move(Index, Index),
    Metadata(Index, u8),
    ClearOutputs(Index),
    ForgeOutput(Index),
    SameId(Index),
}

#[derive(Clone, Debug)]
enum ByCell {
    Set(Index, String),
    Insert(Index, String),
    Delete(Index),
    Move(Index, Index),
    Kind(Index, bool),
    Clear(Index),
}

fn text() -> impl Strategy<Value = String> {
    "[a-cé😀\n]{1,6}"
}

fn any_write() -> impl Strategy<Value = Write> {
    let index = any::<Index>;
    prop_oneof![
        6 => (index(), index(), text()).prop_map(|(cell, at, text)| Write::Type(cell, at, text)),
        2 => (index(), index()).prop_map(|(cell, at)| Write::Erase(cell, at)),
        2 => (index(), any::<bool>()).prop_map(|(at, code)| Write::Insert(at, code)),
        1 => index().prop_map(Write::Delete),
        1 => (index(), index()).prop_map(|(from, to)| Write::Move(from, to)),
        1 => (index(), any::<u8>()).prop_map(|(cell, value)| Write::Metadata(cell, value)),
        1 => index().prop_map(Write::ClearOutputs),
        1 => index().prop_map(Write::ForgeOutput),
        1 => index().prop_map(Write::SameId),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    let by_cell = prop_oneof![
        (index(), text()).prop_map(|(cell, text)| ByCell::Set(cell, text)),
        (index(), text()).prop_map(|(at, text)| ByCell::Insert(at, text)),
        index().prop_map(ByCell::Delete),
        (index(), index()).prop_map(|(from, to)| ByCell::Move(from, to)),
        (index(), any::<bool>()).prop_map(|(cell, code)| ByCell::Kind(cell, code)),
        index().prop_map(ByCell::Clear),
    ];
    prop_oneof![
        8 => (0..PEERS, any_write()).prop_map(|(peer, write)| Step::Peer(peer, write)),
        2 => by_cell.prop_map(Step::Edit),
        2 => index().prop_map(Step::Begin),
        3 => (index(), text()).prop_map(|(run, text)| Step::Print(run, text)),
        1 => index().prop_map(Step::End),
        2 => Just(Step::Project),
        6 => (0..PEERS).prop_map(Step::Up),
        6 => (0..PEERS).prop_map(Step::Down),
        1 => (0..PEERS).prop_map(Step::Reconnect),
        1 => Just(Step::Restart),
        1 => Just(Step::Save),
        1 => (index(), text(), 0..3u8).prop_map(|(cell, text, how)| Step::External(cell, text, how)),
        1 => Just(Step::Look),
    ]
}

/// A front end.
struct Peer {
    doc: Doc,
    cells: ArrayRef,
    up: VecDeque<Vec<u8>>,
    down: VecDeque<Vec<u8>>,
    inserted: u32,
    number: usize,
}

impl Peer {
    fn new(number: usize) -> Self {
        let client = ClientID::new(100 + number as u64);
        let doc =
            Doc::with_options(Options { offset_kind: OffsetKind::Utf16, ..Options::with_client_id(client) });
        let cells = doc.get_or_insert_array("cells");
        Self { doc, cells, up: VecDeque::new(), down: VecDeque::new(), inserted: 0, number }
    }

    fn take(&self, update: &[u8]) {
        self.doc.transact_mut().apply_update(Update::decode_v1(update).unwrap()).unwrap();
    }

    /// Writes; gives the id of a cell that is deleted or doubled by it.
    fn write(&mut self, write: &Write) -> Option<String> {
        let mut deleted = None;
        let mut txn = self.doc.transact_mut();
        let length = self.cells.len(&txn);
        let pick = |index: &Index| u32::try_from(index.index(length as usize)).unwrap();
        let cell = |txn: &yrs::TransactionMut<'_>, index: &Index| match self.cells.get(txn, pick(index)) {
            Some(Out::YMap(map)) => map,
            other => panic!("no cell but {other:?}"),
        };
        if length == 0 && !matches!(write, Write::Insert(..)) {
            return None;
        }
        match write {
            Write::Type(at_cell, at, text) => {
                if let Some(Out::YText(source)) = cell(&txn, at_cell).get(&txn, "source") {
                    let places = boundaries(&source.get_string(&txn));
                    source.insert(&mut txn, places[at.index(places.len())], text);
                }
            }
            Write::Erase(at_cell, at) => {
                if let Some(Out::YText(source)) = cell(&txn, at_cell).get(&txn, "source") {
                    let places = boundaries(&source.get_string(&txn));
                    let from = at.index(places.len());
                    if let Some(to) = places.get(from + 1) {
                        source.remove_range(&mut txn, places[from], to - places[from]);
                    }
                }
            }
            Write::Insert(at, code) => {
                self.inserted += 1;
                let id = format!("p{}-{}", self.number, self.inserted);
                let at = u32::try_from(at.index(length as usize + 1)).unwrap();
                insert_cell(
                    &mut txn,
                    &self.cells,
                    at,
                    &id,
                    if *code { "code" } else { "markdown" },
                    "new",
                    None,
                );
            }
            Write::Delete(at) => {
                deleted = cell(&txn, at).get(&txn, "id").map(|id| id.to_string(&txn));
                self.cells.remove(&mut txn, pick(at));
            }
            Write::Move(from, to) => {
                let map = cell(&txn, from);
                let text = |member| map.get(&txn, member).unwrap().to_string(&txn);
                let (id, kind, source) = (text("id"), text("cell_type"), text("source"));
                let plain = |member| map.get(&txn, member).map(|value| value.to_json(&txn));
                let (outputs, count) = (plain("outputs"), plain("execution_count"));
                self.cells.remove(&mut txn, pick(from));
                let at = pick(to).min(length - 1);
                let moved = insert_cell(&mut txn, &self.cells, at, &id, &kind, &source, outputs);
                if let Some(count) = count.filter(|_| kind == "code") {
                    moved.insert(&mut txn, "execution_count", count);
                }
            }
            other => deleted = self.write_more(&mut txn, other),
        }
        if txn.has_changes() {
            let update = txn.encode_update_v1();
            drop(txn);
            self.up.push_back(update);
        }
        deleted
    }

    /// Writes something other than source and order; gives an id that two cells have from now on.
    fn write_more(&self, txn: &mut yrs::TransactionMut<'_>, write: &Write) -> Option<String> {
        let cell = |txn: &yrs::TransactionMut<'_>, index: &Index| {
            let at = u32::try_from(index.index(self.cells.len(txn) as usize)).unwrap();
            match self.cells.get(txn, at) {
                Some(Out::YMap(map)) => map,
                other => panic!("no cell but {other:?}"),
            }
        };
        match write {
            Write::Metadata(at, value) => {
                if let Some(Out::YMap(metadata)) = cell(txn, at).get(txn, "metadata") {
                    metadata.insert(txn, "k", Any::from_json(&format!("{{\"v\": [{value}]}}")).unwrap());
                }
            }
            Write::ClearOutputs(at) => {
                if let Some(Out::YArray(outputs)) = cell(txn, at).get(txn, "outputs") {
                    let length = outputs.len(txn);
                    outputs.remove_range(txn, 0, length);
                }
            }
            Write::ForgeOutput(at) => {
                if let Some(Out::YArray(outputs)) = cell(txn, at).get(txn, "outputs") {
                    outputs.insert(txn, 0, MapPrelim::from([("output_type", "error")]));
                }
            }
            Write::SameId(at) => {
                let id = cell(txn, at).get(txn, "id").unwrap().to_string(txn);
                insert_cell(txn, &self.cells, 0, &id, "code", "twin", None);
                return Some(id);
            }
            other => panic!("{other:?} is written elsewhere"),
        }
        None
    }

    fn state_vector(&self) -> Vec<u8> {
        self.doc.transact().state_vector().encode_v1()
    }

    fn json(&self) -> Value {
        let text = serde_json::to_string(&self.cells.to_json(&self.doc.transact())).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

/// Where a character begins or ends, in UTF-16 units.
fn boundaries(text: &str) -> Vec<u32> {
    let mut at = 0;
    let ends = text.chars().map(|c| {
        at += u32::try_from(c.len_utf16()).unwrap();
        at
    });
    std::iter::once(0).chain(ends).collect()
}

fn insert_cell(
    txn: &mut yrs::TransactionMut<'_>,
    cells: &ArrayRef,
    at: u32,
    id: &str,
    kind: &str,
    source: &str,
    outputs: Option<Any>,
) -> MapRef {
    let map: MapRef = cells.insert(txn, at, MapPrelim::default());
    map.insert(txn, "id", id);
    map.insert(txn, "cell_type", kind);
    map.insert(txn, "source", TextPrelim::new(source));
    map.insert(txn, "metadata", MapPrelim::default());
    if kind == "code" {
        let array: ArrayRef = map.insert(txn, "outputs", ArrayPrelim::default());
        let Some(Any::Array(outputs)) = outputs else { return map };
        for output in outputs.iter() {
            let Any::Map(members) = output else { continue };
            let members: HashMap<Arc<str>, In> = members
                .iter()
                .map(|(key, value)| match value {
                    Any::String(text) if key == "text" => {
                        (key.as_str().into(), TextPrelim::new(text.to_string()).into())
                    }
                    value => (key.as_str().into(), value.clone().into()),
                })
                .collect();
            array.push_back(txn, MapPrelim::from_iter(members));
        }
    }
    map
}

struct Run {
    cell: CellKey,
    chunks: Vec<Chunk>,
    is_over: bool,
}

struct World {
    /// The notebook that everything in the journal builds on, and the runs whose outputs it has.
    opened: Vec<u8>,
    kept: HashSet<usize>,
    live: Live,
    peers: Vec<Peer>,
    journal: Vec<Vec<u8>>,
    runs: Vec<Run>,
    inserted: u32,
    /// Cells that somebody has deleted, doubled or made text. One that comes back, because somebody else has moved it at the
    /// same moment, shows outputs or not, as that came before or after them.
    deleted: HashSet<String>,
    /// What stands in the file.
    file: Value,
}

fn run_id(number: usize) -> RunId {
    RunId::from_uuid(Uuid::from_u128(1 + number as u128))
}

impl World {
    fn new() -> Self {
        let mut live = Live::new(notebook());
        let journal = vec![live.share().unwrap()];
        let peers: Vec<Peer> = (0..PEERS).map(Peer::new).collect();
        for peer in &peers {
            peer.take(&live.state());
        }
        Self {
            opened: NOTEBOOK.into(),
            kept: HashSet::new(),
            live,
            peers,
            journal,
            runs: Vec::new(),
            inserted: 0,
            deleted: HashSet::new(),
            file: serde_json::from_str(NOTEBOOK).unwrap(),
        }
    }

    /// Journals, and sends to all but one.
    fn spread(&mut self, update: Option<Vec<u8>>, but: Option<usize>) {
        let Some(update) = update else { return };
        self.journal.push(update.clone());
        for peer in self.peers.iter_mut().filter(|peer| Some(peer.number) != but) {
            peer.down.push_back(update.clone());
        }
    }

    fn receive(&mut self, from: usize, update: &[u8]) {
        let applied = self.live.apply(update).unwrap();
        self.spread(applied.update, Some(from));
        self.spread(applied.corrections, None);
    }

    fn reconnect(&mut self, number: usize) {
        self.peers[number].up.clear();
        self.peers[number].down.clear();
        let peer = &self.peers[number];
        let ours = StateVector::decode_v1(&self.live.state_vector()).unwrap();
        let lacking = peer.doc.transact().encode_state_as_update_v1(&ours);
        peer.take(&self.live.since(&peer.state_vector()).unwrap());
        self.receive(number, &lacking);
        self.peers[number].down.clear();
        let peer = &self.peers[number];
        peer.take(&self.live.since(&peer.state_vector()).unwrap());
    }

    fn restored(&self) -> Live {
        let mut restoring = Live::restore(Notebook::parse(&self.opened).unwrap());
        for update in &self.journal {
            restoring.update(update).unwrap();
        }
        let mut live = restoring.finish();
        for (number, run) in self.runs.iter().enumerate() {
            if self.kept.contains(&number) {
                continue;
            }
            if live.begin_run(&run.cell, run_id(number)).is_err() {
                continue;
            }
            for (seq, chunk) in (1..).zip(&run.chunks) {
                live.apply_chunk(run_id(number), Seq(seq), chunk, &NoBlobs).unwrap();
            }
            if run.is_over {
                live.finish_run(run_id(number), &RunOutcome::Succeeded, None).unwrap();
            }
        }
        live
    }

    fn restart(&mut self) {
        self.live = self.restored();
        let mended = self.live.project();
        self.spread(mended, None);
        for number in 0..PEERS {
            self.reconnect(number);
        }
    }

    fn cell(&mut self, index: &Index) -> Option<CellKey> {
        let keys: Vec<CellKey> = self.live.notebook().cells().map(|cell| cell.key().clone()).collect();
        (!keys.is_empty()).then(|| keys[index.index(keys.len())].clone())
    }

    fn edit(&mut self, edit: &ByCell) {
        let edit = match edit {
            ByCell::Insert(at, source) => {
                self.inserted += 1;
                Edit::Insert {
                    at: Place::Index(at.index(5)),
                    kind: CellKind::Code,
                    source: source.clone(),
                    id: Some(format!("s-{}", self.inserted)),
                    metadata: serde_json::Map::new(),
                }
            }
            ByCell::Set(cell, source) => {
                let Some(cell) = self.cell(cell) else { return };
                Edit::SetSource { cell, source: source.clone(), expected: None }
            }
            ByCell::Delete(cell) => {
                let Some(cell) = self.cell(cell) else { return };
                self.deleted.insert(cell.as_str().to_owned());
                Edit::Delete { cell }
            }
            ByCell::Move(cell, to) => {
                let (Some(cell), Some(to)) = (self.cell(cell), self.cell(to)) else { return };
                Edit::Move { cell, at: Place::After(to) }
            }
            ByCell::Kind(cell, code) => {
                let Some(cell) = self.cell(cell) else { return };
                self.deleted.insert(cell.as_str().to_owned());
                Edit::SetKind { cell, kind: if *code { CellKind::Code } else { CellKind::Markdown } }
            }
            ByCell::Clear(cell) => Edit::ClearOutputs { cell: self.cell(cell) },
        };
        let edited = self.live.edit(&[edit]).unwrap();
        self.spread(edited.update, None);
    }

    /// One of the runs that go on.
    fn going(&self, index: &Index) -> Option<usize> {
        let going: Vec<usize> = (0..self.runs.len()).filter(|&run| !self.runs[run].is_over).collect();
        (!going.is_empty()).then(|| going[index.index(going.len())])
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Peer(peer, write) => self.deleted.extend(self.peers[*peer].write(write)),
            Step::Edit(edit) => self.edit(edit),
            Step::Begin(cell) => {
                let Some(cell) = self.cell(cell) else { return };
                let is_code = self.live.notebook().cell(&cell).unwrap().kind() == CellKind::Code;
                if is_code && !self.runs.iter().any(|run| run.cell == cell && !run.is_over) {
                    self.live.begin_run(&cell, run_id(self.runs.len())).unwrap();
                    self.runs.push(Run { cell, chunks: Vec::new(), is_over: false });
                }
            }
            Step::Print(run, text) => {
                let Some(number) = self.going(run) else { return };
                let chunk = Chunk::inline(ChunkKind::Stdout, WallTime(0), text.as_bytes());
                let seq = Seq(self.runs[number].chunks.len() as u64 + 1);
                // Unknown, when its cell was gone as the daemon came back.
                let _ = self.live.apply_chunk(run_id(number), seq, &chunk, &NoBlobs);
                self.runs[number].chunks.push(chunk);
            }
            Step::End(run) => {
                let Some(number) = self.going(run) else { return };
                self.runs[number].is_over = true;
                let _ = self.live.finish_run(run_id(number), &RunOutcome::Succeeded, None);
            }
            Step::Project => {
                let update = self.live.project();
                self.spread(update, None);
            }
            Step::Up(peer) => {
                if let Some(update) = self.peers[*peer].up.pop_front() {
                    self.receive(*peer, &update);
                }
            }
            Step::Down(peer) => {
                if let Some(update) = self.peers[*peer].down.pop_front() {
                    self.peers[*peer].take(&update);
                }
            }
            Step::Reconnect(peer) => self.reconnect(*peer),
            Step::Restart => self.restart(),
            Step::Save => {
                self.file = serde_json::from_slice(&self.live.to_bytes(&NoBlobs)).unwrap();
                self.live.rendered();
                self.live.saved();
            }
            Step::External(cell, text, how) => self.edit_file(cell, text, *how),
            Step::Look => drop(self.live.notebook().cells().len()),
        }
    }

    fn edit_file(&mut self, index: &Index, text: &str, how: u8) {
        let before = self.file.clone();
        let cells = self.file["cells"].as_array_mut().unwrap();
        if cells.is_empty() && how < 2 {
            return;
        }
        match how {
            0 => {
                let at = index.index(cells.len());
                cells[at]["source"] = json!([text]);
            }
            1 => {
                let gone = cells.remove(index.index(cells.len()));
                self.deleted.insert(gone["id"].as_str().unwrap().to_owned());
            }
            _ => {
                self.inserted += 1;
                let new = json!({"cell_type": "markdown", "id": format!("f-{}", self.inserted), "metadata": {}, "source": [text]});
                cells.insert(index.index(cells.len() + 1), new);
            }
        }
        let theirs = Notebook::parse(self.file.to_string().as_bytes()).unwrap();
        let rebased = self.live.rebase(theirs);
        self.spread(rebased.update, None);
        // What was taken over from a file is in no log: everything is written down anew.
        if rebased.changed {
            let projected = self.live.project();
            self.spread(projected, None);
            self.opened = self.live.to_bytes(&NoBlobs);
            self.journal = vec![self.live.state()];
            self.kept = (0..self.runs.len()).filter(|&run| self.runs[run].is_over).collect();
        }
        // Their text is there, unless ours is too and both are.
        if how != 1 && self.file != before {
            let text: String = text.to_owned();
            assert!(self.live.notebook().cells().any(|cell| cell.source() == text), "{text:?} is lost");
        }
    }

    fn settle(&mut self) {
        while let Some(peer) = self.peers.iter().position(|peer| !peer.up.is_empty() || !peer.down.is_empty())
        {
            self.step(&Step::Up(peer));
            self.step(&Step::Down(peer));
        }
        self.step(&Step::Project);
        for peer in 0..PEERS {
            while !self.peers[peer].down.is_empty() {
                self.step(&Step::Down(peer));
            }
        }
    }
}

fn notebook() -> Notebook {
    Notebook::parse(NOTEBOOK.as_bytes()).unwrap()
}

/// The cells of a notebook in the form of the document.
fn cells_of(live: &mut Live) -> Value {
    let join = |value: &Value| match value {
        Value::Array(lines) => lines.iter().map(|line| line.as_str().unwrap()).collect::<String>().into(),
        other => other.clone(),
    };
    let notebook: Value = serde_json::from_slice(&live.to_bytes(&NoBlobs)).unwrap();
    let cells =
        notebook["cells"].as_array().unwrap().iter().zip(live.notebook().cells()).map(|(cell, view)| {
            let mut cell = cell.clone();
            // Another program may have given all cells other ids; ours keep their names.
            cell["id"] = view.key().as_str().into();
            cell["source"] = join(&cell["source"]);
            for output in cell.get_mut("outputs").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(text) = output.get("text") {
                    output["text"] = join(text);
                }
            }
            cell
        });
    cells.collect()
}

fn without_state(mut cells: Value) -> Value {
    for cell in cells.as_array_mut().unwrap() {
        let cell = cell.as_object_mut().unwrap();
        cell.remove("execution_state");
        if cell["cell_type"] == "code" {
            cell.entry("execution_count").or_insert(json!(null));
        } else {
            // A front end leaves them where a cell has become text.
            cell.remove("outputs");
            cell.remove("execution_count");
        }
    }
    cells
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]
    // C7: with delays, reconnects and restarts in between.
    #[test]
    fn all_end_with_the_same_notebook(steps in prop::collection::vec(any_step(), 1..80)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.settle();
        let expected = world.peers[0].json();
        for peer in &world.peers[1..] {
            prop_assert_eq!(&peer.json(), &expected);
        }
        prop_assert_eq!(cells_of(&mut world.live), without_state(expected));
        let mut again = world.restored();
        let comparable = |mut cells: Value| {
            for cell in cells.as_array_mut().unwrap() {
                if world.deleted.contains(cell["id"].as_str().unwrap()) {
                    cell["outputs"] = json!([]);
                    cell["execution_count"] = json!(null);
                }
            }
            cells
        };
        prop_assert_eq!(comparable(cells_of(&mut again)), comparable(cells_of(&mut world.live)));
    }
}
