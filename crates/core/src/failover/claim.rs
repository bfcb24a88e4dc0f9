//! Who may claim a session, as its control lane says. The rule is the claimant's own: the log takes any claim that
//! follows the last control record, and so of any number of claimants exactly one.

use super::Member;
use crate::id::NodeId;
use crate::log::fold::{Claim, Ownership};

/// In whose place a claim may be written, beside those of sessions that nobody has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deposes {
    /// Whoever it is: a daemon that is alone has its store for itself.
    Anybody,
    /// An earlier life of the claimant's own node, and nobody else.
    Itself,
    /// This member too, which is lost.
    Member(Member),
}

/// Whether a session may be claimed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claimable {
    /// It may.
    Now,
    /// It was given to another node, which is let go first for a moment.
    AfterGrace {
        /// That node.
        to: NodeId,
    },
    /// Somebody has it.
    Taken(Claim),
    /// It has ended: nobody owns it any more.
    Closed,
}

/// Whether `me` may claim a session that stands like this.
#[must_use]
pub fn claimable(ownership: Ownership, me: Member, deposes: Deposes) -> Claimable {
    match ownership {
        Ownership::Unclaimed | Ownership::Released { to: None } => Claimable::Now,
        Ownership::Released { to: Some(to) } if to == me.node || deposes == Deposes::Anybody => {
            Claimable::Now
        }
        Ownership::Released { to: Some(to) } => Claimable::AfterGrace { to },
        Ownership::Closed => Claimable::Closed,
        Ownership::Claimed(claim) => {
            let owner = Member { node: claim.node, boot: claim.boot };
            let may = match deposes {
                Deposes::Anybody => true,
                Deposes::Itself => owner.node == me.node,
                Deposes::Member(lost) => owner.node == me.node || owner == lost,
            };
            if may { Claimable::Now } else { Claimable::Taken(claim) }
        }
    }
}
