//! Records of a session's log: refused, kept as unknown, or read into what encodes to the same record.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outlive_protocol::log::{decode, encode};

fuzz_target!(|data: &[u8]| {
    let Some((&kind, body)) = data.split_first() else { return };
    let Ok(record) = decode(kind, body) else { return };
    if let Ok(encoded) = encode(&record) {
        assert_eq!(decode(encoded.kind, &encoded.body).expect("our own record"), record);
    }
});
