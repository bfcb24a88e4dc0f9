//! The server with a real node behind it: notebooks that are edited over WebSockets, and those who watch.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod document;
mod editor;
mod provider;
mod state;
mod world;
