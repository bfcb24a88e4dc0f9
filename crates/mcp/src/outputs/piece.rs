//! What one chunk of a run, or one output of a cell, is to somebody who reads.

use outlive_core::id::SessionId;
use outlive_core::limits::MCP_BLOB_BYTES_MAX;
use outlive_core::log::{BlobRef, ChunkKind};
use outlive_protocol::http::{ChunkView, Problem};
use serde_json::Value;

use super::text::plain;
use crate::host::Host;

/// Images that models can look at.
const IMAGES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];
/// Texts, most telling first. What only names the object (`<IPython.core.display.HTML object>`) comes last.
const TEXTS: [&str; 5] = ["text/markdown", "text/plain", "text/latex", "text/html", "image/svg+xml"];

/// One piece of output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// Nothing to see.
    Nothing,
    /// Text of a stream: `stdout` or `stderr`.
    Stream { name: &'static str, text: String },
    /// A display or a result.
    Rich(Rich),
    /// Other content for displays of this id.
    Update(Rich),
    /// An exception.
    Error { ename: String, evalue: String, traceback: String },
    /// What was there goes, at once or when the next output comes.
    Clear { wait: bool },
    /// Something about the output.
    Notice(String),
}

/// The one representation that is shown of a display.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rich {
    /// Its MIME type.
    pub mime: String,
    /// Its text; for an image, what stands in its place.
    pub text: String,
    /// An image in base64.
    pub image: Option<String>,
    /// The display's id.
    pub display: Option<String>,
}

/// What a chunk is.
pub async fn of_chunk(host: &dyn Host, session: SessionId, chunk: ChunkView) -> Result<Piece, Problem> {
    let ChunkView { kind, text, base64, content, blob, .. } = chunk;
    let stream = match kind {
        ChunkKind::Stdout => Some("stdout"),
        ChunkKind::Stderr => Some("stderr"),
        _ => None,
    };
    if let Some(blob) = blob {
        if blob.size > MCP_BLOB_BYTES_MAX {
            return Ok(Piece::Notice(elsewhere(session, &blob)));
        }
        let bytes = host.blob(session, &blob.sha256, MCP_BLOB_BYTES_MAX).await?;
        return Ok(match stream {
            Some(name) => Piece::Stream { name, text: String::from_utf8_lossy(&bytes).into_owned() },
            None => serde_json::from_slice(&bytes).map_or_else(
                |_| Piece::Notice(elsewhere(session, &blob)),
                |content| of_content(&kind, &content),
            ),
        });
    }
    Ok(match (stream, text, content) {
        (Some(name), Some(text), _) => Piece::Stream { name, text },
        (None, _, Some(content)) => of_content(&kind, &content),
        _ => base64.map_or(Piece::Nothing, |base64| {
            Piece::Notice(format!("[{} bytes that are no UTF-8 text]", base64.len() / 4 * 3))
        }),
    })
}

fn elsewhere(session: SessionId, blob: &BlobRef) -> String {
    format!(
        "[an output of {} bytes ({}) is too large to be shown; it is in the notebook's file, and GET \
         /v1/sessions/{session}/blobs/{} of the daemon answers with it]",
        blob.size, blob.mime, blob.sha256
    )
}

fn of_content(kind: &ChunkKind, content: &Value) -> Piece {
    match kind {
        ChunkKind::DisplayData | ChunkKind::ExecuteResult => Piece::Rich(rich(content)),
        ChunkKind::UpdateDisplayData => Piece::Update(rich(content)),
        ChunkKind::Error => error(content),
        ChunkKind::ClearOutput => Piece::Clear { wait: content["wait"].as_bool().unwrap_or(false) },
        ChunkKind::InputRequest => Piece::Notice(format!("[it asks: {}]", joined(&content["prompt"]))),
        ChunkKind::Gap => Piece::Notice(format!("[output was lost here: {}]", joined(&content["reason"]))),
        ChunkKind::Started
        | ChunkKind::Other
        | ChunkKind::Stdout
        | ChunkKind::Stderr
        | ChunkKind::Text
        | ChunkKind::Json
        | ChunkKind::Bytes
        | ChunkKind::Progress
        | ChunkKind::Result => Piece::Nothing,
    }
}

/// What an output of a cell is, in nbformat's form.
pub fn of_output(output: &Value) -> Piece {
    match output["output_type"].as_str() {
        Some("stream") => {
            let name = if output["name"] == "stderr" { "stderr" } else { "stdout" };
            Piece::Stream { name, text: joined(&output["text"]) }
        }
        Some("error") => error(output),
        Some("display_data" | "execute_result") => Piece::Rich(rich(output)),
        _ => Piece::Nothing,
    }
}

fn error(content: &Value) -> Piece {
    let lines: Vec<String> =
        content["traceback"].as_array().into_iter().flatten().map(|line| plain(&joined(line))).collect();
    Piece::Error {
        ename: joined(&content["ename"]),
        evalue: plain(&joined(&content["evalue"])),
        traceback: lines.join("\n"),
    }
}

fn rich(content: &Value) -> Rich {
    let data = content["data"].as_object();
    let get = |mime: &str| data.and_then(|data| data.get(mime));
    let display = content["transient"]["display_id"].as_str().map(str::to_owned);
    if let Some((mime, image)) = IMAGES.iter().find_map(|mime| get(mime).map(|image| (*mime, image))) {
        let image = joined(image).replace(['\n', '\r', ' '], "");
        let text = get("text/plain").map(joined).unwrap_or_default();
        return Rich { mime: mime.to_owned(), text, image: Some(image), display };
    }
    let names_only = |text: &str| text.starts_with("<IPython.core.display.");
    let told = TEXTS.iter().find_map(|mime| {
        get(mime).map(joined).filter(|text| !names_only(text)).map(|text| ((*mime).to_owned(), text))
    });
    let (mime, text) = told
        .or_else(|| {
            let mut others = data.into_iter().flatten();
            let json = others.find(|(mime, _)| mime.ends_with("json"));
            json.map(|(mime, json)| (mime.clone(), json.to_string()))
        })
        .or_else(|| get("text/plain").map(|text| ("text/plain".to_owned(), joined(text))))
        .unwrap_or_else(|| {
            let mimes: Vec<&str> = data.into_iter().flatten().map(|(mime, _)| mime.as_str()).collect();
            ("text/plain".to_owned(), format!("[a display of {}]", mimes.join(", ")))
        });
    Rich { mime, text, image: None, display }
}

/// A text in one piece; nbformat allows a list of lines.
fn joined(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(data: Value) -> (String, String) {
        let Piece::Rich(rich) = of_output(&json!({"output_type": "display_data", "data": data})) else {
            panic!("no display")
        };
        (rich.mime, rich.text)
    }

    #[test]
    fn of_several_representations_the_telling_one_is_shown() {
        let html = json!({"text/plain": "<IPython.core.display.HTML object>", "text/html": ["<b>", "x</b>"]});
        assert_eq!(shown(html), ("text/html".to_owned(), "<b>x</b>".to_owned()));
        let table = json!({"text/plain": "   a\n0  1", "text/html": "<table>"});
        assert_eq!(shown(table), ("text/plain".to_owned(), "   a\n0  1".to_owned()));
        let plot = json!({"application/vnd.plotly.v1+json": {"data": []}});
        assert_eq!(shown(plot).1, "{\"data\":[]}");
        assert_eq!(shown(json!({"application/x-z": "?"})).1, "[a display of application/x-z]");
        let image = json!({"text/plain": "<Figure>", "image/png": "iVBO\nRw0K\n"});
        let Piece::Rich(rich) = of_output(&json!({"output_type": "execute_result", "data": image})) else {
            panic!("no display")
        };
        assert_eq!(rich.image.as_deref(), Some("iVBORw0K"));
    }

    #[test]
    fn an_exception_is_read_without_its_colours() {
        let output = json!({"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["\u{1b}[31mE\u{1b}[0m", "v"]});
        let error = Piece::Error { ename: "E".into(), evalue: "v".into(), traceback: "E\nv".into() };
        assert_eq!(of_output(&output), error);
    }
}
