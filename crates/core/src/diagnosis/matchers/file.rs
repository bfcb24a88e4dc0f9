//! A file of matchers: read, checked, and its mistakes told with their line.

use std::collections::BTreeSet;

use serde::Deserialize;
use toml::Spanned;

use super::{Matcher, MatcherRank, Pattern, Reading, Streams};
use crate::diagnosis::cause::{CauseCode, Confidence};
use crate::diagnosis::template;
use crate::limits::{EVIDENCE_LINES_MAX, MATCHER_PATTERNS_MAX, MATCHERS_BYTES_MAX, MATCHERS_MAX};

/// Among how many of the last lines a match is taken for last words, when the file does not say.
const WITHIN: usize = 20;
/// Captures that every template has: the line that matched, and the one behind it.
const ALWAYS: [&str; 2] = ["line", "next"];

/// What is wrong with a file of matchers.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MatcherError {
    /// It is no TOML, or has a key or value that no matcher has.
    #[error("line {line}: {message}; the format of a matcher is described in docs/matchers.md")]
    Syntax {
        /// From 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// A pattern is no regular expression.
    #[error(
        "line {line}: a pattern of the matcher `{matcher}` cannot be used: {reason}; the syntax is that of \
         https://docs.rs/regex, without look-around and back-references, byte by byte (no \\p classes)"
    )]
    Pattern {
        /// From 1.
        line: usize,
        /// Its matcher.
        matcher: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A title or remedy names what no pattern captures.
    #[error(
        "line {line}: the matcher `{matcher}` speaks of {{{capture}}}, and none of its patterns captures that: write \
         (?P<{capture}>…) in an anchor or in `details`, or use {{line}}"
    )]
    Capture {
        /// From 1.
        line: usize,
        /// Its matcher.
        matcher: String,
        /// What is not captured.
        capture: String,
    },
    /// A matcher without anchors, without a remedy, or with more patterns than may be.
    #[error("line {line}: the matcher `{matcher}` {reason}")]
    Unusable {
        /// From 1.
        line: usize,
        /// The matcher.
        matcher: String,
        /// What is missing or too much, and what to do.
        reason: String,
    },
    /// Two matchers of one name.
    #[error("line {line}: there is a matcher `{matcher}` above already: give this one another name")]
    Twice {
        /// From 1.
        line: usize,
        /// The name.
        matcher: String,
    },
    /// The file, or all of its patterns together.
    #[error(
        "the file of matchers is too large: at most {MATCHERS_MAX} matchers in {MATCHERS_BYTES_MAX} bytes; delete some"
    )]
    TooLarge,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    matcher: Vec<Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Spanned<String>,
    #[serde(default = "custom")]
    code: CauseCode,
    anchors: Vec<Spanned<String>>,
    #[serde(default)]
    also: Vec<Spanned<String>>,
    #[serde(default)]
    not: Vec<Spanned<String>>,
    #[serde(default)]
    unless: Vec<Spanned<String>>,
    #[serde(default)]
    details: Vec<Spanned<String>>,
    #[serde(default)]
    stream: Streams,
    #[serde(default = "likely")]
    confidence: Confidence,
    #[serde(default)]
    rank: MatcherRank,
    #[serde(default)]
    codes: Vec<i32>,
    #[serde(default)]
    signals: Vec<i32>,
    #[serde(default)]
    within: Option<usize>,
    #[serde(default)]
    after: usize,
    #[serde(default)]
    live: bool,
    #[serde(default)]
    title: Vec<Spanned<String>>,
    remedy: Vec<Spanned<String>>,
}

const fn custom() -> CauseCode {
    CauseCode::Custom
}

const fn likely() -> Confidence {
    Confidence::Likely
}

/// Whether the patterns of a file have been looked at before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Patterns {
    /// A file of somebody's.
    Checked,
    /// The built-in file.
    Known,
}

/// Reads all matchers of a file.
pub(super) fn parse(text: &str, patterns: Patterns) -> Result<Vec<Matcher>, MatcherError> {
    if text.len() > MATCHERS_BYTES_MAX {
        return Err(MatcherError::TooLarge);
    }
    let file: File = toml::from_str(text).map_err(|error| MatcherError::Syntax {
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    })?;
    if file.matcher.len() > MATCHERS_MAX {
        return Err(MatcherError::TooLarge);
    }
    let mut names = BTreeSet::new();
    let mut matchers = Vec::with_capacity(file.matcher.len());
    for entry in file.matcher {
        let entry = entry.into_inner();
        let line = line_of(text, entry.name.span().start);
        let matcher = Reader { text, patterns, name: entry.name.get_ref().clone(), line }.matcher(entry)?;
        if !names.insert(matcher.name.clone()) {
            return Err(MatcherError::Twice { line, matcher: matcher.name });
        }
        matchers.push(matcher);
    }
    Ok(matchers)
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// A matcher that is being read.
struct Reader<'a> {
    text: &'a str,
    patterns: Patterns,
    name: String,
    line: usize,
}

impl Reader<'_> {
    fn matcher(self, entry: Entry) -> Result<Matcher, MatcherError> {
        if self.name.trim().is_empty() || self.name.len() > 64 || self.name.chars().any(char::is_control) {
            return Err(self.unusable("needs a name of at most 64 bytes"));
        }
        if entry.anchors.is_empty() {
            return Err(self.unusable("has no anchors: give it the words that the program says"));
        }
        if entry.remedy.is_empty() {
            return Err(self.unusable("has no remedy: say what to do"));
        }
        let anchors = self.patterns(&entry.anchors)?;
        let also = self.patterns(&entry.also)?;
        let details = self.patterns(&entry.details)?;
        if self.patterns == Patterns::Checked {
            if anchors.iter().any(|anchor| anchor.regex().is_match(b"")) {
                return Err(self.unusable("has an anchor that matches every line: give it more words"));
            }
            self.check_templates(&entry, anchors.iter().chain(&also).chain(&details))?;
        }
        let texts =
            |list: Vec<Spanned<String>>| list.into_iter().map(Spanned::into_inner).collect::<Vec<_>>();
        Ok(Matcher {
            not: self.patterns(&entry.not)?,
            unless: self.patterns(&entry.unless)?,
            code: entry.code,
            streams: entry.stream,
            confidence: entry.confidence,
            rank: entry.rank,
            codes: entry.codes,
            signals: entry.signals,
            within: entry.within.unwrap_or(WITHIN),
            after: entry.after.min(EVIDENCE_LINES_MAX),
            reading: if entry.live { Reading::Alive } else { Reading::AfterTheEnd },
            title: texts(entry.title),
            remedy: texts(entry.remedy),
            name: self.name,
            anchors,
            also,
            details,
        })
    }

    fn patterns(&self, list: &[Spanned<String>]) -> Result<Vec<Pattern>, MatcherError> {
        if list.len() > MATCHER_PATTERNS_MAX {
            let most =
                format!("has more than {MATCHER_PATTERNS_MAX} patterns in one list: make it two matchers");
            return Err(self.unusable(&most));
        }
        let mistake = |pattern: &Spanned<String>, error: &regex::Error| MatcherError::Pattern {
            line: line_of(self.text, pattern.span().start),
            matcher: self.name.clone(),
            reason: reason(error),
        };
        list.iter()
            .map(|pattern| match self.patterns {
                Patterns::Known => Ok(Pattern::known(pattern.get_ref())),
                Patterns::Checked => {
                    Pattern::checked(pattern.get_ref()).map_err(|error| mistake(pattern, &error))
                }
            })
            .collect()
    }

    /// Whether titles and remedies speak only of what is captured.
    fn check_templates<'a>(
        &self,
        entry: &Entry,
        patterns: impl Iterator<Item = &'a Pattern>,
    ) -> Result<(), MatcherError> {
        let captured = patterns.flat_map(|pattern| pattern.regex().capture_names().flatten());
        let known: BTreeSet<&str> = captured.chain(ALWAYS).collect();
        for text in entry.title.iter().chain(&entry.remedy) {
            if let Some(capture) = template::captures(text.get_ref()).find(|capture| !known.contains(capture))
            {
                return Err(MatcherError::Capture {
                    line: line_of(self.text, text.span().start),
                    matcher: self.name.clone(),
                    capture: capture.to_owned(),
                });
            }
        }
        Ok(())
    }

    fn unusable(&self, reason: &str) -> MatcherError {
        MatcherError::Unusable { line: self.line, matcher: self.name.clone(), reason: reason.to_owned() }
    }
}

/// The last line of what the parser says: the others draw the pattern.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default().trim();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}
