//! Outputs of a cell, from the notebook's projection into the document.
//!
//! A [`Mirror`] remembers what stands in the document, so that text that is printed costs what is printed and a display
//! that changes costs itself. Without one, what stands there is compared with what should and written anew if need be.

use std::sync::Arc;

use outlive_core::id::RunId;
use outlive_core::limits::{
    DOCUMENT_CELL_OUTPUTS_BYTES_MAX, DOCUMENT_OUTPUT_BYTES_MAX, DOCUMENT_STREAM_BYTES_MAX,
};
use yrs::{
    Any, Array, ArrayPrelim, ArrayRef, Map, MapPrelim, MapRef, Out, ReadTxn, Text, TextPrelim, TextRef,
    TransactionMut,
};

use super::schema::{self, COUNT, OUTPUTS, any_of, whole};
use super::ydoc::set_plain;
use crate::cell::CellKey;
use crate::json::Json;
use crate::projection::{Content, Piece, RunShown, notice, size};

/// The MIME type of a reference to an output that is not in the document itself.
///
/// Its value is an object: `cell`, `index` (of the output in its cell), `bytes`, `mime_types`, and where they are known
/// `run` and the `sha256` of the blob that holds the kernel's message.
pub const REFERENCE_MIME: &str = "application/vnd.outlive.output+json";

/// What has been put into the outputs of a cell.
#[derive(Debug)]
pub(super) struct Mirror {
    /// Which life of the outputs it shows; `None` for those of the file.
    life: Option<u64>,
    items: Vec<Item>,
    room: Room,
}

/// How much more may stand in the document for one cell.
#[derive(Clone, Copy, Debug)]
struct Room {
    text: usize,
    rich: usize,
}

impl Room {
    const ALL: Self = Self { text: DOCUMENT_STREAM_BYTES_MAX, rich: DOCUMENT_CELL_OUTPUTS_BYTES_MAX };
}

#[derive(Clone, Copy, Debug)]
enum Item {
    /// So many bytes of the text; `None` when no more of it is taken.
    Stream(Option<usize>),
    /// A display of this revision that takes so many bytes.
    Rich(u32, usize),
    Fixed,
}

/// One output as it stands in the document.
enum Entry {
    Stream { name: String, text: String },
    Plain(Vec<(&'static str, Any)>),
}

impl Entry {
    fn to_any(&self) -> Any {
        let members: std::collections::HashMap<String, Any> = match self {
            Self::Stream { name, text } => [
                ("output_type".to_owned(), "stream".into()),
                ("name".to_owned(), name.as_str().into()),
                ("text".to_owned(), text.as_str().into()),
            ]
            .into(),
            Self::Plain(members) => {
                members.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
            }
        };
        Any::Map(Arc::new(members))
    }

    fn insert(self, txn: &mut TransactionMut<'_>, outputs: &ArrayRef, at: u32) {
        let output: MapRef = outputs.insert(txn, at, MapPrelim::default());
        match self {
            Self::Stream { name, text } => {
                output.insert(txn, "output_type", "stream");
                output.insert(txn, "name", name);
                output.insert(txn, "text", TextPrelim::new(text));
            }
            Self::Plain(members) => {
                for (key, value) in members {
                    output.insert(txn, key, value);
                }
            }
        }
    }
}

/// Where an output is, for those that are told to look for it there.
#[derive(Clone, Copy)]
struct Where<'a> {
    cell: &'a CellKey,
    run: Option<RunId>,
    index: usize,
}

/// Puts what a run shows into the outputs of its cell.
pub(super) fn show_run(
    txn: &mut TransactionMut<'_>,
    map: &MapRef,
    cell: &CellKey,
    shown: &RunShown<'_>,
    mirror: Option<Mirror>,
) -> Mirror {
    set_plain(txn, map, COUNT, shown.count.map_or(Any::Null, whole));
    let outputs = outputs_of(txn, map);
    let place = |index| Where { cell, run: Some(shown.run), index };
    if let Some(mut mirror) = mirror
        && mirror.life == Some(shown.life)
        && mirror.items.len() == outputs.len(txn) as usize
        && mirror.items.len() <= shown.len()
    {
        for index in 0..mirror.items.len() {
            mirror.renew(txn, &outputs, index, &shown.piece(index), place(index));
        }
        for index in mirror.items.len()..shown.len() {
            let entry = mirror.take(&shown.piece(index), place(index));
            entry.insert(txn, &outputs, index_of(index));
        }
        return mirror;
    }
    let mut mirror = Mirror { life: Some(shown.life), items: Vec::new(), room: Room::ALL };
    let entries: Vec<Entry> =
        (0..shown.len()).map(|index| mirror.take(&shown.piece(index), place(index))).collect();
    replace(txn, &outputs, entries);
    mirror
}

/// Puts outputs as they stand in a notebook's file into the outputs of a cell.
pub(super) fn show_file(
    txn: &mut TransactionMut<'_>,
    map: &MapRef,
    cell: &CellKey,
    (outputs, count): (&[Json], Any),
) -> Mirror {
    set_plain(txn, map, COUNT, count);
    let entries = file_entries(cell, outputs);
    let mirror = Mirror { life: None, items: vec![Item::Fixed; entries.len()], room: Room::ALL };
    let shared = outputs_of(txn, map);
    replace(txn, &shared, entries);
    mirror
}

/// Whether the document shows other outputs for a cell than its file, and shows them in full: somebody has cleared or
/// brought them, and they are what the cell shows.
pub(super) fn is_newer<T: ReadTxn>(txn: &T, map: &MapRef, cell: &CellKey, outputs: &[Json]) -> Option<Any> {
    let shown = schema::plain(txn, &map.get(txn, OUTPUTS)?, 0);
    let Any::Array(items) = &shown else { return None };
    let is_reference = |output: &Any| match output {
        Any::Map(members) => {
            matches!(members.get("data"), Some(Any::Map(data)) if data.contains_key(REFERENCE_MIME))
        }
        _ => false,
    };
    let wanted: Any = file_entries(cell, outputs).iter().map(Entry::to_any).collect::<Vec<_>>().into();
    (!schema::same(&shown, &wanted) && !items.iter().any(is_reference)).then_some(shown)
}

/// Outputs of a file, as plain values.
fn file_entries(cell: &CellKey, outputs: &[Json]) -> Vec<Entry> {
    let mut room = Room::ALL;
    let entry =
        |(index, output): (usize, &Json)| file_entry(output, &mut room, Where { cell, run: None, index });
    outputs.iter().enumerate().map(entry).collect()
}

fn file_entry(output: &Json, room: &mut Room, place: Where<'_>) -> Entry {
    let text = |member: &str| output.get(member).and_then(Json::joined).unwrap_or_default();
    match output.get("output_type").and_then(Json::as_str) {
        Some("stream") => {
            let whole = text("text");
            let (text, _) = cut(&whole, room, place);
            Entry::Stream {
                name: output.get("name").and_then(Json::as_str).unwrap_or("stdout").to_owned(),
                text,
            }
        }
        Some("error") => {
            let lines: Vec<&str> = match output.get("traceback") {
                Some(Json::Array(lines)) => lines.iter().filter_map(Json::as_str).collect(),
                _ => Vec::new(),
            };
            failure(&text("ename"), &text("evalue"), &lines, place)
        }
        kind => {
            let count = (kind == Some("execute_result"))
                .then(|| output.get("execution_count").map_or(Any::Null, any_of));
            let (nothing, data, metadata) =
                (Json::Object(Vec::new()), output.get("data"), output.get("metadata"));
            let (data, metadata) = (data.unwrap_or(&nothing), metadata.unwrap_or(&nothing));
            let bytes = weight(data) + weight(metadata);
            let content = Content::Here { data, metadata };
            rich(count, &content, bytes as u64, room, place).0
        }
    }
}

/// About how long a value is as JSON.
fn weight(json: &Json) -> usize {
    match json {
        Json::Literal(text) => text.len(),
        Json::String(text) => text.len() + 2,
        Json::Array(items) => items.iter().map(|item| weight(item) + 1).sum(),
        Json::Object(members) => members.iter().map(|(key, value)| key.len() + weight(value) + 4).sum(),
    }
}

impl Mirror {
    /// The next output, as it goes into the document.
    fn take(&mut self, piece: &Piece<'_>, place: Where<'_>) -> Entry {
        let (entry, item) = match piece {
            Piece::Stream { name, text } => {
                let (shown, taken) = cut(text, &mut self.room, place);
                (Entry::Stream { name: (*name).to_owned(), text: shown }, Item::Stream(taken))
            }
            Piece::Rich { count, content, revision, bytes } => {
                let (entry, cost) = rich(count.map(any_of), content, *bytes, &mut self.room, place);
                (entry, Item::Rich(*revision, cost))
            }
            Piece::Failure { ename, evalue, traceback } => {
                let lines: Vec<&str> = traceback.iter().map(String::as_str).collect();
                (failure(ename, evalue, &lines, place), Item::Fixed)
            }
        };
        self.items.push(item);
        entry
    }

    /// Brings an output that stands in the document up to date.
    fn renew(
        &mut self,
        txn: &mut TransactionMut<'_>,
        outputs: &ArrayRef,
        index: usize,
        piece: &Piece<'_>,
        place: Where<'_>,
    ) {
        match (self.items[index], piece) {
            (Item::Stream(Some(taken)), Piece::Stream { text, .. }) if text.len() > taken => {
                let (more, now) = cut(&text[taken..], &mut self.room, place);
                self.items[index] = Item::Stream(now.map(|now| taken + now));
                if let Some(text) = text_of(txn, outputs, index) {
                    text.push(txn, &more);
                }
            }
            (Item::Rich(old, cost), Piece::Rich { count, content, revision, bytes }) if old != *revision => {
                self.room.rich += cost;
                let (entry, cost) = rich(count.map(any_of), content, *bytes, &mut self.room, place);
                self.items[index] = Item::Rich(*revision, cost);
                outputs.remove(txn, index_of(index));
                entry.insert(txn, outputs, index_of(index));
            }
            _ => {}
        }
    }
}

fn text_of(txn: &TransactionMut<'_>, outputs: &ArrayRef, index: usize) -> Option<TextRef> {
    match outputs.get(txn, index_of(index))? {
        Out::YMap(output) => match output.get(txn, "text")? {
            Out::YText(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

fn index_of(index: usize) -> u32 {
    u32::try_from(index).expect("a cell has far fewer outputs")
}

/// The outputs of a cell, made if there are none.
pub(super) fn outputs_of(txn: &mut TransactionMut<'_>, map: &MapRef) -> ArrayRef {
    match map.get(txn, OUTPUTS) {
        Some(Out::YArray(outputs)) => outputs,
        _ => map.insert(txn, OUTPUTS, ArrayPrelim::default()),
    }
}

/// Makes the outputs read `entries`, if they do not.
fn replace(txn: &mut TransactionMut<'_>, outputs: &ArrayRef, entries: Vec<Entry>) {
    let present = schema::plain(txn, &Out::YArray(outputs.clone()), 0);
    let wanted: Any = entries.iter().map(Entry::to_any).collect::<Vec<_>>().into();
    if schema::same(&present, &wanted) {
        return;
    }
    let length = outputs.len(txn);
    if length > 0 {
        outputs.remove_range(txn, 0, length);
    }
    for (index, entry) in entries.into_iter().enumerate() {
        entry.insert(txn, outputs, index_of(index));
    }
}

/// As much of a text as there is room for, and how much that is; `None` when more will not be taken.
fn cut(text: &str, room: &mut Room, place: Where<'_>) -> (String, Option<usize>) {
    if text.len() <= room.text {
        room.text -= text.len();
        return (text.to_owned(), Some(text.len()));
    }
    let end = text.floor_char_boundary(room.text);
    room.text = 0;
    let mut shown = text[..end].to_owned();
    if !shown.is_empty() && !shown.ends_with('\n') {
        shown.push('\n');
    }
    let what = format!(
        "only the first {} of text are shown here, more is in the notebook file",
        size(DOCUMENT_STREAM_BYTES_MAX as u64)
    );
    shown.push_str(&match place.run {
        Some(run) => notice(&what, run),
        None => format!("[outlive: {what}]\n"),
    });
    (shown, None)
}

fn failure(ename: &str, evalue: &str, traceback: &[&str], place: Where<'_>) -> Entry {
    let mut room = DOCUMENT_OUTPUT_BYTES_MAX;
    let mut short = |text: &str| {
        let end = text.floor_char_boundary(room);
        room -= end;
        Any::from(&text[..end])
    };
    let (ename, evalue) = (short(ename), short(evalue));
    let mut lines: Vec<Any> = Vec::new();
    for line in traceback {
        if line.len() > room {
            let what = "the rest of this traceback is in the notebook file";
            lines
                .push(place.run.map_or_else(|| format!("[outlive: {what}]"), |run| notice(what, run)).into());
            break;
        }
        room -= line.len();
        lines.push((*line).into());
    }
    Entry::Plain(vec![
        ("output_type", "error".into()),
        ("ename", ename),
        ("evalue", evalue),
        ("traceback", lines.into()),
    ])
}

/// A display, or a result with its count: itself, or a reference to it where it is too large. And what it costs.
fn rich(
    count: Option<Any>,
    content: &Content<'_>,
    bytes: u64,
    room: &mut Room,
    place: Where<'_>,
) -> (Entry, usize) {
    let fits = bytes <= DOCUMENT_OUTPUT_BYTES_MAX as u64 && bytes <= room.rich as u64;
    let (data, metadata, cost) = match content {
        Content::Here { data, metadata } if fits => (bundle(data), any_of(metadata), bytes),
        Content::Here { data, .. } => {
            let mimes: Vec<&str> = match data {
                Json::Object(data) => data.iter().map(|(mime, _)| mime.as_str()).collect(),
                _ => Vec::new(),
            };
            (reference(&mimes, bytes, None, place), no_members(), 0)
        }
        Content::Blob { blob, mimes } => {
            let mimes: Vec<&str> = mimes.iter().map(String::as_str).collect();
            (reference(&mimes, bytes, Some(&blob.sha256), place), no_members(), 0)
        }
    };
    let cost = usize::try_from(cost).expect("what fits is small");
    room.rich -= cost;
    let mut members = vec![("output_type", "display_data".into()), ("data", data), ("metadata", metadata)];
    if let Some(count) = count {
        members[0].1 = "execute_result".into();
        members.push(("execution_count", count));
    }
    (Entry::Plain(members), cost)
}

fn no_members() -> Any {
    Any::Map(Arc::default())
}

/// A MIME bundle with each text in one piece, as nbformat's readers have it.
fn bundle(data: &Json) -> Any {
    let Json::Object(entries) = data else { return no_members() };
    let value = |mime: &str, value: &Json| {
        let is_json =
            mime == "application/json" || (mime.starts_with("application/") && mime.ends_with("+json"));
        match value {
            Json::Array(_) if !is_json => value.joined().map_or_else(|| any_of(value), Any::from),
            _ => any_of(value),
        }
    };
    Any::Map(Arc::new(entries.iter().map(|(mime, json)| (mime.clone(), value(mime, json))).collect()))
}

fn reference(mimes: &[&str], bytes: u64, sha256: Option<&str>, place: Where<'_>) -> Any {
    let mut to: std::collections::HashMap<String, Any> = [
        ("cell".to_owned(), place.cell.as_str().into()),
        ("index".to_owned(), whole(place.index as u64)),
        ("bytes".to_owned(), whole(bytes)),
        ("mime_types".to_owned(), mimes.iter().map(|mime| Any::from(*mime)).collect::<Vec<_>>().into()),
    ]
    .into();
    if let Some(run) = place.run {
        to.insert("run".to_owned(), run.to_string().into());
    }
    if let Some(sha256) = sha256 {
        to.insert("sha256".to_owned(), sha256.into());
    }
    let text = format!(
        "[outlive: an output of {} ({}) is not part of the shared document; it is in the notebook file]",
        size(bytes),
        mimes.join(", ")
    );
    Any::Map(Arc::new(
        [(REFERENCE_MIME.to_owned(), Any::Map(Arc::new(to))), ("text/plain".to_owned(), text.into())].into(),
    ))
}
