//! Frames of the shim link, both ways: refused, skipped, or read into what encodes to the same message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outlive_protocol::frame::{Decoder, Frame};
use outlive_protocol::shim_codec::{decode_from_shim, decode_to_shim, encode_from_shim, encode_to_shim};

fn reframe(bytes: &[u8]) -> Frame {
    let mut decoder = Decoder::default();
    decoder.feed(bytes);
    decoder.next_frame().expect("our own frame").expect("a whole frame")
}

fuzz_target!(|data: &[u8]| {
    let Some((&kind, body)) = data.split_first() else { return };
    let frame = Frame { kind, flags: 0, body: body.to_vec().into() };
    if let Ok(Some(message)) = decode_to_shim(&frame)
        && let Ok(encoded) = encode_to_shim(&message)
    {
        assert_eq!(decode_to_shim(&reframe(&encoded)).expect("our own message"), Some(message));
    }
    if let Ok(Some(message)) = decode_from_shim(&frame)
        && let Ok(encoded) = encode_from_shim(&message)
    {
        assert_eq!(decode_from_shim(&reframe(&encoded)).expect("our own message"), Some(message));
    }
});
