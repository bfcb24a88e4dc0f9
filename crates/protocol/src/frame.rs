//! The one framing of Outlive: on the shim link and in the embedded store's segment files.
//!
//! ```text
//!  0        4         5      6        8          12
//!  | len u32 | version | kind | flags  | crc32c   | body: len bytes
//!              `------- covered by crc32c ------`     `--- covered too
//! ```
//! All numbers are little-endian. `len` counts the body only. The crc (Castagnoli) covers version, kind, flags and
//! body; a wrong `len` moves the body's end, so it is found as well.
//!
//! Invariant: a body is never longer than [`FRAME_BYTES_MAX`]; a sender is told before a byte leaves it, a receiver
//! finds out from the header and before it allocates. Tests: `tests/frame.rs`.

use bytes::{Bytes, BytesMut};
use outlive_core::limits::FRAME_BYTES_MAX;

/// Length of a frame's header in bytes.
pub const HEADER_BYTES: usize = 12;
/// Where in a frame its kind stands.
pub const KIND_AT: usize = 5;
/// The version of this framing.
pub const VERSION: u8 = 1;

/// A frame as it was received. The receiver skips a `kind` that it does not know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// What the body holds: a constant of [`super::log`] or [`super::shim_codec`].
    pub kind: u8,
    /// Reserved, 0; a receiver ignores bits that it does not know.
    pub flags: u16,
    /// The content.
    pub body: Bytes,
}

/// Why a frame cannot be sent or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Over the limit. On send nothing has left; on receive the body is skipped and the next frame can be read.
    #[error("a message of {size} bytes is over the limit of {max} bytes; send it in parts or as a blob")]
    TooLarge {
        /// The body's length in bytes, as it is or as the header says.
        size: u64,
        /// The limit in bytes.
        max: usize,
    },
    /// Another version of the framing, or no frame at all. The stream cannot be read any further.
    #[error("frame version {version} is not understood (this is version {VERSION}); upgrade the older side")]
    BadVersion {
        /// The version byte that was found.
        version: u8,
    },
    /// The content is damaged. The stream cannot be trusted any further.
    #[error("a frame of kind {kind} is damaged: its checksum is {found:08x}, its header says {expected:08x}")]
    BadCrc {
        /// The kind byte that was found.
        kind: u8,
        /// The checksum in the header.
        expected: u32,
        /// The checksum of what came.
        found: u32,
    },
}

impl FrameError {
    /// Whether what follows in the same stream can still be read.
    #[must_use]
    pub const fn stream_lives(&self) -> bool {
        match self {
            Self::TooLarge { .. } => true,
            Self::BadVersion { .. } | Self::BadCrc { .. } => false,
        }
    }
}

/// A header whose version and length have been checked.
#[derive(Clone, Copy, Debug)]
struct Header {
    len: usize,
    kind: u8,
    flags: u16,
    crc: u32,
    /// Checksum of version, kind and flags, to be continued over the body.
    crc_seed: u32,
}

impl Header {
    fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let [l0, l1, l2, l3, version, kind, f0, f1, c0, c1, c2, c3] = *bytes;
        if version != VERSION {
            return Err(FrameError::BadVersion { version });
        }
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        if len as usize > FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge { size: u64::from(len), max: FRAME_BYTES_MAX });
        }
        Ok(Self {
            len: len as usize,
            kind,
            flags: u16::from_le_bytes([f0, f1]),
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
            crc_seed: crc32c::crc32c(&[version, kind, f0, f1]),
        })
    }

    fn check(&self, body: &[u8]) -> Result<(), FrameError> {
        let found = crc32c::crc32c_append(self.crc_seed, body);
        if found == self.crc {
            Ok(())
        } else {
            Err(FrameError::BadCrc { kind: self.kind, expected: self.crc, found })
        }
    }
}

/// Makes one frame whose body is `parts`, one after the other.
///
/// # Errors
/// [`FrameError::TooLarge`] when the parts together are longer than [`FRAME_BYTES_MAX`].
pub fn encode(kind: u8, flags: u16, parts: &[&[u8]]) -> Result<Vec<u8>, FrameError> {
    let mut out = Vec::new();
    encode_into(&mut out, kind, flags, parts)?;
    Ok(out)
}

/// As [`encode`], but appends to `out`, which is unchanged after an error.
///
/// # Errors
/// [`FrameError::TooLarge`] when the parts together are longer than [`FRAME_BYTES_MAX`].
pub fn encode_into(out: &mut Vec<u8>, kind: u8, flags: u16, parts: &[&[u8]]) -> Result<(), FrameError> {
    let size: usize = parts.iter().map(|part| part.len()).sum();
    let len = u32::try_from(size)
        .ok()
        .filter(|_| size <= FRAME_BYTES_MAX)
        .ok_or(FrameError::TooLarge { size: size as u64, max: FRAME_BYTES_MAX })?;
    let [f0, f1] = flags.to_le_bytes();
    let covered = [VERSION, kind, f0, f1];
    let crc = parts.iter().fold(crc32c::crc32c(&covered), |crc, part| crc32c::crc32c_append(crc, part));
    out.reserve(HEADER_BYTES + size);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&covered);
    out.extend_from_slice(&crc.to_le_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
    Ok(())
}

/// A frame in a buffer that the caller keeps, and how many bytes it takes there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameRef<'a> {
    /// What the body holds.
    pub kind: u8,
    /// Reserved, 0.
    pub flags: u16,
    /// The content.
    pub body: &'a [u8],
    /// Header and body, in bytes.
    pub frame_bytes: usize,
}

/// Reads the frame at the start of `bytes`; `None` when more bytes are needed.
///
/// # Errors
/// Any [`FrameError`]; nothing is consumed then.
pub fn split(bytes: &[u8]) -> Result<Option<FrameRef<'_>>, FrameError> {
    let Some((header, rest)) = bytes.split_first_chunk() else { return Ok(None) };
    let header = Header::parse(header)?;
    let Some(body) = rest.get(..header.len) else { return Ok(None) };
    header.check(body)?;
    Ok(Some(FrameRef {
        kind: header.kind,
        flags: header.flags,
        body,
        frame_bytes: HEADER_BYTES + header.len,
    }))
}

/// Turns a stream of bytes into frames. Holds at most one frame that is not whole, plus what was fed last.
///
/// ```
/// # use outlive_protocol::frame::{encode, Decoder};
/// let mut decoder = Decoder::default();
/// decoder.feed(&encode(7, 0, &[b"one"]).unwrap());
/// assert_eq!(&decoder.next_frame().unwrap().unwrap().body[..], b"one");
/// assert!(decoder.next_frame().unwrap().is_none());
/// ```
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    /// What is still to be thrown away of a body that was too large, in bytes.
    skip: usize,
}

impl Decoder {
    /// Takes what was read from the stream. Take every frame with [`Self::next_frame`] before feeding again: that is
    /// what bounds the buffer.
    pub fn feed(&mut self, bytes: &[u8]) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        self.buffer.extend_from_slice(&bytes[skipped..]);
    }

    /// The next whole frame; `None` when more bytes are needed.
    ///
    /// # Errors
    /// A frame that is too large is reported once and skipped without being stored, and the next one can be read
    /// ([`FrameError::stream_lives`]). After any other error the connection must be closed.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(header) = self.buffer.first_chunk() else { return Ok(None) };
        let header = match Header::parse(header) {
            Ok(header) => header,
            Err(error) => {
                if let FrameError::TooLarge { size, .. } = error {
                    self.discard(HEADER_BYTES + usize::try_from(size).unwrap_or(usize::MAX));
                }
                return Err(error);
            }
        };
        if self.buffer.len() < HEADER_BYTES + header.len {
            return Ok(None);
        }
        let body = self.buffer.split_to(HEADER_BYTES + header.len).freeze().slice(HEADER_BYTES..);
        header.check(&body)?;
        Ok(Some(Frame { kind: header.kind, flags: header.flags, body }))
    }

    /// Whether the stream stands within a frame: an end of the stream here has cut it off.
    #[must_use]
    pub fn is_mid_frame(&self) -> bool {
        self.skip > 0 || !self.buffer.is_empty()
    }

    fn discard(&mut self, bytes: usize) {
        let here = bytes.min(self.buffer.len());
        drop(self.buffer.split_to(here));
        self.skip = bytes - here;
    }
}
