//! Rows as messages: `state u8 | key_len u32 LE | key | value`. A deleted row leaves its key with state 0.

use outlive_core::id::Revision;
use outlive_store::{Change, Row};

use crate::api::{ApiError, Stored};

const DELETED: u8 = 0;
const THERE: u8 = 1;

/// The content of a row's message; without a value that of its deletion.
pub(crate) fn payload(key: &str, value: Option<&[u8]>) -> Vec<u8> {
    let key_len = u32::try_from(key.len()).expect("keys are names and paths");
    let mut payload = vec![if value.is_some() { THERE } else { DELETED }];
    payload.extend_from_slice(&key_len.to_le_bytes());
    payload.extend_from_slice(key.as_bytes());
    payload.extend_from_slice(value.unwrap_or_default());
    payload
}

/// What a message says of its row.
pub(crate) fn change(stored: &Stored) -> Result<Change, ApiError> {
    parse(&stored.payload, Revision(stored.position.0))
        .ok_or_else(|| ApiError::Odd(format!("the message {} is no row of a table", stored.position)))
}

fn parse(payload: &[u8], revision: Revision) -> Option<Change> {
    let (&state, rest) = payload.split_first()?;
    let (key_len, rest) = rest.split_first_chunk()?;
    let (key, value) = rest.split_at_checked(u32::from_le_bytes(*key_len) as usize)?;
    let key = std::str::from_utf8(key).ok()?.to_owned();
    match state {
        THERE => Some(Change::Put(Row { key, revision, value: value.to_vec() })),
        DELETED => Some(Change::Deleted { key, revision }),
        _ => None,
    }
}

/// The row, unless it was deleted.
pub(crate) fn row(stored: &Stored) -> Result<Option<Row>, ApiError> {
    Ok(match change(stored)? {
        Change::Put(row) => Some(row),
        Change::Deleted { .. } | Change::Current | Change::Gap => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_comes_back_and_damage_does_not() {
        let at = Revision(3);
        let there = Change::Put(Row { key: "a/ü".into(), revision: at, value: b"v".to_vec() });
        assert_eq!(parse(&payload("a/ü", Some(b"v")), at), Some(there));
        let gone = Change::Deleted { key: "k".into(), revision: at };
        assert_eq!(parse(&payload("k", None), at), Some(gone));
        let whole = payload("key", Some(b""));
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut], at), None, "{cut}");
        }
    }
}
