//! Frames from outside: what is signed comes through as the bytes it was; nothing else does, and nothing panics.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use bytes::Bytes;
use outlive_core::time::WallTime;
use outlive_jupyter::message::{DELIMITER, DecodeError, Message, Raw, SIGNATURE_SCHEME, SigningKey};
use outlive_jupyter::request::{Client, ExecuteMode};
use proptest::prelude::*;

fn key() -> SigningKey {
    SigningKey::new("a0436f6c-1916-498b-8eb9-e81ab9368e84", SIGNATURE_SCHEME).unwrap()
}

fn client() -> Client {
    Client { session: "session-1".to_owned(), username: "tester".to_owned() }
}

fn request() -> Message {
    client().execute("run-1", "1 + 1", ExecuteMode::Interactive, WallTime(0))
}

/// The signature was made with Python's `hmac.new(key, b"".join(frames), "sha256").hexdigest()`.
#[test]
fn the_signature_is_jupyters() {
    let raw = Raw {
        header: Bytes::from_static(br#"{"msg_id":"1","msg_type":"status"}"#),
        parent_header: Bytes::from_static(b"{}"),
        metadata: Bytes::from_static(b"{}"),
        content: Bytes::from_static(br#"{"execution_state":"idle"}"#),
    };
    let message = Message::from_raw(Vec::new(), raw, Vec::new()).unwrap();
    let frames = message.encode(&key());
    assert_eq!(frames[1], "4ea5bd1248eaf6f50495bc5b4bbf1df582d4b639b41f7e820450f42acdbf364f");
    assert_eq!(Message::decode(frames, &key()).unwrap(), message);
}

#[test]
fn a_request_says_what_it_should() {
    let message = request();
    let header: serde_json::Value = serde_json::from_slice(&message.raw.header).unwrap();
    assert_eq!(
        header,
        serde_json::json!({
            "msg_id": "run-1", "msg_type": "execute_request", "session": "session-1", "username": "tester",
            "date": "1970-01-01T00:00:00.000000Z", "version": "5.4",
        })
    );
    let content: serde_json::Value = message.content().unwrap();
    assert_eq!(
        content,
        serde_json::json!({
            "code": "1 + 1", "silent": false, "store_history": true, "user_expressions": {},
            "allow_stdin": true, "stop_on_error": false,
        })
    );
}

#[test]
fn what_is_not_known_in_a_header_is_kept_and_the_subshell_is_read() {
    let header = br#"{"msg_id":"1","msg_type":"x","subshell_id":"sub","session":null,"future":[1,2]}"#;
    let raw = Raw {
        header: Bytes::from_static(header),
        parent_header: Bytes::from_static(br#"{"other": "no id"}"#),
        metadata: Bytes::from_static(b"{}"),
        content: Bytes::from_static(b"{}"),
    };
    let message = Message::from_raw(Vec::new(), raw, Vec::new()).unwrap();
    assert_eq!(message.header.subshell_id.as_deref(), Some("sub"));
    assert_eq!(message.parent, None);
    assert_eq!(message.raw.header, &header[..]);
}

#[test]
fn the_key_is_not_shown() {
    let shown = format!("{:?}", SigningKey::new("secret-key", SIGNATURE_SCHEME).unwrap());
    assert!(!shown.contains("secret"), "{shown}");
    let error = SigningKey::new("k", "hmac-md5").unwrap_err();
    assert!(error.to_string().contains("hmac-md5"), "{error}");
}

#[test]
fn too_few_frames_and_no_delimiter_are_told_apart() {
    let frames = vec![Bytes::from_static(b"id"), Bytes::from_static(DELIMITER), Bytes::new()];
    assert!(matches!(Message::decode(frames, &key()), Err(DecodeError::TooFewFrames { found: 1 })));
    assert!(matches!(Message::decode(Vec::new(), &key()), Err(DecodeError::NoDelimiter { frames: 0 })));
}

#[test]
fn deep_nesting_is_refused_and_does_not_overflow() {
    let header = Bytes::from("[".repeat(1_000_000));
    let raw = Raw {
        header,
        parent_header: Bytes::from_static(b"{}"),
        metadata: Bytes::from_static(b"{}"),
        content: Bytes::from_static(b"{}"),
    };
    let refused = Message::from_raw(Vec::new(), raw, Vec::new());
    assert!(matches!(refused, Err(DecodeError::Header { which: "header", .. })));
}

fn some_bytes() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn some_frame() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        some_bytes(),
        Just(Bytes::from_static(DELIMITER)),
        Just(Bytes::from_static(b"{}")),
        Just(Bytes::from_static(br#"{"msg_id":"1","msg_type":"x"}"#)),
        Just(Bytes::from_static(br#"{"msg_id":1,"msg_type":null}"#)),
    ]
}

proptest! {
    #[test]
    fn garbage_is_refused(frames in proptest::collection::vec(some_frame(), 0..12)) {
        prop_assert!(Message::decode(frames, &key()).is_err());
    }

    /// Without a signature to stop it the garbage reaches the parser.
    #[test]
    fn unsigned_garbage_does_not_panic(frames in proptest::collection::vec(some_frame(), 0..12)) {
        let unsigned = SigningKey::new("", SIGNATURE_SCHEME).unwrap();
        let again = Message::decode(frames.clone(), &unsigned).map(|message| message.encode(&unsigned).len());
        if let Ok(count) = again {
            prop_assert_eq!(count, frames.len());
        }
    }

    #[test]
    fn what_is_sent_arrives(
        identities in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..8), 0..4),
        code in ".*",
        buffers in proptest::collection::vec(some_bytes(), 0..4),
    ) {
        let mut message = client().execute("run-1", &code, ExecuteMode::Silent, WallTime(7));
        message.identities = identities.into_iter().map(Bytes::from).collect();
        message.buffers = buffers;
        prop_assert_eq!(&Message::decode(message.encode(&key()), &key()).unwrap(), &message);
    }

    #[test]
    fn a_changed_byte_is_found(frame in 1_usize..6, position in any::<prop::sample::Index>(), bit in 0_u32..8) {
        let mut frames = request().encode(&key());
        let mut changed = frames[frame].to_vec();
        let position = position.index(changed.len());
        changed[position] ^= 1 << bit;
        frames[frame] = Bytes::from(changed);
        prop_assert!(matches!(Message::decode(frames, &key()), Err(DecodeError::WrongSignature)));
    }
}
