//! What clients are told when the node that has what they asked for is not to be had.

use outlive_protocol::http::Problem;

use super::owner::Owner;

const MOVES: &str = "Try again in a moment: when a node is lost, another one takes its work over. `outlive nodes` shows how it stands.";

fn about(owner: &Owner, status: u16, code: &str, title: &str, what: &str) -> Problem {
    let detail = format!("Node {} ({}) {what}", owner.name, owner.authority);
    Problem::new(status, code, title, detail).fact("owner", owner.name.clone())
}

/// Nothing was sent.
pub(super) fn unreachable(owner: &Owner, why: &str) -> Problem {
    let what = format!("has what was asked for and cannot be reached: {why}. Nothing was done.");
    about(owner, 503, "owner-unreachable", "The node that has it cannot be reached", &what).hint(MOVES)
}

/// It is reached from its own machine alone.
pub(super) fn no_address(name: &str) -> Problem {
    Problem::new(
        503,
        "owner-unreachable",
        "The node that has it cannot be reached",
        format!("Node {name} has what was asked for, and has said no address at which other machines reach it. Nothing was done."),
    )
    .hint("Ask it on its own machine; or start it with an address that the others reach: `outlive serve --tcp ADDR:PORT --advertise URL`.")
    .fact("owner", name)
}

/// What it says is its address is none.
pub(super) fn bad_address(name: &str, url: &str) -> Problem {
    Problem::new(
        503,
        "owner-unreachable",
        "The node that has it cannot be reached",
        format!("Node {name} has what was asked for and says that its address is {url:?}, which is no `http://HOST:PORT`. Nothing was done."),
    )
    .hint("Correct what that node advertises, and start it again.")
    .fact("owner", name)
}

/// It was asked, and the connection broke.
pub(super) fn lost(owner: &Owner) -> Problem {
    let what = "was asked, and was lost before it had answered to the end: whether it was done is not known.";
    about(owner, 503, "owner-lost", "The node that has it was lost", what)
        .hint("Look before you ask again, or attach again with the `id` of the last event you have: another node takes its work over.")
}

/// It was asked and says nothing: frozen, or cut off.
pub(super) fn silent(owner: &Owner, after_ms: u64) -> Problem {
    let what = format!("has said nothing for {after_ms} ms; it may be suspended or cut off.");
    about(owner, 503, "owner-silent", "The node that has it is silent", &what)
        .hint("Attach again with the `id` of the last event you have: when the node is lost, another one takes its work over.")
}

/// What it answers is not what nodes say.
pub(super) fn garbled(owner: &Owner, why: &str) -> Problem {
    about(owner, 502, "owner-garbled", "The node's answer cannot be used", &format!("was asked: {why}."))
        .hint("Look what listens at the address that this node advertises, and whether all nodes have the same version: `outlive nodes`.")
}

/// It does not let us in.
pub(super) fn refused(owner: &Owner, why: &str) -> Problem {
    about(
        owner,
        502,
        "owner-refuses",
        "The node refuses the others of its cluster",
        &format!("was asked, and refused this node: {why}."),
    )
    .hint("Both must be of one cluster (one NATS account and prefix); start the node anew that joined last.")
}

/// The node that was asked on our behalf does not have it either.
pub(super) fn session_moving() -> Problem {
    Problem::new(
        503,
        "session-moving",
        "It is on its way from one node to another",
        "The nodes do not agree yet on who has what was asked for. Nothing was done.",
    )
    .hint("Try again in a moment.")
}
