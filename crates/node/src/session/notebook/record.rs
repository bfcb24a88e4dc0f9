//! What stands in the document lane of a session's log. The log's own format takes it as opaque bytes; the first says
//! what they are:
//!
//! | first byte | the rest |
//! |---|---|
//! | `{` | one line of JSON: a [`Snapshot`], or one of [`Line`] |
//! | 1 | one update (Yjs, v1) |
//! | 2 | a whole state (Yjs, v1): the document as it became a shared one |
//! | 3 | updates of one round, each behind its length (4 bytes, little-endian) |
//!
//! What does not fit a record is a blob that a line of JSON names. Kinds that this version does not know are skipped.

use outlive_core::id::{Position, RunId};
use outlive_core::limits::RECORD_BYTES_MAX;
use outlive_core::log::BlobRef;
use outlive_document::file::FileStamp;
use serde::{Deserialize, Serialize};

/// A record of the document lane.
#[derive(Clone, PartialEq, Debug)]
pub enum DocumentRecord {
    /// The notebook as it is here. What stands before it in the lane does not count any more.
    Snapshot(Box<Snapshot>),
    /// The document as it became a shared one.
    State(Vec<u8>),
    /// Changes of the shared document, in order.
    Updates(Vec<Vec<u8>>),
    /// A state or an update beside the log.
    Beside(Beside, BlobRef),
    /// The notebook is about to be written to its file.
    Rendered(Rendered),
    /// It has been written.
    Saved(Saved),
}

/// The notebook at a moment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// The notebook in its file's format, parameters injected.
    pub document: BlobRef,
    /// What its file was then; `None` when there was none.
    pub file: Option<FileStamp>,
    /// Which file, if it held what was last agreed on with it; not in a session's first snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What later changes of the file are compared with; without it, that is `document`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BlobRef>,
    /// The keys of the cells as a JSON list, where they are not in `document`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<BlobRef>,
    /// The shared document, if it was shared then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<BlobRef>,
    /// What runs did that were opened up to here is in `document` for good; later ones are projected again.
    #[serde(default, skip_serializing_if = "is_beginning")]
    pub through: Position,
    /// But for the run that was going on then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub but: Option<RunId>,
}

impl Snapshot {
    /// The notebook as its session began.
    #[must_use]
    pub fn first(document: BlobRef, file: Option<FileStamp>) -> Self {
        let (path, base, keys, state, but) = (None, None, None, None, None);
        Self { document, file, path, base, keys, state, through: Position(0), but }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_beginning(position: &Position) -> bool {
    position.0 == 0
}

/// What is beside the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beside {
    /// As [`DocumentRecord::State`].
    State,
    /// One update.
    Update,
}

/// A notebook that is about to be written: who finds these bytes in the file knows that it has written them itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rendered {
    /// SHA-256 of the bytes, in hex.
    pub sha256: String,
    /// The file.
    pub path: String,
}

/// A notebook that was written.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Saved {
    /// What the file is now.
    pub stamp: FileStamp,
    /// The file.
    pub path: String,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Json {
    Snapshot(Box<Snapshot>),
    Line(Line),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    State(BlobRef),
    Update(BlobRef),
    Rendered(Rendered),
    Saved(Saved),
}

const UPDATE: u8 = 1;
const STATE: u8 = 2;
const UPDATES: u8 = 3;

impl DocumentRecord {
    /// What of it is beside the log.
    pub fn blobs(&self) -> impl Iterator<Item = &BlobRef> {
        let (own, more) = match self {
            Self::Beside(_, blob) => (Some(blob), [None, None, None]),
            Self::Snapshot(snapshot) => {
                let Snapshot { document, base, keys, state, .. } = &**snapshot;
                (Some(document), [base.as_ref(), keys.as_ref(), state.as_ref()])
            }
            Self::State(_) | Self::Updates(_) | Self::Rendered(_) | Self::Saved(_) => {
                (None, [None, None, None])
            }
        };
        own.into_iter().chain(more.into_iter().flatten())
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let line = match self {
            Self::State(state) => return with_kind(STATE, state),
            Self::Updates(updates) => return encode_updates(updates),
            Self::Snapshot(snapshot) => Json::Snapshot(snapshot.clone()),
            Self::Beside(Beside::State, blob) => Json::Line(Line::State(blob.clone())),
            Self::Beside(Beside::Update, blob) => Json::Line(Line::Update(blob.clone())),
            Self::Rendered(rendered) => Json::Line(Line::Rendered(rendered.clone())),
            Self::Saved(saved) => Json::Line(Line::Saved(saved.clone())),
        };
        serde_json::to_vec(&line).expect("it is plain data")
    }

    /// What these bytes are; `None` for a kind that this version does not know.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        match *kind {
            UPDATE => Some(Self::Updates(vec![rest.to_vec()])),
            STATE => Some(Self::State(rest.to_vec())),
            UPDATES => decode_updates(rest).map(Self::Updates),
            b'{' => Some(match serde_json::from_slice(bytes).ok()? {
                Json::Snapshot(snapshot) => Self::Snapshot(snapshot),
                Json::Line(Line::State(blob)) => Self::Beside(Beside::State, blob),
                Json::Line(Line::Update(blob)) => Self::Beside(Beside::Update, blob),
                Json::Line(Line::Rendered(rendered)) => Self::Rendered(rendered),
                Json::Line(Line::Saved(saved)) => Self::Saved(saved),
            }),
            _ => None,
        }
    }

    /// Whether so many bytes of updates, in so many pieces, fit one record.
    #[must_use]
    pub const fn fits(bytes: usize, pieces: usize) -> bool {
        // The record's own header is a claim and a source: far below what is left for it here.
        bytes + 1 + pieces * 4 <= RECORD_BYTES_MAX - 1_024
    }
}

fn with_kind(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(bytes.len() + 1);
    record.push(kind);
    record.extend_from_slice(bytes);
    record
}

fn encode_updates(updates: &[Vec<u8>]) -> Vec<u8> {
    if let [update] = updates {
        return with_kind(UPDATE, update);
    }
    let mut record = vec![UPDATES];
    for update in updates {
        let length = u32::try_from(update.len()).expect("it fits a record");
        record.extend_from_slice(&length.to_le_bytes());
        record.extend_from_slice(update);
    }
    record
}

fn decode_updates(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut updates = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (update, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        updates.push(update.to_vec());
        bytes = rest;
    }
    Some(updates)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob() -> BlobRef {
        BlobRef { sha256: "ab".repeat(32), size: 5, mime: "application/octet-stream".to_owned() }
    }

    #[test]
    fn each_record_comes_back_and_an_unknown_one_is_skipped() {
        let stamp = FileStamp { inode: 1, size: 2, mtime_ns: 3, ctime_ns: Some(4), hash: [4; 32] };
        let records = [
            DocumentRecord::Snapshot(Box::new(Snapshot {
                document: blob(),
                file: Some(stamp.clone()),
                path: Some("/n.ipynb".to_owned()),
                base: Some(blob()),
                keys: Some(blob()),
                state: Some(blob()),
                through: Position(7),
                but: Some(RunId::from_uuid(uuid::Uuid::from_u128(9))),
            })),
            DocumentRecord::Snapshot(Box::new(Snapshot::first(blob(), None))),
            DocumentRecord::State(vec![0, 1, 2]),
            DocumentRecord::Updates(vec![vec![1, 2, 3]]),
            DocumentRecord::Updates(vec![vec![1], vec![], vec![2, 3]]),
            DocumentRecord::Beside(Beside::State, blob()),
            DocumentRecord::Beside(Beside::Update, blob()),
            DocumentRecord::Rendered(Rendered { sha256: "cd".to_owned(), path: "/n.ipynb".to_owned() }),
            DocumentRecord::Saved(Saved { stamp, path: "/n.ipynb".to_owned() }),
        ];
        for record in records {
            assert_eq!(DocumentRecord::decode(&record.encode()), Some(record));
        }
        for bytes in [&b""[..], b"\x09new", b"{\"later\":1}", b"\x03\x06\0\0\0short", b"{"] {
            assert_eq!(DocumentRecord::decode(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn the_snapshot_of_earlier_versions_is_read() {
        let text =
            format!(r#"{{"document":{{"sha256":"{}","size":5,"mime":"m"}},"file":null}}"#, "ab".repeat(32));
        let Some(DocumentRecord::Snapshot(snapshot)) = DocumentRecord::decode(text.as_bytes()) else {
            panic!("not read: {text}")
        };
        assert_eq!((snapshot.state, snapshot.through), (None, Position(0)));
    }
}
