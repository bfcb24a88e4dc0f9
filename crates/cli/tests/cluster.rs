//! Daemons of a cluster as a user meets them: what they say when something is wrong, and how clients go from one to
//! another. Commands do for sessions here; `e2e` has kernels, runners and what goes wrong between nodes.

mod home;

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use home::{Home, said};
use outlive_store_nats::testing::{Access, JetStream, NatsServer, Options};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longest wait for anything that is known to come.
const PATIENCE: Duration = Duration::from_secs(60);

#[expect(clippy::disallowed_methods, reason = "real processes need real time")]
fn now() -> Instant {
    Instant::now()
}

/// A node with directories of its own. It is killed with what it runs when it is dropped.
struct Node {
    home: Home,
    name: String,
    daemon: Option<Child>,
}

impl Node {
    fn new(name: &str) -> Self {
        Self { home: Home::new(), name: name.to_owned(), daemon: None }
    }

    fn serve(&self, nats: &str, more: &[&str]) -> Command {
        let mut command = self.home.command(&["serve", "--cluster", nats, "--name", &self.name]);
        command.args(more).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Starts it and waits until it is one of the others.
    fn start(name: &str, nats: &NatsServer) -> Self {
        let mut node = Self::new(name);
        node.again(nats);
        node
    }

    fn again(&mut self, nats: &NatsServer) {
        let mut daemon = self.serve(&nats.url(), &[]).spawn().expect("started");
        let mut lines = BufReader::new(daemon.stderr.take().expect("piped")).lines();
        let ready = lines.by_ref().map_while(Result::ok).find(|line| line.contains("the node is ready"));
        assert!(ready.is_some(), "{} became no node", self.name);
        // Read on, so that it is never kept from writing.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        self.daemon = Some(daemon);
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.daemon.as_ref().expect("it runs"))
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it is there");
    }

    fn ended(&mut self) -> ExitStatus {
        let mut daemon = self.daemon.take().expect("it runs");
        daemon.wait().expect("waited for")
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let (code, out, err) = self.home.said(arguments);
        assert_eq!(code, 0, "{arguments:?}: {err}");
        serde_json::from_str(&out).expect("JSON")
    }

    /// Waits until what it shows is as it should be.
    fn until(&self, arguments: &[&str], is: impl Fn(&Value) -> bool) -> Value {
        let begun = now();
        loop {
            let value = self.json(arguments);
            if is(&value) {
                return value;
            }
            assert!(begun.elapsed() < PATIENCE, "{arguments:?} shows {value:#}");
        }
    }

    /// Waits until it sees `a` and `b`, alive.
    fn sees_both(&self) {
        let both = [("a", "alive"), ("b", "alive")].map(|(name, state)| (Some(name), Some(state)));
        self.until(&["nodes", "--json"], |view| {
            let nodes = view["nodes"].as_array().expect("a list");
            nodes.iter().map(|node| (node["name"].as_str(), node["state"].as_str())).eq(both)
        });
    }

    /// Follows a session, line by line.
    fn attach(&self, session: &str) -> (Child, BufReader<ChildStdout>) {
        let mut command = self.home.command(&["attach", session]);
        // No daemon is started in the place of one that a test has ended.
        command.env("OUTLIVE_START_DAEMON", "0").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut client = command.spawn().expect("started");
        let out = BufReader::new(client.stdout.take().expect("piped"));
        (client, out)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = kill_process(Pid::from_child(&daemon), Signal::CONT);
            // What it runs ends with it.
            drop(self.home.run(&["daemon", "stop"]));
            drop(daemon.kill());
            drop(daemon.wait());
        }
    }
}

/// Ends a client; what it has said besides.
fn told(mut client: Child) -> String {
    drop(client.kill());
    drop(client.wait());
    let mut told = String::new();
    client.stderr.take().expect("piped").read_to_string(&mut told).expect("text");
    told
}

fn line(out: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    out.read_line(&mut line).expect("text");
    line.trim_end().to_owned()
}

/// A daemon that cannot start: its exit code and what it says.
fn refused(command: &mut Command) -> (i32, String) {
    let begun = now();
    let (code, _, err) = said(command.output().expect("started"));
    assert!(begun.elapsed() < Duration::from_secs(30), "it took {:?}", begun.elapsed());
    (code, err)
}

// E11
#[test]
fn what_keeps_a_node_from_starting_is_said_with_the_way_out() {
    let node = Node::new("a");
    let (code, err) = refused(&mut node.serve("nats://127.0.0.1:9", &[]));
    assert_eq!(code, 6, "{err}");
    assert!(err.contains("no NATS server answers at nats://127.0.0.1:9") && err.contains("--wait"), "{err}");
    let secret =
        NatsServer::start(&Options { access: Access::Token("right".to_owned()), ..Options::default() });
    let wrong = refused(node.serve(&secret.url(), &[]).env("OUTLIVE_CLUSTER_TOKEN", "wrong-one"));
    assert_eq!(wrong.0, 6, "{}", wrong.1);
    assert!(wrong.1.contains("refuses the credentials") && !wrong.1.contains("wrong-one"), "{}", wrong.1);
    let plain = NatsServer::start(&Options { jetstream: JetStream::Off, ..Options::default() });
    let (code, err) = refused(&mut node.serve(&plain.url(), &[]));
    assert!(code == 6 && err.contains("no JetStream"), "{code}: {err}");
    for (more, says) in [
        (&["--replicas", "2"][..], "1, 3 or 5"),
        (&["--advertise", "http://10.0.0.1:1"], "--tcp"),
        (&["--volumes", "data=/no/such/place"], "/no/such/place"),
        (&["--wait", "soon"], "a time span"),
        (&["--name", "no spaces"], "letters, digits"),
    ] {
        let mut command = node.home.command(&["serve", "--cluster", &plain.url()]);
        let (code, err) = refused(command.args(more));
        assert!(code == 2 && err.contains(says), "{more:?}: {code}: {err}");
    }
}

#[test]
fn two_living_nodes_do_not_have_one_name() {
    let nats = NatsServer::start(&Options::default());
    let one = Node::start("a", &nats);
    let other = Node::new("a");
    let (code, err) = refused(&mut other.serve(&nats.url(), &[]));
    assert_eq!(code, 6, "{err}");
    let pid = one.pid().as_raw_nonzero().to_string();
    assert!(err.contains("\"a\" is in use") && err.contains(&pid), "{err}");
}

// E11
#[test]
fn a_node_that_waits_for_nats_says_so_and_starts_when_it_is_there() {
    let mut nats = NatsServer::start(&Options::default());
    nats.kill();
    let mut node = Node::new("a");
    let mut command = node.serve(&nats.url(), &["--wait", "5m", "--tcp", "127.0.0.1:0"]);
    let mut daemon = command.spawn().expect("started");
    let mut lines = BufReader::new(daemon.stderr.take().expect("piped")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("NATS is waited for")), "it ended");
    node.daemon = Some(daemon);
    // It lives, and is not ready; what is asked of it is refused with the reason.
    let status = node.json(&["daemon", "status", "--json"]);
    assert_eq!(status["ready"], false);
    let mut impatient = node.home.command(&["ps"]);
    let (code, _, err) = said(impatient.env("OUTLIVE_PATIENCE_S", "1").output().expect("started"));
    assert!(code == 6 && err.contains("NATS is waited for"), "{code}: {err}");
    nats.restart();
    assert!(lines.any(|line| line.contains("the node is ready")), "it ended");
    std::thread::spawn(move || lines.for_each(drop));
    assert_eq!(node.json(&["daemon", "status", "--json"])["ready"], true);
    // One that is told to end while it waits does so.
    nats.kill();
    let waiting = Node::new("b");
    let mut daemon = waiting.serve(&nats.url(), &["--wait", "5m"]).spawn().expect("started");
    let mut lines = BufReader::new(daemon.stderr.take().expect("piped")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("NATS is waited for")), "it ended");
    kill_process(Pid::from_child(&daemon), Signal::TERM).expect("it is there");
    assert!(daemon.wait().expect("waited for").success());
    nats.restart();
}

/// A command that counts, in a session that goes on on another node.
fn counting(node: &Node) -> String {
    let script = "n=0; while :; do n=$((n + 1)); echo $n of $OUTLIVE_ATTEMPT; sleep 0.05; done";
    let run = node.home.said(&["run", "--detach", "--restart", "permanent", "--", "sh", "-c", script]);
    assert_eq!(run.0, 0, "{}", run.2);
    run.1.trim().to_owned()
}

// E1
#[test]
fn clients_of_a_node_that_dies_or_freezes_go_on_with_another_and_nothing_comes_twice() {
    let nats = NatsServer::start(&Options::default());
    let (mut one, other) = (Node::start("a", &nats), Node::start("b", &nats));
    one.sees_both();
    let file = one.home.path().join("outlive/cluster.json");
    let about = std::fs::metadata(&file).expect("it is beside the socket");
    assert_eq!(about.mode() & 0o777, 0o600, "it holds the token");
    let session = counting(&one);
    let shown = other.until(&["ps", "--json"], |view| view[0]["node"] == "a");
    assert_eq!(shown[0]["id"].as_str(), Some(session.as_str()));
    let (client, mut out) = one.attach(&session);
    assert_eq!(line(&mut out), "1 of 1");
    assert_eq!(line(&mut out), "2 of 1");
    // Frozen: its sockets stay open, and nothing comes.
    one.signal(Signal::STOP);
    let mut last = 2;
    let begun = now();
    let first = loop {
        let text = line(&mut out);
        assert!(!text.is_empty() && begun.elapsed() < PATIENCE, "the stream goes on");
        let (number, attempt) = text.split_once(" of ").expect("both");
        if attempt != "1" {
            break number.to_owned();
        }
        last += 1;
        assert_eq!(number.parse(), Ok(last), "nothing twice, nothing missing");
    };
    assert_eq!(first, "1");
    assert_eq!(other.until(&["ps", "--json"], |view| view[0]["node"] == "b")[0]["node"], "b");
    let told = told(client);
    assert!(told.contains("goes on by http://127.0.0.1"), "{told}");
    assert!(told.contains("was lost: node-lost"), "why it began again is said: {told}");
    one.signal(Signal::CONT);
    one.signal(Signal::KILL);
    assert!(!one.ended().success());
    // Without a daemon of its own, this machine's clients still have the others.
    let mut command = one.home.command(&["ps", "--json"]);
    let (code, out, err) = said(command.env("OUTLIVE_START_DAEMON", "0").output().expect("started"));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(&session), "{out}");
    let ended = other.home.said(&["stop", "--force", &session]);
    assert_eq!(ended.0, 0, "{}", ended.2);
}

// E2
#[test]
fn a_signal_drains_a_node_and_a_client_moves_with_its_session() {
    let nats = NatsServer::start(&Options::default());
    let (mut one, other) = (Node::start("a", &nats), Node::start("b", &nats));
    // A node that sees nobody leaves what runs to its own next life.
    one.sees_both();
    let session = counting(&one);
    let (mut client, mut out) = one.attach(&session);
    assert_eq!(line(&mut out), "1 of 1");
    one.signal(Signal::TERM);
    assert!(one.ended().success());
    let begun = now();
    loop {
        let text = line(&mut out);
        if text.ends_with("of 2") {
            break;
        }
        if text.is_empty() || begun.elapsed() > PATIENCE {
            let known = std::fs::read_to_string(one.home.path().join("outlive/cluster.json"));
            panic!("it does not go on: {}; known are {known:?}", told(client));
        }
    }
    assert_eq!(other.until(&["ps", "--json"], |view| view[0]["node"] == "b")[0]["node"], "b");
    let left = other.until(&["nodes", "--json"], |view| view["nodes"][0]["state"] == "left");
    assert_eq!(left["nodes"][0]["name"], "a", "it said goodbye, and is not taken for dead");
    drop(client.kill());
    drop(client.wait());
    let explained = other.json(&["explain", "--takeovers", "--json", &session]);
    assert_eq!(
        (&explained[0]["from_name"], &explained[0]["to_name"]),
        (&"a".into(), &"b".into()),
        "{explained:#}"
    );
    drop(other.home.run(&["stop", "--force", &session]));
}

#[test]
fn a_daemon_that_was_alone_becomes_a_node_with_what_it_runs() {
    let nats = NatsServer::start(&Options::default());
    let mut node = Node::new("a");
    let session = counting(&node);
    let (mut client, mut out) = node.attach(&session);
    assert_eq!(line(&mut out), "1 of 1");
    drop(client.kill());
    drop(client.wait());
    let (code, _, err) = node.home.said(&["migrate", "--to", &nats.url()]);
    assert!(code == 7 && err.contains("in use"), "a daemon runs: {code}: {err}");
    assert_eq!(node.home.said(&["daemon", "stop", "--keep-runtimes"]).0, 0);
    let (code, err) = refused(&mut node.serve(&nats.url(), &[]));
    assert!(code == 7 && err.contains("outlive migrate"), "nothing is left behind unseen: {code}: {err}");
    let (code, out, err) = node.home.said(&["migrate", "--to", &nats.url(), "--dry-run"]);
    assert!(code == 0 && out.starts_with(&session[..8]), "{out} {err}");
    let (code, out, err) = node.home.said(&["migrate", "--to", &nats.url()]);
    assert!(code == 0 && out.starts_with(&session[..8]) && out.contains("records"), "{out} {err}");
    let (code, _, err) = node.home.said(&["migrate", "--to", &nats.url()]);
    assert!(code == 0 && err.contains("1 were there already"), "{err}");
    let (code, _, err) = node.home.said(&["ps"]);
    assert!(code == 6 && err.contains("were moved to the cluster"), "nobody goes on alone: {code}: {err}");
    node.again(&nats);
    let shown = node.until(&["ps", "--json"], |view| {
        view[0]["node"] == "a" && view[0]["runtime"]["state"]["state"] == "busy"
    });
    assert_eq!(shown[0]["runtime"]["incarnation"], 1, "the same process: {shown:#}");
    let (code, out, _) = node.home.said(&["logs", &session]);
    assert_eq!(code, 0);
    let numbers: Vec<u64> = out
        .lines()
        .map(|line| line.split_once(' ').expect("a number").0.parse().expect("a number"))
        .collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "each line once: {numbers:?}");
    drop(node.home.run(&["stop", "--force", &session]));
}
