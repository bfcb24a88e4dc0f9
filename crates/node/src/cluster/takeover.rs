//! Takes over what lost nodes had: `core::failover::plan` says what and when, here is what it is told and what is done.
//!
//! ```text
//!  notice of a loss ─┐                        ┌─► look: row, control lane ─► somebody has it: nothing to do
//!  given away ───────┤► plan ─► due ─► room? ─┤
//!  sweep of rows ────┘            └─ no: others first   └─► claim ─► read ─► recorded ─► goes on
//! ```
//! Whatever is cut off in the middle of this is an ordinary session of a node that was lost, or an ordinary session of
//! ours.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt as _;
use outlive_core::failover::plan::{Orphan, Plan};
use outlive_core::failover::{Member, TakenWhy, Takeover, rendezvous};
use outlive_core::id::{NodeId, SessionId};
use outlive_core::limits::{
    CLUSTER_GONE_MAX, TAKEOVER_MEMORY_BYTES_MIN, TAKEOVER_SWEEP_MS, TAKEOVER_UNKNOWN_MS, TAKEOVERS_AT_ONCE,
    TAKEOVERS_SHOWN_MAX,
};
use outlive_core::log::fold::Ownership;
use outlive_core::time::{Now, Tick, WallTime};
use outlive_protocol::http::{NodeState, TakeoverView};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};

use super::directory::Listed;
use super::{Cluster, Lost, Members, Standing};
use crate::budget::room;
use crate::context::{Context, Found, Presence};
use crate::metrics::memory;
use crate::session::handle::Visiting;
use crate::session::open::{Instead, Loss, NotResumed, control, resume};
use crate::session::with_sources;

/// What is known of a member that was lost.
#[derive(Clone, Debug)]
struct Notice {
    loss: Loss,
    /// When it was noticed.
    at: Tick,
}

/// What became of one takeover.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// The session is here, or somebody else has it, or it needs nobody.
    Settled,
    /// Not here and not now.
    Refused,
}

/// The task that takes over.
pub(crate) struct Takeovers {
    context: Arc<Context>,
    cluster: Arc<Cluster>,
    plan: Plan,
    lost: broadcast::Receiver<Lost>,
    members: watch::Receiver<Arc<Members>>,
    standing: watch::Receiver<Standing>,
    /// The latest losses. At most [`CLUSTER_GONE_MAX`].
    notices: BTreeMap<Member, Notice>,
    to: mpsc::Sender<(SessionId, Outcome)>,
    over: mpsc::Receiver<(SessionId, Outcome)>,
    next_sweep: Tick,
}

impl Takeovers {
    /// Hears of losses from now on.
    pub(crate) fn new(context: &Arc<Context>, cluster: &Arc<Cluster>) -> Self {
        let (to, over) = mpsc::channel(TAKEOVERS_AT_ONCE);
        Self {
            plan: Plan::new(cluster.me.node, cluster.settings.kernel_grace),
            lost: cluster.lost.subscribe(),
            members: cluster.members.subscribe(),
            standing: cluster.standing.subscribe(),
            notices: BTreeMap::new(),
            to,
            over,
            next_sweep: Tick::default(),
            context: Arc::clone(context),
            cluster: Arc::clone(cluster),
        }
    }

    /// Takes over until the node ends.
    pub(crate) async fn run(mut self) {
        let (context, cluster) = (Arc::clone(&self.context), Arc::clone(&self.cluster));
        loop {
            self.see_claimants();
            self.begin_due();
            let now = context.clock.now().tick;
            let due = self.plan.next_deadline().map_or(self.next_sweep, |due| due.min(self.next_sweep));
            tokio::select! {
                biased;
                () = context.stop.cancelled() => return,
                Some((session, outcome)) = self.over.recv() => match outcome {
                    Outcome::Settled => self.plan.settled(session),
                    Outcome::Refused => self.plan.refused(session, now),
                },
                lost = self.lost.recv() => match lost {
                    Ok(lost) => self.noticed(lost),
                    // What was missed is found by looking.
                    Err(RecvError::Lagged(_)) => self.sweep(),
                    Err(RecvError::Closed) => return,
                },
                Ok(()) = self.standing.changed() => self.sweep(),
                Ok(()) = self.members.changed() => {}
                unowned = cluster.directory.unowned() => self.given(unowned),
                () = context.clock.until(due) => {
                    if context.clock.now().tick >= self.next_sweep {
                        self.sweep();
                    }
                }
            }
        }
    }

    fn is_ready(&self) -> bool {
        *self.standing.borrow() == Standing::Ready
    }

    /// Those who live and may claim, as this node sees them.
    fn see_claimants(&mut self) {
        let me = self.cluster.me.node;
        let claimants = claimants(&self.members.borrow_and_update(), me);
        self.plan.claimants(claimants.into_iter().chain(self.is_ready().then_some(me)));
    }

    fn noticed(&mut self, lost: Lost) {
        let now = self.context.clock.now();
        let Lost { member, name, why, heard, at } = lost;
        let noticed_at = WallTime(now.wall.0.saturating_sub(micros(now.tick.since(at))));
        let loss = Loss { from: member, name, why: why.into(), heard, noticed_at };
        tracing::info!(node = %loss.name, %member.boot, why = %loss.why, "what it had is taken over");
        if self.notices.len() >= CLUSTER_GONE_MAX
            && let Some(oldest) =
                self.notices.iter().min_by_key(|(_, notice)| notice.at).map(|(member, _)| *member)
        {
            self.notices.remove(&oldest);
        }
        self.notices.insert(member, Notice { loss, at });
        self.see_claimants();
        for (session, listed) in self.cluster.directory.open(|row| row.owner == Some(member)) {
            self.orphaned(session, &listed, now);
        }
    }

    fn orphaned(&mut self, session: SessionId, listed: &Listed, now: Now) {
        let mut orphan = listed.orphan(session, self.context.bus.is_followed(session));
        // Its node is back, and finds alive what it had.
        let reborn =
            |owner| self.notices.get(&owner).is_some_and(|notice| notice.loss.why == TakenWhy::Reborn);
        orphan.has_kernel |= orphan.owner.is_some_and(reborn);
        let at = orphan.owner.and_then(|owner| self.notices.get(&owner)).map_or(now.tick, |notice| notice.at);
        self.plan.lost(orphan, at);
    }

    /// Sessions that are open and nobody's.
    fn given(&mut self, sessions: impl IntoIterator<Item = SessionId>) {
        let now = self.context.clock.now();
        for session in sessions {
            let listed = self.cluster.directory.get(session);
            if let Some(listed) = listed.filter(|row| row.presence == Presence::Open && row.owner.is_none()) {
                self.orphaned(session, &listed, now);
            }
        }
    }

    /// Looks for sessions whose owner is no member: notices that were missed, and nodes that were lost while nobody was
    /// there to notice.
    fn sweep(&mut self) {
        let now = self.context.clock.now();
        self.next_sweep = now.tick + Duration::from_millis(TAKEOVER_SWEEP_MS) + self.jitter();
        if !self.is_ready() || !*self.cluster.directory.armed().borrow() {
            return;
        }
        let members = self.members.borrow().clone();
        for (session, listed) in self.cluster.directory.open(|_| true) {
            let is_orphan = match listed.owner {
                None => true,
                // A claim of ours that did not come to its end.
                Some(owner) if owner == self.cluster.me => !self.context.is_here(session),
                Some(owner) => match members.seen.get(&owner) {
                    Some(seen) => {
                        self.plan.heard(owner);
                        seen.is_gone()
                    }
                    None => self.plan.is_nobody(owner, now.tick, Duration::from_millis(TAKEOVER_UNKNOWN_MS)),
                },
            };
            if is_orphan {
                self.orphaned(session, &listed, now);
            }
        }
    }

    /// Nodes do not all look at the same moment.
    fn jitter(&self) -> Duration {
        let own = rendezvous::weight(self.cluster.me.boot.as_uuid(), self.cluster.me.node);
        Duration::from_millis(own % (TAKEOVER_SWEEP_MS / 4))
    }

    fn begin_due(&mut self) {
        if !self.is_ready() {
            return;
        }
        let now = self.context.clock.now().tick;
        for orphan in self.plan.due(now) {
            let notice = orphan.owner.and_then(|owner| self.notices.get(&owner)).cloned();
            let (context, to) = (Arc::clone(&self.context), self.to.clone());
            self.context.tasks.spawn(async move {
                let taken = AssertUnwindSafe(take(&context, orphan, notice)).catch_unwind().await;
                let outcome = taken.unwrap_or_else(|_| {
                    context
                        .broken(orphan.session, "taking it over panicked: see the daemon's log".to_owned());
                    Outcome::Settled
                });
                // Its other end is there as long as the node.
                let _gone = to.send((orphan.session, outcome)).await;
            });
        }
    }
}

/// The other nodes that may claim something: they live, are heard, and do not give everything away.
pub(super) fn claimants(members: &Members, me: NodeId) -> Vec<NodeId> {
    let others = members.seen.iter().filter(|(member, _)| member.node != me);
    others.filter(|(_, seen)| seen.state == NodeState::Alive).map(|(member, _)| member.node).collect()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A takeover as clients see it.
pub(crate) fn view(session: SessionId, title: &str, takeover: &Takeover) -> TakeoverView {
    let Takeover { from, from_name, to, to_name, epoch, why, .. } = takeover.clone();
    TakeoverView {
        session,
        title: title.to_owned(),
        from: from.node,
        from_name,
        to: to.node,
        to_name,
        epoch,
        why: why.as_str().to_owned(),
        last_heard: takeover.last_heard,
        noticed_at: takeover.noticed_at,
        claimed_at: takeover.claimed_at,
        resumed_at: takeover.resumed_at,
        resumed: takeover.resumed.clone(),
    }
}

impl Cluster {
    fn latest(&self) -> MutexGuard<'_, VecDeque<TakeoverView>> {
        self.taken_over.lock().expect("nothing panics while it holds the takeovers")
    }

    /// The latest takeovers of this node, newest first.
    pub(crate) fn takeovers(&self) -> Vec<TakeoverView> {
        self.latest().iter().rev().cloned().collect()
    }

    /// A session has come here from another node, and that is recorded in its log.
    pub(crate) fn has_taken_over(&self, session: SessionId, title: &str, takeover: &Takeover) {
        let mut latest = self.latest();
        if latest.len() == TAKEOVERS_SHOWN_MAX {
            latest.pop_front();
        }
        latest.push_back(view(session, title, takeover));
    }
}

/// Takes one session over, if nobody else has it.
async fn take(context: &Arc<Context>, orphan: Orphan, notice: Option<Notice>) -> Outcome {
    let id = orphan.session;
    let Some(cluster) = &context.cluster else { return Outcome::Settled };
    match cluster.directory.get(id) {
        // Ours: a claim of ours that did not come to its end.
        Some(row)
            if row.presence == Presence::Open
                && (row.owner == orphan.owner || row.owner == Some(cluster.me)) => {}
        // It has another owner, or nobody needs it open.
        Some(_) | None => return Outcome::Settled,
    }
    let instead = match in_whose_place(context, cluster, id, notice.as_ref()).await {
        Ok(Some(instead)) => instead,
        Ok(None) => return Outcome::Settled,
        Err(error) => {
            tracing::warn!(session = %id, error, "it is not known who has the session");
            return Outcome::Refused;
        }
    };
    if let Err(why) = admitted(context).await {
        tracing::warn!(session = %id, why, "no room to take the session over: others have their turn");
        return Outcome::Refused;
    }
    let Some(reservation) = context.reserve(id) else {
        return match context.enter(id, Visiting::ToLook) {
            Ok(Found::Open(_)) | Err(_) => Outcome::Settled,
            Ok(Found::Moving(_) | Found::Absent) => Outcome::Refused,
        };
    };
    // A drain waits for what is reserved, and what is reserved after it has begun would stay behind.
    if *cluster.standing.borrow() != Standing::Ready {
        return Outcome::Refused;
    }
    context.metrics.cluster.takeover_begun();
    let from = match &instead {
        Instead::Of(loss) => loss.name.clone(),
        Instead::OfNobody(_) => "nobody".to_owned(),
    };
    tracing::info!(session = %id, from, "takeover begun");
    let begun = notice.map_or_else(|| context.clock.now().tick, |notice| notice.at);
    match resume(context, &reservation, instead).await {
        Ok(()) => {
            let took = context.clock.now().tick.since(begun);
            context.metrics.cluster.takeover_done(took);
            tracing::info!(session = %id, from, took_ms = took.as_millis(), "takeover done");
            Outcome::Settled
        }
        Err(NotResumed::Taken(owner)) => {
            tracing::info!(session = %id, node = %owner.node, "another node was quicker");
            Outcome::Settled
        }
        Err(NotResumed::Because(problem)) if problem.status == 503 => {
            tracing::warn!(session = %id, %problem, "the takeover did not succeed; it is tried again");
            Outcome::Refused
        }
        Err(NotResumed::Because(problem)) => {
            tracing::error!(session = %id, %problem, "a session that was taken over cannot go on");
            context.broken(id, problem.to_string());
            Outcome::Settled
        }
    }
}

/// In whose place the session is claimed, as its control lane says; `None`: it has an owner who lives.
async fn in_whose_place(
    context: &Context,
    cluster: &Cluster,
    id: SessionId,
    notice: Option<&Notice>,
) -> Result<Option<Instead>, String> {
    let control = control(&*context.engine, id).await.map_err(|error| with_sources(&error))?;
    let owner = match control.fold.ownership() {
        Ownership::Claimed(claim) => Member { node: claim.node, boot: claim.boot },
        Ownership::Released { .. } | Ownership::Unclaimed | Ownership::Closed => {
            return Ok(Some(match control.last_claim {
                Some(claim) if claim.node != cluster.me.node => {
                    Instead::Of(given_away(cluster, Member { node: claim.node, boot: claim.boot }, context))
                }
                Some(_) | None => Instead::OfNobody(Vec::new()),
            }));
        }
    };
    if owner == cluster.me {
        // It is claimed by an attempt of ours that did not come to its end. What was lost by then is no less lost.
        let instead = || {
            notice.map_or_else(|| Instead::OfNobody(Vec::new()), |notice| Instead::Of(notice.loss.clone()))
        };
        return Ok((!context.is_here(id)).then(instead));
    }
    // Whoever was thought lost and is heard again keeps what it has.
    let name = cluster
        .members
        .borrow()
        .seen
        .get(&owner)
        .filter(|seen| seen.is_alive())
        .map(|seen| seen.name.clone());
    if let Some(name) = name {
        let corrected = context.index_owner_of(id, owner, name, control.fold.epoch()).await;
        return corrected.map(|()| None).map_err(|error| with_sources(&error));
    }
    Ok(match notice.filter(|notice| notice.loss.from == owner) {
        Some(notice) => Some(Instead::Of(notice.loss.clone())),
        None => context.loss_of(owner).map(Instead::Of),
    })
}

/// The owner before has given it away.
fn given_away(cluster: &Cluster, from: Member, context: &Context) -> Loss {
    let name = cluster.members.borrow().seen.get(&from).map(|seen| seen.name.clone());
    Loss {
        from,
        name: name.unwrap_or_else(|| from.node.to_string()),
        why: TakenWhy::Drained,
        heard: None,
        noticed_at: context.clock.now().wall,
    }
}

/// Whether this node can bear one more session: it must not die of what it takes over.
async fn admitted(context: &Context) -> Result<(), String> {
    room().map_err(|problem| problem.detail)?;
    let budgets = context.budgets;
    let here = context.handles().len();
    if budgets.sessions_max.is_some_and(|max| here >= max) {
        return Err(format!("{here} sessions are in memory, as many as are allowed"));
    }
    let available = memory::available();
    if available.is_some_and(|bytes| bytes < TAKEOVER_MEMORY_BYTES_MIN) {
        let mib = available.unwrap_or_default() >> 20;
        return Err(format!("the machine has {mib} MiB of memory left"));
    }
    if let Some(max) = budgets.memory_bytes_max {
        let load = crate::evict::load(context, &context.handles()).await;
        if load.bytes >= max {
            return Err(format!("its kernels take up {} MiB, as much as they may", load.bytes >> 20));
        }
    }
    Ok(())
}
