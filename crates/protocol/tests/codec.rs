//! Records and messages come back as they were, and whatever comes instead is an error, never a panic.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

mod samples;

use outlive_core::id::Position;
use outlive_core::limits::{FRAME_BYTES_MAX, RECORD_BYTES_MAX};
use outlive_core::log::{Fenced, FencedBody, Record};
use outlive_protocol::frame::{Frame, FrameError, split};
use outlive_protocol::log::{CodecError, decode, encode};
use outlive_protocol::shim::ToShim;
use outlive_protocol::shim_codec::{
    ShimCodecError, decode_from_shim, decode_to_shim, encode_from_shim, encode_to_shim,
};
use proptest::prelude::*;

fn frame(bytes: &[u8]) -> Frame {
    let found = split(bytes).unwrap().expect("it is whole");
    assert_eq!(found.frame_bytes, bytes.len(), "one frame and nothing else");
    Frame { kind: found.kind, flags: found.flags, body: found.body.to_vec().into() }
}

proptest! {
    #[test]
    fn a_record_comes_back_as_it_was(record in samples::record()) {
        let encoded = encode(&record).unwrap();
        prop_assert_eq!(decode(encoded.kind, &encoded.body).unwrap(), record);
    }

    #[test]
    fn a_message_to_a_shim_comes_back_as_it_was(message in samples::to_shim()) {
        let bytes = encode_to_shim(&message).unwrap();
        prop_assert_eq!(decode_to_shim(&frame(&bytes)).unwrap(), Some(message));
        prop_assert_eq!(decode_from_shim(&frame(&bytes)).unwrap(), None, "it is nothing that a shim says");
    }

    #[test]
    fn a_message_from_a_shim_comes_back_as_it_was(message in samples::from_shim()) {
        let bytes = encode_from_shim(&message).unwrap();
        prop_assert_eq!(decode_from_shim(&frame(&bytes)).unwrap(), Some(message));
        prop_assert_eq!(decode_to_shim(&frame(&bytes)).unwrap(), None);
    }

    #[test]
    fn garbage_is_an_error_or_an_unknown_kind(kind in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(kind, &body);
        let frame = Frame { kind, flags: 0, body: body.into() };
        let _ = decode_to_shim(&frame);
        let _ = decode_from_shim(&frame);
    }

    #[test]
    fn a_record_that_was_cut_or_lengthened_is_an_error(
        record in samples::record(),
        cut in any::<prop::sample::Index>(),
    ) {
        let encoded = encode(&record).unwrap();
        let cut = cut.index(encoded.body.len());
        // A document may be of any length, so only its JSON can be found to be cut.
        let document = matches!(&record, Record::Fenced(Fenced { body: FencedBody::Document(_), .. }));
        prop_assert!(document || decode(encoded.kind, &encoded.body[..cut]).is_err());
        let longer = [&encoded.body[..], b"x"].concat();
        prop_assert!(document || decode(encoded.kind, &longer).is_err());
    }
}

#[test]
fn a_kind_that_is_unknown_here_is_kept_and_skipped() {
    assert_eq!(decode(0x3f, b"from the future").unwrap(), Record::Unknown { kind: 0x3f });
    let future = Frame { kind: 0x7d, flags: 1, body: b"from the future".to_vec().into() };
    assert_eq!(decode_to_shim(&future).unwrap(), None);
    assert_eq!(decode_from_shim(&future).unwrap(), None);
    assert!(matches!(encode(&Record::Unknown { kind: 0x3f }), Err(CodecError::UnknownKind { kind: 0x3f })));
}

// B1, P5
#[test]
fn what_does_not_fit_is_a_typed_error_for_the_sender() {
    let document = |size| {
        Record::Fenced(Fenced { claim: Position(1), source: None, body: FencedBody::Document(vec![0; size]) })
    };
    let error = encode(&document(RECORD_BYTES_MAX)).unwrap_err();
    assert!(matches!(error, CodecError::TooLarge { max: RECORD_BYTES_MAX, .. }), "{error}");
    let code = ToShim::Execute {
        run: "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap(),
        attempt: outlive_core::id::Attempt(1),
        code: "#".repeat(FRAME_BYTES_MAX),
        allow_stdin: false,
        silent: false,
    };
    let error = encode_to_shim(&code).unwrap_err();
    assert!(matches!(error, ShimCodecError::Frame(FrameError::TooLarge { .. })), "{error}");
}
