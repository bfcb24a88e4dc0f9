//! What programs say of what ended them, as data: the built-in matchers (`matchers.toml`) and the user's own.
//!
//! A matcher has anchors, regular expressions of which one must match a line. They are searched in linear time
//! (<https://docs.rs/regex>): all anchors of all matchers at once in each line, then those that matched one by one for
//! their captures. A pattern is compiled when it is first used by itself: few ever are. What a match weighs is decided by where it stands, in `engine/matched.rs`.

mod file;
mod pattern;

use std::sync::{LazyLock, OnceLock};

use regex::bytes::{RegexSet, RegexSetBuilder};

use super::cause::{CauseCode, Confidence};
use crate::limits::MATCHERS_SET_BYTES_MAX;

pub use file::MatcherError;
pub(super) use pattern::{Pattern, any};

/// A set of matchers; the earlier one goes first among equals.
#[derive(Clone, Debug)]
pub struct Matchers {
    matchers: Vec<Matcher>,
    /// Every anchor of every matcher.
    anchors: RegexSet,
    /// Which matcher an anchor of the set belongs to, and which of its anchors it is.
    owners: Vec<(usize, usize)>,
}

/// What a program says of one thing that ends it.
#[derive(Clone, Debug)]
pub(super) struct Matcher {
    pub(super) name: String,
    pub(super) code: CauseCode,
    /// One of them must match a line.
    pub(super) anchors: Vec<Pattern>,
    /// Each of them must match some line of the same stream.
    pub(super) also: Vec<Pattern>,
    /// A line that one of them matches is no match.
    pub(super) not: Vec<Pattern>,
    /// A later line that one of them matches says that the program went on.
    pub(super) unless: Vec<Pattern>,
    /// Where further captures are found: in the lines that matched and those that are shown with them.
    pub(super) details: Vec<Pattern>,
    pub(super) streams: Streams,
    pub(super) confidence: Confidence,
    pub(super) rank: MatcherRank,
    /// Exit codes and signals that it explains; both empty: every abnormal end.
    pub(super) codes: Vec<i32>,
    pub(super) signals: Vec<i32>,
    /// Among how many of the last lines a match is taken for last words.
    pub(super) within: usize,
    /// How many lines behind a match are shown with it.
    pub(super) after: usize,
    /// Whether it is also the cause when Outlive ended the process for not going on.
    pub(super) reading: Reading,
    /// The first one whose captures are all known is used.
    pub(super) title: Vec<String>,
    /// The same for the remedy.
    pub(super) remedy: Vec<String>,
}

/// Where a program says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Streams {
    #[default]
    Stderr,
    Stdout,
    Both,
}

/// Where it stands among causes that are as sure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum MatcherRank {
    /// Something was missing or broke: the beginning.
    #[default]
    Root,
    /// What follows when something else breaks first.
    Consequence,
}

/// Of which processes it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reading {
    /// Of those that ended by themselves.
    AfterTheEnd,
    /// Also of those that said it, lived on and did nothing.
    Alive,
}

const BUILTIN_TEXT: &str = include_str!("../matchers.toml");

static BUILTIN: LazyLock<Matchers> = LazyLock::new(|| {
    let known = file::parse(BUILTIN_TEXT, file::Patterns::Known);
    known.and_then(Matchers::of).expect("the built-in matchers are tested to be right")
});

/// The matchers of this process: the daemon puts the user's there before the first diagnosis.
static INSTALLED: OnceLock<Matchers> = OnceLock::new();

/// Matchers were installed before; the first ones stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "matchers are already installed: they are read once, when the daemon starts; restart it to change them"
)]
pub struct AlreadyInstalled;

impl Matchers {
    /// Reads a file of matchers (docs/matchers.md).
    ///
    /// # Errors
    /// What is wrong with it, with its line.
    pub fn parse(text: &str) -> Result<Self, MatcherError> {
        Self::of(file::parse(text, file::Patterns::Checked)?)
    }

    /// Those that come with Outlive. The first call compiles them, which takes some milliseconds.
    ///
    /// # Panics
    /// Never: a test parses them.
    #[must_use]
    pub fn builtin() -> &'static Self {
        &BUILTIN
    }

    /// These and the user's: the user's go first, and one of the same name takes the place of ours.
    ///
    /// # Errors
    /// Together they are too large.
    pub fn with(&self, user: &Self) -> Result<Self, MatcherError> {
        let ours = self.matchers.iter().filter(|ours| user.matchers.iter().all(|own| own.name != ours.name));
        Self::of(user.matchers.iter().chain(ours).cloned().collect())
    }

    /// Makes these the matchers of every diagnosis in this process. The daemon calls it once, when it starts.
    ///
    /// # Errors
    /// It was called before.
    pub fn install(self) -> Result<(), AlreadyInstalled> {
        INSTALLED.set(self).map_err(|_| AlreadyInstalled)
    }

    /// The matchers that were installed, or the built-in ones.
    #[must_use]
    pub fn current() -> &'static Self {
        INSTALLED.get().unwrap_or(&BUILTIN)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.matchers.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.matchers.is_empty()
    }

    fn of(matchers: Vec<Matcher>) -> Result<Self, MatcherError> {
        let owners: Vec<(usize, usize)> = matchers
            .iter()
            .enumerate()
            .flat_map(|(nth, matcher)| (0..matcher.anchors.len()).map(move |anchor| (nth, anchor)))
            .collect();
        let anchors = owners.iter().map(|&(matcher, anchor)| matchers[matcher].anchors[anchor].as_str());
        let anchors = RegexSetBuilder::new(anchors)
            .unicode(false)
            .size_limit(MATCHERS_SET_BYTES_MAX)
            .dfa_size_limit(MATCHERS_SET_BYTES_MAX)
            .build()
            .map_err(|_| MatcherError::TooLarge)?;
        Ok(Self { matchers, anchors, owners })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Matcher> {
        self.matchers.iter()
    }

    /// For each matcher the lines that match it, oldest first.
    pub(super) fn scan(&self, lines: &[String]) -> Vec<Vec<usize>> {
        let mut found: Vec<Vec<usize>> = vec![Vec::new(); self.matchers.len()];
        for (nth, line) in lines.iter().enumerate() {
            for anchor in &self.anchors.matches(line.as_bytes()) {
                let (matcher, _) = self.owners[anchor];
                if found[matcher].last() != Some(&nth) && !any(&self.matchers[matcher].not, line) {
                    found[matcher].push(nth);
                }
            }
        }
        found
    }
}

impl Matcher {
    /// A line without what its first matching anchor matched: `Ignored` in an error's own name is no word about it.
    pub(super) fn rest_of(&self, line: &str) -> String {
        let bytes = line.as_bytes();
        let matched = self.anchors.iter().find_map(|anchor| anchor.regex().find(bytes));
        let Some(matched) = matched else { return line.to_owned() };
        let (before, after) = (&bytes[..matched.start()], &bytes[matched.end()..]);
        format!("{} {}", String::from_utf8_lossy(before), String::from_utf8_lossy(after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The built-in ones are not checked when a daemon starts: they are checked here.
    #[test]
    fn the_builtin_matchers_are_right() {
        let checked = Matchers::parse(BUILTIN_TEXT).expect("no mistake");
        assert_eq!(checked.len(), Matchers::builtin().len());
        for matcher in checked.iter() {
            assert!(!matcher.title.is_empty(), "{} has a title", matcher.name);
            assert_ne!(matcher.code, CauseCode::Custom, "{} has a code", matcher.name);
        }
    }
}
