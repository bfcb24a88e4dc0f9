//! What a program does with what it is given.

use std::collections::BTreeSet;
use std::time::Duration;

use outlive_core::id::{Attempt, RunId};
use outlive_core::log::ChunkKind;
use outlive_core::runtime::runner::{Greeting, TaskOrder};

/// What happens when it is done again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum How {
    Plain,
    Saves,
    Exact,
    Dies,
    Holds,
}

/// Something that is done step by step.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) how: How,
    /// Steps that are done already.
    pub(super) from: u64,
    pub(super) n: u64,
    pub(super) every: Duration,
    pub(super) kind: ChunkKind,
    /// A command's exit code.
    pub(super) code: Option<i32>,
}

/// What a runner can do.
pub(super) fn greeting() -> Greeting {
    let tasks: BTreeSet<String> = ["plain", "saves", "exact", "dies", "holds"].map(str::to_owned).into();
    Greeting { tasks, concurrency: 2, sdk: Some("made up".to_owned()), ..Greeting::default() }
}

impl Script {
    pub(super) fn of_task(order: &TaskOrder) -> Self {
        let how = match order.task.as_str() {
            "saves" => How::Saves,
            "exact" => How::Exact,
            "dies" => How::Dies,
            "holds" => How::Holds,
            _ => How::Plain,
        };
        let number = |name: &str| order.input.get(name).and_then(serde_json::Value::as_u64).unwrap_or(1);
        let from = order.checkpoint.as_ref().map_or(0, |saved| saved.seq.0);
        let every = Duration::from_micros(number("every_us"));
        Self { how, from, n: number("n"), every, kind: ChunkKind::Text, code: None }
    }

    pub(super) fn of_command(argv: &[String]) -> Self {
        let mut script = Self::of_words(argv.iter().map(String::as_str));
        script.code = Some(argv.get(3).and_then(|code| code.parse().ok()).unwrap_or(0));
        script
    }

    pub(super) fn of_code(code: &str) -> Self {
        Self::of_words(code.split(' '))
    }

    fn of_words<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let mut words = words;
        let how = if words.next() == Some("die") { How::Dies } else { How::Plain };
        let mut number = || words.next().and_then(|word| word.trim().parse().ok()).unwrap_or(1);
        let (n, every) = (number(), Duration::from_micros(number()));
        Self { how, from: 0, n, every, kind: ChunkKind::Stdout, code: None }
    }

    /// What it says at a step.
    pub(super) fn text(&self, run: RunId, attempt: Attempt, step: u64) -> String {
        let run = crate::store::short(run);
        match self.how {
            How::Exact => format!("{run}/{step}\n"),
            How::Plain | How::Saves | How::Dies | How::Holds => format!("{run}/{attempt}/{step}\n"),
        }
    }
}
