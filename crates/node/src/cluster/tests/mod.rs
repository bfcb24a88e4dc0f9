//! Several nodes in one process: who owns what, through deaths, races and hand-overs.

mod gate;
mod handover;
mod machine;
mod paths;
mod takeover;
mod watching;
mod world;
