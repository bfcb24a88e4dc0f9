//! Names of things. Each is a type of its own, so that a session's id can never be passed for a run's.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID made by the caller (core draws no random numbers).
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID inside.
            #[must_use]
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The number after this one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

uuid_id!(
    /// One session, for its whole life, whatever it is called and wherever it runs.
    SessionId
);
uuid_id!(
    /// What is supervised in a session; the same across restarts (as a Jupyter kernel id is).
    RuntimeId
);
uuid_id!(
    /// One durable unit of work with one output.
    RunId
);
uuid_id!(
    /// One node: one daemon's state directory on one machine.
    NodeId
);
uuid_id!(
    /// One start of one daemon.
    BootId
);
uuid_id!(
    /// One failure report.
    ReportId
);

impl RunId {
    /// The run that repeats this one in that process of its runtime. It is always the same, so that one that is queued
    /// twice is one run.
    #[must_use]
    pub fn again(self, process: Incarnation) -> Self {
        // An odd factor: no two ids give one.
        let mixed = (self.0.as_u128() ^ u128::from(process.0))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        Self(uuid::Builder::from_custom_bytes(mixed.to_be_bytes()).into_uuid())
    }
}

number!(
    /// How many claims a session has had; rises by one with each.
    Epoch
);
number!(
    /// A chunk's number within one attempt of one run, from 1. 0 stands before the first chunk.
    Seq
);
number!(
    /// A record's place in its session's one total order; rises strictly and may skip. 0 stands before the first.
    Position
);
number!(
    /// A table row's version; rises with each write.
    Revision
);
number!(
    /// How many processes a runtime has had, from 1.
    Incarnation
);
number!(
    /// One try of a run, from 1.
    Attempt
);
number!(
    /// The version of a session's view that peers are shown.
    Generation
);
number!(
    /// The number that a shim gives to a record; one sequence for each process, from 1.
    Src
);

/// One process: the n-th start of a runtime.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ProcessKey {
    /// The runtime that the process is one life of.
    pub runtime: RuntimeId,
    /// Which of its lives.
    pub incarnation: Incarnation,
}

impl fmt::Display for ProcessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.runtime, self.incarnation)
    }
}

/// A reader's place in a run: attempt and the last chunk it has. Written `attempt.seq`.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize, JsonSchema,
)]
pub struct Cursor {
    /// The attempt that the reader saw; 0 when it saw none.
    pub attempt: Attempt,
    /// The last chunk of it that the reader has.
    pub seq: Seq,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.attempt, self.seq)
    }
}

/// A cursor that is not of the form `attempt.seq`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a cursor has the form ATTEMPT.SEQ, for instance 1.42; this is {0:?}")]
pub struct CursorError(pub String);

impl FromStr for Cursor {
    type Err = CursorError;
    fn from_str(text: &str) -> Result<Self, CursorError> {
        let wrong = || CursorError(text.to_owned());
        let (attempt, seq) = text.split_once('.').ok_or_else(wrong)?;
        Ok(Self { attempt: attempt.parse().map_err(|_| wrong())?, seq: seq.parse().map_err(|_| wrong())? })
    }
}
