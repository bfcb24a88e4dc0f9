//! The Jupyter message codec over raw frames.
//!
//! A message on the wire is
//! `identities… | <IDS|MSG> | signature | header | parent_header | metadata | content | buffers…`
//! (jupyter_client documentation, "The Wire Protocol"). What is forwarded stays the bytes that were signed: a typed
//! relay would lose what it does not know. Only the headers are read, for routing.
//!
//! Invariant: bytes from outside never panic and never allocate more than they are (test `garbage_is_refused`).

use std::fmt;

use bytes::Bytes;
use ring::hmac;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The frame between the identities and the message.
pub const DELIMITER: &[u8] = b"<IDS|MSG>";
/// The only signature scheme that kernels use.
pub const SIGNATURE_SCHEME: &str = "hmac-sha256";
/// Signature, header, parent header, metadata, content.
const FRAMES_AFTER_DELIMITER: usize = 5;

/// The sockets of a kernel that carry messages.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// Requests that run in order.
    Shell,
    /// What everybody sees: status, streams, results.
    Iopub,
    /// The kernel's questions.
    Stdin,
    /// Requests that overtake the shell: interrupt, shutdown, debug.
    Control,
}

impl Channel {
    /// The name in Jupyter's WebSocket protocol.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::Iopub => "iopub",
            Self::Stdin => "stdin",
            Self::Control => "control",
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is read of a header, for routing. The bytes in [`Message::raw`] are the whole of it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Header {
    /// Unique for its session.
    pub msg_id: String,
    /// For instance `execute_reply`.
    pub msg_type: String,
    /// Of whom: the client for requests, the kernel's life for what a kernel says.
    #[serde(default)]
    pub session: Option<String>,
    /// JEP 91: which of the kernel's subshells is meant.
    #[serde(default)]
    pub subshell_id: Option<String>,
}

/// The four JSON frames that the signature covers, as they were signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Raw {
    /// See [`Header`].
    pub header: Bytes,
    /// The header of the request that caused this, or `{}`.
    pub parent_header: Bytes,
    /// A JSON object.
    pub metadata: Bytes,
    /// A JSON object; its shape depends on the type.
    pub content: Bytes,
}

/// A message of a kernel or to a kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// ZeroMQ routing frames; on iopub the topic.
    pub identities: Vec<Bytes>,
    /// What it is.
    pub header: Header,
    /// What caused it; `None` when the kernel spoke by itself.
    pub parent: Option<Header>,
    /// The bytes.
    pub raw: Raw,
    /// Binary attachments; not signed.
    pub buffers: Vec<Bytes>,
}

/// Frames that are no message of this kernel.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// No `<IDS|MSG>` frame.
    #[error("no <IDS|MSG> frame among {frames} frames: the sender does not speak Jupyter's protocol")]
    NoDelimiter {
        /// How many there were.
        frames: usize,
    },
    /// Fewer than five frames after the delimiter.
    #[error("{found} frames after <IDS|MSG>, at least {FRAMES_AFTER_DELIMITER} are needed")]
    TooFewFrames {
        /// How many there were.
        found: usize,
    },
    /// The signature is not this kernel's.
    #[error(
        "the signature does not fit the key of the connection file: \
         another kernel has taken the port, or the kernel was given another key"
    )]
    WrongSignature,
    /// A header is not JSON of the right shape.
    #[error("the {which} is not a Jupyter header")]
    Header {
        /// Which of the two.
        which: &'static str,
        /// Where it breaks.
        #[source]
        source: serde_json::Error,
    },
}

/// The key of a connection file is not usable.
#[derive(Debug, thiserror::Error)]
#[error("signature scheme `{scheme}` is not supported: kernels are launched with `{SIGNATURE_SCHEME}`")]
pub struct KeyError {
    /// What was asked for.
    pub scheme: String,
}

/// Signs and checks. An empty key means unsigned messages, as in jupyter_client. `Debug` shows no secret.
#[derive(Clone, Debug)]
pub struct SigningKey(Option<hmac::Key>);

impl SigningKey {
    /// From the connection file's `key` and `signature_scheme`.
    ///
    /// # Errors
    /// When the scheme is not [`SIGNATURE_SCHEME`].
    pub fn new(key: &str, scheme: &str) -> Result<Self, KeyError> {
        if key.is_empty() {
            return Ok(Self(None));
        }
        if scheme != SIGNATURE_SCHEME {
            return Err(KeyError { scheme: scheme.to_owned() });
        }
        Ok(Self(Some(hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()))))
    }

    fn sign(&self, raw: &Raw) -> Bytes {
        let Some(key) = &self.0 else { return Bytes::new() };
        Bytes::from(hex(tag(key, raw).as_ref()))
    }

    fn verify(&self, raw: &Raw, signature: &[u8]) -> Result<(), DecodeError> {
        let Some(key) = &self.0 else { return Ok(()) };
        // The frames are not contiguous, so ring's own constant-time `verify` cannot be fed with them. It compares
        // the two texts under one more HMAC instead: equal exactly when the texts are, and in constant time.
        let expected = hex(tag(key, raw).as_ref());
        hmac::verify(key, expected.as_bytes(), hmac::sign(key, signature).as_ref())
            .map_err(|_| DecodeError::WrongSignature)
    }
}

fn tag(key: &hmac::Key, raw: &Raw) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for frame in [&raw.header, &raw.parent_header, &raw.metadata, &raw.content] {
        context.update(frame);
    }
    context.sign()
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}

impl Message {
    /// Reads the frames of one ZeroMQ message.
    ///
    /// Metadata and content are not looked at: [`Self::content`] says when they are not JSON.
    ///
    /// # Errors
    /// When the frames are no Jupyter message signed with `key`.
    pub fn decode(frames: Vec<Bytes>, key: &SigningKey) -> Result<Self, DecodeError> {
        let count = frames.len();
        let mut frames = frames.into_iter();
        let mut identities = Vec::new();
        loop {
            match frames.next() {
                Some(frame) if frame == DELIMITER => break,
                Some(frame) => identities.push(frame),
                None => return Err(DecodeError::NoDelimiter { frames: count }),
            }
        }
        let found = frames.len();
        let mut frame = || frames.next().ok_or(DecodeError::TooFewFrames { found });
        let signature = frame()?;
        let raw = Raw { header: frame()?, parent_header: frame()?, metadata: frame()?, content: frame()? };
        key.verify(&raw, &signature)?;
        Self::from_raw(identities, raw, frames.collect())
    }

    /// A message from its JSON frames, for instance one that a WebSocket client sent.
    ///
    /// # Errors
    /// When a header is not one.
    pub fn from_raw(identities: Vec<Bytes>, raw: Raw, buffers: Vec<Bytes>) -> Result<Self, DecodeError> {
        let header = serde_json::from_slice(&raw.header)
            .map_err(|source| DecodeError::Header { which: "header", source })?;
        let parent = parse_parent(&raw.parent_header)?;
        Ok(Self { identities, header, parent, raw, buffers })
    }

    /// The frames to send, signed. Buffers are not copied.
    #[must_use]
    pub fn encode(&self, key: &SigningKey) -> Vec<Bytes> {
        let mut frames =
            Vec::with_capacity(self.identities.len() + 1 + FRAMES_AFTER_DELIMITER + self.buffers.len());
        frames.extend(self.identities.iter().cloned());
        frames.push(Bytes::from_static(DELIMITER));
        frames.push(key.sign(&self.raw));
        let Raw { header, parent_header, metadata, content } = self.raw.clone();
        frames.extend([header, parent_header, metadata, content]);
        frames.extend(self.buffers.iter().cloned());
        frames
    }

    /// The content, read as `T`.
    ///
    /// # Errors
    /// When it is not JSON of that shape.
    pub fn content<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.raw.content)
    }

    /// The message id of the request that caused this.
    #[must_use]
    pub fn parent_id(&self) -> Option<&str> {
        self.parent.as_ref().map(|parent| parent.msg_id.as_str())
    }

    /// All JSON frames and buffers together, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let Raw { header, parent_header, metadata, content } = &self.raw;
        let json: usize = [header, parent_header, metadata, content].into_iter().map(Bytes::len).sum();
        json + self.buffers.iter().map(Bytes::len).sum::<usize>()
    }
}

/// A parent header is a header, or an object without a message id (`{}`) when nothing caused the message.
fn parse_parent(bytes: &[u8]) -> Result<Option<Header>, DecodeError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Parent {
        Header(Header),
        None {},
    }
    if bytes == b"{}" {
        return Ok(None);
    }
    match serde_json::from_slice(bytes) {
        Ok(Parent::Header(header)) => Ok(Some(header)),
        Ok(Parent::None {}) => Ok(None),
        Err(source) => Err(DecodeError::Header { which: "parent header", source }),
    }
}
