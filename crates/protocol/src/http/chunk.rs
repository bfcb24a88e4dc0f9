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
    /// Text, for `stdout`, `stderr` and `text` that is valid UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Bytes in base64, for `bytes`, and for `stdout` and `stderr` that is no text.
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
                ChunkKind::Bytes => view.base64 = Some(base64(bytes)),
                ChunkKind::Stdout | ChunkKind::Stderr | ChunkKind::Text => match std::str::from_utf8(bytes) {
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
                | ChunkKind::Json
                | ChunkKind::Progress
                | ChunkKind::Result
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

/// What [`base64`] made this of; `None` for anything else.
#[must_use]
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3);
    for group in digits.as_bytes().chunks(4) {
        let mut word = 0_u32;
        for byte in group {
            word = word << 6 | u32::from(digit(*byte)?);
        }
        word <<= 6 * (4 - group.len());
        bytes.extend_from_slice(&word.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::{base64, from_base64};

    #[test]
    fn base64_as_in_rfc_4648() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn base64_comes_back() {
        for length in 0..70_u8 {
            let bytes: Vec<u8> = (0..length).map(|n| n.wrapping_mul(37)).collect();
            assert_eq!(from_base64(&base64(&bytes)).as_deref(), Some(&bytes[..]));
        }
        for bad in ["A", "AAA", "A===", "AA=A", "Ä===", "AA A", "===="] {
            assert_eq!(from_base64(bad), None, "{bad}");
        }
    }
}
