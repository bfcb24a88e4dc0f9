//! The daemon's tasks: one for each session, one for each supervised process, and the watchers.

pub mod api;
