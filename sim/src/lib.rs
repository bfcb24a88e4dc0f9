//! Several real nodes on one thread, over a world that is made up and goes wrong by the seed.
//!
//! Each node is the daemon's own code on an executor of its own, and reaches the world through its seams alone. Behind
//! them stand a store, a network, machines with processes, and files that live in memory. One queue holds all that is
//! to happen; time jumps from one thing to the next. So a node can be frozen (its events wait), killed (its executor is
//! dropped), cut off, and started again, and one seed is always the same story.
//!
//! | module | is |
//! |---|---|
//! | [`seed`] | random numbers that depend on what they are for, not on the order in which they are drawn |
//! | [`schedule`] | what is to happen, and time |
//! | [`host`] | an executor that runs until nothing is left to do |
//! | [`trace`] | what has happened, as text and as one number |
//! | [`world`] | all of it together, and the loop |
//! | [`store`] | the engine: answers that are lost, late, or come twice |
//! | [`wire`] | the transport: messages that are lost, late, or overtake each other |
//! | [`machine`] | processes behind shims |
//! | [`files`] | notebooks on shared and private disks |
//! | [`story`] | what clients do, and what goes wrong meanwhile |
//! | [`check`] | what must hold at the end |
//! | [`campaign`] | many seeds |
//! | [`logs`] | what nodes log, among what happens |

pub mod campaign;
pub mod check;
pub mod files;
pub mod host;
pub mod logs;
pub mod machine;
pub mod schedule;
pub mod seed;
pub mod store;
pub mod story;
pub mod trace;
pub mod wire;
pub mod world;
