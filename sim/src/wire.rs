//! The network: from each node to the service in the middle, and through it to the other nodes.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use outlive_core::id::NodeId;
use outlive_store::transport::HEARD_MAX;
use outlive_store::{Connection, Heard, Topic, Transport};
use tokio::sync::{mpsc, watch};

use crate::schedule::{Life, Place};
use crate::world::{World, node_id};

/// What goes wrong with messages between nodes. Numbers are times in a thousand.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// It never arrives.
    pub lost: u64,
    /// It arrives twice.
    pub twice: u64,
    /// How long it takes at most, in microseconds: what takes longer is overtaken.
    pub slow_us: u64,
}

/// How a node is cut off.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cut {
    /// Nothing of what it says arrives.
    Out,
    /// It hears nothing.
    In,
}

/// Who can reach whom.
#[derive(Default)]
pub struct Wire(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    faults: Faults,
    cuts: BTreeSet<(usize, Cut)>,
    /// From, to: the second does not hear the first.
    deaf: BTreeSet<(usize, usize)>,
    listeners: Vec<Listener>,
    connections: Vec<(Life, watch::Sender<Connection>)>,
}

struct Listener {
    life: Life,
    topic: Topic,
    to: mpsc::Sender<Heard>,
}

impl Wire {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nothing panics while it holds the wire")
    }

    /// From now on this goes wrong.
    pub fn suffer(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// Whether what the node says arrives.
    pub fn goes_out(&self, node: usize) -> bool {
        !self.lock().cuts.contains(&(node, Cut::Out))
    }

    /// Whether the node hears anything.
    pub fn comes_in(&self, node: usize) -> bool {
        !self.lock().cuts.contains(&(node, Cut::In))
    }

    /// Whether it is reached both ways.
    pub fn reaches(&self, node: usize) -> bool {
        self.goes_out(node) && self.comes_in(node)
    }

    /// Whether the node's own end of the connection thinks that it stands.
    pub fn is_connected(&self, node: usize) -> bool {
        let inner = self.lock();
        let mut all = inner.connections.iter().filter(|(life, _)| life.node == node);
        all.all(|(_, connection)| *connection.borrow() == Connection::Up)
    }

    /// A node is cut off.
    pub fn cut(&self, world: &Arc<World>, node: usize, how: &[Cut]) {
        self.lock().cuts.extend(how.iter().map(|cut| (node, *cut)));
        world.tell(None, format_args!("n{node} is cut off: {how:?}"));
        self.notice(world, node);
    }

    /// It is connected again.
    pub fn mend(&self, world: &Arc<World>, node: usize) {
        self.lock().cuts.retain(|(cut, _)| *cut != node);
        world.tell(None, format_args!("n{node} is connected again"));
        self.notice(world, node);
    }

    /// One node does not hear another any more.
    pub fn deafen(&self, from: usize, to: usize) {
        self.lock().deaf.insert((from, to));
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self, world: &Arc<World>) {
        let nodes: BTreeSet<usize> = {
            let mut inner = self.lock();
            inner.faults = Faults::default();
            inner.deaf.clear();
            inner.cuts.iter().map(|(node, _)| *node).collect()
        };
        for node in nodes {
            self.mend(world, node);
        }
    }

    /// A life is over.
    pub fn forget(&self, life: Life) {
        let mut inner = self.lock();
        inner.listeners.retain(|listener| listener.life != life);
        inner.connections.retain(|(of, _)| *of != life);
    }

    /// Sooner or later a node notices how its connection is.
    fn notice(&self, world: &Arc<World>, node: usize) {
        let lives: Vec<_> =
            self.lock().connections.iter().map(|(life, _)| *life).filter(|life| life.node == node).collect();
        for life in lives {
            let mut random = world.seed.draw(("notice", life));
            let wait = if self.reaches(node) { random.millis(2..120) } else { random.millis(5..1_500) };
            let (schedule, world) = (world.schedule.clone(), Arc::clone(world));
            schedule.after(wait, Place::Node(life), move || world.wire.noticed(&world, life));
        }
    }

    fn noticed(&self, world: &Arc<World>, life: Life) {
        let now = if self.reaches(life.node) {
            Connection::Up
        } else {
            Connection::Down { why: "the made-up wire is cut".to_owned() }
        };
        let changed = {
            let inner = self.lock();
            let connection = inner.connections.iter().find(|(of, _)| *of == life);
            connection.is_some_and(|(_, connection)| {
                connection.send_if_modified(|before| std::mem::replace(before, now.clone()) != now)
            })
        };
        if changed && now == Connection::Up {
            let listeners: Vec<_> = {
                let inner = self.lock();
                inner.listeners.iter().filter(|one| one.life == life).map(|one| one.to.clone()).collect()
            };
            for listener in listeners {
                drop(listener.try_send(Heard::Gap));
            }
        }
        if now == Connection::Up {
            // Of a short cut too: what could not be sent is sent then.
            world.store.rearm(world, life);
        }
    }

    fn send(&self, world: &Arc<World>, from: Life, topic: Topic, message: &Bytes) {
        if !self.goes_out(from.node) {
            return;
        }
        let (faults, listeners) = {
            let mut inner = self.lock();
            inner.listeners.retain(|listener| !listener.to.is_closed());
            let hears = |listener: &&Listener| {
                listener.topic == topic && !inner.deaf.contains(&(from.node, listener.life.node))
            };
            let listeners: Vec<_> =
                inner.listeners.iter().filter(hears).map(|one| (one.life, one.to.clone())).collect();
            (inner.faults.clone(), listeners)
        };
        for (life, to) in listeners {
            let mut random = world.seed.draw(("message", from.node, life.node));
            if random.happens(faults.lost) {
                continue;
            }
            let copies = if random.happens(faults.twice) { 2 } else { 1 };
            for _ in 0..copies {
                let wait = random.micros(20..faults.slow_us.max(300));
                let (to, message, reached) = (to.clone(), message.clone(), Arc::clone(world));
                world.schedule.after(wait, Place::Node(life), move || {
                    if reached.wire.comes_in(life.node) {
                        // One that does not keep up loses it, as it may.
                        drop(to.try_send(Heard::Message(message)));
                    }
                });
            }
        }
    }
}

/// The network, as one life of a node reaches it.
pub struct Reached {
    world: Arc<World>,
    life: Life,
    connection: watch::Receiver<Connection>,
}

impl Reached {
    /// The network, for this life of a node.
    #[must_use]
    pub fn new(world: Arc<World>, life: Life) -> Self {
        let (connection, connected) = watch::channel(Connection::Up);
        world.wire.lock().connections.push((life, connection));
        world.wire.notice(&world, life.node);
        Self { world, life, connection: connected }
    }
}

impl fmt::Debug for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reached").field("life", &self.life).finish_non_exhaustive()
    }
}

impl Transport for Reached {
    fn send(&self, topic: Topic, message: Bytes) {
        self.world.wire.send(&self.world, self.life, topic, &message);
    }

    fn listen(&self, topic: Topic) -> mpsc::Receiver<Heard> {
        let (to, heard) = mpsc::channel(HEARD_MAX);
        let is_mine = |node: NodeId| node == node_id(self.life.node);
        assert!(
            !matches!(topic, Topic::Node(node) if !is_mine(node)),
            "a node listens to what is for it, and to nothing that is for another one"
        );
        self.world.wire.lock().listeners.push(Listener { life: self.life, topic, to });
        heard
    }

    fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.clone()
    }
}

/// How long a node may take to notice that it is connected again.
pub const NOTICED: Duration = Duration::from_millis(120);
