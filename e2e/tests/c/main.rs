//! Sessions and files: the rows C1 to C8 of the acceptance matrix.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

mod budget;
mod commands;
mod crash;
mod cycles;
mod eviction;
mod external;
mod faults;
mod promotion;
mod race;
mod refusals;
mod save_as;
mod soak;
