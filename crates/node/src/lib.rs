//! The daemon's tasks: sessions, supervisors, watchers, files.
