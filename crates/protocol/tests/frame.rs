//! Frames: whole, split anywhere, damaged, lying about their length.

use outlive_core::limits::FRAME_BYTES_MAX;
use outlive_protocol::frame::{Decoder, Frame, FrameError, HEADER_BYTES, VERSION, encode, split};
use proptest::prelude::*;

/// Everything that a decoder has to say of bytes that come in pieces of these sizes.
fn decode(bytes: &[u8], pieces: &[usize]) -> Vec<Result<Frame, FrameError>> {
    let mut decoder = Decoder::default();
    let mut said = Vec::new();
    let mut rest = bytes;
    let mut pieces = pieces.iter().copied().cycle();
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(pieces.next().unwrap_or(rest.len()).clamp(1, rest.len()));
        rest = later;
        decoder.feed(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => said.push(Ok(frame)),
                Ok(None) => break,
                Err(error) => {
                    let lives = error.stream_lives();
                    said.push(Err(error));
                    if !lives {
                        return said;
                    }
                }
            }
        }
    }
    said
}

#[test]
fn the_header_is_fixed_little_endian() {
    let frame = encode(0x21, 0x0102, &[b"ab", b"c"]).unwrap();
    let crc = crc32c::crc32c(b"\x01\x21\x02\x01abc").to_le_bytes();
    assert_eq!(frame, [&b"\x03\0\0\0\x01\x21\x02\x01"[..], &crc, b"abc"].concat());
    assert_eq!(HEADER_BYTES, 12);
}

// B1
#[test]
fn a_body_over_the_limit_is_refused_before_it_is_sent() {
    let body = vec![0; FRAME_BYTES_MAX];
    assert_eq!(encode(1, 0, &[&body]).unwrap().len(), HEADER_BYTES + FRAME_BYTES_MAX);
    let refused = encode(1, 0, &[&body, b"x"]).unwrap_err();
    assert_eq!(refused, FrameError::TooLarge { size: FRAME_BYTES_MAX as u64 + 1, max: FRAME_BYTES_MAX });
    assert!(refused.to_string().contains("send it in parts"), "{refused}");
}

// B1
#[test]
fn a_receiver_finds_out_from_the_header_skips_the_body_and_reads_on() {
    let len = FRAME_BYTES_MAX as u32 + 5;
    let mut decoder = Decoder::default();
    let mut header = vec![0; HEADER_BYTES];
    header[..4].copy_from_slice(&len.to_le_bytes());
    header[4] = VERSION;
    decoder.feed(&header);
    let error = decoder.next_frame().unwrap_err();
    assert_eq!(error, FrameError::TooLarge { size: u64::from(len), max: FRAME_BYTES_MAX });
    assert!(error.stream_lives());
    let mut rest = vec![0xff; len as usize];
    rest.extend(encode(7, 0, &[b"next"]).unwrap());
    for piece in rest.chunks(4096) {
        assert!(decoder.is_mid_frame());
        assert!(decoder.next_frame().unwrap().is_none(), "nothing of the body is taken for a frame");
        decoder.feed(piece);
    }
    assert_eq!(&decoder.next_frame().unwrap().unwrap().body[..], b"next");
    assert!(!decoder.is_mid_frame());
}

// B1
#[test]
fn the_largest_length_there_is_allocates_nothing() {
    let mut bytes = vec![0xff; 4];
    bytes.extend([VERSION, 1, 0, 0, 0, 0, 0, 0]);
    let said = decode(&bytes, &[3]);
    assert_eq!(said, [Err(FrameError::TooLarge { size: u64::from(u32::MAX), max: FRAME_BYTES_MAX })]);
}

#[test]
fn another_version_ends_the_stream() {
    let mut bytes = encode(1, 0, &[b"x"]).unwrap();
    bytes[4] = 9;
    let said = decode(&bytes, &[100]);
    assert_eq!(said, [Err(FrameError::BadVersion { version: 9 })]);
    assert!(!said[0].as_ref().unwrap_err().stream_lives());
}

// B1
#[test]
fn half_a_frame_is_seen_as_half_a_frame() {
    let bytes = encode(1, 0, &[b"0123456789"]).unwrap();
    for cut in 1..bytes.len() {
        let mut decoder = Decoder::default();
        decoder.feed(&bytes[..cut]);
        assert!(decoder.next_frame().unwrap().is_none());
        assert!(decoder.is_mid_frame(), "cut at {cut}");
        assert_eq!(split(&bytes[..cut]).unwrap(), None);
    }
}

fn frames() -> impl Strategy<Value = Vec<(u8, u16, Vec<u8>)>> {
    let body = proptest::collection::vec(any::<u8>(), 0..300);
    proptest::collection::vec((any::<u8>(), any::<u16>(), body), 0..10)
}

proptest! {
    #[test]
    fn frames_come_out_as_they_went_in_however_the_bytes_are_cut(
        frames in frames(),
        pieces in proptest::collection::vec(1..64_usize, 1..10),
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(|(kind, flags, body)| {
            let (a, b) = body.split_at(body.len() / 3);
            encode(*kind, *flags, &[a, b]).unwrap()
        }).collect();
        let expected: Vec<_> = frames
            .into_iter()
            .map(|(kind, flags, body)| Ok(Frame { kind, flags, body: body.into() }))
            .collect();
        prop_assert_eq!(decode(&bytes, &pieces), expected);
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2_000), piece in 1..50_usize) {
        decode(&bytes, &[piece]);
        let _ = split(&bytes);
    }

    #[test]
    fn a_changed_byte_is_never_taken_for_what_was_sent(
        body in proptest::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
        by in 1..=255_u8,
    ) {
        let mut bytes = encode(3, 0, &[&body]).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= by;
        let said = decode(&bytes, &[7]);
        prop_assert!(said.iter().all(Result::is_err), "{:?}", said);
    }
}
