//! A watcher of a session that the test plays.

use async_trait::async_trait;
use futures_util::{FutureExt as _, StreamExt as _};
use outlive_core::id::SessionId;
use outlive_core::session::event::PathWhy;
use outlive_core::time::{Now, WallTime};
use serde_json::json;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::*;
use crate::session::Message;
use crate::session::handle::Desk;

/// A clock that goes when it is told to.
struct HandClock(watch::Sender<Tick>);

#[async_trait]
impl Clock for HandClock {
    fn now(&self) -> Now {
        Now { tick: *self.0.borrow(), wall: WallTime(0), slept: std::time::Duration::ZERO }
    }

    async fn until(&self, tick: Tick) {
        self.0.subscribe().wait_for(|now| *now >= tick).await.unwrap();
    }
}

struct Stage {
    clock: Arc<HandClock>,
    severed: watch::Sender<Severed>,
    view: watch::Sender<Arc<SessionView>>,
    mailbox: mpsc::Receiver<Message>,
    handle: Handle,
}

fn id() -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(7))
}

fn view(generation: u64, position: u64, peers: u32) -> SessionView {
    serde_json::from_value(json!({
        "id": id(), "generation": generation, "position": position, "title": "t", "kind": "notebook", "path": null,
        "created_at": 1, "closed_at": null, "state": "idle",
        "runtime": {
            "id": id(), "incarnation": 1, "name": "k", "state": {"state": "down"}, "pid": null, "since": 0,
        },
        "runs": {"queued": 0, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0},
        "current": null, "question": null, "last_report": null, "save_problem": null, "peers": peers,
    }))
    .unwrap()
}

impl Stage {
    fn new() -> Self {
        let clock = Arc::new(HandClock(watch::Sender::new(Tick(0))));
        let (mut handle, Desk { view: shown, .. }) = Handle::new(view(1, 10, 0), Tick(0));
        let (asks, mailbox) = mpsc::channel(1);
        handle.mailbox = asks;
        Self { clock, severed: watch::Sender::new(None), view: shown, mailbox, handle }
    }

    fn watch(&self, from: From) -> Events {
        let how = AttachSession { from, interactive: false, follow: true, outputs: false };
        let severed = self.severed.subscribe();
        attach(Arc::clone(&self.clock) as Arc<dyn Clock>, severed, &self.handle, how)
    }

    fn change(&self, position: u64) {
        let path = format!("/{position}.ipynb");
        let event = StreamEvent::PathChanged { session: id(), path, why: PathWhy::Saved };
        self.handle.feed.publish(Position(position), vec![event]);
    }

    fn show(&self, view: SessionView) {
        self.view.send_replace(Arc::new(view));
    }
}

/// What a watcher is told without waiting: names, with generation or cursor.
fn told(events: &mut Events) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(Some(Delivered { cursor, event })) = events.next().now_or_never() {
        let detail = match event {
            StreamEvent::Session { session } => session.generation.to_string(),
            StreamEvent::Problem { problem } => problem.code,
            StreamEvent::Gap { skipped } => skipped.to_string(),
            _ => cursor.unwrap_or_default(),
        };
        all.push(detail);
    }
    all
}

#[tokio::test]
async fn a_view_comes_after_what_led_to_it_and_an_old_one_never() {
    let stage = Stage::new();
    let mut events = stage.watch(From::Head);
    assert_eq!(told(&mut events), ["1"]);
    stage.change(11);
    stage.change(12);
    stage.show(view(3, 12, 0));
    stage.change(13);
    assert_eq!(told(&mut events), ["11", "12", "13", "3"]);
    stage.show(view(3, 12, 0));
    assert_eq!(told(&mut events), Vec::<String>::new(), "the same again is nothing");
    stage.show(view(4, 13, 0));
    assert_eq!(told(&mut events), ["4"]);
}

#[tokio::test]
async fn others_who_come_and_go_are_told_once_in_a_while_and_never_hold_up_the_rest() {
    let stage = Stage::new();
    let mut events = stage.watch(From::Head);
    assert_eq!(told(&mut events), ["1"]);
    for peers in 1..=100 {
        stage.show(view(1 + u64::from(peers), 10, peers));
        assert_eq!(told(&mut events), Vec::<String>::new());
    }
    stage.clock.0.send_replace(Tick(0) + Duration::from_millis(PEERS_SHOWN_MS));
    assert_eq!(told(&mut events), ["101"], "a hundred that came are one event");
    stage.show(view(102, 10, 99));
    stage.show(SessionView { title: "other".to_owned(), ..view(103, 10, 99) });
    assert_eq!(told(&mut events), ["103"], "at once");
}

#[tokio::test]
async fn a_place_that_is_at_hand_is_gone_on_from() {
    let stage = Stage::new();
    for position in 11..=14 {
        stage.change(position);
    }
    stage.show(view(5, 14, 0));
    assert_eq!(told(&mut stage.watch(From::After(Position(12)))), ["5", "13", "14"]);
    assert_eq!(told(&mut stage.watch(From::After(Position(14)))), ["5"]);
    let mut lost = stage.watch(From::After(Position(9)));
    assert_eq!(told(&mut lost), ["5"], "so many positions are not at hand; the runs are asked for");
    assert_eq!(stage.handle.mailbox.capacity(), 0);
}

#[tokio::test]
async fn a_task_that_ends_without_the_sessions_end_is_told() {
    let mut stage = Stage::new();
    let mut events = stage.watch(From::Head);
    assert_eq!(told(&mut events), ["1"]);
    stage.change(11);
    stage.mailbox.close();
    drop(stage.view);
    assert_eq!(told(&mut events), ["11", "session-away"]);
    assert_eq!(stage.handle.peers.attached(), 0, "it has left");
}

#[tokio::test]
async fn who_watches_a_node_that_is_cut_off_is_told_at_once_and_leaves() {
    let stage = Stage::new();
    let mut events = stage.watch(From::Head);
    assert_eq!(told(&mut events), ["1"]);
    stage.severed.send_replace(Some(Arc::new(crate::problem::node_isolated())));
    assert_eq!(told(&mut events), ["node-isolated"]);
    drop(events);
    assert_eq!(stage.handle.peers.attached(), 0, "it has left");
}

#[tokio::test]
async fn a_busy_session_is_said_to_be_so() {
    let stage = Stage::new();
    let mut first = stage.watch(From::After(Position(5)));
    assert_eq!(told(&mut first), ["5"]);
    let mut second = stage.watch(From::After(Position(5)));
    assert_eq!(told(&mut second), ["5", "busy"]);
}
