//! The client against a daemon that misbehaves on order: connections that break, fall silent, or say the wrong thing.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use outlive_core::id::SessionId;
use outlive_protocol::http::StreamEvent;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::attached::{Attached, Next, Target};
use super::{CallError, Client};
use crate::config::{Config, Sources};
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::Failure;

/// What the fake daemon does with one request for a stream.
enum Script {
    /// Sends these events and breaks the connection.
    Break(String),
    /// Sends these events and then nothing, not even a comment.
    Hang(String),
    /// Answers with this status and body.
    Refuse(u16, String),
}

/// A fake daemon: `/v1/live` says who it is, streams follow their scripts.
struct Fake {
    folder: TempDir,
    requests: Arc<Mutex<Vec<String>>>,
    serving: JoinSet<()>,
}

impl Fake {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        Self { folder, requests: Arc::default(), serving: JoinSet::new() }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("outlive.sock")
    }

    /// Starts to listen, in place of an earlier start.
    fn listen(&mut self, scripts: Vec<Script>) {
        self.serving.abort_all();
        drop(std::fs::remove_file(self.socket()));
        let listener = UnixListener::bind(self.socket()).expect("bound");
        let requests = Arc::clone(&self.requests);
        self.serving.spawn(async move {
            let mut scripts = VecDeque::from(scripts);
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                held.push(answer(stream, &requests, &mut scripts).await);
            }
        });
    }

    fn daemon(&self) -> Daemon {
        let folder = self.folder.path().to_string_lossy().into_owned();
        let env = |name: &str| match name {
            "OUTLIVE_RUNTIME_DIR" | "OUTLIVE_STATE_DIR" => Some(OsString::from(&folder)),
            // No test starts a real daemon.
            "OUTLIVE_START_DAEMON" => Some("false".into()),
            _ => None,
        };
        let sources = Sources {
            env: &env,
            flags: Default::default(),
            cwd: "/".into(),
            home: Some(folder.clone().into()),
            uid: 0,
        };
        Daemon::new(Config::load(&sources).expect("valid"))
    }

    /// The paths of the streams that were asked for.
    fn streams(&self) -> Vec<String> {
        let requests = self.requests.lock().expect("not poisoned");
        requests.iter().filter(|path| path.contains("attach")).cloned().collect()
    }
}

/// Answers one request; the connection lives as long as what is returned.
async fn answer(
    mut stream: UnixStream,
    requests: &Mutex<Vec<String>>,
    scripts: &mut VecDeque<Script>,
) -> Option<UnixStream> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let path = String::from_utf8_lossy(&head).split(' ').nth(1).expect("a request line").to_owned();
    requests.lock().expect("not poisoned").push(path.clone());
    let sse = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let plain = |status: u16, body: &str| {
        format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let (text, is_held) = if path.contains("attach") {
        match scripts.pop_front().expect("a script for every stream") {
            Script::Break(events) => (format!("{sse}{events}"), false),
            Script::Hang(events) => (format!("{sse}{events}"), true),
            Script::Refuse(status, body) => (plain(status, &body), false),
        }
    } else {
        let node = json!({
            "node": uuid::Uuid::nil(), "boot": uuid::Uuid::nil(), "version": env!("CARGO_PKG_VERSION"), "api": 1,
            "pid": 1, "state_directory": "/", "started_at": 0, "ready": true,
        });
        (plain(200, &node.to_string()), false)
    };
    stream.write_all(text.as_bytes()).await.ok()?;
    is_held.then_some(stream)
}

fn event(position: u64, event: serde_json::Value) -> String {
    format!("id: {position}\nevent: x\ndata: {event}\n\n")
}

fn gap(position: u64) -> String {
    event(position, json!({"event": "gap", "skipped": position}))
}

fn problem(status: u16, code: &str) -> String {
    let problem = json!({"type": "t", "code": code, "title": "It broke", "status": status, "detail": "here"});
    format!("data: {}\n\n", json!({"event": "problem", "problem": problem}))
}

const END: &str = "data: {\"event\":\"end\",\"outcome\":null}\n\n";

async fn open<'a>(fake: &Fake, daemon: &'a Daemon) -> Attached<'a> {
    let id = SessionId::from_uuid(uuid::Uuid::nil());
    let target = Target::Session { id, interactive: false };
    Attached::open(daemon, Client::new(fake.socket()), target, true, None).await.expect("a stream")
}

/// Reads to the end: the gaps' numbers and the notices.
async fn all(attached: &mut Attached<'_>) -> Result<(Vec<u64>, Vec<String>), Failure> {
    let (mut seen, mut notices) = (Vec::new(), Vec::new());
    loop {
        match attached.next().await? {
            Next::Event(StreamEvent::Gap { skipped }) => seen.push(skipped),
            Next::Event(_) => {}
            Next::Notice(text) => notices.push(text),
            Next::End => return Ok((seen, notices)),
        }
    }
}

fn cursors(fake: &Fake) -> Vec<String> {
    let after = |path: &String| {
        let query = path.split_once("after=").expect("a cursor").1;
        query.split('&').next().expect("a value").to_owned()
    };
    fake.streams().iter().map(after).collect()
}

// B4
#[tokio::test]
async fn a_broken_stream_goes_on_after_the_last_cursor() {
    let mut fake = Fake::new();
    // The second event is cut in the middle: it was not received, so it must come again.
    let half = format!("{}id: 9\ndata: {{\"event\":", gap(7));
    fake.listen(vec![Script::Break(half), Script::Break(format!("{}{END}", gap(9)))]);
    let daemon = fake.daemon();
    let (seen, notices) = all(&mut open(&fake, &daemon).await).await.expect("it comes back");
    assert_eq!(seen, [7, 9]);
    assert_eq!(cursors(&fake), ["0", "7"]);
    assert!(notices.len() == 1 && notices[0].contains("does not answer"), "{notices:?}");
}

#[tokio::test]
async fn a_silent_stream_is_given_up() {
    let mut fake = Fake::new();
    fake.listen(vec![Script::Hang(gap(3)), Script::Break(END.to_owned())]);
    let daemon = fake.daemon();
    let (seen, notices) = all(&mut open(&fake, &daemon).await).await.expect("it comes back");
    assert_eq!((seen.as_slice(), notices.len()), ([3].as_slice(), 1));
    assert_eq!(cursors(&fake), ["0", "3"]);
}

// D2
#[tokio::test]
async fn a_daemon_that_shuts_down_is_waited_for() {
    let mut fake = Fake::new();
    fake.listen(vec![Script::Break(format!("{}{}", gap(3), problem(503, "shutting-down")))]);
    let daemon = fake.daemon();
    let mut attached = open(&fake, &daemon).await;
    assert_eq!(attached.next().await.expect("the event"), Next::Event(StreamEvent::Gap { skipped: 3 }));
    let notice = attached.next().await.expect("a notice");
    assert!(matches!(&notice, Next::Notice(text) if text.contains("shutting down")), "{notice:?}");
    // Nobody listens for a moment; then there is a new daemon.
    fake.serving.abort_all();
    std::fs::remove_file(fake.socket()).expect("gone");
    fake.listen(vec![Script::Break(format!("{}{END}", gap(4)))]);
    assert_eq!(all(&mut attached).await.expect("it comes back").0, [4]);
    assert_eq!(cursors(&fake), ["0", "3"]);
}

#[tokio::test]
async fn a_stream_that_was_read_too_slowly_comes_back_without_a_word() {
    let mut fake = Fake::new();
    let cut = format!("{}{}", gap(3), problem(503, "slow-reader"));
    fake.listen(vec![Script::Break(cut), Script::Break(END.to_owned())]);
    let daemon = fake.daemon();
    let (seen, notices) = all(&mut open(&fake, &daemon).await).await.expect("it comes back");
    assert_eq!((seen.as_slice(), notices.as_slice()), ([3].as_slice(), [].as_slice()));
}

#[tokio::test]
async fn a_problem_in_the_stream_is_told() {
    let mut fake = Fake::new();
    fake.listen(vec![Script::Break(problem(500, "bug"))]);
    let daemon = fake.daemon();
    let failure = all(&mut open(&fake, &daemon).await).await.expect_err("a problem");
    assert_eq!((failure.exit, failure.what.as_str()), (Exit::Failed, "It broke: here"));
}

#[tokio::test]
async fn a_stream_that_breaks_for_ever_ends_with_an_error() {
    let mut fake = Fake::new();
    fake.listen((0..20).map(|_| Script::Break(String::new())).collect());
    let daemon = fake.daemon();
    let failure = all(&mut open(&fake, &daemon).await).await.expect_err("it never comes back");
    assert_eq!(failure.exit, Exit::Daemon);
    assert!(failure.hint.expect("a hint").contains("outlive attach 00000000"));
}

#[tokio::test]
async fn refusals_are_told_in_the_daemons_words() {
    let mut fake = Fake::new();
    let known = json!({"type": "t", "code": "no-such-session", "title": "No such session", "status": 404, "detail": "x"});
    fake.listen(vec![Script::Refuse(404, known.to_string()), Script::Refuse(500, "<html>".to_owned())]);
    let client = Client::new(fake.socket());
    let path = "/v1/sessions/x/attach";
    let failure = Failure::from(client.events(path).await.err().expect("refused"));
    assert_eq!((failure.exit, failure.what.as_str()), (Exit::NotFound, "No such session: x"));
    let failure = Failure::from(client.events(path).await.err().expect("refused"));
    assert_eq!(failure.what, "The daemon answered with status 500: <html>");
}

// D5
#[tokio::test]
async fn a_stale_socket_is_no_daemon() {
    let fake = Fake::new();
    drop(UnixListener::bind(fake.socket()).expect("bound"));
    assert!(fake.socket().exists(), "left behind");
    let client = Client::new(fake.socket());
    assert!(matches!(client.node().await, Err(CallError::NotRunning { .. })));
    assert!(fake.daemon().running().await.expect("no error").is_none());
    let failure =
        fake.daemon().connect_or_start(&mut crate::daemon::silent).await.expect_err("may not start one");
    assert_eq!(failure.exit, Exit::Daemon);
    assert!(failure.hint.expect("a hint").contains("$OUTLIVE_START_DAEMON"));
}

/// A suspended daemon's socket still takes connections: its user is told so, once the time for one answer is over.
#[tokio::test(start_paused = true)]
async fn a_daemon_that_never_answers_is_waited_for_once() {
    let fake = Fake::new();
    let _suspended = UnixListener::bind(fake.socket()).expect("bound");
    let begun = tokio::time::Instant::now();
    let failure = fake.daemon().running().await.expect_err("nobody answers");
    assert_eq!(failure.exit, Exit::Daemon);
    assert!(failure.what.contains("suspended"), "{failure:?}");
    assert!(failure.hint.is_some_and(|hint| hint.contains("kill -CONT")));
    assert!(begun.elapsed() <= super::ANSWER_TIMEOUT + std::time::Duration::from_secs(1));
}
