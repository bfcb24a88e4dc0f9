//! Those who watch a session's state without its output.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use outlive_core::id::SessionId;
use outlive_core::session::spec::Trust;
use outlive_node::api::Api as _;
use outlive_protocol::http::{CellEdit, CellKindName, Close, EditNotebook, Where};
use outlive_server::Bounds;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::world::{World, all, in_time, state};

/// What a client knows of a session by what it is told.
struct Watch {
    socket: WebSocketStream<UnixStream>,
    session: Value,
    runs: BTreeMap<String, Value>,
    cursor: Option<String>,
    /// The names of all events, in order.
    names: Vec<String>,
    closed: Option<(u16, String)>,
}

impl Watch {
    async fn begin(world: &World, id: SessionId, after: &str) -> Self {
        Self::at(world, &state(id, after)).await
    }

    async fn at(world: &World, path: &str) -> Self {
        let socket = world.websocket(path).await;
        let (runs, names) = (BTreeMap::new(), Vec::new());
        Self { socket, session: Value::Null, runs, cursor: None, names, closed: None }
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            match in_time(self.socket.next()).await? {
                Ok(Message::Text(text)) => {
                    let event: Value = serde_json::from_str(&text).unwrap();
                    self.take(&event);
                    return Some(event);
                }
                Ok(Message::Close(frame)) => {
                    self.closed = frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
                }
                Ok(_) => {}
                Err(error) => {
                    assert!(self.closed.is_some(), "{error}");
                    return None;
                }
            }
        }
    }

    fn take(&mut self, event: &Value) {
        if let Some(cursor) = event["id"].as_str() {
            self.cursor = Some(cursor.to_owned());
        }
        let name = event["event"].as_str().unwrap();
        self.names.push(name.to_owned());
        match name {
            "session" => {
                let generation = |view: &Value| view["generation"].as_u64();
                let view = &event["session"];
                assert!(
                    generation(view) >= generation(&self.session),
                    "never an older view after a newer one"
                );
                self.session = view.clone();
            }
            "run" => {
                let id = event["run"]["id"].as_str().unwrap().to_owned();
                self.runs.insert(id, event["run"].clone());
            }
            _ => {}
        }
    }

    async fn until(&mut self, so: impl Fn(&Self) -> bool) {
        while !so(self) {
            assert!(self.next().await.is_some(), "the end came first: {:?}", self.names);
        }
    }

    /// Reads until it knows all that the node knows.
    async fn until_equal(&mut self, world: &World, id: SessionId) {
        let present = world.node.session(id).await.unwrap();
        let runs: BTreeMap<_, _> = world
            .node
            .runs(id)
            .await
            .unwrap()
            .into_iter()
            .map(|run| (run.id.to_string(), serde_json::to_value(run).unwrap()))
            .collect();
        let generation = present.generation.0;
        self.until(|watch| {
            watch.session["generation"].as_u64() >= Some(generation)
                && watch.runs.len() == runs.len()
                && watch.runs == runs
        })
        .await;
        assert_eq!(self.session["queue"], json!(present.queue));
        assert_eq!(self.session["runs"], json!(present.runs));
    }
}

#[tokio::test]
async fn a_path_and_what_is_saved_are_told_in_order_with_rising_generations() {
    let world = World::start().await;
    for at in [state, all] {
        life_of_a_notebook(&world, at).await;
    }
    world.stop().await;
}

async fn life_of_a_notebook(world: &World, at: impl Fn(SessionId, &str) -> String) {
    let id = world.notebook().await;
    let mut watch = Watch::at(world, &at(id, "head")).await;
    watch.until(|watch| watch.session["peers"] == 1).await;
    assert_eq!(
        (&watch.session["untitled"], &watch.session["saved"]["state"]),
        (&json!(true), &json!("untitled"))
    );
    let name = id.to_string();
    let opened = world.save(id, &format!("of {name}")).await;
    let path = opened.path.unwrap();
    assert!(path.ends_with(&format!("/of {name}.ipynb")), "{path}");
    watch.until(|watch| watch.session["path"] == json!(path)).await;
    assert_eq!(watch.session["untitled"], false);
    let told = watch.names.iter().position(|name| name == "path_changed");
    assert!(told < Some(watch.names.len() - 1), "before the view that has it: {:?}", watch.names);
    let edit =
        CellEdit::Insert { at: Where::End, kind: CellKindName::Code, source: "1".to_owned(), id: None };
    world.node.edit(id, EditNotebook { edits: vec![edit] }).await.unwrap();
    watch.until(|watch| watch.session["saved"]["state"] == "unsaved").await;
    watch.until(|watch| watch.session["saved"]["state"] == "saved").await;
    world.node.trust(id, Trust::Untrusted).await.unwrap();
    watch.until(|watch| watch.session["trust"] == "untrusted").await;
    world.node.close(id, Close { discard: false }).await.unwrap();
    watch.until(|watch| watch.names.last().unwrap() == "end").await;
    assert!(watch.session["closed_at"].is_number(), "the last view is the last");
    assert!(watch.next().await.is_none());
    assert_eq!(watch.closed, Some((1000, "end".to_owned())));
}

// B4
#[tokio::test]
async fn who_comes_back_is_told_what_is_new_and_after_a_restart_everything() {
    let world = World::start().await;
    let id = world.notebook().await;
    let mut watch = Watch::begin(&world, id, "head").await;
    let first = world.queue(id).await.id.to_string();
    watch.until(|watch| watch.runs.contains_key(&first) && watch.session["runs"]["queued"] == 1).await;
    let cursor = watch.cursor.clone().unwrap();
    let (mut runs, before) = (watch.runs.clone(), watch.session["generation"].as_u64());
    drop(watch.socket);
    let second = world.queue(id).await.id.to_string();
    let mut back = Watch::begin(&world, id, &cursor).await;
    back.until(|back| back.runs.contains_key(&second)).await;
    assert!(!back.runs.contains_key(&first), "only what is new");
    assert!(!back.names.contains(&"gap".to_owned()), "{:?}", back.names);
    runs.append(&mut back.runs);
    back.runs = runs;
    back.until_equal(&world, id).await;

    let world = world.restart().await;
    let mut anew = Watch::begin(&world, id, &cursor).await;
    anew.until_equal(&world, id).await;
    assert_eq!(&anew.names[..2], ["gap", "session"], "{:?}", anew.names);
    assert!(anew.session["generation"].as_u64() > before, "higher than what an earlier daemon has shown");
    world.stop().await;
}

// B2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_is_ten_thousand_events_behind_is_told_and_ends_equal() {
    let world = World::start().await;
    let id = world.notebook().await;
    let mut slow = Watch::begin(&world, id, "head").await;
    let mut slow_with_outputs = Watch::at(&world, &all(id, "head")).await;
    slow.until(|slow| slow.session["peers"] == 2).await;
    slow_with_outputs.until(|slow| slow.session["peers"] == 2).await;
    for _ in 0..10_000 {
        world.queue(id).await;
    }
    slow.until(|slow| slow.names.last().unwrap() == "gap").await;
    let next = slow.next().await.unwrap();
    assert_eq!(next["event"], "session", "a fresh one");
    slow.until_equal(&world, id).await;
    slow_with_outputs.until(|slow| slow.names.last().unwrap() == "gap").await;
    slow_with_outputs.until_equal(&world, id).await;
    assert_eq!(slow_with_outputs.names.last().unwrap(), "session", "a fresh one behind what the log has");
    world.stop().await;
}

fn allow_descriptors(wanted: u64) {
    let limit = getrlimit(Resource::Nofile);
    let enough = limit.maximum.is_none_or(|maximum| maximum >= wanted);
    assert!(enough, "this test needs {wanted} descriptors: raise the hard limit");
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }).unwrap();
}

/// A thousand clients in one process: with anything beside it, it waits for the machine and not for what it tests.
mod alone {
    use super::*;

    // B5
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_thousand_watchers_and_ten_that_never_read() {
        const WATCHERS: usize = 1_000;
        allow_descriptors(4_096);
        // The thousand are read one after the other, and answer pings only then.
        let silence = Duration::from_secs(600);
        let bounds = Bounds { stream_stall: Duration::from_secs(2), silence, ..Bounds::default() };
        let world = World::start_with(bounds).await;
        let id = world.notebook().await;
        let mut sleepers = Vec::new();
        for _ in 0..10 {
            let mut sleeper = Watch::begin(&world, id, "head").await;
            sleeper.until(|sleeper| sleeper.session.is_object()).await;
            sleepers.push(sleeper);
        }
        let mut witness = Watch::begin(&world, id, "head").await;
        witness.until(|witness| witness.session["peers"] == 11).await;
        let mut alone = JoinSet::new();
        alone.spawn(async move { witness.until(|witness| witness.session["peers"] == 1).await });
        // More than their sockets hold, and nothing that a watcher may leave out: each of them is told of every run.
        let long = format!("print(1)  #{}", "-".repeat(4_096));
        for _ in 0..400 {
            world.queue_code(id, &long).await;
        }
        let mut watchers = JoinSet::new();
        for _ in 0..WATCHERS {
            let mut socket = world.websocket(&state(id, "head")).await;
            watchers.spawn(async move {
                let (mut runs, mut is_last) = (0, false);
                while !is_last {
                    let message = in_time(socket.next()).await.unwrap().unwrap();
                    // Taken apart by eye: a thousand parsers are slower than what is tested.
                    let text = message.to_text().unwrap_or_default();
                    assert!(!text.contains(r#""event":"gap""#), "{text}");
                    runs += usize::from(text.contains(r#""event":"run""#));
                    is_last = text.contains(r#""runs":{"queued":405,"#);
                }
                (runs, socket)
            });
        }
        for _ in 0..5 {
            world.queue(id).await;
        }
        while let Some(watched) = in_time(watchers.join_next()).await {
            assert_eq!(watched.unwrap().0, 5, "each change, in order, beside ten that never read");
        }
        // They have been cut when nobody else is there any more. To read earlier would be to wake up.
        in_time(alone.join_next()).await.unwrap().unwrap();
        for sleeper in &mut sleepers {
            sleeper.until(|sleeper| sleeper.names.last().unwrap() == "problem").await;
            assert!(sleeper.next().await.is_none());
            assert_eq!(sleeper.closed, Some((4008, "slow-reader".to_owned())));
        }
        world.stop().await;
    }
}
