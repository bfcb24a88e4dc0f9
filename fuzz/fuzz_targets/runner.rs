//! Frames of the runner protocol, both ways: refused, skipped, or read into what encodes to the same frame; and read
//! alike however the bytes are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outlive_protocol::runner::{Decoder, Frame, Framed, FromRunner, ToRunner, encode};

fn read<T: Frame>(data: &[u8], piece: usize) -> (Vec<Framed<T>>, bool) {
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    for piece in data.chunks(piece) {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    (frames, false)
}

fn check<T: Frame + PartialEq + std::fmt::Debug + serde::Serialize>(data: &[u8], piece: usize) {
    let whole = read::<T>(data, data.len().max(1));
    assert_eq!(read::<T>(data, piece), whole);
    let (frames, _) = whole;
    for frame in frames {
        // What was written in fewer bytes than we write it in may be over a limit now.
        if let Ok(bytes) = encode(&frame) {
            let (again, is_broken) = read::<T>(&bytes, piece);
            assert!(!is_broken && again == [frame]);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&piece, data)) = data.split_first() else { return };
    check::<FromRunner>(data, usize::from(piece).max(1));
    check::<ToRunner>(data, usize::from(piece).max(1));
});
