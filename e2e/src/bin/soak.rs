//! `cargo xtask soak`: hundreds of sessions used at random, and a look every minute at what is lost or left.
//!
//! Usage: `soak MINUTES SEED SESSIONS`.
#![expect(clippy::print_stdout, reason = "it tells what it does")]

use std::time::Duration;

use outlive_e2e::soak::{Plan, run};

fn main() {
    let mut arguments =
        std::env::args().skip(1).map(|text| text.parse::<u64>().expect("usage: soak MINUTES SEED SESSIONS"));
    let rounds = arguments.next().unwrap_or(2);
    let seed = arguments.next().unwrap_or(1);
    let sessions = usize::try_from(arguments.next().unwrap_or(200)).expect("a number of sessions");
    let (round, kill_period) = (Duration::from_secs(60), Duration::from_secs(20));
    run(Plan { round, rounds, kill_period, sessions, seed }, &mut |line| println!("{line}"));
    println!("{rounds} passed, 0 failed");
}
