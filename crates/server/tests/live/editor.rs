//! Somebody who edits live, as y-websocket's provider does: it says what it has, answers what it is asked, and ignores
//! text.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Message;
use yrs::sync::awareness::AwarenessUpdate;
use yrs::sync::{Awareness, Message as Frame, SyncMessage};
use yrs::updates::decoder::Decode as _;
use yrs::updates::encoder::Encode as _;
use yrs::{
    Any, Array as _, Doc, GetString as _, Map as _, Out, ReadTxn as _, Text as _, TextPrelim, Transact as _,
};

use crate::world::in_time;

pub struct Editor<S> {
    pub socket: WebSocketStream<S>,
    pub awareness: Awareness,
    /// The events that came as text.
    pub events: Vec<Value>,
    /// Code and reason of the close.
    pub closed: Option<(u16, String)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Editor<S> {
    /// Joins and waits until it has what the notebook holds.
    pub async fn join(socket: WebSocketStream<S>) -> Self {
        let mut editor = Self::join_and_read_nothing(socket).await;
        editor.until(|editor| editor.synced()).await;
        editor
    }

    pub async fn join_and_read_nothing(socket: WebSocketStream<S>) -> Self {
        let awareness = Awareness::new(Doc::new());
        let mut editor = Self { socket, awareness, events: Vec::new(), closed: None };
        let have = editor.awareness.doc().transact().state_vector();
        editor.send(&Frame::Sync(SyncMessage::SyncStep1(have))).await;
        editor
    }

    fn synced(&self) -> bool {
        self.awareness.doc().transact().get_map("meta").is_some()
    }

    pub async fn send(&mut self, frame: &Frame) {
        in_time(self.socket.send(Message::binary(frame.encode_v1()))).await.unwrap();
    }

    /// Reads until something is so.
    pub async fn until(&mut self, so: impl Fn(&Self) -> bool) {
        in_time(async {
            while !so(self) {
                assert!(self.read().await, "the end came first: {:?} {:?}", self.events, self.closed);
            }
        })
        .await;
    }

    /// Reads until the end.
    pub async fn until_closed(&mut self) -> (u16, String) {
        in_time(async { while self.read().await {} }).await;
        self.closed.clone().expect("it is said why")
    }

    async fn read(&mut self) -> bool {
        match self.socket.next().await {
            Some(Ok(Message::Binary(frame))) => self.take(&frame).await,
            Some(Ok(Message::Text(text))) => self.events.push(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Close(frame))) => {
                self.closed = frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                assert!(self.closed.is_some(), "{error}");
                return false;
            }
            None => return false,
        }
        true
    }

    async fn take(&mut self, frame: &[u8]) {
        match Frame::decode_v1(frame).unwrap() {
            Frame::Sync(SyncMessage::SyncStep1(theirs)) => {
                let lacking = self.awareness.doc().transact().encode_state_as_update_v1(&theirs);
                self.send(&Frame::Sync(SyncMessage::SyncStep2(lacking))).await;
            }
            Frame::Sync(SyncMessage::SyncStep2(update) | SyncMessage::Update(update)) => {
                let update = yrs::Update::decode_v1(&update).unwrap();
                self.awareness.doc().transact_mut().apply_update(update).unwrap();
            }
            Frame::Awareness(update) => self.awareness.apply_update(update).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Edits and sends what that has made.
    pub async fn edit(&mut self, edit: impl FnOnce(&mut yrs::TransactionMut<'_>, &yrs::ArrayRef)) {
        let update = {
            let cells = self.awareness.doc().get_or_insert_array("cells");
            let mut transaction = self.awareness.doc().transact_mut();
            edit(&mut transaction, &cells);
            transaction.encode_update_v1()
        };
        self.send(&Frame::Sync(SyncMessage::Update(update))).await;
    }

    /// Appends a cell of this source.
    pub async fn append(&mut self, id: &str, source: &str) {
        self.edit(|transaction, cells| {
            let cell = yrs::MapPrelim::from([
                ("id".to_owned(), yrs::In::from(Any::from(id))),
                ("cell_type".to_owned(), yrs::In::from(Any::from("code"))),
                ("source".to_owned(), yrs::In::from(TextPrelim::new(source))),
                ("metadata".to_owned(), yrs::In::from(yrs::MapPrelim::default())),
                ("outputs".to_owned(), yrs::In::from(yrs::ArrayPrelim::default())),
                ("execution_count".to_owned(), yrs::In::from(Any::Null)),
            ]);
            cells.push_back(transaction, cell);
        })
        .await;
    }

    /// Types at the beginning of a cell.
    pub async fn type_into(&mut self, cell: u32, text: &str) {
        self.edit(|transaction, cells| {
            let Some(Out::YMap(cell)) = cells.get(transaction, cell) else { panic!("no such cell") };
            let Some(Out::YText(source)) = cell.get(transaction, "source") else { panic!("no source") };
            source.insert(transaction, 0, text);
        })
        .await;
    }

    /// The sources of all cells.
    pub fn sources(&self) -> Vec<String> {
        let transaction = self.awareness.doc().transact();
        let Some(cells) = transaction.get_array("cells") else { return Vec::new() };
        let source = |cell: Out| match cell {
            Out::YMap(cell) => match cell.get(&transaction, "source") {
                Some(Out::YText(text)) => text.get_string(&transaction),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        cells.iter(&transaction).map(source).collect()
    }

    /// Tells the others who and where it is.
    pub async fn show(&mut self, name: &str) {
        self.awareness.set_local_state(serde_json::json!({ "user": { "name": name } }).to_string()).unwrap();
        let update: AwarenessUpdate = self.awareness.update().unwrap();
        self.send(&Frame::Awareness(update)).await;
    }

    /// How many others it sees.
    pub fn others(&self) -> usize {
        let own = self.awareness.client_id();
        self.awareness.iter().filter(|(client, state)| *client != own && state.data.is_some()).count()
    }
}
