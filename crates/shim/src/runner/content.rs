//! From what a runner sends to what a log holds. Pure.

use bytes::Bytes;
use outlive_core::diagnosis::evidence::{LastWords, LastWordsCause};
use outlive_core::limits::LAST_WORDS_CAUSES_MAX;
use outlive_core::log::ChunkKind;
use outlive_core::runtime::runner::Progress;
use outlive_core::session::RunOutcome;
use outlive_protocol::http::base64;
use outlive_protocol::runner::{Exception, Json, is_json};
use serde_json::{Value, json};

/// Longest text of an exception in a state notice or in last words, in bytes.
const TEXT_BYTES_MAX: usize = 4_096;
/// Longest traceback in last words, in bytes. Its end is kept: the innermost frames stand there.
const TRACEBACK_BYTES_MAX: usize = 16_384;

/// JSON, as a content's type.
pub(crate) const JSON: &str = "application/json";
/// Anything, as a content's type.
pub(crate) const BYTES: &str = "application/octet-stream";

/// A piece of output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    pub(crate) kind: ChunkKind,
    pub(crate) content: Bytes,
    /// What the content is.
    pub(crate) mime: &'static str,
}

impl Piece {
    fn new(kind: ChunkKind, content: impl Into<Bytes>, mime: &'static str) -> Self {
        Self { kind, content: content.into(), mime }
    }

    fn json(kind: ChunkKind, value: &Value) -> Self {
        Self::new(kind, value.to_string(), JSON)
    }
}

/// What a chunk is; an error in words when it is not one thing.
pub(crate) fn chunk(
    text: Option<String>,
    json: Option<Json>,
    mime: Option<String>,
    bytes: Option<Vec<u8>>,
) -> Result<Piece, &'static str> {
    match (text, json, bytes) {
        (Some(text), None, None) => Ok(Piece::new(ChunkKind::Text, text, "text/plain")),
        (None, Some(json), None) => Ok(Piece::new(ChunkKind::Json, json.text().to_owned(), JSON)),
        (None, None, Some(bytes)) => match mime {
            None => Ok(Piece::new(ChunkKind::Bytes, bytes, BYTES)),
            Some(mime) if mime == JSON && is_json(&bytes) => Ok(Piece::new(ChunkKind::Json, bytes, JSON)),
            Some(mime) => Ok(display(&mime, &bytes)),
        },
        (None, None, None) => Err("a chunk with none of \"text\", \"json\" and \"bytes\""),
        (Some(_), _, _) | (_, Some(_), _) => {
            Err("a chunk with more than one of \"text\", \"json\" and \"bytes\"")
        }
    }
}

/// As Jupyter shows a type: text types as text, all others in base64.
fn display(mime: &str, bytes: &[u8]) -> Piece {
    let is_text = mime.starts_with("text/") || mime == "image/svg+xml";
    let shown = match std::str::from_utf8(bytes) {
        Ok(text) if is_text => text.to_owned(),
        Ok(_) | Err(_) => base64(bytes),
    };
    Piece::json(ChunkKind::DisplayData, &json!({ "data": { mime: shown }, "metadata": {} }))
}

pub(crate) fn progress(progress: &Progress) -> Piece {
    let value = serde_json::to_value(progress).expect("a progress has string keys");
    Piece::json(ChunkKind::Progress, &value)
}

/// The value that a task returned; an error in words when it is none.
pub(crate) fn result(value: Option<Json>, bytes: Option<Vec<u8>>) -> Result<Piece, &'static str> {
    match (value, bytes) {
        (Some(value), _) => Ok(Piece::new(ChunkKind::Result, value.text().to_owned(), JSON)),
        (None, None) => Ok(Piece::new(ChunkKind::Result, "null", JSON)),
        (None, Some(bytes)) if is_json(&bytes) => Ok(Piece::new(ChunkKind::Result, bytes, JSON)),
        (None, Some(_)) => Err("a result whose bytes are no JSON"),
    }
}

/// What was saved, and its type; an error in words when nothing was.
pub(crate) fn state(
    state: Option<Json>,
    bytes: Option<Vec<u8>>,
) -> Result<(Bytes, &'static str), &'static str> {
    match (state, bytes) {
        (Some(state), None) => Ok((state.text().to_owned().into(), JSON)),
        (None, Some(bytes)) => Ok((bytes.into(), BYTES)),
        (None, None) | (Some(_), Some(_)) => {
            Err("a checkpoint without exactly one of \"state\" and \"bytes\"")
        }
    }
}

/// An exception as an error of Jupyter's, with what it came from beside it.
pub(crate) fn error(exception: &Exception) -> Piece {
    let mut value = shown(exception);
    let causes: Vec<Value> = causes(exception).map(shown).collect();
    if !causes.is_empty() {
        value["causes"] = causes.into();
    }
    Piece::json(ChunkKind::Error, &value)
}

fn shown(exception: &Exception) -> Value {
    let Exception { kind, message, repr, traceback, .. } = exception;
    let lines: Vec<&str> = traceback.iter().flat_map(|text| text.lines()).collect();
    let mut value = json!({ "ename": kind, "evalue": message, "traceback": lines });
    if let Some(repr) = repr {
        value["repr"] = repr.as_str().into();
    }
    value
}

fn causes(exception: &Exception) -> impl Iterator<Item = &Exception> {
    std::iter::successors(exception.cause.as_deref(), |cause| cause.cause.as_deref())
        .take(LAST_WORDS_CAUSES_MAX)
}

/// The end of a task that raised.
pub(crate) fn raised(exception: &Exception) -> RunOutcome {
    RunOutcome::Raised {
        ename: head(&exception.kind, TEXT_BYTES_MAX),
        evalue: head(&exception.message, TEXT_BYTES_MAX),
    }
}

/// The same for one that was not the runner's: error and end.
pub(crate) fn own_exception(kind: &str, message: String) -> Exception {
    Exception { kind: kind.to_owned(), message, ..Exception::default() }
}

/// What a runner says of its own end, bounded.
pub(crate) fn last_words(exception: &Exception, phase: String, task: Option<String>) -> LastWords {
    let cause = |cause: &Exception| LastWordsCause {
        exception_type: head(&cause.kind, TEXT_BYTES_MAX / 4),
        message: head(&cause.message, TEXT_BYTES_MAX),
        repr: head(cause.repr.as_deref().unwrap_or_default(), TEXT_BYTES_MAX / 4),
        traceback: tail(cause.traceback.as_deref().unwrap_or_default(), TRACEBACK_BYTES_MAX / 4),
    };
    LastWords {
        exception_type: head(&exception.kind, TEXT_BYTES_MAX / 4),
        message: head(&exception.message, TEXT_BYTES_MAX),
        repr: head(exception.repr.as_deref().unwrap_or_default(), TEXT_BYTES_MAX),
        traceback: tail(exception.traceback.as_deref().unwrap_or_default(), TRACEBACK_BYTES_MAX),
        causes: causes(exception).map(cause).collect(),
        phase,
        task,
    }
}

fn head(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(max)])
}

fn tail(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    format!("…{}", &text[text.ceil_char_boundary(text.len() - max)..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(piece: &Piece) -> &str {
        std::str::from_utf8(&piece.content).unwrap()
    }

    #[test]
    fn each_kind_of_chunk_has_its_place() {
        let chunk_of = |mime: Option<&str>, bytes: &[u8]| {
            chunk(None, None, mime.map(str::to_owned), Some(bytes.to_vec())).unwrap()
        };
        let shown = chunk(Some("hé".into()), None, None, None).unwrap();
        assert_eq!((shown.kind.clone(), text(&shown)), (ChunkKind::Text, "hé"));
        let raw = chunk_of(None, b"\xff\x00");
        assert_eq!((raw.kind, &raw.content[..]), (ChunkKind::Bytes, &b"\xff\x00"[..]));
        let image = chunk_of(Some("image/png"), b"\x89PNG");
        assert_eq!(
            (image.kind.clone(), text(&image)),
            (ChunkKind::DisplayData, r#"{"data":{"image/png":"iVBORw=="},"metadata":{}}"#)
        );
        let html = chunk_of(Some("text/html"), b"<b>");
        assert_eq!(text(&html), r#"{"data":{"text/html":"<b>"},"metadata":{}}"#);
        let json = chunk_of(Some("application/json"), b"[1, 2]");
        assert_eq!((json.kind.clone(), text(&json)), (ChunkKind::Json, "[1, 2]"), "long JSON is JSON");
        assert!(chunk(None, None, None, None).is_err());
        assert!(chunk(Some(String::new()), None, None, Some(vec![])).is_err());
    }

    #[test]
    fn an_exception_keeps_its_chain_and_stays_small() {
        // A11
        let mut exception = own_exception("Root", "r".repeat(100_000));
        for n in 0..20 {
            exception = Exception {
                kind: format!("E{n}"),
                traceback: Some(format!("{}\nlast", "x".repeat(100_000))),
                cause: Some(Box::new(exception)),
                ..Exception::default()
            };
        }
        let words = last_words(&exception, "loading".into(), None);
        assert_eq!((words.exception_type.as_str(), words.causes.len()), ("E19", LAST_WORDS_CAUSES_MAX));
        assert!(words.traceback.ends_with("last") && words.causes[0].exception_type == "E18");
        assert!(serde_json::to_vec(&words).unwrap().len() < 100_000);
        let value: Value = serde_json::from_slice(&error(&exception).content).unwrap();
        assert_eq!((&value["ename"], &value["traceback"][1]), (&json!("E19"), &json!("last")));
        assert_eq!(value["causes"].as_array().unwrap().len(), LAST_WORDS_CAUSES_MAX);
    }
}
