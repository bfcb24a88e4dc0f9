//! Those who edit a notebook live: what each sends, and a queue of what each is sent, bounded by bytes.
//!
//! ```text
//!  PeerInput ── frames, by credit ──► arriving ─┐
//!                                               ├─► the session's task
//!  PeerOutput ◄── Queue ◄── send, to others ────┘
//!       └── "left", "I have read the gap" ──► Bell ──►
//! ```
//!
//! A peer that reads too slowly never makes anybody wait: its queue is emptied ([`Phase::Behind`]), it is told so when it
//! reads again ([`Phase::Told`]), and then the session puts all that it lacks into the queue. Who takes nothing at all is
//! cut.

mod queue;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use outlive_core::id::SessionId;
use outlive_core::limits::{
    PEER_FRAME_BYTES_MAX, PEER_FRAME_BYTES_MIN, PEER_FRAMES_MAX, PEER_ROUND_FRAMES_MAX, PEER_STALL_MS,
    PEERS_INPUT_BYTES_MAX, PEERS_MAX,
};
use outlive_core::time::Tick;
use outlive_protocol::http::Problem;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use super::handle::Peer;
use crate::seams::Clock;
use queue::{Phase, Queue, Taken};

/// A place among those who edit a notebook live. Dropping it leaves, and so does dropping one of its halves.
#[derive(Debug)]
pub struct DocumentPeer {
    /// To the session: frames of the y-sync and awareness protocols.
    pub input: PeerInput,
    /// From the session.
    pub output: PeerOutput,
}

/// The way to the session.
#[derive(Debug)]
pub struct PeerInput {
    seat: Seat,
    frames: mpsc::Sender<Arrival>,
    /// What all peers of the session may still send, in bytes.
    room: Arc<Semaphore>,
}

impl PeerInput {
    /// Sends a frame; waits while the session is busy.
    ///
    /// # Errors
    /// When the session has let this peer go, for the reason that [`PeerOutput::next`] says too.
    pub async fn send(&self, frame: Bytes) -> Result<(), Problem> {
        let queue = &self.seat.queue;
        if frame.len() > PEER_FRAME_BYTES_MAX {
            let problem = too_large(queue.session, frame.len());
            queue.cut(problem.clone());
            self.seat.leave();
            return Err(problem);
        }
        let cost = frame.len().max(PEER_FRAME_BYTES_MIN);
        let cost = u32::try_from(cost).expect("a frame is some megabytes at most");
        let own = Arc::clone(&queue.credit).acquire_many_owned(cost).await;
        let of_all = Arc::clone(&self.room).acquire_many_owned(cost).await;
        let (Ok(own), Ok(of_all)) = (own, of_all) else { return Err(queue.why_cut()) };
        let arrival = Arrival { peer: self.seat.id, frame, queue: Arc::clone(queue), _credit: [own, of_all] };
        self.frames.send(arrival).await.map_err(|_| queue.why_cut())
    }
}

/// The way from the session.
#[derive(Debug)]
pub struct PeerOutput {
    seat: Seat,
}

impl PeerOutput {
    /// What comes next; `None` after [`Outgoing::Cut`]. Cancel-safe.
    pub async fn next(&mut self) -> Option<Outgoing> {
        loop {
            match self.seat.queue.take() {
                Taken::Next(next) => {
                    if matches!(next, Outgoing::Gap { .. }) {
                        self.seat.bell.ring(self.seat.id);
                    }
                    return Some(next);
                }
                Taken::Over => return None,
                Taken::Nothing => self.seat.queue.filled.notified().await,
            }
        }
    }
}

/// What a peer is sent.
#[derive(Debug)]
pub enum Outgoing {
    /// A frame of the y-sync and awareness protocols.
    Frame(Bytes),
    /// The peer fell behind and so many bytes were not sent to it: all that the notebook holds follows.
    Gap {
        /// In bytes.
        skipped: u64,
    },
    /// The last: the peer is let go for this reason.
    Cut(Problem),
}

/// Names a peer within its session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct PeerId(u64);

/// A frame with the peer that sent it. What it takes of the peer's credit, and of all peers', is given back when it is
/// dropped.
#[derive(Debug)]
pub(super) struct Arrival {
    pub peer: PeerId,
    pub frame: Bytes,
    queue: Arc<Queue>,
    _credit: [OwnedSemaphorePermit; 2],
}

impl Arrival {
    /// Whether the peer was cut after it had sent this. What somebody sent who has left meanwhile counts.
    pub fn is_void(&self) -> bool {
        self.queue.is_cut()
    }
}

/// What the session's task has to do for its peers.
#[derive(Debug)]
pub(super) enum Wish {
    /// Take these frames, in this order.
    Frames(Vec<Arrival>),
    /// These have left.
    Left(Vec<PeerId>),
    /// This one has read that it fell behind: [`LivePeers::refill`] it.
    Refill(PeerId),
}

/// All who edit one notebook live, as its session's task has them. Dropping it cuts them all.
pub(super) struct LivePeers {
    session: SessionId,
    clock: Arc<dyn Clock>,
    members: BTreeMap<PeerId, Arc<Queue>>,
    next: u64,
    frames: mpsc::Sender<Arrival>,
    room: Arc<Semaphore>,
    arriving: mpsc::Receiver<Arrival>,
    bell: Arc<Bell>,
    /// When it is next looked whether somebody takes nothing.
    look_at: Option<Tick>,
    farewell: Problem,
}

impl LivePeers {
    /// Nobody yet.
    pub fn new(session: SessionId, clock: Arc<dyn Clock>) -> Self {
        let (frames, arriving) = mpsc::channel(PEER_FRAMES_MAX);
        let farewell = Problem::new(
            503,
            "session-broken",
            "The session cannot go on",
            format!("session {session} cannot go on"),
        )
        .hint("`outlive doctor` says why; join again when it is repaired");
        Self {
            session,
            clock,
            members: BTreeMap::new(),
            next: 0,
            frames,
            room: Arc::new(Semaphore::new(PEERS_INPUT_BYTES_MAX)),
            arriving,
            bell: Arc::default(),
            look_at: None,
            farewell,
        }
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether this one is.
    pub fn is_there(&self, peer: PeerId) -> bool {
        self.members.contains_key(&peer)
    }

    /// One more. It counts as attached until it leaves.
    ///
    /// # Errors
    /// `too-many-peers`.
    pub fn join(&mut self, attendance: Peer) -> Result<(PeerId, DocumentPeer), Problem> {
        if self.members.len() >= PEERS_MAX {
            let detail = format!("{PEERS_MAX} peers edit the notebook of session {} already", self.session);
            return Err(Problem::new(429, "too-many-peers", "Too many edit the notebook live", detail)
                .hint("read the notebook without joining, or join when somebody has left"));
        }
        let id = PeerId(self.next);
        self.next += 1;
        let queue = Arc::new(Queue::new(self.session, Arc::clone(&self.clock), attendance));
        self.members.insert(id, Arc::clone(&queue));
        let seat = || Seat { id, queue: Arc::clone(&queue), bell: Arc::clone(&self.bell) };
        let input = PeerInput { seat: seat(), frames: self.frames.clone(), room: Arc::clone(&self.room) };
        Ok((id, DocumentPeer { input, output: PeerOutput { seat: seat() } }))
    }

    /// What is to be done next. Cancel-safe; who takes nothing is cut meanwhile.
    pub async fn next(&mut self) -> Wish {
        loop {
            if let Some(wish) = self.called() {
                return wish;
            }
            let (clock, look_at) = (Arc::clone(&self.clock), self.look_at);
            tokio::select! {
                biased;
                () = self.bell.rung.notified() => {}
                () = async {
                    match look_at {
                        Some(at) => clock.until(at).await,
                        None => std::future::pending().await,
                    }
                } => {
                    if let Some(left) = self.cut_the_stalled() {
                        return left;
                    }
                }
                Some(first) = self.arriving.recv() => {
                    let mut frames = vec![first];
                    while frames.len() < PEER_ROUND_FRAMES_MAX
                        && let Ok(frame) = self.arriving.try_recv()
                    {
                        frames.push(frame);
                    }
                    return Wish::Frames(frames);
                }
            }
        }
    }

    fn called(&mut self) -> Option<Wish> {
        while let Some(id) = self.bell.answer() {
            let Some(queue) = self.members.get(&id) else { continue };
            match queue.phase() {
                Phase::Flowing | Phase::Behind { .. } => {}
                Phase::Told => return Some(Wish::Refill(id)),
                Phase::Left | Phase::Cut { .. } => {
                    self.members.remove(&id);
                    return Some(Wish::Left(vec![id]));
                }
            }
        }
        None
    }

    /// Puts a frame into one queue.
    pub fn send(&mut self, to: PeerId, frame: Bytes) {
        if let Some(queue) = self.members.get(&to) {
            queue.push(frame);
            self.look_later();
        }
    }

    /// Puts a frame into everybody's queue but that of the one it is from.
    pub fn relay(&mut self, from: Option<PeerId>, frame: &Bytes) {
        for (_, queue) in self.members.iter().filter(|(id, _)| Some(**id) != from) {
            queue.push(frame.clone());
        }
        self.look_later();
    }

    /// All that a peer lacks that was told of a gap. However large it is, it is no gap again.
    pub fn refill(&mut self, to: PeerId, frames: Vec<Bytes>) {
        if let Some(queue) = self.members.get(&to) {
            queue.refill(frames);
            self.look_later();
        }
    }

    /// Lets a peer go. Whether it was there.
    pub fn cut(&mut self, peer: PeerId, problem: Problem) -> bool {
        self.members.remove(&peer).is_some_and(|queue| {
            queue.cut(problem);
            true
        })
    }

    /// What the last of them are told when this is dropped.
    pub fn part_with(&mut self, farewell: Problem) {
        self.farewell = farewell;
    }

    fn look_later(&mut self) {
        if self.look_at.is_none() && !self.members.is_empty() {
            self.look_at = Some(self.clock.now().tick + STALL);
        }
    }

    fn cut_the_stalled(&mut self) -> Option<Wish> {
        let now = self.clock.now().tick;
        let waiting = |queue: &Queue| queue.waits_since();
        let stalled: Vec<_> = self
            .members
            .iter()
            .filter(|(_, queue)| waiting(queue).is_some_and(|since| since + STALL <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in &stalled {
            let problem = slow_peer(self.session);
            tracing::info!(session = %self.session, "a peer takes nothing and is let go");
            self.cut(*id, problem);
        }
        self.look_at =
            self.members.values().filter_map(|queue| waiting(queue)).min().map(|since| since + STALL);
        (!stalled.is_empty()).then_some(Wish::Left(stalled))
    }
}

impl Drop for LivePeers {
    fn drop(&mut self) {
        for queue in self.members.values() {
            queue.cut(self.farewell.clone());
        }
        self.room.close();
    }
}

const STALL: Duration = Duration::from_millis(PEER_STALL_MS);

/// One half of a peer's place.
#[derive(Debug)]
struct Seat {
    id: PeerId,
    queue: Arc<Queue>,
    bell: Arc<Bell>,
}

impl Seat {
    fn leave(&self) {
        self.queue.leave();
        self.bell.ring(self.id);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Peers that want something of the session's task; each stands in it once.
#[derive(Debug, Default)]
struct Bell {
    calling: Mutex<BTreeSet<PeerId>>,
    rung: Notify,
}

impl Bell {
    fn ring(&self, peer: PeerId) {
        self.calling.lock().expect("nothing panics while it holds the bell").insert(peer);
        self.rung.notify_one();
    }

    fn answer(&self) -> Option<PeerId> {
        self.calling.lock().expect("nothing panics while it holds the bell").pop_first()
    }
}

fn too_large(session: SessionId, bytes: usize) -> Problem {
    Problem::new(
        413,
        "message-too-large",
        "The update is too large",
        format!("{bytes} bytes were sent at once to the notebook of session {session}; {PEER_FRAME_BYTES_MAX} may be"),
    )
    .hint("send it in smaller pieces, or put large data into files beside the notebook")
}

fn slow_peer(session: SessionId) -> Problem {
    Problem::new(
        408,
        "slow-peer",
        "The peer does not read",
        format!("for {} s nothing was taken of what session {session} had to send", PEER_STALL_MS / 1_000),
    )
    .hint("join again: nothing is lost, the notebook comes whole")
}
