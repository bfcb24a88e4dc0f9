//! What liveness says.

use std::time::Duration;

use crate::failover::Member;
use crate::time::Tick;

/// How a loss was noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// It was silent for too long, and did not answer when it was asked.
    Silent,
    /// The service said that its connection has ended, and it did not answer when it was asked.
    Disconnected,
    /// It said goodbye.
    Left,
    /// Its next life is here.
    Reborn,
}

/// What keeps a node from suspecting others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Guard {
    /// The loop stood still.
    Loop,
    /// The transport is down.
    Connection,
    /// Our own beats do not come back.
    OwnBeats,
    /// More than half of the cluster is silent at once.
    Majority,
}

/// What is to be done or told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// Our own beats are heard for the first time.
    Begun,
    /// A member is there: for the first time, or again after it had gone.
    Joined(Member),
    /// It is silent: it is to be asked.
    Suspected(Member),
    /// It is heard again, or cannot be judged now.
    Cleared(Member),
    /// It is gone. Told once.
    Lost {
        /// Who.
        member: Member,
        /// How that was noticed.
        why: Why,
        /// When it was heard last.
        heard: Tick,
    },
    /// The others, who do not watch this one themselves, are to be told that it is dead.
    Announce(Member),
    /// Nobody is suspected because of this.
    Held(Guard),
    /// That is over.
    Released(Guard),
    /// We are back after a cut of this length: others may have taken us for dead.
    Rearmed {
        /// Since our own last sign of life.
        cut: Duration,
    },
    /// The loop, or the whole machine, stood still for so long.
    Woke {
        /// For how long.
        stall: Duration,
    },
}
