//! Looks through an update before the library sees it.
//!
//! `yrs` reserves memory for whatever length an update names, recurses as deep as its values nest, and panics on some
//! contents that no editor makes. So an update is walked first, allocating nothing: each length must be covered by
//! the bytes that are there, values nest at most [`JSON_DEPTH_MAX`] deep, clocks stay in range, and only the kinds of
//! content that a notebook's model has are let through (arrays, maps, texts, strings, plain values, deletions).
//!
//! The format is lib0's and Yjs's update v1 (yjs/src/utils/encoding.js, yrs/src/update.rs).

use outlive_core::limits::{DOCUMENT_NESTED_HARD_MAX, DOCUMENT_UPDATE_BYTES_MAX, JSON_DEPTH_MAX};

/// Bytes that are not what they should be. Nothing of them was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the {what} of the live document is not valid: {why} at byte {at}; reload the notebook in that client"
)]
pub struct Forged {
    /// What they were sent as.
    pub what: &'static str,
    /// What is wrong with them.
    pub why: &'static str,
    /// Where.
    pub at: usize,
}

/// What an update would add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weight {
    /// Cells, texts, maps and lists.
    pub nested: usize,
}

/// Who made an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Somebody outside; and what this side goes by in the document, with its clock: nobody else writes as that.
    Peer { us: u64, clock: u64 },
    /// Our own log; the whole state of a notebook may be larger than what a peer may send.
    Journal,
}

/// Walks over an update v1.
pub(super) fn check_update(bytes: &[u8], origin: Origin) -> Result<Weight, Forged> {
    let mut reader = Reader::new("update", bytes);
    let is_peers = origin != Origin::Journal;
    if is_peers && bytes.len() > DOCUMENT_UPDATE_BYTES_MAX {
        return Err(reader.forged("longer than an update may be"));
    }
    let mut nested = 0;
    for _ in 0..reader.count(2)? {
        let structs = reader.count(2)?;
        let client = reader.client()?;
        let mut clock = reader.clock()?;
        for _ in 0..structs {
            let length = read_struct(&mut reader, &mut nested)?;
            clock = clock
                .checked_add(length)
                .filter(|&clock| clock <= CLOCK_MAX)
                .ok_or_else(|| reader.forged("a clock out of range"))?;
        }
        if matches!(origin, Origin::Peer { us, clock: ours } if us == client && clock > ours) {
            return Err(reader.forged("edits in the name of the server"));
        }
    }
    for _ in 0..reader.count(2)? {
        reader.client()?;
        for _ in 0..reader.count(2)? {
            let clock = reader.clock()?;
            let length = reader.clock()?;
            if clock + length > CLOCK_MAX {
                return Err(reader.forged("a clock out of range"));
            }
        }
    }
    reader.end()?;
    if is_peers && nested > DOCUMENT_NESTED_HARD_MAX {
        return Err(reader.forged("too many cells and texts at once"));
    }
    Ok(Weight { nested })
}

/// Clocks are compared as signed 32-bit numbers inside the library.
const CLOCK_MAX: u64 = i32::MAX as u64;
/// What JavaScript can count to; the library has no room for more.
const CLIENT_MAX: u64 = (1 << 53) - 1;

const HAS_ORIGIN: u8 = 0x80;
const HAS_RIGHT_ORIGIN: u8 = 0x40;
const HAS_PARENT_SUB: u8 = 0x20;

/// Reads one struct; gives its length in clock ticks.
fn read_struct(reader: &mut Reader<'_>, nested: &mut usize) -> Result<u64, Forged> {
    let info = reader.byte()?;
    // GC, and Skip.
    if info == 0 || info == 10 {
        let length = reader.clock()?;
        return if length == 0 { Err(reader.forged("an empty block")) } else { Ok(length) };
    }
    let origins = info & (HAS_ORIGIN | HAS_RIGHT_ORIGIN);
    for bit in [HAS_ORIGIN, HAS_RIGHT_ORIGIN] {
        if origins & bit != 0 {
            reader.id()?;
        }
    }
    if origins == 0 {
        match reader.number()? {
            1 => drop(reader.string()?),
            0 => reader.id()?,
            _ => return Err(reader.forged("a parent of no known kind")),
        }
        if info & HAS_PARENT_SUB != 0 {
            reader.string()?;
        }
    }
    let length = match info & 0x1f {
        1 => reader.clock()?,
        4 => reader.string()?.encode_utf16().count() as u64,
        7 => {
            // Array, Map, Text.
            if reader.byte()? > 2 {
                return Err(reader.forged("a shared type that no notebook has"));
            }
            *nested += 1;
            1
        }
        8 => {
            let count = reader.count(1)?;
            for _ in 0..count {
                reader.any(0)?;
            }
            count
        }
        _ => return Err(reader.forged("a kind of content that no notebook has")),
    };
    if length == 0 { Err(reader.forged("an empty block")) } else { Ok(length) }
}

/// Reads lib0's encoding from front to back.
pub(super) struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, bytes, at: 0 }
    }

    pub fn forged(&self, why: &'static str) -> Forged {
        Forged { what: self.what, why, at: self.at }
    }

    pub fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub fn end(&self) -> Result<(), Forged> {
        if self.is_at_end() { Ok(()) } else { Err(self.forged("more bytes than it says")) }
    }

    pub fn rest(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        self.at = self.bytes.len();
        rest
    }

    pub fn byte(&mut self) -> Result<u8, Forged> {
        let byte = *self.bytes.get(self.at).ok_or_else(|| self.forged("it ends too early"))?;
        self.at += 1;
        Ok(byte)
    }

    /// A variable-length number without sign.
    pub fn number(&mut self) -> Result<u64, Forged> {
        let mut number = 0u64;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(self.forged("a number that is too long"))
    }

    /// How many things of at least `least` bytes follow: as many as there can be.
    pub fn count(&mut self, least: u64) -> Result<u64, Forged> {
        let count = self.number()?;
        let room = (self.bytes.len() - self.at) as u64;
        if count > room / least {
            Err(self.forged("a number of things that cannot be there"))
        } else {
            Ok(count)
        }
    }

    pub fn client(&mut self) -> Result<u64, Forged> {
        self.number().and_then(|client| {
            if client > CLIENT_MAX { Err(self.forged("a client out of range")) } else { Ok(client) }
        })
    }

    pub fn clock(&mut self) -> Result<u64, Forged> {
        self.number().and_then(|clock| {
            if clock > CLOCK_MAX { Err(self.forged("a clock out of range")) } else { Ok(clock) }
        })
    }

    fn id(&mut self) -> Result<(), Forged> {
        self.client()?;
        self.clock()?;
        Ok(())
    }

    /// Bytes with their length before them.
    pub fn buffer(&mut self) -> Result<&'a [u8], Forged> {
        let length = self.count(1)?;
        self.take(usize::try_from(length).expect("count has compared it with a slice's length"))
    }

    pub fn string(&mut self) -> Result<&'a str, Forged> {
        let bytes = self.buffer()?;
        std::str::from_utf8(bytes).map_err(|_| self.forged("text that is not UTF-8"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Forged> {
        let taken = self.bytes[self.at..].get(..length).ok_or_else(|| self.forged("it ends too early"))?;
        self.at += length;
        Ok(taken)
    }

    /// A plain value (lib0 `readAny`).
    fn any(&mut self, depth: usize) -> Result<(), Forged> {
        if depth > JSON_DEPTH_MAX {
            return Err(self.forged("a value that nests too deep"));
        }
        match self.byte()? {
            127 | 126 | 121 | 120 => {}
            125 => {
                let mut byte = self.byte()?;
                for _ in 0..9 {
                    if byte < 0x80 {
                        return Ok(());
                    }
                    byte = self.byte()?;
                }
                return Err(self.forged("a number that is too long"));
            }
            124 => drop(self.take(4)?),
            123 | 122 => drop(self.take(8)?),
            119 => drop(self.string()?),
            118 => {
                for _ in 0..self.count(2)? {
                    self.string()?;
                    self.any(depth + 1)?;
                }
            }
            117 => {
                for _ in 0..self.count(1)? {
                    self.any(depth + 1)?;
                }
            }
            116 => drop(self.buffer()?),
            _ => return Err(self.forged("a value of no known kind")),
        }
        Ok(())
    }
}
