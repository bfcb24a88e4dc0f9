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
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

use super::attached::{Attached, Next, Target};
use super::way::{Secret, Way};
use super::{CallError, Client, Company, Twice};
use crate::config::{Config, Sources};
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::nodes::{Known, Nodes};

/// What the fake daemon does with one request for a stream.
enum Script {
    /// Sends these events and breaks the connection.
    Break(String),
    /// Sends these events and then nothing, not even a comment.
    Hang(String),
    /// Answers with this status and body.
    Refuse(u16, String),
    /// Takes the request and says nothing at all.
    Freeze,
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

    fn client(&self) -> Client {
        Client::new(Way::Socket(self.socket()), Company::Alone)
    }

    /// Its requests come over TCP.
    async fn listen_tcp(&mut self, scripts: Vec<Script>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let requests = Arc::clone(&self.requests);
        self.serving.spawn(async move {
            let mut scripts = VecDeque::from(scripts);
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                held.push(answer(stream, &requests, &mut scripts).await);
            }
        });
        format!("http://{address}")
    }

    /// As a daemon does whose cluster has these nodes too.
    fn knows(&self, others: &[&str]) {
        let known = |(n, url): (usize, &&str)| Known { name: format!("n{n}"), url: (*url).to_owned() };
        let nodes = others.iter().enumerate().map(known).collect();
        Nodes::new("me".to_owned(), "cluster-token".to_owned(), nodes)
            .write(&self.socket())
            .expect("written");
    }

    fn daemon(&self) -> Daemon {
        self.daemon_with(&[])
    }

    fn daemon_with(&self, more: &[(&str, &str)]) -> Daemon {
        let folder = self.folder.path().to_string_lossy().into_owned();
        let env = |name: &str| match name {
            _ if more.iter().any(|(key, _)| *key == name) => {
                more.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
            }
            "OUTLIVE_PATIENCE_S" => Some("20".into()),
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
async fn answer<S: AsyncReadExt + AsyncWriteExt + Unpin>(
    mut stream: S,
    requests: &Mutex<Vec<String>>,
    scripts: &mut VecDeque<Script>,
) -> Option<S> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let path = head.split(' ').nth(1).expect("a request line").to_owned();
    let path = if head.contains("authorization: bearer cluster-token") {
        format!("{path}&in-cluster")
    } else {
        path
    };
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
            Script::Freeze => (String::new(), true),
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
    Attached::open(daemon, fake.client(), target, true, None).await.expect("a stream")
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
    let daemon = fake.daemon_with(&[("OUTLIVE_PATIENCE_S", "1")]);
    let failure = all(&mut open(&fake, &daemon).await).await.expect_err("it never comes back");
    assert_eq!(failure.exit, Exit::Daemon);
    assert!(failure.hint.expect("a hint").contains("outlive attach 00000000"));
}

#[tokio::test]
async fn refusals_are_told_in_the_daemons_words() {
    let mut fake = Fake::new();
    let known = json!({"type": "t", "code": "no-such-session", "title": "No such session", "status": 404, "detail": "x"});
    fake.listen(vec![Script::Refuse(404, known.to_string()), Script::Refuse(500, "<html>".to_owned())]);
    let client = fake.client();
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
    let client = fake.client();
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

fn refusal(code: &str) -> Script {
    let problem = json!({"type": "t", "code": code, "title": "Not now", "status": 503, "detail": "it moves"});
    Script::Refuse(503, problem.to_string())
}

/// Two nodes: this one with its socket, and another over TCP.
async fn two(here: Vec<Script>, there: Vec<Script>) -> (Fake, Fake) {
    let (mut one, mut other) = (Fake::new(), Fake::new());
    let url = other.listen_tcp(there).await;
    one.listen(here);
    one.knows(&[&url]);
    (one, other)
}

// E3
#[tokio::test]
async fn a_frozen_node_is_left_for_another_after_a_second_and_nothing_comes_twice() {
    // It stays silent when it is asked again too.
    let here = vec![Script::Hang(gap(3)), Script::Freeze, Script::Freeze];
    let (one, other) = two(here, vec![Script::Break(format!("{}{END}", gap(4)))]).await;
    let daemon = one.daemon();
    let client = daemon.clients().expect("two").swap_remove(0);
    let id = SessionId::from_uuid(uuid::Uuid::nil());
    let target = Target::Session { id, interactive: false };
    let mut attached = Attached::open(&daemon, client, target, true, None).await.expect("a stream");
    let begun = tokio::time::Instant::now();
    let (seen, notices) = all(&mut attached).await.expect("it goes on");
    assert_eq!(seen, [3, 4]);
    assert!(begun.elapsed() < std::time::Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(cursors(&other), ["3"]);
    assert!(other.streams()[0].ends_with("&in-cluster"), "it shows the cluster's token");
    assert!(notices.len() == 2 && notices[0].contains("another one"), "{notices:?}");
    assert!(notices[1].contains("http://127.0.0.1"), "{notices:?}");
}

// E1
#[tokio::test]
async fn a_dead_node_is_left_at_once() {
    let (one, other) = two(vec![], vec![Script::Break(format!("{}{END}", gap(4)))]).await;
    let daemon = one.daemon();
    let mut clients = daemon.clients().expect("two");
    drop(one.serving);
    std::fs::remove_file(one.folder.path().join("outlive.sock")).expect("gone");
    let id = SessionId::from_uuid(uuid::Uuid::nil());
    let target = Target::Run { id, run: outlive_core::id::RunId::from_uuid(uuid::Uuid::nil()) };
    let cursor = Some("2.7".to_owned());
    let attached = Attached::open(&daemon, clients.swap_remove(0), target, true, cursor).await;
    let (seen, _) = all(&mut attached.expect("others are asked")).await.expect("it goes on");
    assert_eq!(seen, [4]);
    assert!(other.streams()[0].contains("cursor=2.7"), "{:?}", other.streams());
}

// E2, E4
#[tokio::test]
async fn a_node_that_hands_over_or_is_cut_off_is_left_for_another() {
    for code in ["node-isolated", "draining", "owner-silent", "session-moving"] {
        let here = vec![Script::Break(format!("{}{}", gap(3), problem(503, code))), refusal("joining")];
        let again = (0..20).map(|_| refusal("joining"));
        let (one, other) = two(
            here.into_iter().chain(again).collect(),
            vec![refusal("session-moving"), Script::Break(format!("{}{END}", gap(4)))],
        )
        .await;
        let daemon = one.daemon();
        let (seen, notices) = all(&mut open(&one, &daemon).await).await.expect("it goes on");
        assert_eq!(seen, [3, 4], "{code}");
        assert_eq!(cursors(&other), ["3", "3"], "{code}: asked again after it had refused");
        assert!(!notices.is_empty(), "{code} is said");
    }
}

#[tokio::test]
async fn the_node_that_was_named_is_asked_first() {
    let mut third = Fake::new();
    let url = third.listen_tcp(vec![Script::Break(END.to_owned())]).await;
    let moved = json!({"type": "t", "code": "draining", "title": "T", "status": 503, "detail": "d",
        "elsewhere": {"node": uuid::Uuid::nil(), "name": "c", "url": url}});
    let last = format!("{}data: {}\n\n", gap(3), json!({"event": "problem", "problem": moved}));
    let (one, other) = two(vec![Script::Break(last)], vec![]).await;
    let others = Nodes::read(&one.socket()).expect("nodes").nodes;
    one.knows(&[&others[0].url, &url]);
    let daemon = one.daemon();
    let (seen, _) = all(&mut open(&one, &daemon).await).await.expect("it goes on");
    assert_eq!((seen.as_slice(), other.streams().len()), ([3].as_slice(), 0));
    assert_eq!(cursors(&third), ["3"]);
}

/// A node that has come since the daemon listed the others, and one that takes another token.
#[tokio::test]
async fn a_node_that_is_known_by_hearsay_alone_is_asked_too_and_its_refusal_is_not_the_end() {
    let refused = json!({"type": "t", "code": "wrong-token", "title": "T", "status": 401, "detail": "d"});
    for (answer, seen) in [
        (Script::Break(format!("{}{END}", gap(4))), [3, 4]),
        (Script::Refuse(401, refused.to_string()), [3, 9]),
    ] {
        let mut third = Fake::new();
        let url = third.listen_tcp(vec![answer]).await;
        let moved = json!({"type": "t", "code": "draining", "title": "T", "status": 503, "detail": "d",
            "elsewhere": {"node": uuid::Uuid::nil(), "name": "c", "url": url}});
        let last = format!("{}data: {}\n\n", gap(3), json!({"event": "problem", "problem": moved}));
        let mut one = Fake::new();
        one.listen(vec![Script::Break(last), Script::Break(format!("{}{END}", gap(9)))]);
        if seen[1] == 4 {
            one.knows(&[]);
        }
        let daemon = one.daemon();
        assert_eq!(all(&mut open(&one, &daemon).await).await.expect("it goes on").0, seen);
        assert_eq!(third.streams()[0].ends_with("in-cluster"), seen[1] == 4);
    }
}

#[tokio::test]
async fn patience_has_an_end_which_says_why_and_how_to_come_back() {
    let (one, _other) = two(
        (0..50).map(|_| refusal("session-moving")).collect(),
        (0..50).map(|_| refusal("session-moving")).collect(),
    )
    .await;
    let daemon = one.daemon_with(&[("OUTLIVE_PATIENCE_S", "1")]);
    let failure = all(&mut open(&one, &daemon).await).await.expect_err("nobody has it");
    assert_eq!(failure.exit, Exit::Daemon);
    assert!(failure.what.contains("within 1 s") && failure.what.contains("it moves"), "{failure:?}");
    assert!(failure.hint.expect("a hint").contains("outlive attach 00000000"));
}

#[tokio::test]
async fn a_refusal_that_time_does_not_mend_ends_it_at_once() {
    let known = json!({"type": "t", "code": "no-such-session", "title": "No such session", "status": 404, "detail": "x"});
    let gone = Script::Refuse(404, known.to_string());
    let (one, _other) = two(vec![Script::Break(gap(3)), gone], vec![]).await;
    let daemon = one.daemon();
    let failure = all(&mut open(&one, &daemon).await).await.expect_err("forgotten");
    assert_eq!(failure.exit, Exit::NotFound);
}

#[tokio::test]
async fn daemons_that_are_named_by_url_are_asked_in_turn_with_the_token() {
    let mut other = Fake::new();
    let url = other.listen_tcp(vec![]).await;
    let here = Fake::new();
    let token = here.folder.path().join("t");
    std::fs::write(&token, "cluster-token\n").expect("written");
    // Nothing listens at the first.
    let urls = format!("http://127.0.0.1:1,{url}");
    let more = [("OUTLIVE_URL", urls.as_str()), ("OUTLIVE_TOKEN_FILE", token.to_str().expect("UTF-8"))];
    let daemon = here.daemon_with(&more);
    let client = daemon.connect_or_start(&mut crate::daemon::silent).await.expect("the second");
    assert_eq!(client.way().to_string(), url);
    assert_eq!(*other.requests.lock().expect("not poisoned"), ["/v1/live&in-cluster"]);
    let none = here.daemon_with(&[("OUTLIVE_URL", "http://127.0.0.1:1")]);
    let failure = none.connect_or_start(&mut crate::daemon::silent).await.expect_err("nobody");
    assert!(failure.what.contains("http://127.0.0.1:1"), "{failure:?}");
    assert!(failure.hint.expect("a hint").contains("OUTLIVE_URL"));
    let wrong = here.daemon_with(&[("OUTLIVE_URL", "https://a")]);
    let failure = wrong.connect_or_start(&mut crate::daemon::silent).await.expect_err("no TLS");
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.what.contains("$OUTLIVE_URL"), "{failure:?}");
}

#[tokio::test]
async fn a_daemon_that_was_a_node_is_not_started_alone_in_its_place() {
    let mut other = Fake::new();
    let url = other.listen_tcp(vec![]).await;
    let here = Fake::new();
    here.knows(&[&url]);
    // It may be started, but the configuration says nothing of a cluster.
    let daemon = here.daemon_with(&[("OUTLIVE_START_DAEMON", "true")]);
    assert!(!daemon.may_start());
    let client = daemon.connect_or_start(&mut crate::daemon::silent).await.expect("the other node");
    assert_eq!(client.way().to_string(), url);
    drop(other);
    here.knows(&["http://127.0.0.1:1"]);
    let failure = daemon.connect_or_start(&mut crate::daemon::silent).await.expect_err("nobody");
    assert!(failure.hint.expect("a hint").contains("--cluster"), "{}", failure.what);
    let clustered = [("OUTLIVE_START_DAEMON", "true"), ("OUTLIVE_CLUSTER_SERVERS", "nats://127.0.0.1:1")];
    assert!(here.daemon_with(&clustered).may_start(), "it is started as a node");
    Nodes::remove(&here.socket());
    assert!(daemon.may_start(), "one that was never a node");
}

/// What was certainly not done is done again by another node; what may have been done is not.
#[tokio::test]
async fn a_call_is_repeated_where_that_is_harmless() {
    let (one, _other) = two(vec![], vec![]).await;
    let daemon = one.daemon();
    let mut client = daemon.clients().expect("two").swap_remove(0);
    let mut tries = 0_u32;
    let count = std::sync::atomic::AtomicU32::new(0);
    let call = |error: fn() -> CallError| {
        let count = &count;
        move |_: Client| {
            let n = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            async move { if n == 0 { Err(error()) } else { Ok(n) } }
        }
    };
    let moving = || {
        CallError::Refused(Box::new(outlive_protocol::http::Problem::new(503, "session-moving", "t", "d")))
    };
    let lost = || CallError::lost("cut");
    let talk = &mut crate::daemon::silent;
    for (twice, error, is_repeated) in [
        (Twice::Never, moving as fn() -> CallError, true),
        (Twice::Harmless, moving, true),
        (Twice::Never, lost, false),
        (Twice::Harmless, lost, true),
    ] {
        count.store(0, std::sync::atomic::Ordering::SeqCst);
        let answered = daemon.persist(&mut client, twice, talk, call(error)).await;
        assert_eq!(answered.is_ok(), is_repeated, "{twice:?}");
        tries += 1;
    }
    assert_eq!(tries, 4);
}

#[test]
fn a_token_stays_out_of_what_is_shown() {
    let way = Way::url("http://a:1", Some(Secret::new("hidden").expect("a token"))).expect("a way");
    let failure = Failure::from(CallError::NotRunning { at: way });
    assert!(!format!("{failure:?}").contains("hidden"), "{failure:?}");
}
