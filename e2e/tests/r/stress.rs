//! Runners that are killed all the time; `cargo xtask stress` does it for as long as one likes.

/// Tests that overload the machine.
mod alone {
    use std::time::Duration;

    use outlive_e2e::stress::{Plan, run};

    // A2, A6, B4: forty tasks over four runners, one of which is killed every 300 ms: each task ends once, no chunk is lost
    // or doubled, and nothing is left behind.
    #[test]
    fn runners_that_are_killed_all_the_time() {
        let plan = Plan {
            time: Duration::from_secs(10),
            tasks: 40,
            runners: 4,
            kill_period: Duration::from_millis(300),
            seed: 1,
        };
        eprintln!("{}", run(plan));
    }
}
