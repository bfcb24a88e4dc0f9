//! How everybody but its own task reaches a session.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use outlive_core::diagnosis::FailureReport;
use outlive_core::id::{NodeId, RunId, SessionId};
use outlive_core::limits::MAILBOX_MAX;
use outlive_core::log::fold::{Fold, RunFold};
use outlive_core::runtime::{StopStep, StopWhy};
use outlive_core::session::Denied;
use outlive_core::session::residence::Resident;
use outlive_core::session::spec::{StartWhen, Trust};
use outlive_core::time::{Tick, WallTime};
use outlive_protocol::http::{
    Close, EditNotebook, Edited, GroupConfig, Members, NotebookView, Opened, Problem, RunView, SaveSession,
    SessionView, SubmitRuns, SubmitTask,
};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::peers::DocumentPeer;
use super::stall::Stall;
use crate::api::MemberWish;
use crate::hosted::Hosted;
use crate::problem;
use crate::watch::feed::Feed;

/// What can be asked of a session's task.
#[derive(Debug)]
pub enum Ask {
    /// Queue work.
    Submit(SubmitRuns),
    /// Interrupt what runs.
    Interrupt,
    /// Start the runtime anew.
    Restart {
        /// Queue all cells afterwards.
        run_all: bool,
    },
    /// End the session.
    Stop {
        /// Who wants it.
        why: StopWhy,
        /// The rung to begin with.
        from: StopStep,
    },
    /// End one run.
    Cancel(RunId),
    /// Answer a run's question.
    Answer {
        /// The run that asked.
        run: RunId,
        /// What to say.
        value: String,
    },
    /// Stop the runtime and keep the session.
    Rest {
        /// Who wants it.
        why: StopWhy,
        /// The rung to begin with.
        from: StopStep,
    },
    /// The daemon ends and nothing is to go on: a notebook that people edit stays without its kernel, everything else ends.
    Drain,
    /// Give the session to another node: what runs may take so long, then it is stopped. Answered when it is given away.
    HandOver {
        /// How long a run may still take, in milliseconds.
        grace_ms: u64,
        /// The node that is meant to take it.
        to: Option<NodeId>,
    },
    /// Come in, unless it is ending: with these wishes of whoever opens it.
    Join {
        /// Whether the runtime is to be started, if it is down and may be.
        start: Option<StartWhen>,
        /// Whether they vouch for the notebook.
        trust: Option<Trust>,
    },
    /// Vouch for the notebook, or take that back.
    Trust(Trust),
    /// Something about the notebook's content.
    Document(DocumentAsk),
    /// Something about the notebook's file.
    File(FileAsk),
    /// Something that only a group of runners does.
    Group(GroupAsk),
    /// Its runs.
    Runs,
    /// One of its runs, and where a reader of it begins.
    Run(RunId),
    /// Its failures.
    Reports,
    /// All of its state, and the fold of its log that it stands on.
    State,
}

/// What can be asked of a group of runners.
#[derive(Debug)]
pub enum GroupAsk {
    /// Queue a task.
    Submit(SubmitTask),
    /// Start, stop or restart members.
    Members(MemberWish, Members),
    /// What it was made with.
    Config,
}

/// What can be asked of a notebook's content.
#[derive(Debug)]
pub enum DocumentAsk {
    /// What stands in it.
    Read {
        /// With the outputs.
        outputs: bool,
    },
    /// Change it.
    Edit(EditNotebook),
    /// The outputs of a cell.
    Outputs(String),
    /// Join those who edit it live.
    Join,
}

/// What can be asked of a notebook's file.
#[derive(Debug)]
pub enum FileAsk {
    /// Save it: where it is, for the first time, as another file, or as a copy.
    Save(SaveSession),
    /// Close the session once all is saved.
    Close(Close),
}

/// What the task answers.
#[derive(Debug)]
pub enum Answer {
    /// Done: the state afterwards.
    Done(Arc<SessionView>),
    /// The session stays; its runtime is on its way out.
    Resting,
    /// The session is given away.
    Released,
    /// The runs that were asked for or made.
    Runs(Vec<RunView>),
    /// The failures.
    Reports(Vec<FailureReport>),
    /// The state.
    State(Box<(Hosted, Fold)>),
    /// A run.
    Run(Box<KnownRun>),
    /// What a group was made with.
    Config(Box<GroupConfig>),
    /// The session after a save.
    Opened(Box<Opened>),
    /// The notebook.
    Notebook(Box<NotebookView>),
    /// What edits have made.
    Edited(Edited),
    /// Outputs in nbformat's form.
    Outputs(Vec<serde_json::Value>),
    /// A place among those who edit live.
    Joined(DocumentPeer),
}

/// A run as its session's task knows it.
#[derive(Debug)]
pub struct KnownRun {
    /// As clients see it.
    pub view: RunView,
    /// Its attempts and output so far.
    pub known: RunFold,
    /// The fold before its first record: a reader begins there.
    pub before: Fold,
}

/// A question with the way back.
#[derive(Debug)]
pub struct Message {
    /// What is asked.
    pub ask: Ask,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<Answer, Problem>>,
}

/// Who is there: clients that stay attached, and visitors who only ask something.
#[derive(Debug, Default)]
pub struct Peers {
    attached: AtomicU32,
    interactive: AtomicU32,
    visits: AtomicU32,
    /// Who only looks at something.
    looks: AtomicU32,
    /// When its idle kernel is stopped for want of room, in microseconds of wall time; 0 when it is not.
    rests_at: AtomicU64,
    /// Somebody has come or gone, or was told something.
    moved: Notify,
}

impl Peers {
    /// How many are attached.
    #[must_use]
    pub fn attached(&self) -> u32 {
        self.attached.load(Ordering::Acquire)
    }

    /// How many are attached or ask something.
    #[must_use]
    pub fn there(&self) -> u32 {
        self.attached().saturating_add(self.visits.load(Ordering::Acquire))
    }

    /// Whether nobody is there, not even to look.
    #[must_use]
    pub fn is_deserted(&self) -> bool {
        self.there() == 0 && self.looks.load(Ordering::Acquire) == 0
    }

    const fn count(&self, why: Visiting) -> &AtomicU32 {
        match why {
            Visiting::ToAsk => &self.visits,
            Visiting::ToLook => &self.looks,
        }
    }

    /// Returns when somebody has come or gone since the last call. Cancel-safe.
    pub async fn moved(&self) {
        self.moved.notified().await;
    }

    /// Tells whoever is there when its idle kernel is stopped for want of room, or that it is not.
    pub fn rests_at(&self, at: Option<WallTime>) {
        self.rests_at.store(at.map_or(0, |at| at.0), Ordering::Relaxed);
        self.moved.notify_one();
    }

    /// What was told.
    #[must_use]
    pub fn resting_at(&self) -> Option<WallTime> {
        Some(WallTime(self.rests_at.load(Ordering::Relaxed))).filter(|at| at.0 > 0)
    }

    /// Whether somebody is attached who can answer a question.
    #[must_use]
    pub fn attended(&self) -> bool {
        self.interactive.load(Ordering::Relaxed) > 0
    }
}

/// One attached client; dropping it detaches.
#[derive(Debug)]
pub struct Peer {
    peers: Arc<Peers>,
    interactive: bool,
}

impl Peer {
    /// Attaches a client.
    #[must_use]
    pub fn attach(peers: Arc<Peers>, interactive: bool) -> Self {
        peers.attached.fetch_add(1, Ordering::AcqRel);
        if interactive {
            peers.interactive.fetch_add(1, Ordering::Relaxed);
        }
        peers.moved.notify_one();
        Self { peers, interactive }
    }
}

impl Peer {
    /// How many are attached to the same session.
    #[must_use]
    pub fn attached(&self) -> u32 {
        self.peers.attached()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.peers.attached.fetch_sub(1, Ordering::AcqRel);
        if self.interactive {
            self.peers.interactive.fetch_sub(1, Ordering::Relaxed);
        }
        self.peers.moved.notify_one();
    }
}

/// Somebody who asks a session something, or only looks; dropping it ends that. It keeps the session from being evicted,
/// and is begun where the session is looked up, under the registry's lock.
#[derive(Debug)]
pub struct Visit {
    peers: Arc<Peers>,
    why: Visiting,
}

/// Why somebody comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Visiting {
    /// To do something: its wait begins anew.
    ToAsk,
    /// To look: that is no reason to stay longer.
    ToLook,
}

impl Visit {
    /// Begins one.
    #[must_use]
    pub fn begin(peers: Arc<Peers>, why: Visiting) -> Self {
        peers.count(why).fetch_add(1, Ordering::AcqRel);
        if why == Visiting::ToAsk {
            peers.moved.notify_one();
        }
        Self { peers, why }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.peers.count(self.why).fetch_sub(1, Ordering::AcqRel);
        if self.why == Visiting::ToAsk {
            self.peers.moved.notify_one();
        }
    }
}

/// A session that is open here.
#[derive(Clone, Debug)]
pub struct Handle {
    /// Its id.
    pub id: SessionId,
    /// Its mailbox, bounded.
    pub mailbox: mpsc::Sender<Message>,
    /// Its state, after each change.
    pub view: watch::Receiver<Arc<SessionView>>,
    /// What has changed between its states.
    pub feed: Arc<Feed>,
    /// Who is there.
    pub peers: Arc<Peers>,
    /// Why it is in memory, and until when.
    pub resident: watch::Receiver<Resident>,
    /// Whether the store takes what it writes.
    pub stall: Arc<Stall>,
    /// Cancelled when another node has the session, or is to have it.
    lost: CancellationToken,
}

/// A session that is being given away: to whom, and who waits for that.
#[derive(Debug)]
pub struct Giving {
    /// The node that is meant to take it.
    pub to: Option<NodeId>,
    /// Who asked for it.
    pub answer: oneshot::Sender<Result<Answer, Problem>>,
}

/// What a session's task keeps of its handle.
#[derive(Debug)]
pub struct Desk {
    /// What is asked.
    pub mailbox: mpsc::Receiver<Message>,
    /// Its state, to be shown after each change.
    pub view: watch::Sender<Arc<SessionView>>,
    /// Why it is in memory.
    pub resident: watch::Sender<Resident>,
    /// Cancelled when another node has the session.
    pub lost: CancellationToken,
}

impl Handle {
    /// The handle of a session that looks like this, and what its task keeps of it.
    #[must_use]
    pub fn new(first: SessionView, now: Tick) -> (Self, Desk) {
        let (id, position) = (first.id, first.position);
        let (asks, mailbox) = mpsc::channel(MAILBOX_MAX);
        let (shown, view) = watch::channel(Arc::new(first));
        let (residence, resident) = watch::channel(Resident::new(now));
        let feed = Arc::new(Feed::new(position));
        let lost = CancellationToken::new();
        let desk = Desk { mailbox, view: shown, resident: residence, lost: lost.clone() };
        let (peers, stall) = (Arc::default(), Arc::default());
        let handle = Self { id, mailbox: asks, view, feed, peers, resident, stall, lost };
        (handle, desk)
    }

    /// The session is another node's: its task kills its processes and writes nothing more, whatever it waits for.
    pub fn lose(&self) {
        self.lost.cancel();
    }

    /// Why its task does not answer any more.
    fn gone(&self) -> Problem {
        if self.lost.is_cancelled() { moving(self.id) } else { ended(self.id) }
    }

    /// Asks the task.
    ///
    /// # Errors
    /// What the task answers; `busy` when its mailbox is full; `session-ended` when it ended meanwhile;
    /// `store-unavailable` when the store does not take what it writes: then nothing was asked; `store-stalled` when that
    /// began meanwhile: then it may be done later.
    pub async fn ask(&self, ask: Ask) -> Result<Answer, Problem> {
        // What ends it waits for as long as it may.
        let waits = matches!(ask, Ask::Drain | Ask::HandOver { .. });
        if !waits && let Some(why) = self.stall.why() {
            return Err(problem::stalled(self.id, &why));
        }
        let (answer, answered) = oneshot::channel();
        self.mailbox.try_send(Message { ask, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Problem::new(
                503,
                "busy",
                "The session is busy",
                format!("session {} has too much to do", self.id),
            )
            .hint("try again in a moment"),
            mpsc::error::TrySendError::Closed(_) => self.gone(),
        })?;
        tokio::select! {
            biased;
            answer = answered => answer.map_err(|_| self.gone())?,
            // Whoever asks does not wait for as long as a disk is full; what was asked is done when it can be.
            why = self.stall.stalls(), if !waits => Err(problem::stalled_in_the_middle(self.id, &why)),
        }
    }
}

/// What a task answers about one of its runs, which looks like this if there is one.
///
/// # Errors
/// `no-such-run`.
pub fn known_run(
    session: SessionId,
    fold: &Fold,
    run: RunId,
    view: Option<RunView>,
) -> Result<Answer, Problem> {
    let view = view.ok_or_else(|| problem::no_run(session, run))?;
    let known = fold.run(run).cloned().unwrap_or_default();
    Ok(Answer::Run(Box::new(KnownRun { view, known, before: fold.before(run) })))
}

/// The session's task is gone.
#[must_use]
pub fn ended(id: SessionId) -> Problem {
    Problem::new(409, "session-ended", "The session has ended", format!("session {id} has ended")).hint(
        "its output stays: `outlive logs` and `outlive explain` show it; run the notebook or command again",
    )
}

/// Another node takes the session over.
#[must_use]
pub fn moving(id: SessionId) -> Problem {
    Problem::new(
        503,
        "session-moving",
        "The session moves to another node",
        format!("session {id} is being taken over by another node"),
    )
    .hint("try again in a moment")
}

/// A refusal as clients see it.
#[must_use]
pub fn denied(id: SessionId, why: &Denied) -> Problem {
    let about = |status, code, title| Problem::new(status, code, title, format!("session {id}: {why}"));
    match why {
        Denied::Closed => ended(id),
        Denied::NoSuchRun(_) => about(404, "no-such-run", "No such run"),
        Denied::RunEnded(_) => about(409, "run-ended", "The run has ended"),
        Denied::NothingRuns => about(409, "nothing-runs", "Nothing is running"),
        Denied::RuntimeDown(_) => {
            about(409, "runtime-down", "The runtime is down").hint("start it again with `outlive restart`")
        }
        Denied::QueueFull { .. } => {
            about(429, "queue-full", "The queue is full").hint("wait until some of it has run")
        }
        Denied::NoQuestion(_) => about(409, "no-question", "Nothing is asked"),
        Denied::NoNotebook => about(409, "no-notebook", "The session has no notebook"),
        Denied::PathBeingTaken(_) => {
            about(409, "busy", "The notebook is being saved").hint("try again in a moment")
        }
        Denied::PathNotClaimed(_) => about(409, "busy", "The notebook is being saved").hint("save it again"),
        Denied::Works => about(409, "busy", "The session works"),
        Denied::CommandOnly => about(409, "command-only", "The session runs one command"),
    }
}
