//! The small parent of one process, which outlives the daemon.
