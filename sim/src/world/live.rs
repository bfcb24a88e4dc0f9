//! How a client edits a notebook live: as over a WebSocket, frames go both ways, each in its order, until one side ends.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use outlive_core::id::SessionId;
use outlive_core::time::Tick;
use outlive_node::Node;
use outlive_node::api::Api as _;
use outlive_node::session::peers::{DocumentPeer, Outgoing, PeerInput, PeerOutput};
use outlive_protocol::http::Problem;
use tokio::sync::mpsc;

use super::World;
use super::door::{AsyncAsked, Called};
use crate::schedule::{Life, Place};
use crate::seed::Random;

/// What a client hears.
#[derive(Debug)]
pub enum Heard {
    /// A frame of the y-sync and awareness protocols.
    Frame(Bytes),
    /// It was behind; all follows.
    Gap,
    /// It is let go.
    Cut(Problem),
}

/// A client's end of the connection. When it is dropped the node hears of that, at once or after a while.
pub struct Live {
    world: Arc<World>,
    /// The node's life that it is connected to.
    pub life: Life,
    frames: Option<mpsc::UnboundedSender<Bytes>>,
    heard: mpsc::UnboundedReceiver<Heard>,
    luck: Random,
    last: Tick,
}

impl Live {
    /// Sends a frame.
    pub fn send(&mut self, frame: Vec<u8>) {
        let Some(frames) = self.frames.clone() else { return };
        let at = self.arrives();
        // Nobody may be there any more.
        let deed = move || drop(frames.send(Bytes::from(frame)));
        self.world.schedule.at(at, Place::Node(self.life), deed);
    }

    /// What comes next; `None` when the connection has ended.
    pub async fn next(&mut self) -> Option<Heard> {
        self.heard.recv().await
    }

    fn arrives(&mut self) -> Tick {
        let wait = self.luck.micros(30..500);
        self.last = (self.world.schedule.now() + wait).max(self.last + Duration::from_nanos(1));
        self.last
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let frames = self.frames.take();
        let mut at = self.arrives();
        // A network that just ends says nothing: that is noticed by the next ping.
        if self.luck.happens(150) {
            at = at + self.luck.millis(1..2_000);
        }
        self.world.schedule.at(at, Place::Node(self.life), move || drop(frames));
    }
}

impl World {
    /// Joins those who edit a notebook live.
    pub async fn join(
        self: &Arc<Self>,
        node: usize,
        luck: &mut Random,
        session: SessionId,
    ) -> Called<Result<Live, Problem>> {
        let (frames, sent) = mpsc::unbounded_channel();
        let (to, heard) = mpsc::unbounded_channel();
        let Some(life) = self.life(node) else { return Called::Nobody };
        let (world, way) = (Arc::clone(self), Random::new(luck.number()));
        let luck_of_live = Random::new(luck.number());
        let last = self.schedule.now();
        let way = Way { world, life, to, luck: way, last };
        let live =
            Live { world: Arc::clone(self), life, frames: Some(frames), heard, luck: luck_of_live, last };
        match self.call(node, luck, Join { session, sent, way }).await {
            Called::Answered(Ok(())) => Called::Answered(Ok(live)),
            Called::Answered(Err(problem)) => Called::Answered(Err(problem)),
            Called::Nobody => Called::Nobody,
            Called::Lost => Called::Lost,
        }
    }
}

/// The way from the node to the client.
struct Way {
    world: Arc<World>,
    life: Life,
    to: mpsc::UnboundedSender<Heard>,
    luck: Random,
    last: Tick,
}

impl Way {
    fn say(&mut self, heard: Heard) {
        let wait = self.luck.micros(30..500);
        self.last = (self.world.schedule.now() + wait).max(self.last + Duration::from_nanos(1));
        let to = self.to.clone();
        self.world.schedule.at(self.last, Place::Clients, move || drop(to.send(heard)));
    }
}

struct Join {
    session: SessionId,
    sent: mpsc::UnboundedReceiver<Bytes>,
    way: Way,
}

impl AsyncAsked<Result<(), Problem>> for Join {
    async fn ask(self, node: Arc<Node>) -> Result<(), Problem> {
        let Self { session, sent, way } = self;
        let peer = node.document(session).await?;
        let tasks = way.world.door(way.life.node).tasks.clone();
        if let Some(tasks) = tasks {
            drop(tasks.spawn(carry(peer, sent, way)));
        }
        Ok(())
    }
}

/// Carries frames both ways until one side ends.
async fn carry(peer: DocumentPeer, sent: mpsc::UnboundedReceiver<Bytes>, way: Way) {
    let DocumentPeer { input, output } = peer;
    tokio::select! {
        biased;
        () = tell(output, way) => {}
        () = listen(&input, sent) => {}
    }
}

async fn tell(mut output: PeerOutput, mut way: Way) {
    while let Some(next) = output.next().await {
        way.say(match next {
            Outgoing::Frame(frame) => Heard::Frame(frame),
            Outgoing::Gap { .. } => Heard::Gap,
            Outgoing::Cut(problem) => Heard::Cut(problem),
        });
    }
}

async fn listen(input: &PeerInput, mut sent: mpsc::UnboundedReceiver<Bytes>) {
    while let Some(frame) = sent.recv().await {
        if input.send(frame).await.is_err() {
            // It was let go; why is the last that it is told.
            return std::future::pending().await;
        }
    }
}
