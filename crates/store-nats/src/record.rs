//! Records as messages: the frame of `outlive_protocol::frame`, so that damage on the way is found.

use outlive_core::id::Position;
use outlive_core::limits::BATCH_BYTES_MAX;
use outlive_core::log::{Entry, Lane};
use outlive_protocol::frame::{self, HEADER_BYTES};
use outlive_protocol::log::{Encoded, decode};
use outlive_store::ReadError;

use crate::api::Stored;
use crate::layout::Place;

const _: () = assert!(outlive_core::limits::RECORD_BYTES_MAX + HEADER_BYTES <= BATCH_BYTES_MAX);

/// The content of a record's message.
pub(crate) fn payload(record: &Encoded) -> Vec<u8> {
    frame::encode(record.kind, 0, &[&record.body]).expect("an encoded record fits a frame")
}

/// A record as it is read.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) entry: Entry,
    /// Of its body.
    pub(crate) bytes: usize,
}

/// The record of a message; nothing when its lane is of a later version. `before` is the last good position.
pub(crate) fn read(place: &Place, stored: &Stored, before: Position) -> Result<Option<Read>, ReadError> {
    let Some(lane) = place.lane_of(&stored.subject) else { return Ok(None) };
    entry(lane, stored, before).map(Some)
}

fn entry(lane: Lane, stored: &Stored, before: Position) -> Result<Read, ReadError> {
    let corrupt = |what: String| ReadError::Corrupt { position: before, what };
    let frame = frame::split(&stored.payload)
        .map_err(|error| corrupt(error.to_string()))?
        .ok_or_else(|| corrupt("a record is cut short".to_owned()))?;
    let record = decode(frame.kind, frame.body).map_err(|error| corrupt(error.to_string()))?;
    Ok(Read { entry: Entry { position: stored.position, lane, record }, bytes: frame.body.len() })
}
