//! `cargo xtask stress`: many tasks over a few runners that are killed all the time.
//!
//! Usage: `stress SECONDS TASKS RUNNERS KILL_MS SEED`.
#![expect(clippy::print_stdout, reason = "it tells what it does")]

use std::time::Duration;

use outlive_e2e::stress::{Plan, run};

const USAGE: &str = "usage: stress SECONDS TASKS RUNNERS KILL_MS SEED";

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>().expect(USAGE));
    let mut next = |otherwise| arguments.next().unwrap_or(otherwise);
    let plan = Plan {
        time: Duration::from_secs(next(60)),
        tasks: usize::try_from(next(200)).expect(USAGE),
        runners: usize::try_from(next(4)).expect(USAGE),
        kill_period: Duration::from_millis(next(300)),
        seed: next(1),
    };
    println!("{}", run(plan));
    println!("1 passed, 0 failed");
}
