//! A real shim with real programs and kernels, and a daemon in miniature that listens, dies and comes back.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

mod command;
mod freeze;
mod hand_over;
mod kernel;
mod link;
mod runner;
mod runner_faults;
mod support;
