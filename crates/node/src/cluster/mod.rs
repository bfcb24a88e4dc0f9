//! Several nodes on one store: who is there, who owns what, and what happens when somebody is lost.
//!
//! | file | holds |
//! |---|---|
//! | `membership` | heartbeats: who is alive, driven by `core::failover` |
//! | `directory` | which node owns which session, as the table of sessions says |
//! | `takeover` | claiming what a lost node had |
//! | `isolation` | what a node does that is cut off |
//! | `owned` | whether a session that is open here is still ours |
//! | `drain` | giving everything away |
//! | `paths` | claims of paths in the cluster's store |
//! | `unreachable` | the file of a notebook that only other nodes reach |
//! | `elsewhere` | what is said of a session that another node has |
//! | `fenced` | the processes of a session that is not ours any more |
//! | [`follow`] | the live tails of sessions that other nodes write |
//! | `view` | the cluster for people: its nodes, and what `doctor` says |
//! | `clients` | what clients of this node are told of itself and the others |

mod clients;
pub mod directory;
pub(crate) mod drain;
mod elsewhere;
pub(crate) mod fenced;
pub mod follow;
mod isolation;
pub mod membership;
pub(crate) mod owned;
pub(crate) mod paths;
pub(crate) mod takeover;
pub(crate) mod unreachable;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outlive_core::failover::Member;
use outlive_core::id::NodeId;
use outlive_core::time::{Tick, WallTime};
use outlive_protocol::http::{NodeState, TakeoverView};
use outlive_store::Transport;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

pub use outlive_core::failover::liveness::Why;

use crate::context::Context;
use directory::Directory;
use takeover::Takeovers;

/// Notices that a slow listener may be behind.
const NOTICES_MAX: usize = 1_024;

/// What a node that is cut off does with what runs on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnIsolation {
    /// It is frozen, and goes on where it was if the session is still ours when the store is back.
    #[default]
    Freeze,
    /// It runs on; its effects may overlap with those of the node that takes over.
    Continue,
    /// It is stopped.
    Stop,
}

/// What makes a node one of several.
#[derive(Clone)]
pub struct Settings {
    /// Its name, which no other living node has.
    pub name: String,
    /// Where others and clients reach its API.
    pub url: Option<String>,
    /// The way to the other nodes.
    pub transport: Arc<dyn Transport>,
    /// Where heartbeats are sent, heard and judged, if not among all the other work: a thread that does nothing else is
    /// never late because the daemon is busy.
    pub heart: Option<Handle>,
    /// How long a session with a live kernel is left to its node after that node's death: a crashed daemon is back in a
    /// moment, with its shims alive.
    pub kernel_grace: Duration,
    /// What a node that is cut off does with what runs on it.
    pub on_isolation: OnIsolation,
    /// Directories that all nodes share, by their names: where each is on this machine.
    pub volumes: BTreeMap<String, PathBuf>,
    /// Heartbeats over a wide area: slower and more patient.
    pub is_wide: bool,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("name", &self.name).field("url", &self.url).finish_non_exhaustive()
    }
}

/// A member as this node sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// Where its API is.
    pub url: Option<String>,
    /// Its version.
    pub version: String,
    /// How it stands.
    pub state: NodeState,
    /// Since when.
    pub since: WallTime,
    /// When it was heard last.
    pub heard: Option<Tick>,
    /// Its clock less ours, in milliseconds.
    pub clock_skew_ms: i64,
}

impl Seen {
    /// Whether it can be asked something, and may claim something.
    #[must_use]
    pub const fn is_alive(&self) -> bool {
        matches!(self.state, NodeState::Alive | NodeState::Suspected | NodeState::Draining)
    }

    /// Whether it is no more. One that is joining, or is cut off and says so, is there and keeps what it has.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        matches!(self.state, NodeState::Dead | NodeState::Left)
    }
}

/// The members, as this node sees them now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Members {
    /// Those that are there, and those that were lost or left lately.
    pub seen: BTreeMap<Member, Seen>,
    /// Why nobody is suspected now.
    pub guard: Option<String>,
}

impl Members {
    /// The present life of a node.
    #[must_use]
    pub fn of(&self, node: NodeId) -> Option<(&Member, &Seen)> {
        self.seen.iter().find(|(member, seen)| member.node == node && seen.is_alive())
    }

    /// Those that may take something over, in order.
    pub fn alive(&self) -> impl Iterator<Item = (&Member, &Seen)> {
        self.seen.iter().filter(|(_, seen)| seen.is_alive())
    }
}

/// How this node stands with the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It does not hear its own heartbeats yet, or does not watch the others.
    Joining,
    /// It is one of them.
    Ready,
    /// It is cut off, or its store is silent: watchers are closed, runtimes frozen.
    Isolated {
        /// Since when.
        since: Tick,
    },
    /// It is back, and finds out what is still its own.
    Reuniting,
    /// It gives everything away.
    Draining,
}

/// What became of a member. Told once for each member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lost {
    /// Who.
    pub member: Member,
    /// Its name.
    pub name: String,
    /// How it was noticed.
    pub why: Why,
    /// When it was heard last.
    pub heard: Option<WallTime>,
    /// When that was noticed.
    pub at: Tick,
}

/// One of several nodes. What its parts share; each of them writes what its own page says and reads the rest.
#[derive(Debug)]
pub struct Cluster {
    /// This node, in this life.
    pub me: Member,
    /// What it was started with.
    pub settings: Settings,
    /// Who is there, this node too. Written by `membership` alone.
    pub members: watch::Sender<Arc<Members>>,
    /// How this node stands. Written by `membership`, and by `drain` when it begins.
    pub standing: watch::Sender<Standing>,
    /// Its own heartbeats do not come back. Written by `membership` alone.
    out_of_touch: AtomicBool,
    /// Each loss, once. Sent by `membership` alone.
    pub lost: broadcast::Sender<Lost>,
    /// Which node has which session.
    pub directory: Directory,
    /// The latest takeovers of this node, the latest last; at most [`TAKEOVERS_SHOWN_MAX`].
    taken_over: Mutex<VecDeque<TakeoverView>>,
    /// The directories that nodes share, by their names, links resolved.
    volumes: BTreeMap<String, PathBuf>,
    /// All is given away: goodbye is to be said.
    leaving: CancellationToken,
    /// It is said, or nobody is left to say it.
    left: CancellationToken,
}

impl Cluster {
    /// A node that has not joined yet.
    #[must_use]
    pub fn new(me: Member, settings: Settings) -> Self {
        // Paths of notebooks are compared with their links resolved.
        let resolved = |root: &PathBuf| root.canonicalize().unwrap_or_else(|_| root.clone());
        let volumes = settings.volumes.iter().map(|(name, root)| (name.clone(), resolved(root))).collect();
        Self {
            me,
            settings,
            volumes,
            members: watch::Sender::new(Arc::default()),
            standing: watch::Sender::new(Standing::Joining),
            out_of_touch: AtomicBool::new(false),
            lost: broadcast::Sender::new(NOTICES_MAX),
            leaving: CancellationToken::new(),
            left: CancellationToken::new(),
            directory: Directory::default(),
            taken_over: Mutex::default(),
        }
    }
}

/// Follows the table of sessions from now on, as long as the node lives.
pub(crate) fn arm(context: &Arc<Context>) {
    if let Some(cluster) = &context.cluster {
        context.tasks.spawn(directory::keep_current(Arc::clone(context), Arc::clone(cluster)));
        context.tasks.spawn(owned::give_up_moved(Arc::clone(context), Arc::clone(cluster)));
    }
}

/// Takes over what lost nodes had from now on, and lists what is open here.
pub(crate) fn serve(context: &Arc<Context>) {
    if let Some(cluster) = &context.cluster {
        context.tasks.spawn(Takeovers::new(context, cluster).run());
        context.tasks.spawn(directory::keep_listed(Arc::clone(context)));
    }
}

#[cfg(test)]
mod tests;
