//! One chunk of output as text for a terminal or a pipe.

use std::borrow::Cow;

use outlive_core::log::ChunkKind;
use outlive_protocol::http::{CellView, ChunkView, from_base64};
use serde_json::Value;

use crate::terminal;

/// Where a piece of output goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    Out,
    Err,
}

/// What a chunk shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// Bytes of a stream, as they are.
    Stream(Place, Vec<u8>),
    /// Whole lines of its own.
    Lines(Place, String),
    /// Something that replaces what was shown before (a progress display): worth a place that is overwritten.
    Fleeting(String),
    /// Nothing to see.
    Nothing,
}

/// Turns a chunk into text. `colours` says whether escape sequences of a traceback are kept.
pub fn piece(chunk: &ChunkView, colours: bool) -> Piece {
    let large = |place| match &chunk.blob {
        Some(blob) => {
            Piece::Lines(place, format!("[large output, {}, in the notebook]", terminal::bytes(blob.size)))
        }
        None => Piece::Nothing,
    };
    let content = chunk.content.as_ref();
    match chunk.kind {
        ChunkKind::Stdout | ChunkKind::Stderr => {
            let place = if chunk.kind == ChunkKind::Stdout { Place::Out } else { Place::Err };
            bytes(chunk).map_or_else(|| large(place), |bytes| Piece::Stream(place, bytes))
        }
        ChunkKind::DisplayData | ChunkKind::ExecuteResult => match content {
            Some(content) => Piece::Lines(Place::Out, bundle(&content["data"])),
            None => large(Place::Out),
        },
        ChunkKind::UpdateDisplayData => match content {
            Some(content) => Piece::Fleeting(bundle(&content["data"])),
            None => Piece::Nothing,
        },
        ChunkKind::Error => match content {
            Some(content) => Piece::Lines(Place::Err, traceback(content, colours)),
            None => large(Place::Err),
        },
        ChunkKind::Gap => {
            let reason = content.and_then(|content| content["reason"].as_str()).unwrap_or("reason unknown");
            Piece::Lines(Place::Err, format!("[output was lost here: {}]", terminal::one_line(reason)))
        }
        ChunkKind::Text => {
            bytes(chunk).map_or_else(|| large(Place::Out), |bytes| Piece::Stream(Place::Out, bytes))
        }
        ChunkKind::Bytes => bytes(chunk).map_or_else(
            || large(Place::Out),
            |bytes| Piece::Lines(Place::Out, format!("[{} of bytes]", terminal::bytes(bytes.len() as u64))),
        ),
        ChunkKind::Json => match content {
            Some(content) => Piece::Lines(Place::Out, content.to_string()),
            None => large(Place::Out),
        },
        ChunkKind::Result => match content {
            Some(Value::Null) => Piece::Nothing,
            Some(Value::String(text)) => Piece::Lines(Place::Out, text.trim_end_matches('\n').to_owned()),
            Some(content) => Piece::Lines(Place::Out, content.to_string()),
            None => large(Place::Out),
        },
        ChunkKind::ClearOutput
        | ChunkKind::Started
        | ChunkKind::InputRequest
        | ChunkKind::Other
        | ChunkKind::Progress => Piece::Nothing,
    }
}

/// The bytes of a stream chunk; `None` when they are in a blob.
pub fn bytes(chunk: &ChunkView) -> Option<Vec<u8>> {
    match (&chunk.text, &chunk.base64) {
        (Some(text), _) => Some(text.clone().into_bytes()),
        (None, Some(base64)) => from_base64(base64),
        (None, None) => None,
    }
}

/// A MIME bundle: its plain text, and a note for each picture that only the notebook can show.
fn bundle(data: &Value) -> String {
    let Some(data) = data.as_object() else { return String::new() };
    let mut lines = Vec::new();
    let picture = data.iter().find(|(mime, _)| mime.starts_with("image/"));
    if let Some((mime, content)) = picture {
        let size = text_of(content).and_then(|base64| png_size(mime, &base64));
        let size = size.map_or_else(String::new, |(width, height)| format!(" {width}×{height}"));
        lines.push(format!("[{mime}{size} in the notebook]"));
    }
    let plain = ["text/plain", "text/markdown", "text/latex"]
        .iter()
        .find_map(|mime| data.get(*mime).and_then(text_of));
    match plain {
        // Beside a picture the plain text is mostly its object's name.
        Some(text) if lines.is_empty() || !text.starts_with('<') => lines.push(text.into_owned()),
        Some(_) => {}
        None if lines.is_empty() => {
            let mimes: Vec<_> = data.keys().map(|mime| terminal::one_line(mime)).collect();
            lines.push(format!("[{} in the notebook]", mimes.join(", ")));
        }
        None => {}
    }
    lines.join("\n")
}

/// A value of a MIME bundle: a string, or a list of lines (nbformat's multi-line strings).
fn text_of(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Array(lines) => Some(Cow::Owned(lines.iter().filter_map(Value::as_str).collect())),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// What a terminal would show of a line: what follows the last carriage return that something follows, without colours
/// and whatever else would move the cursor.
pub fn as_seen(line: &str) -> String {
    let shown = line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
    let shown = console::strip_ansi_codes(shown).replace('\t', "    ");
    shown.chars().filter(|c| !c.is_control()).collect()
}

/// The outputs of a cell as text, if they were asked for.
pub fn of_cell(cell: &CellView) -> String {
    cell.outputs.iter().flatten().map(of_notebook).collect()
}

/// An output as a notebook's file has it (nbformat 4).
fn of_notebook(output: &Value) -> String {
    match output["output_type"].as_str() {
        Some("stream") => text_of(&output["text"]).unwrap_or_default().into_owned(),
        Some("error") => traceback(output, false) + "\n",
        Some(_) => bundle(&output["data"]) + "\n",
        None => String::new(),
    }
}

fn traceback(content: &Value, colours: bool) -> String {
    let lines: Vec<_> =
        content["traceback"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let text = if lines.is_empty() {
        let part = |name: &str| content[name].as_str().unwrap_or("").to_owned();
        format!("{}: {}", part("ename"), part("evalue"))
    } else {
        lines.join("\n")
    };
    if colours { text } else { console::strip_ansi_codes(&text).into_owned() }
}

/// Width and height of a PNG: big-endian at byte 16 (PNG specification §11.2.2).
fn png_size(mime: &str, base64: &str) -> Option<(u32, u32)> {
    // 24 bytes are 32 digits; a picture may be megabytes.
    let head: String = base64.chars().filter(|c| !c.is_whitespace()).take(32).collect();
    let head = from_base64(&head).filter(|head| mime == "image/png" && head.starts_with(b"\x89PNG"))?;
    let number = |at: usize| Some(u32::from_be_bytes(head.get(at..at + 4)?.try_into().ok()?));
    Some((number(16)?, number(20)?))
}

#[cfg(test)]
mod tests {
    use outlive_core::time::WallTime;
    use serde_json::json;

    use super::*;

    fn chunk(kind: ChunkKind, content: Value) -> ChunkView {
        ChunkView { kind, at: WallTime(0), text: None, base64: None, content: Some(content), blob: None }
    }

    fn shown(data: Value) -> String {
        match piece(&chunk(ChunkKind::DisplayData, json!({ "data": data })), false) {
            Piece::Lines(Place::Out, text) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_picture_is_a_note_with_its_size() {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        png.extend([0, 0, 2, 128, 0, 0, 1, 224, 8, 6, 0, 0]);
        let png = outlive_protocol::http::base64(&png);
        let figure = json!({"image/png": png, "text/plain": "<Figure size 640x480 with 1 Axes>"});
        assert_eq!(shown(figure), "[image/png 640×480 in the notebook]");
        assert_eq!(shown(json!({"image/svg+xml": "<svg/>"})), "[image/svg+xml in the notebook]");
        assert_eq!(shown(json!({"image/png": "rubbish"})), "[image/png in the notebook]");
    }

    #[test]
    fn html_has_its_plain_text_and_what_has_none_is_named() {
        assert_eq!(shown(json!({"text/html": "<b>1</b>", "text/plain": ["1\n", "2"]})), "1\n2");
        assert_eq!(shown(json!({"application/x": {}})), "[application/x in the notebook]");
    }

    #[test]
    fn a_traceback_loses_its_colours_only_where_nobody_sees_them() {
        let error = chunk(
            ChunkKind::Error,
            json!({"ename": "E", "evalue": "v", "traceback": ["\x1b[31mE\x1b[0m: v"]}),
        );
        assert_eq!(piece(&error, false), Piece::Lines(Place::Err, "E: v".to_owned()));
        assert_eq!(piece(&error, true), Piece::Lines(Place::Err, "\x1b[31mE\x1b[0m: v".to_owned()));
        let bare = chunk(ChunkKind::Error, json!({"ename": "E", "evalue": "v", "traceback": []}));
        assert_eq!(piece(&bare, false), Piece::Lines(Place::Err, "E: v".to_owned()));
    }

    #[test]
    fn bytes_that_are_no_text_come_through_as_they_are() {
        let mut stream = chunk(ChunkKind::Stderr, Value::Null);
        stream.base64 = Some("/wA=".to_owned());
        assert_eq!(piece(&stream, false), Piece::Stream(Place::Err, vec![0xff, 0]));
    }
}
