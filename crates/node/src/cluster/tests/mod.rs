//! Several nodes in one process: who owns what, through deaths, races and hand-overs.

mod gate;
mod machine;
mod takeover;
mod world;
