//! What all watchers of a run must have seen: one fold, and the one that the work makes.
//!
//! Chunks are `ATTEMPT:STEP` as `count` of the fixture says them. Attempts differ in their text, so a view that mixes
//! two of them without a reset between is seen here.

use crate::cluster::watcher::Account;
use crate::transcript::Transcript;

/// Checks that everybody has the same output, chunk by chunk, and the same end; gives it.
///
/// # Panics
/// With the first difference.
#[track_caller]
pub fn agree<'a>(accounts: impl IntoIterator<Item = &'a Account>, fold: &Transcript) -> String {
    for (n, account) in accounts.into_iter().enumerate() {
        let seen = &account.transcript;
        assert_eq!(seen.ended(), fold.ended(), "the end that watcher {n} saw");
        let differs = seen.chunks.iter().zip(&fold.chunks).position(|(left, right)| left != right);
        if let Some(place) = differs {
            panic!(
                "watcher {n} has {} as chunk {}, a newcomer {}",
                seen.chunks[place],
                place + 1,
                fold.chunks[place]
            );
        }
        assert_eq!(seen.chunks.len(), fold.chunks.len(), "the number of chunks that watcher {n} saw");
    }
    fold.said()
}

/// Checks that output of `count` is the steps from 0 to `n`, each once, in order, by attempts that rise; gives how many
/// attempts there are in it.
///
/// # Panics
/// With the first line that is wrong.
#[track_caller]
pub fn counted(said: &str, n: u64) -> usize {
    let (mut expected, mut attempts) = (0, Vec::new());
    for line in said.lines() {
        let parsed = line
            .split_once(':')
            .and_then(|(attempt, step)| Some((attempt.parse::<u64>().ok()?, step.parse::<u64>().ok()?)));
        let (attempt, step) = parsed.unwrap_or_else(|| panic!("no step: {line:?}"));
        assert_eq!(step, expected, "the step after {expected} steps");
        if attempts.last() != Some(&attempt) {
            assert!(attempts.last().is_none_or(|last| *last < attempt), "{attempt} after {attempts:?}");
            attempts.push(attempt);
        }
        expected += 1;
    }
    assert_eq!(expected, n, "the number of steps");
    attempts.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_rising_attempts_count() {
        assert_eq!(counted("1:0\n1:1\n3:2\n", 3), 2);
    }

    #[test]
    #[should_panic(expected = "the step after 1 steps")]
    fn a_step_that_comes_twice_is_noticed() {
        counted("1:0\n2:0\n2:1\n", 2);
    }

    #[test]
    #[should_panic(expected = "the number of steps")]
    fn a_missing_end_is_noticed() {
        counted("1:0\n", 2);
    }
}
