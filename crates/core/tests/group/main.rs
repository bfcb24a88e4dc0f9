//! Groups of runners: what they do in every state, in any order of what happens, and for each row of the list of what
//! must be true.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

mod moves;
mod orders;
mod rows;
mod table;

mod world;
