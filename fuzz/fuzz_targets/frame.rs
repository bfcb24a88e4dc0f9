//! A stream of bytes in any pieces: the decoder finds the same frames as the whole gives, and holds no more than one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outlive_protocol::frame::{Decoder, Frame};

fn frames<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, bool) {
    let (mut decoder, mut found) = (Decoder::default(), Vec::new());
    for piece in pieces {
        decoder.feed(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(error) if error.stream_lives() => {}
                Err(_) => return (found, true),
            }
        }
    }
    (found, false)
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, stream)) = data.split_first() else { return };
    let pieces = stream.chunks(usize::from(size) + 1);
    assert_eq!(frames(pieces), frames(std::iter::once(stream)));
});
