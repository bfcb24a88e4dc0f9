//! Somebody who edits a notebook live, as a front end does: a Yjs document of its own behind the two halves of a peer.

use std::time::Duration;

use bytes::Bytes;
use outlive_document::live::wire::{Message, messages};
use outlive_protocol::http::Problem;
use yrs::types::ToJson;
use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;
use yrs::{
    Array, ArrayPrelim, ArrayRef, ClientID, Doc, GetString, Map, MapPrelim, MapRef, OffsetKind, Options, Out,
    ReadTxn, StateVector, Text, TextPrelim, TextRef, Transact, TransactionMut, Update,
};

use crate::session::peers::{DocumentPeer, Outgoing};

const PATIENCE: Duration = Duration::from_secs(60);

/// A front end.
pub struct Editor {
    pub doc: Doc,
    pub cells: ArrayRef,
    peer: Option<DocumentPeer>,
    /// Updates that were made and not sent.
    pub unsent: Vec<Vec<u8>>,
    pub gaps: Vec<u64>,
    pub awareness: Vec<Vec<u8>>,
    pub updates: usize,
}

impl Editor {
    pub fn new(client: u64) -> Self {
        let options =
            Options { offset_kind: OffsetKind::Utf16, ..Options::with_client_id(ClientID::new(client)) };
        let doc = Doc::with_options(options);
        let cells = doc.get_or_insert_array("cells");
        Self {
            doc,
            cells,
            peer: None,
            unsent: Vec::new(),
            gaps: Vec::new(),
            awareness: Vec::new(),
            updates: 0,
        }
    }

    /// Connects, and has all that the session has.
    pub async fn join(&mut self, peer: DocumentPeer) {
        self.peer = Some(peer);
        self.unsent.clear();
        self.sync().await;
    }

    /// Loses its connection.
    pub fn part(&mut self) {
        self.peer = None;
    }

    pub fn is_connected(&self) -> bool {
        self.peer.is_some()
    }

    pub fn peer(&mut self) -> &mut DocumentPeer {
        self.peer.as_mut().expect("it is connected")
    }

    pub async fn send(&mut self, frame: Vec<u8>) {
        let sent = self.peer().input.send(Bytes::from(frame));
        tokio::time::timeout(PATIENCE, sent).await.expect("it is taken").expect("it is a peer");
    }

    /// Changes its document; the change waits to be sent.
    pub fn edit<R>(&mut self, change: impl FnOnce(&mut TransactionMut<'_>, &ArrayRef) -> R) -> R {
        let mut txn = self.doc.transact_mut();
        let result = change(&mut txn, &self.cells);
        if txn.has_changes() {
            self.unsent.push(txn.encode_update_v1());
        }
        result
    }

    /// Sends what waits.
    pub async fn flush(&mut self) {
        for update in std::mem::take(&mut self.unsent) {
            self.send(Message::Update(&update).encode()).await;
        }
    }

    /// Types behind what stands in a cell.
    pub async fn type_into(&mut self, cell: u32, text: &str) {
        self.edit(|txn, cells| {
            let source = source_of(txn, cells, cell);
            let end = source.len(txn);
            source.insert(txn, end, text);
        });
        self.flush().await;
    }

    /// Makes an edit that no front end makes, and that takes the session's document with it.
    pub fn nest_too_deep(&mut self) {
        self.edit(|txn, cells| {
            let mut inner: ArrayRef = cell_of(txn, cells, 0).insert(txn, "deep", ArrayPrelim::default());
            for _ in 0..40 {
                inner = inner.insert(txn, 0, ArrayPrelim::default());
            }
        });
    }

    /// What it is sent next, taken in.
    pub async fn hear(&mut self) -> Heard {
        let next = tokio::time::timeout(PATIENCE, self.peer().output.next()).await.expect("something comes");
        match next {
            Some(Outgoing::Frame(frame)) => self.frame(&frame).await,
            Some(Outgoing::Gap { skipped }) => {
                self.gaps.push(skipped);
                Heard::Gap
            }
            Some(Outgoing::Cut(problem)) => Heard::Cut(problem),
            None => Heard::Over,
        }
    }

    async fn frame(&mut self, frame: &[u8]) -> Heard {
        let mut heard = Heard::Update;
        for message in messages(frame) {
            match message.expect("the session sends what is valid") {
                Message::Step1(theirs) => {
                    let theirs = StateVector::decode_v1(theirs).unwrap();
                    let lacking = self.doc.transact().encode_state_as_update_v1(&theirs);
                    self.send(Message::Step2(&lacking).encode()).await;
                    heard = Heard::Asked;
                }
                Message::Step2(update) => {
                    self.take(update);
                    heard = Heard::Answered;
                }
                Message::Update(update) => {
                    self.take(update);
                    self.updates += 1;
                }
                Message::Awareness(states) => {
                    self.awareness.push(states.to_vec());
                    heard = Heard::Awareness;
                }
                Message::AwarenessQuery | Message::Other(..) => panic!("nobody asks an editor for that"),
            }
        }
        heard
    }

    fn take(&self, update: &[u8]) {
        self.doc.transact_mut().apply_update(Update::decode_v1(update).unwrap()).unwrap();
    }

    /// Asks for what it lacks and waits for the answer: all that it has sent before is taken in, and all that was sent
    /// to it before has been heard.
    pub async fn sync(&mut self) {
        let ours = self.doc.transact().state_vector().encode_v1();
        self.send(Message::Step1(&ours).encode()).await;
        loop {
            match self.hear().await {
                Heard::Answered => return,
                Heard::Cut(problem) => panic!("cut: {problem}"),
                Heard::Over => panic!("over"),
                Heard::Update | Heard::Asked | Heard::Awareness | Heard::Gap => {}
            }
        }
    }

    /// Waits until it is told where somebody is.
    pub async fn until_aware(&mut self) {
        let before = self.awareness.len();
        while self.awareness.len() == before {
            self.hear().await;
        }
    }

    /// Waits for the end; gives the reason.
    pub async fn until_cut(&mut self) -> Problem {
        loop {
            let next =
                tokio::time::timeout(PATIENCE, self.peer().output.next()).await.expect("the end comes");
            match next {
                Some(Outgoing::Cut(problem)) => {
                    assert!(self.peer().output.next().await.is_none(), "nothing follows the end");
                    return problem;
                }
                Some(Outgoing::Frame(_) | Outgoing::Gap { .. }) => {}
                None => panic!("it ended without a reason"),
            }
        }
    }

    pub fn state_vector(&self) -> Vec<u8> {
        self.doc.transact().state_vector().encode_v1()
    }

    /// The same with what was deleted.
    pub fn snapshot(&self) -> Vec<u8> {
        self.doc.transact().snapshot().encode_v1()
    }

    /// All that it shows.
    pub fn shows(&self) -> serde_json::Value {
        let text = serde_json::to_string(&self.cells.to_json(&self.doc.transact())).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    pub fn sources(&self) -> Vec<String> {
        let txn = self.doc.transact();
        (0..self.cells.len(&txn)).map(|cell| source_of(&txn, &self.cells, cell).get_string(&txn)).collect()
    }
}

/// What an editor has heard.
#[derive(Debug)]
pub enum Heard {
    Update,
    Asked,
    Answered,
    Awareness,
    Gap,
    Cut(Problem),
    Over,
}

pub fn source_of<T: ReadTxn>(txn: &T, cells: &ArrayRef, cell: u32) -> TextRef {
    match cell_of(txn, cells, cell).get(txn, "source") {
        Some(Out::YText(source)) => source,
        other => panic!("no source but {other:?}"),
    }
}

pub fn cell_of<T: ReadTxn>(txn: &T, cells: &ArrayRef, cell: u32) -> MapRef {
    match cells.get(txn, cell) {
        Some(Out::YMap(cell)) => cell,
        other => panic!("no cell but {other:?}"),
    }
}

pub fn insert_cell(
    txn: &mut TransactionMut<'_>,
    cells: &ArrayRef,
    at: u32,
    id: &str,
    source: &str,
) -> MapRef {
    let cell: MapRef = cells.insert(txn, at, MapPrelim::default());
    cell.insert(txn, "id", id);
    cell.insert(txn, "cell_type", "code");
    cell.insert(txn, "source", TextPrelim::new(source));
    cell.insert(txn, "metadata", MapPrelim::default());
    cell.insert(txn, "outputs", ArrayPrelim::default());
    cell
}
