//! A failure report as a person wants to read it.

use super::report::FailureReport;

/// How it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExplainOptions {
    /// Columns of the page.
    pub width: usize,
    /// How many lines of standard error are shown at the end.
    pub tail_lines: usize,
    /// The reader's time zone, in seconds east of UTC.
    pub utc_offset_s: i32,
}

impl Default for ExplainOptions {
    fn default() -> Self {
        Self { width: 80, tail_lines: 10, utc_offset_s: 0 }
    }
}

/// What a piece of text is, so that a terminal can colour it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The first line: what died.
    Heading,
    /// The name of a part.
    Label,
    /// Plain text.
    Text,
    /// Something that the system or the program said.
    Evidence,
    /// Of less weight.
    Dim,
}

/// A piece of a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    /// What it is.
    pub role: Role,
    /// Its text, without a line break.
    pub text: String,
}

/// One line: its pieces, in order.
pub type Line = Vec<Span>;

/// The report as lines of text with roles.
#[must_use]
pub fn explain_lines(report: &FailureReport, _options: &ExplainOptions) -> Vec<Line> {
    let cause = report.cause();
    vec![
        vec![Span { role: Role::Heading, text: report.subject.clone() }],
        vec![Span {
            role: Role::Text,
            text: format!("{} ({}): {}", cause.code, cause.confidence, cause.summary),
        }],
    ]
}

/// The report as plain text, lines ended by a line feed.
#[must_use]
pub fn explain(report: &FailureReport, options: &ExplainOptions) -> String {
    let mut text = String::new();
    for line in explain_lines(report, options) {
        for span in &line {
            text.push_str(&span.text);
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}
