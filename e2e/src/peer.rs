//! Somebody who edits a notebook live: a Yjs document of its own, kept the same as the session's over a WebSocket by
//! the protocol that y-websocket speaks.

use serde_json::Value;
use yrs::sync::{Message, SyncMessage};
use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;
use yrs::{
    Any, Array, Doc, Map, MapPrelim, MapRef, OffsetKind, Options, Out, ReadTxn, Text, TextPrelim, Transact,
    TransactionMut, Update,
};

use crate::clock::{Deadline, PATIENCE, within};
use crate::events::Silence;
use crate::session::Session;
use crate::websocket::{Frame, WebSocket};

/// A peer. It sees what others do when it is asked what it sees.
pub struct Peer {
    doc: Doc,
    socket: Option<WebSocket>,
    /// Text messages, which y-websocket's clients do not look at.
    pub told: Vec<Value>,
}

impl Peer {
    /// Joins a session and waits until it has its notebook.
    ///
    /// # Panics
    /// When that does not come.
    #[must_use]
    #[track_caller]
    pub fn join(session: &Session) -> Self {
        let options = Options { offset_kind: OffsetKind::Utf16, ..Options::default() };
        let mut peer = Self { doc: Doc::with_options(options), socket: None, told: Vec::new() };
        peer.rejoin(session);
        peer
    }

    /// Comes back with what it has, also with what it has edited meanwhile.
    ///
    /// # Panics
    /// When the session's notebook does not come.
    #[track_caller]
    pub fn rejoin(&mut self, session: &Session) {
        self.socket = Some(WebSocket::open(session.api(), &session.path("/document")));
        let known = self.doc.transact().state_vector();
        self.send(SyncMessage::SyncStep1(known));
        let deadline = within(PATIENCE);
        while !self.take(deadline).unwrap_or_else(|silence| panic!("{silence:?} before the notebook")) {}
    }

    /// Is gone without a word.
    pub fn leave(&mut self) {
        self.socket = None;
    }

    /// What its notebook contains, as the `required` of a run that is to see it.
    #[must_use]
    pub fn state_vector(&self) -> String {
        base64(&self.doc.transact().state_vector().encode_v1())
    }

    /// Its cells as it has them now, without looking for what is new.
    ///
    /// # Panics
    /// When the document is not made as `jupyter_ydoc` makes it.
    #[must_use]
    pub fn cells(&self) -> Vec<Value> {
        let cells = self.doc.get_or_insert_array("cells");
        let mut json = String::new();
        yrs::types::ToJson::to_json(&cells, &self.doc.transact()).to_json(&mut json);
        match serde_json::from_str(&json).expect("it writes JSON") {
            Value::Array(cells) => cells,
            other => panic!("cells are a list: {other}"),
        }
    }

    /// Takes what comes until its cells fit.
    ///
    /// # Panics
    /// At the deadline or when it is cut, with its cells.
    #[track_caller]
    pub fn wait_until(
        &mut self,
        what: &str,
        deadline: Deadline,
        mut fits: impl FnMut(&[Value]) -> bool,
    ) -> Vec<Value> {
        loop {
            let cells = self.cells();
            if fits(&cells) {
                return cells;
            }
            if let Err(silence) = self.take(deadline) {
                panic!("{silence:?} before {what}: {cells:#?} {:?}", self.told);
            }
        }
    }

    /// Gives a cell another source.
    pub fn set_source(&mut self, cell: &str, source: &str) {
        self.edit(|cells, txn| {
            let text = source_of(&find(cells, txn, cell), txn);
            let length = text.len(txn);
            text.remove_range(txn, 0, length);
            text.insert(txn, 0, source);
        });
    }

    /// Types into a cell's source, at an offset in UTF-16 units.
    pub fn type_into(&mut self, cell: &str, at: u32, words: &str) {
        self.edit(|cells, txn| source_of(&find(cells, txn, cell), txn).insert(txn, at, words));
    }

    /// Adds a code cell at the end.
    pub fn add_cell(&mut self, id: &str, source: &str) {
        self.edit(|cells, txn| {
            let cell = cells.push_back(txn, MapPrelim::default());
            cell.insert(txn, "id", id);
            cell.insert(txn, "cell_type", "code");
            cell.insert(txn, "execution_count", Any::Null);
            cell.insert(txn, "source", TextPrelim::new(source));
            cell.insert(txn, "metadata", MapPrelim::default());
            cell.insert(txn, "outputs", yrs::ArrayPrelim::default());
        });
    }

    fn edit(&mut self, change: impl FnOnce(&yrs::ArrayRef, &mut TransactionMut<'_>)) {
        let cells = self.doc.get_or_insert_array("cells");
        let mut txn = self.doc.transact_mut();
        change(&cells, &mut txn);
        let update = txn.encode_update_v1();
        drop(txn);
        if self.socket.is_some() {
            self.send(SyncMessage::Update(update));
        }
    }

    fn send(&mut self, message: SyncMessage) {
        let socket = self.socket.as_mut().expect("it has joined");
        // A server that is gone is noticed by who waits for something.
        let _ = socket.send(&Message::Sync(message).encode_v1());
    }

    /// Takes the next message.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn receive(&mut self, deadline: Deadline) {
        if let Err(silence) = self.take(deadline) {
            panic!("{silence:?} instead of a message: {:?}", self.told);
        }
    }

    /// Takes one message. Gives whether the notebook came whole with it.
    fn take(&mut self, deadline: Deadline) -> Result<bool, Silence> {
        let bytes = match self.socket.as_mut().ok_or(Silence::Ended)?.next(deadline)? {
            Frame::Binary(bytes) => bytes,
            Frame::Text(text) => {
                self.told.push(serde_json::from_str(&text).unwrap_or(Value::String(text)));
                return Ok(false);
            }
            Frame::Close(code) => {
                self.told.push(Value::from(code));
                return Err(Silence::Ended);
            }
        };
        let (update, whole) = match Message::decode_v1(&bytes).expect("a message of the y-sync protocol") {
            Message::Sync(SyncMessage::SyncStep1(known)) => {
                let missing = self.doc.transact().encode_state_as_update_v1(&known);
                self.send(SyncMessage::SyncStep2(missing));
                return Ok(false);
            }
            Message::Sync(SyncMessage::SyncStep2(update)) => (update, true),
            Message::Sync(SyncMessage::Update(update)) => (update, false),
            Message::Awareness(_) | Message::AwarenessQuery | Message::Auth(_) | Message::Custom(..) => {
                return Ok(false);
            }
        };
        let update = Update::decode_v1(&update).expect("an update of the server");
        self.doc.transact_mut().apply_update(update).expect("an update that fits");
        Ok(whole)
    }
}

fn find(cells: &yrs::ArrayRef, txn: &impl ReadTxn, id: &str) -> MapRef {
    let is_it =
        |cell: &MapRef| matches!(cell.get(txn, "id"), Some(Out::Any(Any::String(found))) if &*found == id);
    let maps = cells.iter(txn).filter_map(|cell| match cell {
        Out::YMap(cell) => Some(cell),
        _ => None,
    });
    maps.into_iter().find(is_it).unwrap_or_else(|| panic!("no cell {id}"))
}

fn source_of(cell: &MapRef, txn: &impl ReadTxn) -> yrs::TextRef {
    match cell.get(txn, "source") {
        Some(Out::YText(text)) => text,
        other => panic!("a source is a text: {other:?}"),
    }
}

/// Standard base64 with padding (RFC 4648 §4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |bytes: &[u8]| {
        let word =
            bytes.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - bytes.len()));
        let digit = |place: usize| char::from(DIGITS[(word >> (18 - 6 * place) & 63) as usize]);
        (0..4).map(|place| if place <= bytes.len() { digit(place) } else { '=' }).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_as_in_rfc_4648() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
