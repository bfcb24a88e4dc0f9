//! What clients are told when the node that has what they asked for is not to be had.

use axum::http::Method;
use outlive_core::limits::OWNER_SILENCE_MS;
use outlive_protocol::http::Problem;

use super::owner::Owner;

/// Why there is nothing of the owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Trouble {
    /// There is no way to it; nothing was sent.
    Unreachable(String),
    /// The connection ended before the answer did, or the cluster says that the node is lost.
    Lost,
    /// It is there and says nothing: frozen, or cut off.
    Silent,
    /// What it says is not what nodes say.
    Garbled(String),
    /// It does not let us in.
    Refused(String),
}

const MOVES: &str = "Try again in a moment: when a node is lost, another one takes its work over. `outlive nodes` shows how it stands.";
const LOOK: &str = "Look before you ask again: the answer was lost, and another node takes over what was there. `outlive nodes` shows how it stands.";
const ATTACH: &str = "Attach again with the `id` of the last event you have: when a node is lost, another one takes its work over.";

impl Trouble {
    /// As the answer to a request. What asks for nothing but an answer can be asked again; of anything else it is not
    /// known whether it was done.
    pub(super) fn of_request(&self, owner: &Owner, method: &Method) -> Problem {
        match self {
            Self::Lost | Self::Silent if !method.is_safe() => {
                let what = format!("was asked, and {}: whether it was done is not known.", self.what());
                about(owner, 503, "owner-lost", "The answer of the node that has it was lost", &what)
                    .hint(LOOK)
            }
            Self::Lost | Self::Silent => self.silence(owner).hint(MOVES),
            Self::Unreachable(_) | Self::Garbled(_) | Self::Refused(_) => self.otherwise(owner),
        }
    }

    /// As the last word of a stream.
    pub(super) fn of_stream(&self, owner: &Owner) -> Problem {
        match self {
            Self::Lost | Self::Silent => self.silence(owner).hint(ATTACH),
            Self::Unreachable(_) | Self::Garbled(_) | Self::Refused(_) => self.otherwise(owner),
        }
    }

    fn silence(&self, owner: &Owner) -> Problem {
        about(owner, 503, "owner-silent", "The node that has it is silent", &format!("{}.", self.what()))
    }

    fn otherwise(&self, owner: &Owner) -> Problem {
        let what = self.what();
        match self {
            Self::Unreachable(_) | Self::Lost | Self::Silent => {
                let title = "The node that has it cannot be reached";
                let what = format!("has what was asked for and {what}. Nothing was done.");
                about(owner, 503, "owner-unreachable", title, &what).hint(MOVES)
            }
            Self::Garbled(_) => about(owner, 502, "owner-garbled", "The node's answer cannot be used", &what)
                .hint("Look what listens at the address that this node advertises, and whether all nodes have the same version: `outlive nodes`."),
            Self::Refused(_) => {
                about(owner, 502, "owner-refuses", "The node refuses the others of its cluster", &what)
                    .hint("Both must be of one cluster (one NATS account and prefix), and the name in its address one of its allowed hosts; start the node anew that joined last.")
            }
        }
    }

    fn what(&self) -> String {
        match self {
            Self::Unreachable(why) => format!("cannot be reached: {why}"),
            Self::Lost => "was lost before it had answered to the end".to_owned(),
            Self::Silent => {
                format!("has said nothing for {OWNER_SILENCE_MS} ms; it may be suspended or cut off")
            }
            Self::Garbled(why) => format!("was asked: {why}."),
            Self::Refused(why) => format!("was asked, and refused this node: {why}."),
        }
    }
}

fn about(owner: &Owner, status: u16, code: &str, title: &str, what: &str) -> Problem {
    let detail = format!("Node {} ({}) {what}", owner.name, owner.authority);
    Problem::new(status, code, title, detail).fact("owner", owner.name.clone())
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
