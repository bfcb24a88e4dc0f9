//! Deadlines: how long a test waits before it says that something did not happen.

use std::time::{Duration, Instant};

/// How long a test waits for what takes a moment, also on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The monotonic clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the tests' own stopwatch")]
pub fn now() -> Instant {
    Instant::now()
}

/// A point in time after which waiting is over.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

/// A deadline so far from now.
#[must_use]
pub fn within(duration: Duration) -> Deadline {
    Deadline(now() + duration)
}

impl Deadline {
    /// What is left of it; zero when it is over.
    #[must_use]
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(now())
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(self) -> bool {
        self.left().is_zero()
    }
}

/// Asks again every few milliseconds until there is an answer: for states of the system that nobody announces.
///
/// # Panics
/// At the deadline, with `what`.
pub fn eventually<T>(what: &str, deadline: Deadline, mut ask: impl FnMut() -> Option<T>) -> T {
    poll(deadline, &mut ask).unwrap_or_else(|| panic!("it did not happen in time: {what}"))
}

/// As [`eventually`]; `None` at the deadline.
pub fn poll<T>(deadline: Deadline, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        let answer = ask();
        if answer.is_some() || deadline.is_over() {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
