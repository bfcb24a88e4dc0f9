//! The runner in Rust (`examples/runner.rs`) speaks the protocol.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use outlive_core::id::{Attempt, RunId};
use outlive_core::limits::{RUNNER_BYTES_MAX, RUNNER_LINE_BYTES_MAX};
use outlive_protocol::runner::{Decoder, Framed, FromRunner, ToRunner, VERSION, encode};
use serde_json::{Value, json};
use uuid::Uuid;

/// The example with its descriptors 3 and 4 on our pipes.
struct Example {
    child: Child,
    sink: ChildStdin,
    source: ChildStdout,
    decoder: Decoder<FromRunner>,
}

impl Example {
    fn start() -> Self {
        // Beside the tests: target/debug/deps/example-… and target/debug/examples/runner.
        let mut path = std::env::current_exe().expect("a test has a path");
        path.pop();
        path.pop();
        path.push("examples/runner");
        assert!(path.exists(), "{} is built with the tests", path.display());
        let mut child = Self::command(path).spawn().expect("sh is there");
        let sink = child.stdin.take().expect("it is piped");
        let source = child.stdout.take().expect("it is piped");
        let mut example = Self { child, sink, source, decoder: Decoder::default() };
        example.say(ToRunner::Hello {
            version: VERSION,
            runner: "primes-0".to_owned(),
            incarnation: 1,
            line_max: RUNNER_LINE_BYTES_MAX,
            bytes_max: RUNNER_BYTES_MAX,
        });
        example
    }

    fn command(path: PathBuf) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" 3<&0 4>&1 </dev/null >&2"]).arg(path);
        command.env("OUTLIVE_RUNNER", "1").stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    }

    fn say(&mut self, frame: ToRunner) {
        let bytes = encode(&Framed { frame, bytes: None }).expect("it fits");
        self.sink.write_all(&bytes).expect("it listens");
    }

    fn give(&mut self, id: RunId, task: &str, input: Value) {
        let (attempt, task) = (Attempt(1), task.to_owned());
        self.say(ToRunner::Task {
            id,
            attempt,
            task,
            key: "k".to_owned(),
            input: Some(input),
            checkpoint: None,
        });
    }

    /// Its next frame.
    fn hear(&mut self) -> Option<FromRunner> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(framed) = self.decoder.next_frame().expect("it keeps the protocol") {
                return Some(framed.frame);
            }
            match self.source.read(&mut buffer).expect("a pipe can be read") {
                0 => return None,
                count => self.decoder.push(&buffer[..count]),
            }
        }
    }

    /// All frames up to one that is looked for, which is the last.
    fn until(&mut self, is_last: impl Fn(&FromRunner) -> bool) -> Vec<FromRunner> {
        let mut heard = Vec::new();
        loop {
            heard.push(self.hear().expect("it says more"));
            if heard.last().is_some_and(&is_last) {
                return heard;
            }
        }
    }
}

fn id(number: u128) -> RunId {
    RunId::from_uuid(Uuid::from_u128(number))
}

#[test]
fn the_example_serves_cancels_and_ends() {
    let mut example = Example::start();
    assert!(matches!(example.hear(), Some(FromRunner::Hello { version: VERSION, .. })));
    assert!(matches!(example.hear(), Some(FromRunner::State { .. })));

    example.give(id(1), "primes", json!({"below": 250_000}));
    let heard = example.until(|frame| matches!(frame, FromRunner::Result { .. }));
    let largest: Vec<_> = heard
        .iter()
        .filter_map(|frame| match frame {
            FromRunner::Chunk { text, .. } => text.clone(),
            _ => None,
        })
        .collect();
    assert_eq!(largest, ["99991\n", "199999\n", "249989\n"]);
    assert!(
        matches!(&heard[..], [.., FromRunner::Result { value: Some(value), .. }] if value.text() == r#"{"count":22044}"#)
    );

    for (number, task, input) in [(2, "primes", json!({"below": "many"})), (3, "other", json!(null))] {
        example.give(id(number), task, input);
        let heard = example.until(|frame| matches!(frame, FromRunner::Error { .. }));
        assert_eq!(heard.len(), 1);
    }

    // Pings are answered while it works, and a cancel ends the work.
    example.give(id(4), "primes", json!({"below": 50_000_000}));
    example.until(|frame| matches!(frame, FromRunner::Chunk { .. }));
    example.say(ToRunner::Ping { n: 7 });
    example.until(|frame| matches!(frame, FromRunner::Pong { n: 7 }));
    example.say(ToRunner::Cancel { id: id(4), attempt: Attempt(1) });
    example.until(|frame| matches!(frame, FromRunner::Cancelled { .. }));

    example.say(ToRunner::Shutdown { grace_ms: 60_000, hand_over: false });
    assert_eq!(example.hear(), Some(FromRunner::End));
    assert_eq!(example.hear(), None);
    assert!(example.child.wait().expect("it is our child").success());
}
