//! What a task has said by its own account, and what its watchers were told.

use std::fs;
use std::path::PathBuf;

use crate::clock::Deadline;
use crate::runners::Task;
use crate::transcript::Transcript;

/// A task that says numbers and keeps an account of them.
pub struct Account {
    /// The task.
    pub task: Task,
    /// Where its attempts keep their files.
    pub side: PathBuf,
    /// How many numbers it is to say.
    pub chunks: usize,
    /// Whether it may be begun again.
    pub idempotent: bool,
}

impl Account {
    /// Watches it to its end and compares what was told with what was said.
    ///
    /// # Panics
    /// When something is lost, doubled or mixed up.
    pub fn is_kept(&self, deadline: Deadline) {
        let (mut seen, mut events) = (Transcript::default(), self.task.attach(None));
        let mut attempt = 0;
        while seen.outcome.is_none() {
            let event = events.next(deadline).unwrap_or_else(|silence| {
                panic!("{silence:?} before the end of {}; said: {:?}", self.task.id, seen.said());
            });
            if event.name == "reset" {
                // An attempt is over: all that it has said was told before that.
                self.all_was_told(&seen, attempt);
                attempt = event.data["attempt"].as_u64().expect("a reset names an attempt");
            } else if event.name == "output" && attempt == 0 {
                attempt = event.data["attempt"].as_u64().expect("output has an attempt");
            }
            seen.push(&event);
        }
        let last = self.task.view()["attempt"].as_u64().expect("a number");
        self.all_was_told(&seen, last);
        self.is_in_order(&seen);
        let late = self.task.outcome_by(deadline);
        assert_eq!((&late.chunks, &late.outcome), (&seen.chunks, &seen.outcome), "a newcomer sees the same");
    }

    /// What one attempt has said for sure stands in the output, and nothing that it cannot have said.
    fn all_was_told(&self, seen: &Transcript, attempt: u64) {
        let file = fs::read(self.side.join(format!("{}.{attempt}", self.task.id))).unwrap_or_default();
        let of = |mark: u8| file.iter().filter(|byte| **byte == mark).count();
        let told = numbers(seen).iter().filter(|(by, _)| *by == attempt).count();
        assert!(
            (of(b'a')..=of(b'b')).contains(&told),
            "attempt {attempt} of {} has said {} to {} numbers, and {told} were told",
            self.task.id,
            of(b'a'),
            of(b'b'),
        );
    }

    /// The numbers come in order, each once, whichever attempt said them; the end is what it should be.
    fn is_in_order(&self, seen: &Transcript) {
        let numbers = numbers(seen);
        for (place, (by, number)) in numbers.iter().enumerate() {
            assert_eq!(*number, place, "{}: {numbers:?}", self.task.id);
            assert!(place == 0 || numbers[place - 1].0 <= *by, "{}: {numbers:?}", self.task.id);
        }
        let (results, errors) = (seen.of_kind("result").count(), seen.of_kind("error").count());
        match seen.ended() {
            "succeeded" => assert_eq!((numbers.len(), results, errors), (self.chunks, 1, 0), "{seen:#?}"),
            "failed" => {
                assert_eq!((seen.cause(), results, errors), ("signal", 0, 1), "{seen:#?}");
                assert_eq!(
                    seen.chunks.last().map(|chunk| &chunk["kind"]),
                    Some(&"error".into()),
                    "{seen:#?}"
                );
            }
            other => panic!("{} ended as {other:?}: {:?}", self.task.id, seen.outcome),
        }
        assert!(self.idempotent || seen.resets == 0, "it may not be begun again");
    }
}

/// What was told: by which attempt, and which number.
fn numbers(seen: &Transcript) -> Vec<(u64, usize)> {
    let said = seen.said();
    let parse = |line: &str| {
        let (attempt, number) = line.split_once(':')?;
        Some((attempt.parse().ok()?, number.parse().ok()?))
    };
    said.lines().map(|line| parse(line).unwrap_or_else(|| panic!("no number: {line:?}"))).collect()
}
