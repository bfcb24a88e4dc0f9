//! The runner protocol: its bytes, both ways, however they are cut; and whatever comes instead costs bounded memory.
//!
//! `golden/runner.txt` is append-only as the others are: a line is `name hexadecimal`, and
//! `OUTLIVE_GOLDEN=append cargo test -p outlive-protocol --test runner` appends what is written in new bytes.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::fmt::{Debug, Write as _};
use std::fs;
use std::path::PathBuf;

use outlive_core::id::{Attempt, RunId, Seq};
use outlive_core::limits::{RUNNER_BYTES_MAX, RUNNER_LINE_BYTES_MAX};
use outlive_core::runtime::runner::{Phase, Progress, Saved};
use outlive_protocol::runner::{
    Decoder, Exception, Frame, Framed, FromRunner, Json, RunnerCodecError, ToRunner, Violation, encode,
    is_json,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

fn task() -> (RunId, Attempt) {
    (ID.parse().unwrap(), Attempt(2))
}

fn plain<T>(frame: T) -> Framed<T> {
    Framed { frame, bytes: None }
}

fn to_runner() -> Vec<(&'static str, Framed<ToRunner>)> {
    let (id, attempt) = task();
    let order = |input, checkpoint| ToRunner::Task {
        id,
        attempt,
        task: "generate".into(),
        key: "k\"1".into(),
        input,
        checkpoint,
    };
    let saved = Saved { seq: Seq(7), file: "/var/lib/blobs/ba78".into() };
    let hello = ToRunner::Hello {
        version: 1,
        runner: "llm-0".into(),
        incarnation: 3,
        line_max: RUNNER_LINE_BYTES_MAX,
        bytes_max: RUNNER_BYTES_MAX,
    };
    vec![
        ("to-hello", plain(hello)),
        ("to-task", plain(order(Some(json!({"prompt": "h\u{e9}\n"})), None))),
        ("to-task-null", plain(order(Some(Value::Null), Some(saved)))),
        ("to-task-bytes", Framed { frame: order(None, None), bytes: Some(b"[\n]".to_vec()) }),
        ("to-cancel", plain(ToRunner::Cancel { id, attempt })),
        ("to-ping", plain(ToRunner::Ping { n: 12 })),
        ("to-shutdown", plain(ToRunner::Shutdown { grace_ms: 5_000, hand_over: false })),
        ("to-shutdown-hand-over", plain(ToRunner::Shutdown { grace_ms: 5_000, hand_over: true })),
    ]
}

fn from_runner() -> Vec<(&'static str, Framed<FromRunner>)> {
    let (id, attempt) = task();
    let chunk = |text: Option<&str>, json, mime: Option<&str>| FromRunner::Chunk {
        id,
        attempt,
        text: text.map(str::to_owned),
        json,
        mime: mime.map(str::to_owned),
    };
    let progress = Progress { done: Some(1.0), total: Some(4.0), message: Some("shard 1".into()) };
    let cause = Exception { kind: "KeyError".into(), message: "'x'".into(), ..Exception::default() };
    let exception = Exception {
        kind: "app.BadInput".into(),
        message: "no x".into(),
        repr: Some("BadInput('no x')".into()),
        traceback: Some("Traceback (most recent call last):\n  …".into()),
        cause: Some(Box::new(cause)),
    };
    let null = Json::new(&Value::Null);
    let checkpoint = |state| FromRunner::Checkpoint { id, attempt, state };
    let result = |value| FromRunner::Result { id, attempt, value };
    let hello = FromRunner::Hello {
        version: 1,
        tasks: vec!["chat".into()],
        capabilities: vec!["chat".into()],
        concurrency: 4,
        exact: Vec::new(),
        sdk: Some("outlive-python 0.1.0".into()),
    };
    let exact = FromRunner::Hello {
        version: 1,
        tasks: vec!["chat".into(), "embed".into()],
        capabilities: Vec::new(),
        concurrency: 1,
        exact: vec!["embed".into()],
        sdk: None,
    };
    let last_words =
        FromRunner::LastWords { exception: exception.clone(), id: Some(id), thread: Some("t1".into()) };
    vec![
        ("from-hello", plain(hello)),
        ("from-hello-exact", plain(exact)),
        ("from-stopped", plain(FromRunner::Stopped { id, attempt })),
        ("from-state", plain(FromRunner::State { state: Phase::Loading, progress: progress.clone() })),
        ("from-ready", plain(FromRunner::State { state: Phase::Ready, progress: Progress::default() })),
        ("from-pong", plain(FromRunner::Pong { n: 12 })),
        ("from-text", plain(chunk(Some("h\u{e9}\n"), None, None))),
        ("from-json", plain(chunk(None, Some(null.clone()), None))),
        (
            "from-bytes",
            Framed { frame: chunk(None, None, Some("image/png")), bytes: Some(b"\x89\n\n\xff".to_vec()) },
        ),
        ("from-no-bytes", Framed { frame: chunk(None, None, None), bytes: Some(Vec::new()) }),
        ("from-progress", plain(FromRunner::Progress { id, attempt, progress })),
        ("from-checkpoint", plain(checkpoint(Some(null.clone())))),
        ("from-checkpoint-bytes", Framed { frame: checkpoint(None), bytes: Some(b"state".to_vec()) }),
        ("from-result", plain(result(Some(Json::new(&json!({"n": 1})))))),
        ("from-result-nothing", plain(result(None))),
        ("from-error", plain(FromRunner::Error { id, attempt, exception })),
        ("from-cancelled", plain(FromRunner::Cancelled { id, attempt })),
        ("from-last-words", plain(last_words)),
        ("from-end", plain(FromRunner::End)),
    ]
}

/// What a decoder gives for these bytes, pushed in pieces, and the violation that ended it, if one did.
fn decoded<T: Frame>(
    pieces: impl IntoIterator<Item = impl AsRef<[u8]>>,
) -> (Vec<Framed<T>>, Option<Violation>) {
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.push(piece.as_ref());
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(violation) => return (frames, Some(violation)),
            }
        }
    }
    (frames, None)
}

fn check<T: Frame + PartialEq + Debug + serde::Serialize>(text: &mut String, samples: &[(&str, Framed<T>)]) {
    for (name, sample) in samples {
        let mut today = String::new();
        encode(sample).unwrap().iter().for_each(|byte| write!(today, "{byte:02x}").unwrap());
        let prefix = format!("{name} ");
        if text.lines().filter_map(|line| line.strip_prefix(&prefix)).next_back() != Some(&today) {
            let may_append = std::env::var_os("OUTLIVE_GOLDEN").is_some();
            assert!(may_append, "{name} is written in new bytes: see this file's top");
            writeln!(text, "{name} {today}").unwrap();
        }
        for line in text.lines().filter_map(|line| line.strip_prefix(&prefix)) {
            let bytes: Vec<u8> = (0..line.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap())
                .collect();
            let (frames, violation) = decoded::<T>([bytes]);
            assert_eq!((&frames[..], violation), (std::slice::from_ref(sample), None), "{name}");
        }
    }
}

#[test]
fn golden_bytes() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/runner.txt");
    let mut text = fs::read_to_string(&path).unwrap_or_default();
    check(&mut text, &to_runner());
    check(&mut text, &from_runner());
    if std::env::var_os("OUTLIVE_GOLDEN").is_some() {
        fs::write(&path, &text).unwrap();
    }
}

#[test]
fn what_is_not_known_is_skipped_or_ignored() {
    let later = format!(
        "{{\"type\":\"from_the_future\",\"id\":5,\"bytes\":4}}\n{{\n}}\n\n \
         {{ \"extra\": [1], \"type\" : \"pong\",\r \"n\":3, \"bytes\": null }} \r\n\
         {{\"type\":\"chunk\",\"id\":\"{ID}\",\"attempt\":1,\"text\":\"x\",\"state\":{{\"a\":1}}}}\n"
    );
    let (frames, violation) = decoded::<FromRunner>([later]);
    assert_eq!((frames.len(), violation), (2, None), "{frames:?}");
    assert_eq!(frames[0].frame, FromRunner::Pong { n: 3 });
    let (frames, violation) =
        decoded::<ToRunner>(["{\"type\":\"from_the_future\"}\n{\"type\":\"ping\",\"n\":1}\n"]);
    assert_eq!((frames.len(), violation), (1, None));
}

#[test]
fn json_that_is_carried_stays_as_it_was_written() {
    let exact = r#"{"n": 123456789012345678901234567890.10, "k" : 1, "k":2}"#;
    let line = format!("{{\"type\":\"result\",\"id\":\"{ID}\",\"attempt\":1,\"value\":{exact}}}\n");
    let (frames, _) = decoded::<FromRunner>([line]);
    let FromRunner::Result { value: Some(value), .. } = &frames[0].frame else { panic!("{frames:?}") };
    assert_eq!(value.text(), exact);
}

#[test]
fn every_violation_is_named() {
    // B1
    let line = |text: &str| decoded::<FromRunner>([format!("{text}\n")]).1.expect("a violation").to_string();
    for (sent, wanted) in [
        ("Traceback (most recent call last):", "it is no JSON object"),
        ("[\"pong\", 1]", "it is no JSON object"),
        ("", "it is no JSON object"),
        ("{\"type\": \"pong\"", "EOF while parsing"),
        ("{\"n\": 1}", "missing field `type`"),
        ("{\"type\": 7}", "expected a string"),
        ("{\"type\": \"pong\"}", "missing field `n`"),
        ("{\"type\": \"chunk\", \"id\": \"x\", \"attempt\": 1}", "UUID"),
        ("{\"type\": \"pong\", \"n\": 1, \"bytes\": -1}", "\"bytes\": -1, over the limit"),
        ("{\"type\": \"pong\", \"n\": 1, \"bytes\": 16777217}", "\"bytes\": 16777217, over the limit"),
        ("{\"type\": \"pong\", \"n\": 1, \"bytes\": \"3\"}", "over the limit"),
        ("{\"type\": \"x\", \"bytes\": 1}\nab", "not followed by a newline"),
    ] {
        let said = line(sent);
        assert!(said.contains(wanted), "{sent:?}: {said}");
    }
    let (_, violation) = decoded::<FromRunner>([&b"{\"type\": \"\xff\"}\n"[..]]);
    assert!(matches!(violation, Some(Violation::NotUtf8 { .. })));
    // With its newline a line has exactly the limit, or one byte more.
    let padded = |length: usize| {
        let mut line = b"{\"type\":\"end\"".to_vec();
        line.resize(length - 2, b' ');
        line.extend_from_slice(b"}\n");
        decoded::<FromRunner>([line])
    };
    assert_eq!(padded(RUNNER_LINE_BYTES_MAX).0.len(), 1);
    assert!(matches!(padded(RUNNER_LINE_BYTES_MAX + 1).1, Some(Violation::LineTooLong { .. })));
}

#[test]
fn nesting_has_a_limit() {
    // B6: neither the stack nor a later reader's limit is found out.
    let nested = |levels: usize| {
        let value = format!("{}\"[\\\"[\"{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(is_json(value.as_bytes()), levels <= 100, "{levels}");
        decoded::<FromRunner>([format!(
            "{{\"type\":\"chunk\",\"id\":\"{ID}\",\"attempt\":1,\"json\":{value}}}\n"
        )])
    };
    assert_eq!(nested(100).0.len(), 1);
    assert!(nested(101).1.unwrap().to_string().contains("nested deeper"));
    assert!(nested(30_000).1.is_some());
    let unknown = format!("{{\"type\":\"end\",\"x\":{}{}}}\n", "[".repeat(30_000), "]".repeat(30_000));
    let _skipped_or_refused = decoded::<FromRunner>([unknown]);
}

#[test]
fn a_frame_over_the_limit_is_not_sent() {
    // B1
    let (id, attempt) = task();
    let text = |length| {
        plain(FromRunner::Chunk { id, attempt, text: Some("x".repeat(length)), json: None, mime: None })
    };
    assert!(encode(&text(60_000)).is_ok());
    assert!(matches!(encode(&text(RUNNER_LINE_BYTES_MAX)), Err(RunnerCodecError::LineTooLong { .. })));
    let bytes = |length| Framed { frame: FromRunner::Pong { n: 1 }, bytes: Some(vec![0; length]) };
    assert!(encode(&bytes(RUNNER_BYTES_MAX)).is_ok());
    assert!(matches!(encode(&bytes(RUNNER_BYTES_MAX + 1)), Err(RunnerCodecError::TooManyBytes { .. })));
}

#[test]
fn a_stream_that_is_broken_stays_so() {
    let mut decoder = Decoder::<FromRunner>::default();
    decoder.push(b"garbage\n{\"type\":\"end\"}\n");
    assert!(decoder.next_frame().is_err());
    decoder.push(b"{\"type\":\"end\"}\n");
    assert_eq!(decoder.next_frame().unwrap(), None);
    assert!(!decoder.is_within());
}

proptest! {
    #[test]
    fn however_a_stream_is_cut_it_is_the_same(
        order in proptest::collection::vec(any::<prop::sample::Index>(), 1..40),
        large in 0_usize..200_000,
        cuts in proptest::collection::vec(1_usize..30_000, 1..60),
    ) {
        let samples = from_runner();
        let mut expected: Vec<Framed<FromRunner>> =
            order.iter().map(|index| index.get(&samples).1.clone()).collect();
        let middle = expected.len() / 2;
        expected.insert(middle, Framed { frame: FromRunner::Pong { n: 1 }, bytes: Some(vec![b'\n'; large]) });
        let stream: Vec<u8> = expected.iter().flat_map(|framed| encode(framed).unwrap()).collect();
        let mut rest = &stream[..];
        let mut cuts = cuts.iter().cycle();
        let pieces = std::iter::from_fn(|| {
            let length = (*cuts.next()?).min(rest.len());
            let piece = rest.split_off(..length)?;
            (length > 0).then_some(piece)
        });
        let (frames, violation) = decoded::<FromRunner>(pieces.collect::<Vec<_>>());
        prop_assert_eq!(violation, None);
        prop_assert_eq!(frames, expected);
    }

    #[test]
    fn byte_by_byte_too(index in any::<prop::sample::Index>()) {
        let samples = to_runner();
        let sample = &index.get(&samples).1;
        let bytes = encode(sample).unwrap();
        let (frames, violation) = decoded::<ToRunner>(bytes.chunks(1));
        prop_assert_eq!((frames, violation), (vec![sample.clone()], None));
    }

    #[test]
    fn garbage_is_a_violation_or_waits(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let (frames, _) = decoded::<FromRunner>(bytes.chunks(100));
        prop_assert!(frames.is_empty());
        let _ = decoded::<ToRunner>([bytes]);
    }

    #[test]
    fn a_frame_with_a_byte_changed_never_panics(
        index in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let samples = from_runner();
        let mut bytes = encode(&index.get(&samples).1).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decoded::<FromRunner>([bytes]);
    }
}
