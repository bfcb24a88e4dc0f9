//! Output as clients see it.

use outlive_core::log::{BlobRef, Chunk, ChunkKind, Payload};
use outlive_core::time::WallTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A chunk in a stream.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChunkView {
    /// What it is.
    pub kind: ChunkKind,
    /// When it was received.
    pub at: WallTime,
    /// Text, for `stdout` and `stderr` that is valid UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Bytes in base64, for `stdout` and `stderr` that is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// JSON content, for the other kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<serde_json::Value>,
    /// Where the content is, when it is large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<BlobRef>,
}

impl From<&Chunk> for ChunkView {
    fn from(chunk: &Chunk) -> Self {
        let mut view = Self {
            kind: chunk.kind.clone(),
            at: chunk.at,
            text: None,
            base64: None,
            content: None,
            blob: None,
        };
        match &chunk.payload {
            Payload::Blob(blob) => view.blob = Some(blob.clone()),
            Payload::Inline(bytes) => match chunk.kind {
                ChunkKind::Stdout | ChunkKind::Stderr => match std::str::from_utf8(bytes) {
                    Ok(text) => view.text = Some(text.to_owned()),
                    Err(_) => view.base64 = Some(base64(bytes)),
                },
                ChunkKind::DisplayData
                | ChunkKind::UpdateDisplayData
                | ChunkKind::ExecuteResult
                | ChunkKind::Error
                | ChunkKind::ClearOutput
                | ChunkKind::Started
                | ChunkKind::InputRequest
                | ChunkKind::Gap
                | ChunkKind::Other => match serde_json::from_slice(bytes) {
                    Ok(content) => view.content = Some(content),
                    Err(_) => view.base64 = Some(base64(bytes)),
                },
            },
        }
        view
    }
}

/// Standard base64 with padding (RFC 4648 §4).
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word =
            group.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_as_in_rfc_4648() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
