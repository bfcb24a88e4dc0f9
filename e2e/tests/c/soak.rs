//! Everything at once, for a moment; `cargo xtask soak` does it for long.

use std::time::Duration;

use outlive_e2e::soak::{Plan, run};

/// Its threads and a daemon that is killed need the machine for themselves.
mod alone {
    use super::*;

    #[test]
    fn sessions_used_at_random_lose_nothing_and_leave_nothing() {
        // C6
        let plan = Plan {
            round: Duration::from_secs(15),
            rounds: 1,
            kill_period: Duration::from_secs(6),
            sessions: 24,
            seed: 3,
        };
        run(plan, &mut |line| eprintln!("{line}"));
    }
}
