//! What is said of a session that another node has: whom to ask, or that it is being taken over.

use std::time::Duration;

use outlive_core::failover::isolation::Verdict;
use outlive_core::failover::{Member, TakenWhy};
use outlive_core::id::SessionId;
use outlive_core::limits::CLUSTER_STORE_MS;
use outlive_core::log::fold::Claim;
use outlive_core::time::WallTime;
use outlive_protocol::http::{Elsewhere, Problem};

use super::{Cluster, Standing, owned};
use crate::context::{Context, Presence};
use crate::session::journal::WriteError;
use crate::session::open::{Loss, not_written};
use crate::{problem, session};

impl Cluster {
    /// Whether a member is known to be no more: it was lost or left, or nobody has ever heard of it here.
    #[must_use]
    pub fn is_gone(&self, member: Member) -> bool {
        match self.members.borrow().seen.get(&member) {
            Some(seen) => seen.is_gone(),
            None => matches!(*self.standing.borrow(), Standing::Ready | Standing::Draining),
        }
    }
}

impl Context {
    /// What is known of the loss of a member that is known to be no more.
    pub(crate) fn loss_of(&self, member: Member) -> Option<Loss> {
        let cluster = self.cluster.as_ref().filter(|cluster| cluster.is_gone(member))?;
        let members = cluster.members.borrow();
        let seen = members.seen.get(&member);
        let name = seen.map_or_else(|| member.node.to_string(), |seen| seen.name.clone());
        let now = self.clock.now();
        let heard = seen.and_then(|seen| seen.heard).map(|heard| {
            let silent = u64::try_from(now.tick.since(heard).as_micros()).unwrap_or(u64::MAX);
            WallTime(now.wall.0.saturating_sub(silent))
        });
        Some(Loss { from: member, name, why: TakenWhy::Ownerless, heard, noticed_at: now.wall })
    }

    /// What whoever asks for a session is told that this member has open.
    pub(crate) fn elsewhere(&self, id: SessionId, owner: Member) -> Problem {
        self.ask_member(owner, &format!("session {id}"))
            .map_or_else(|| session::handle::moving(id), |problem| problem.fact("session", id.to_string()))
    }

    /// Whether a session that is not in memory here may be taken up here, as far as this node knows.
    ///
    /// # Errors
    /// `elsewhere`, `session-moving`, or why this node takes nothing up.
    pub(crate) fn is_here_or_nowhere(&self, id: SessionId) -> Result<(), Problem> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        let listed = cluster.directory.get(id).filter(|listed| listed.presence == Presence::Open);
        match listed.and_then(|listed| listed.owner) {
            Some(owner) if owner.node != cluster.me.node => Err(self.elsewhere(id, owner)),
            Some(_) | None => self.takes_work(),
        }
    }

    /// Whether this node takes up what it has not yet. One that gives its work away sends it to another.
    ///
    /// # Errors
    /// `elsewhere`, or why it does not.
    pub(crate) fn takes_work(&self) -> Result<(), Problem> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        cluster.ready().map_err(|why| match (*cluster.standing.borrow(), cluster.neighbour()) {
            (Standing::Draining, Some(there)) => problem::elsewhere("what is new", there),
            _ => why,
        })
    }

    /// The problem that says that this member, if it lives, is to be asked about `what`.
    pub(crate) fn ask_member(&self, owner: Member, what: &str) -> Option<Problem> {
        let members = self.cluster.as_ref()?.members.borrow().clone();
        let seen = members.seen.get(&owner).filter(|seen| seen.is_alive())?;
        let there = Elsewhere { node: owner.node, name: seen.name.clone(), url: seen.url.clone() };
        Some(problem::elsewhere(what, there))
    }

    /// What is said when a session that is open here does not have what it was asked for. A node that is cut off does not
    /// notice at once, and its session's next owner may have it: that there is none is said by who surely owns the session.
    pub(crate) async fn surely(&self, id: SessionId, problem: Problem) -> Problem {
        if self.cluster.is_none() || problem.status != 404 {
            return problem;
        }
        let late = self.clock.now().tick + Duration::from_millis(CLUSTER_STORE_MS);
        let verdict = tokio::select! {
            biased;
            verdict = owned::check(self, id) => verdict.ok(),
            () = self.clock.until(late) => None,
        };
        match verdict {
            Some(Verdict::Mine) => problem,
            Some(Verdict::NotMine) | None => session::handle::moving(id),
        }
    }

    /// Why a session could not be claimed here.
    pub(crate) fn not_claimed(&self, id: SessionId, error: &WriteError) -> Problem {
        match error {
            WriteError::Taken(Claim { node, boot, .. }) => {
                self.elsewhere(id, Member { node: *node, boot: *boot })
            }
            WriteError::Fenced => session::handle::moving(id),
            WriteError::Closed => session::handle::ended(id),
            error => not_written(error),
        }
    }
}
