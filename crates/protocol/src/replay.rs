//! Output that is said again: a runner that replays a task exactly begins anew after its process or its node was lost, and
//! what it says again is compared with what was said before and dropped, so that whoever watches sees no break.
//!
//! The owner keeps a digest of what an attempt has said since the state that the next one begins with; the shim takes the
//! digest of as many chunks of the next attempt. Kind and content count, and how it was cut into chunks.

use outlive_core::limits::CHUNK_BYTES_MAX;
use outlive_core::log::{Chunk, ChunkKind, Payload};
use outlive_core::runtime::runner::Replay;
use sha2::{Digest as _, Sha256};

/// What was said so far.
#[derive(Clone, Debug, Default)]
pub struct Said {
    chunks: u64,
    digest: Sha256,
}

impl Said {
    /// A chunk as it stands in the log.
    pub fn add(&mut self, chunk: &Chunk) {
        match &chunk.payload {
            Payload::Inline(bytes) => self.add_content(&chunk.kind, bytes),
            Payload::Blob(blob) => self.put(&chunk.kind, blob.size, blob.sha256.as_bytes()),
        }
    }

    /// A chunk as it comes from a runner: what is too large for a record will stand beside the log.
    pub fn add_content(&mut self, kind: &ChunkKind, content: &[u8]) {
        let size = content.len() as u64;
        if content.len() <= CHUNK_BYTES_MAX {
            self.put(kind, size, content);
        } else {
            self.put(kind, size, hex(&Sha256::digest(content)).as_bytes());
        }
    }

    fn put(&mut self, kind: &ChunkKind, size: u64, content: &[u8]) {
        let kind = serde_json::to_vec(kind).expect("a name is written as JSON");
        self.chunks += 1;
        self.digest.update(&kind);
        self.digest.update(size.to_le_bytes());
        self.digest.update(content);
    }

    /// How many chunks that was.
    #[must_use]
    pub const fn chunks(&self) -> u64 {
        self.chunks
    }

    /// What the next attempt has to say again.
    #[must_use]
    pub fn replay(&self) -> Replay {
        Replay { chunks: self.chunks, sha256: hex(&self.digest.clone().finalize()) }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("text takes any text");
        text
    })
}

#[cfg(test)]
mod tests {
    use outlive_core::log::BlobRef;
    use outlive_core::time::WallTime;

    use super::*;

    #[test]
    fn what_stands_in_the_log_is_what_the_runner_said_wherever_its_content_is() {
        // E10
        let large = vec![b'x'; CHUNK_BYTES_MAX + 1];
        let (mut logged, mut heard) = (Said::default(), Said::default());
        heard.add_content(&ChunkKind::Text, b"one");
        heard.add_content(&ChunkKind::Bytes, &large);
        logged.add(&Chunk::inline(ChunkKind::Text, WallTime(7), &b"one"[..]));
        let blob =
            BlobRef { sha256: hex(&Sha256::digest(&large)), size: large.len() as u64, mime: "a/b".into() };
        logged.add(&Chunk { kind: ChunkKind::Bytes, at: WallTime(8), payload: Payload::Blob(blob) });
        assert_eq!((heard.chunks(), heard.replay()), (2, logged.replay()));
    }

    #[test]
    fn another_kind_another_content_and_another_cut_are_something_else() {
        let of = |chunks: &[(ChunkKind, &[u8])]| {
            let mut said = Said::default();
            chunks.iter().for_each(|(kind, content)| said.add_content(kind, content));
            said.replay().sha256
        };
        let all = [
            of(&[(ChunkKind::Text, b"ab")]),
            of(&[(ChunkKind::Text, b"ac")]),
            of(&[(ChunkKind::Bytes, b"ab")]),
            of(&[(ChunkKind::Text, b"a"), (ChunkKind::Text, b"b")]),
            of(&[]),
        ];
        let distinct: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
