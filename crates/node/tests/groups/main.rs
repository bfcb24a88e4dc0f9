//! Groups of runners: what clients can do with them, and what a daemon that dies leaves of them.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

mod crashes;
mod groups;
mod tasks;
mod world;
