//! An editor: a Yjs document of its own, with a connection now and then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use outlive_core::id::SessionId;
use outlive_core::time::Tick;
use outlive_document::live::wire::{Message, messages};
use outlive_protocol::http::Problem;
use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;
use yrs::{
    Any, Array, ArrayPrelim, ArrayRef, ClientID, Doc, GetString, Map, MapPrelim, MapRef, OffsetKind, Options,
    Out, ReadTxn, StateVector, Text, TextPrelim, TextRef, Transact, TransactionMut, Update,
};

use crate::schedule::{Life, Place};
use crate::world::{Heard, Live, World};

/// A node that says nothing for so long is left.
const PATIENCE: Duration = Duration::from_secs(8);

/// An editor.
pub(super) struct Tab {
    pub(super) session: SessionId,
    doc: Doc,
    cells: ArrayRef,
    live: Option<Live>,
    /// Changes that were made and not sent.
    unsent: Vec<Vec<u8>>,
    /// Marks in its document that nobody has acknowledged.
    waiting: BTreeSet<String>,
}

/// Why an editor has no connection any more.
#[derive(Debug)]
pub(super) enum Parted {
    /// It ended.
    Lost,
    /// It was let go for this reason.
    Cut(Problem),
}

impl Tab {
    /// An editor that was just opened.
    pub(super) fn new(session: SessionId, client: u64) -> Self {
        let options =
            Options { offset_kind: OffsetKind::Utf16, ..Options::with_client_id(ClientID::new(client)) };
        let doc = Doc::with_options(options);
        let cells = doc.get_or_insert_array("cells");
        Self { session, doc, cells, live: None, unsent: Vec::new(), waiting: BTreeSet::new() }
    }

    /// It is connected.
    pub(super) fn connect(&mut self, live: Live) {
        self.live = Some(live);
        // The first exchange says what the node lacks.
        self.unsent.clear();
    }

    /// Its connection is cut, or it is closed.
    pub(super) fn part(&mut self) {
        self.live = None;
    }

    /// The life of the node that it is connected to.
    pub(super) fn life(&self) -> Option<Life> {
        self.live.as_ref().map(|live| live.life)
    }

    /// Writes a mark at the end of the `nth` cell, or into a cell of its own.
    pub(super) fn write(&mut self, mark: &str, nth: Option<usize>) {
        let mut txn = self.doc.transact_mut();
        let len = self.cells.len(&txn);
        let nth = nth.and_then(|nth| u32::try_from(nth).ok()).filter(|_| len > 0).map(|nth| nth % len);
        match nth.and_then(|nth| source_of(&txn, &self.cells, nth)) {
            Some(source) => {
                let end = source.len(&txn);
                let begin = if end == 0 { "say 2 1000 " } else { "" };
                source.insert(&mut txn, end, &format!("{begin}{mark}"));
            }
            None => {
                let id = format!("live-{}", mark.trim_matches(['#', ';']));
                insert_cell(&mut txn, &self.cells, len, &id, &format!("say 2 1000 {mark}"));
            }
        }
        self.unsent.push(txn.encode_update_v1());
        drop(txn);
        self.waiting.insert(mark.to_owned());
    }

    /// Sends what was changed.
    pub(super) fn flush(&mut self) {
        let Some(live) = &mut self.live else { return };
        for update in std::mem::take(&mut self.unsent) {
            live.send(Message::Update(&update).encode());
        }
    }

    /// Asks for what it lacks and waits for the answer: all that it has sent before is taken in.
    ///
    /// # Errors
    /// When it has no connection any more.
    pub(super) async fn exchange(&mut self, world: &Arc<World>) -> Result<(), Parted> {
        let ours = self.doc.transact().state_vector().encode_v1();
        self.live.as_mut().ok_or(Parted::Lost)?.send(Message::Step1(&ours).encode());
        let until = world.schedule.now() + PATIENCE;
        while !self.hear(world, until).await?.ok_or(Parted::Lost)? {}
        Ok(())
    }

    /// The marks that are acknowledged when what was sent until now is.
    pub(super) fn waiting(&self) -> BTreeSet<String> {
        self.waiting.clone()
    }

    /// Makes sure that a node has all that was written here, and that it stays there: those marks that were not known
    /// to be acknowledged before.
    ///
    /// # Errors
    /// When it has no connection any more.
    pub(super) async fn assure(
        &mut self,
        world: &Arc<World>,
        unsafe_for: Duration,
    ) -> Result<BTreeSet<String>, Parted> {
        self.flush();
        let marks = self.waiting();
        let life = self.life();
        self.exchange(world).await?;
        // What a peer writes is safe from the daemon's death at once, and from a loss of power a moment later.
        self.listen(world, unsafe_for).await?;
        if life.is_none() || world.life(0) != life {
            return Err(Parted::Lost);
        }
        self.waiting.retain(|mark| !marks.contains(mark));
        Ok(marks)
    }

    /// Takes in what comes, for a while.
    ///
    /// # Errors
    /// When it has no connection any more.
    pub(super) async fn listen(&mut self, world: &Arc<World>, wait: Duration) -> Result<(), Parted> {
        let until = world.schedule.now() + wait;
        while self.hear(world, until).await?.is_some() {}
        Ok(())
    }

    /// Takes in what comes next; whether it was what was asked for. `None`: nothing came until then.
    async fn hear(&mut self, world: &Arc<World>, until: Tick) -> Result<Option<bool>, Parted> {
        let live = self.live.as_mut().ok_or(Parted::Lost)?;
        let over = world.schedule.until(until, Place::Clients);
        let heard = match select(std::pin::pin!(live.next()), over).await {
            Either::Left((heard, _)) => heard,
            Either::Right(_) => return Ok(None),
        };
        match heard {
            Some(Heard::Frame(frame)) => Ok(Some(self.frame(&frame))),
            Some(Heard::Gap) => Ok(Some(false)),
            Some(Heard::Cut(problem)) => {
                self.part();
                Err(Parted::Cut(problem))
            }
            None => {
                self.part();
                Err(Parted::Lost)
            }
        }
    }

    fn frame(&mut self, frame: &[u8]) -> bool {
        let mut is_answer = false;
        for message in messages(frame) {
            match message.expect("a node sends what is valid") {
                Message::Step1(theirs) => {
                    let theirs = StateVector::decode_v1(theirs).expect("a node sends what is valid");
                    let lacking = self.doc.transact().encode_state_as_update_v1(&theirs);
                    if let Some(live) = &mut self.live {
                        live.send(Message::Step2(&lacking).encode());
                    }
                }
                Message::Step2(update) => {
                    self.take(update);
                    is_answer = true;
                }
                Message::Update(update) => self.take(update),
                Message::Awareness(_) | Message::AwarenessQuery | Message::Other(..) => {}
            }
        }
        is_answer
    }

    fn take(&self, update: &[u8]) {
        let update = Update::decode_v1(update).expect("a node sends what is valid");
        self.doc.transact_mut().apply_update(update).expect("a node sends what fits");
    }

    /// What its document contains, as a state vector.
    pub(super) fn state_vector(&self) -> Vec<u8> {
        self.doc.transact().state_vector().encode_v1()
    }

    /// The ids and sources of all cells that it shows.
    pub(super) fn shows(&self) -> Vec<(String, String)> {
        let txn = self.doc.transact();
        let cell = |nth| match self.cells.get(&txn, nth) {
            Some(Out::YMap(cell)) => {
                let id = match cell.get(&txn, "id") {
                    Some(Out::Any(Any::String(id))) => id.to_string(),
                    _ => String::new(),
                };
                let source = source_of(&txn, &self.cells, nth);
                (id, source.map(|source| source.get_string(&txn)).unwrap_or_default())
            }
            _ => Default::default(),
        };
        (0..self.cells.len(&txn)).map(cell).collect()
    }
}

fn source_of(txn: &impl ReadTxn, cells: &ArrayRef, nth: u32) -> Option<TextRef> {
    let Some(Out::YMap(cell)) = cells.get(txn, nth) else { return None };
    match cell.get(txn, "source") {
        Some(Out::YText(source)) => Some(source),
        _ => None,
    }
}

fn insert_cell(txn: &mut TransactionMut<'_>, cells: &ArrayRef, at: u32, id: &str, source: &str) {
    let cell: MapRef = cells.insert(txn, at, MapPrelim::default());
    cell.insert(txn, "id", id);
    cell.insert(txn, "cell_type", "code");
    cell.insert(txn, "source", TextPrelim::new(source));
    cell.insert(txn, "metadata", MapPrelim::default());
    cell.insert(txn, "outputs", ArrayPrelim::default());
}
