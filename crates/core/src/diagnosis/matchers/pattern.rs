//! A pattern of a matcher.

use std::sync::OnceLock;

use regex::bytes::{Regex, RegexBuilder};

use crate::limits::MATCHER_PATTERN_BYTES_MAX;

/// A regular expression that is compiled when it is first used. Of the built-in ones few ever are: hundreds, compiled,
/// would take a tenth of a second and ten megabytes.
#[derive(Clone, Debug)]
pub(in crate::diagnosis) struct Pattern {
    text: String,
    compiled: OnceLock<Regex>,
}

impl Pattern {
    /// A pattern that is known to be right.
    pub(super) fn known(text: &str) -> Self {
        Self { text: text.to_owned(), compiled: OnceLock::new() }
    }

    /// A pattern of somebody's: compiled, to see whether it can be.
    pub(super) fn checked(text: &str) -> Result<Self, regex::Error> {
        Ok(Self { text: text.to_owned(), compiled: OnceLock::from(compile(text)?) })
    }

    /// As it was written.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(in crate::diagnosis) fn regex(&self) -> &Regex {
        self.compiled.get_or_init(|| compile(&self.text).expect("it was checked, here or by a test"))
    }
}

fn compile(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text).unicode(false).size_limit(MATCHER_PATTERN_BYTES_MAX).build()
}

/// Whether any of the patterns matches.
pub(in crate::diagnosis) fn any(patterns: &[Pattern], line: &str) -> bool {
    patterns.iter().any(|pattern| pattern.regex().is_match(line.as_bytes()))
}
