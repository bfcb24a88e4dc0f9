//! One output, and how nbformat writes it (nbformat/v4/rwbase.py, `split_lines`).

use std::sync::Arc;

use outlive_core::id::RunId;
use outlive_core::limits::STDERR_TAIL_BYTES_MAX;
use outlive_core::log::{BlobRef, Payload};

use super::text::{CutText, StreamName, size};
use super::{Blobs, read_json};
use crate::json::{Json, Style, format};

#[derive(Clone, Debug)]
pub(super) enum Output {
    Stream {
        name: StreamName,
        text: CutText,
    },
    /// `revision` grows whenever a display id changes the content.
    Rich {
        kind: RichKind,
        content: Rich,
        display_id: Option<String>,
        revision: u32,
    },
    Failure(Failure),
}

#[derive(Clone, Debug)]
pub(super) enum RichKind {
    Display,
    Result { count: Json },
}

/// A MIME bundle and its metadata.
#[derive(Clone, Debug)]
pub(super) enum Rich {
    /// Here. Shared by all outputs of a display id.
    Inline { data: Arc<Json>, metadata: Arc<Json>, bytes: usize },
    /// In a blob, as the kernel's message; read when the notebook is written.
    Blob { blob: BlobRef, mimes: Arc<[String]> },
}

impl Rich {
    /// Of a message whose content is in a blob.
    pub fn blob(blob: &BlobRef, content: &Json) -> Self {
        let mimes = match content.get("data") {
            Some(Json::Object(data)) => data.iter().map(|(mime, _)| mime.clone()).collect(),
            _ => Arc::default(),
        };
        Self::Blob { blob: blob.clone(), mimes }
    }

    /// From a message's content of `bytes` bytes.
    pub fn inline(mut content: Json, bytes: usize) -> Self {
        let mut object = |key| content.take(key).filter(Json::is_object).unwrap_or(Json::Object(Vec::new()));
        Self::Inline { data: Arc::new(object("data")), metadata: Arc::new(object("metadata")), bytes }
    }

    /// How much memory it holds, in bytes.
    pub fn memory(&self) -> usize {
        match self {
            Self::Inline { bytes, .. } => *bytes,
            Self::Blob { .. } => 0,
        }
    }

    /// How large it is, in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Inline { bytes, .. } => *bytes as u64,
            Self::Blob { blob, .. } => blob.size,
        }
    }
}

/// An `error` output.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub ename: String,
    pub evalue: String,
    pub traceback: Vec<String>,
}

/// How many lines of a traceback are kept.
const TRACEBACK_LINES_MAX: usize = 1_000;

impl Failure {
    /// From the content of an `error` message. Texts of absurd length are cut, and say so.
    pub fn from_content(content: &Json) -> Self {
        let text = |key: &str| cut(content.get(key).and_then(Json::as_str).unwrap_or_default());
        let traceback = match content.get("traceback") {
            Some(Json::Array(lines)) => {
                lines.iter().filter_map(Json::as_str).take(TRACEBACK_LINES_MAX).map(cut).collect()
            }
            _ => Vec::new(),
        };
        Self { ename: text("ename"), evalue: text("evalue"), traceback }
    }
}

fn cut(text: &str) -> String {
    if text.len() <= STDERR_TAIL_BYTES_MAX {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(STDERR_TAIL_BYTES_MAX);
    format!("{} [outlive: {} more are left out here]", &text[..end], size((text.len() - end) as u64))
}

impl Output {
    pub fn display_id(&self) -> Option<&str> {
        if let Self::Rich { display_id, .. } = self { display_id.as_deref() } else { None }
    }

    pub fn memory(&self) -> usize {
        if let Self::Rich { content, .. } = self { content.memory() } else { 0 }
    }

    pub fn size(&self) -> u64 {
        if let Self::Rich { content, .. } = self { content.size() } else { 0 }
    }
}

/// Writes an output, whose bracket stands at `level`.
pub(super) fn write(
    out: &mut String,
    output: &Output,
    run: RunId,
    style: &Style,
    level: usize,
    blobs: &dyn Blobs,
) {
    match output {
        Output::Stream { name, text } => {
            let members: [(&str, Write<'_>); 3] = [
                ("name", Write::Text(name.as_str())),
                ("output_type", Write::Text("stream")),
                ("text", Write::Lines(&text.render(run))),
            ];
            write_object(out, &members, style, level);
        }
        Output::Failure(Failure { ename, evalue, traceback }) => {
            let traceback = Json::Array(traceback.iter().map(Json::string).collect());
            let members = [
                ("ename", Write::Text(ename)),
                ("evalue", Write::Text(evalue)),
                ("output_type", Write::Text("error")),
                ("traceback", Write::Json(&traceback)),
            ];
            write_object(out, &members, style, level);
        }
        Output::Rich { kind, content, .. } => {
            let loaded;
            let (data, metadata) = match content {
                Rich::Inline { data, metadata, .. } => (data, metadata),
                Rich::Blob { blob, .. } => {
                    loaded = load(blob, run, blobs);
                    (&loaded.0, &loaded.1)
                }
            };
            let mut members = vec![("data", Write::Bundle(data))];
            let word = match kind {
                RichKind::Display => "display_data",
                RichKind::Result { count } => {
                    members.push(("execution_count", Write::Json(count)));
                    "execute_result"
                }
            };
            members.push(("metadata", Write::Json(metadata)));
            members.push(("output_type", Write::Text(word)));
            write_object(out, &members, style, level);
        }
    }
}

/// A value and the way in which nbformat stores it.
enum Write<'a> {
    Text(&'a str),
    Lines(&'a str),
    Bundle(&'a Json),
    Json(&'a Json),
}

fn write_object(out: &mut String, members: &[(&str, Write<'_>)], style: &Style, level: usize) {
    format::write_list(out, ('{', '}'), members, style, level, |out, (key, value)| {
        format::write_string(out, key);
        out.push_str(&style.colon);
        match value {
            Write::Text(text) => format::write_string(out, text),
            Write::Lines(text) => format::write_lines(out, text, style, level + 1),
            Write::Json(json) => format::write(out, json, style, level + 1),
            Write::Bundle(data) => write_bundle(out, data, style, level + 1),
        }
    });
}

/// Writes a MIME bundle: texts as lists of lines, everything else as it is.
fn write_bundle(out: &mut String, data: &Json, style: &Style, level: usize) {
    let Json::Object(entries) = data else { return out.push_str("{}") };
    let texts: Vec<(&str, Option<String>, &Json)> = entries
        .iter()
        .map(|(mime, value)| (mime.as_str(), if is_text(mime) { value.joined() } else { None }, value))
        .collect();
    let mut members: Vec<(&str, Write<'_>)> = texts
        .iter()
        .map(|(mime, text, value)| (*mime, text.as_deref().map_or(Write::Json(value), Write::Lines)))
        .collect();
    members.sort_by_key(|(mime, _)| *mime);
    write_object(out, &members, style, level);
}

/// Whether a file holds content of this type as a list of lines.
pub(crate) fn is_text(mime: &str) -> bool {
    mime.starts_with("text/") || matches!(mime, "application/javascript" | "image/svg+xml")
}

/// The bundle and metadata of an output that is kept in a blob.
fn load(blob: &BlobRef, run: RunId, blobs: &dyn Blobs) -> (Arc<Json>, Arc<Json>) {
    let content = read_json(&Payload::Blob(blob.clone()), blobs).unwrap_or_else(|problem| {
        let text = super::text::notice(&format!("an output is missing here: {problem}"), run);
        Json::object([("data", Json::object([("text/plain", Json::String(text))]))])
    });
    match Rich::inline(content, 0) {
        Rich::Inline { data, metadata, .. } => (data, metadata),
        Rich::Blob { .. } => unreachable!("inline content is inline"),
    }
}
