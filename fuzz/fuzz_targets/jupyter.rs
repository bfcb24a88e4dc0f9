//! The frames of a ZeroMQ message: refused, or read into what is sent again as the same message. A frame is a length
//! byte and the content.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use outlive_jupyter::message::{Message, SIGNATURE_SCHEME, SigningKey};

fuzz_target!(|data: &[u8]| {
    let mut frames = Vec::new();
    let mut rest = data;
    while let Some((&length, after)) = rest.split_first() {
        let (frame, after) = after.split_at(usize::from(length).min(after.len()));
        frames.push(Bytes::copy_from_slice(frame));
        rest = after;
    }
    let signed = SigningKey::new("key", SIGNATURE_SCHEME).expect("the scheme is known");
    let _ = Message::decode(frames.clone(), &signed);
    let unsigned = SigningKey::new("", SIGNATURE_SCHEME).expect("the scheme is known");
    if let Ok(message) = Message::decode(frames, &unsigned) {
        Message::decode(message.encode(&signed), &signed).expect("our own message");
    }
});
