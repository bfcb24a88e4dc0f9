//! y-protocols: what goes over a peer's socket, and the awareness of all peers.
//!
//! A message is a kind and its content (y-protocols/sync.js, awareness.js). Several may stand in one frame. Nothing is
//! allocated for what a frame only claims to hold.

use std::collections::BTreeMap;
use std::ops::Range;

use outlive_core::limits::{AWARENESS_CLIENTS_MAX, AWARENESS_STATE_BYTES_MAX};
use yrs::{ClientID, StateVector};

pub use super::guard::Forged;
use super::guard::Reader;

/// One message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// The sender's state vector: it wants what it lacks.
    Step1(&'a [u8]),
    /// What the receiver lacked, as an update.
    Step2(&'a [u8]),
    /// An update.
    Update(&'a [u8]),
    /// Awareness of one or more clients.
    Awareness(&'a [u8]),
    /// The sender wants all awareness.
    AwarenessQuery,
    /// A kind that this version does not know, and the rest of its frame.
    Other(u64, &'a [u8]),
}

const SYNC: u8 = 0;
const AWARENESS: u8 = 1;
const AWARENESS_QUERY: u8 = 3;

/// The messages of a frame.
pub fn messages(frame: &[u8]) -> impl Iterator<Item = Result<Message<'_>, Forged>> {
    let mut reader = Reader::new("message", frame);
    let mut is_over = false;
    std::iter::from_fn(move || {
        if is_over || reader.is_at_end() {
            return None;
        }
        let message = read_message(&mut reader);
        is_over = message.is_err();
        Some(message)
    })
}

fn read_message<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, Forged> {
    match reader.number()? {
        0 => match reader.number()? {
            0 => Ok(Message::Step1(reader.buffer()?)),
            1 => Ok(Message::Step2(reader.buffer()?)),
            2 => Ok(Message::Update(reader.buffer()?)),
            _ => Err(reader.forged("a kind of sync that does not exist")),
        },
        1 => Ok(Message::Awareness(reader.buffer()?)),
        3 => Ok(Message::AwarenessQuery),
        other => Ok(Message::Other(other, reader.rest())),
    }
}

impl Message<'_> {
    /// The message as a frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        let mut with = |head: &[u8], content: &[u8]| {
            frame.extend_from_slice(head);
            put_buffer(&mut frame, content);
        };
        match self {
            Self::Step1(state_vector) => with(&[SYNC, 0], state_vector),
            Self::Step2(update) => with(&[SYNC, 1], update),
            Self::Update(update) => with(&[SYNC, 2], update),
            Self::Awareness(states) => with(&[AWARENESS], states),
            Self::AwarenessQuery => frame.push(AWARENESS_QUERY),
            Self::Other(kind, rest) => {
                put_number(&mut frame, *kind);
                frame.extend_from_slice(rest);
            }
        }
        frame
    }
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

fn put_buffer(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads a state vector v1.
pub(super) fn state_vector(bytes: &[u8]) -> Result<StateVector, Forged> {
    let mut reader = Reader::new("state vector", bytes);
    let mut vector = StateVector::default();
    for _ in 0..reader.count(2)? {
        let client = reader.client()?;
        let clock = u32::try_from(reader.clock()?).expect("clocks are checked to fit");
        vector.set_max(ClientID::new(client), clock);
    }
    reader.end()?;
    Ok(vector)
}

/// Deleted ranges of clocks by client.
pub(super) type Deleted = Vec<(ClientID, Vec<Range<u32>>)>;

/// Reads a Yjs snapshot v1: what was deleted, and after it a state vector, which is given as it is.
pub(super) fn snapshot(bytes: &[u8]) -> Result<(Deleted, &[u8]), Forged> {
    let mut reader = Reader::new("snapshot", bytes);
    let mut deleted = Vec::new();
    for _ in 0..reader.count(2)? {
        let client = ClientID::new(reader.client()?);
        let mut ranges = Vec::new();
        for _ in 0..reader.count(2)? {
            let (start, length) = (reader.clock()?, reader.clock()?);
            let fits = |clock: u64| u32::try_from(clock).expect("two clocks of 31 bits fit");
            ranges.push(fits(start)..fits(start + length));
        }
        deleted.push((client, ranges));
    }
    Ok((deleted, reader.rest()))
}

/// Who is there and where they are: one JSON text for each client, which this side does not look into.
#[derive(Clone, Debug, Default)]
pub struct Awareness {
    clients: BTreeMap<u64, State>,
}

#[derive(Clone, Debug)]
struct State {
    clock: u64,
    json: Box<str>,
}

/// What a message about awareness has changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Noticed {
    /// What is to be sent on to the other peers; `None` when it was all known.
    pub relay: Option<Vec<u8>>,
    /// The clients that the sender speaks for: they go when it goes.
    pub clients: Vec<u64>,
}

impl Awareness {
    /// Takes what a peer says.
    ///
    /// # Errors
    /// When it is not awareness, or more than is kept. Nothing of it was taken.
    pub fn apply(&mut self, states: &[u8]) -> Result<Noticed, Forged> {
        let mut reader = Reader::new("awareness", states);
        let count = reader.count(3)?;
        let mut told = Vec::new();
        for _ in 0..count {
            let (client, clock, json) = (reader.client()?, reader.number()?, reader.string()?);
            if json.len() > AWARENESS_STATE_BYTES_MAX {
                return Err(reader.forged("a state that is too long"));
            }
            told.push((client, clock, json));
        }
        reader.end()?;
        let new = told.iter().filter(|(client, ..)| !self.clients.contains_key(client)).count();
        if self.clients.len() + new > AWARENESS_CLIENTS_MAX {
            return Err(reader.forged("more clients than a document takes"));
        }
        let mut news = Vec::new();
        for &(client, clock, json) in &told {
            let known = self.clients.get(&client);
            let is_gone = json == "null";
            let is_news =
                known.map_or(!is_gone, |known| clock > known.clock || (clock == known.clock && is_gone));
            if !is_news {
                continue;
            }
            news.push((client, clock, json));
            if is_gone {
                self.clients.remove(&client);
            } else {
                self.clients.insert(client, State { clock, json: json.into() });
            }
        }
        let relay = (!news.is_empty()).then(|| encode(news.into_iter()));
        Ok(Noticed { relay, clients: told.iter().map(|(client, ..)| *client).collect() })
    }

    /// Whether this client is there.
    #[must_use]
    pub fn has(&self, client: u64) -> bool {
        self.clients.contains_key(&client)
    }

    /// These clients have gone; gives what is to be told to the others, if they were there.
    pub fn remove(&mut self, clients: &[u64]) -> Option<Vec<u8>> {
        let gone: Vec<(u64, u64)> =
            clients.iter().filter_map(|client| Some((*client, self.clients.remove(client)?.clock))).collect();
        (!gone.is_empty()).then(|| encode(gone.into_iter().map(|(client, clock)| (client, clock, "null"))))
    }

    /// All that is known, for one who has just come; `None` when nobody is there.
    #[must_use]
    pub fn all(&self) -> Option<Vec<u8>> {
        let states = self.clients.iter().map(|(client, state)| (*client, state.clock, &*state.json));
        (!self.clients.is_empty()).then(|| encode(states))
    }
}

fn encode<'a>(states: impl ExactSizeIterator<Item = (u64, u64, &'a str)>) -> Vec<u8> {
    let mut out = Vec::new();
    put_number(&mut out, states.len() as u64);
    for (client, clock, json) in states {
        put_number(&mut out, client);
        put_number(&mut out, clock);
        put_buffer(&mut out, json.as_bytes());
    }
    out
}
