//! A failure report as a person wants to read it: what died and why, the evidence, what it interrupted, what is
//! next, what to do. Lines carry roles, so that a terminal can colour them; core knows no colours.

use super::cause::{Cause, CauseCode, EvidenceLine};
use super::lines;
use super::report::{FailureReport, NextStep};
use crate::runtime::ExitStatus;
use crate::time::WallTime;

/// How it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExplainOptions {
    /// Columns of the page; less than 40 is taken as 40.
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
    /// The name of a part, or of a fact.
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

/// The narrowest page.
const WIDTH_MIN: usize = 40;
/// How far the parts are indented.
const INDENT: usize = 2;
/// The widest column of evidence sources; a longer one has its line to itself.
const SOURCE_WIDTH_MAX: usize = 22;
/// So many lines of standard error in the evidence, the last among them, say how it ended.
const TAIL_SHOWN: usize = 3;
/// How many interrupted runs are named.
const RUNS_SHOWN: usize = 3;

/// The report as plain text, lines ended by a line feed.
#[must_use]
pub fn explain(report: &FailureReport, options: &ExplainOptions) -> String {
    explain_lines(report, options).iter().map(|line| plain(line) + "\n").collect()
}

/// The report as lines of text with roles.
#[must_use]
pub fn explain_lines(report: &FailureReport, options: &ExplainOptions) -> Vec<Line> {
    let mut page = Page { width: options.width.max(WIDTH_MIN), lines: Vec::new() };
    let cause = report.cause();
    page.head(report, cause);
    page.facts(&facts(report, options));
    if !cause.evidence.is_empty() {
        page.part("Evidence");
        page.evidence(&cause.evidence);
    }
    page.part("What to do");
    page.paragraph(INDENT, Role::Text, &cause.remedy);
    if report.causes.len() > 1 {
        page.part("Also seen");
        for other in &report.causes[1..] {
            page.fact(other.label(), label_width(report.causes[1..].iter()), &also(other));
        }
    }
    page.tail(report, cause, options.tail_lines);
    page.blank();
    page.paragraph(INDENT, Role::Dim, &format!("More about this cause: {}", cause.code.page()));
    page.lines
}

fn plain(line: &Line) -> String {
    let text: String = line.iter().map(|span| span.text.as_str()).collect();
    text.trim_end().to_owned()
}

fn label_width<'a>(causes: impl Iterator<Item = &'a Cause>) -> usize {
    causes.map(|cause| cause.label().chars().count()).max().unwrap_or(0)
}

fn also(cause: &Cause) -> String {
    format!("{} ({})", cause.summary, cause.confidence)
}

/// A sentence begins with a capital, unless it begins with a name in quotes.
fn capital(sentence: &str) -> String {
    let mut chars = sentence.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// `died`, `was stopped`, `did not start`: what the first line says of the subject.
fn verb(report: &FailureReport, code: CauseCode) -> &'static str {
    match (code, report.status) {
        (CauseCode::KilledByOperator, _) => "was stopped",
        (CauseCode::NodeLost, _) => "was lost",
        (CauseCode::Hung, _) => "hung",
        (CauseCode::Stalled, _) => "made no progress",
        (CauseCode::GroupSibling | CauseCode::IgnoredCancel, _) => "was stopped",
        _ if is_survived(report, code) => "broke a rule",
        (CauseCode::ProtocolViolation | CauseCode::ChannelClosed, None) => "cannot be understood",
        (CauseCode::Timeout, _) => "took too long",
        (CauseCode::NeverReady, _) => "did not become ready",
        (_, None) if report.evidence.launch.is_some() => "did not start",
        (_, Some(ExitStatus::Code { code: 0 })) => "ended too early",
        (_, Some(_) | None) => "died",
    }
}

/// Whether the report is of something that a runner did and goes on after it.
fn is_survived(report: &FailureReport, code: CauseCode) -> bool {
    code == CauseCode::ProtocolViolation && report.status.is_none() && report.next == NextStep::Nothing
}

fn facts(report: &FailureReport, options: &ExplainOptions) -> Vec<(&'static str, String)> {
    let lived = report.lived_ms.map(|ms| format!(", after {}", lines::duration(ms))).unwrap_or_default();
    let mut facts = vec![("when", format!("{}{lived}", civil(report.at, options.utc_offset_s)))];
    if let Some(status) = report.status {
        facts.push(("status", status.to_string()));
    }
    if !report.evidence.argv.is_empty() {
        facts.push(("command", report.evidence.argv.join(" ")));
    }
    facts.push(("interrupted", interrupted(report)));
    let next = if is_survived(report, report.cause().code) {
        "what it sent there is left out, and it goes on".to_owned()
    } else {
        next(&report.next)
    };
    facts.push(("next", next));
    facts
}

fn interrupted(report: &FailureReport) -> String {
    let runs = &report.interrupted;
    let names = &report.interrupted_names;
    if names.len() == runs.len() && !names.is_empty() {
        let shown = names.iter().take(RUNS_SHOWN).cloned().collect::<Vec<_>>().join(", ");
        return match names.len().saturating_sub(RUNS_SHOWN) {
            0 => shown,
            more => format!("{shown} and {more} more"),
        };
    }
    let named: Vec<String> = runs.iter().take(RUNS_SHOWN).map(ToString::to_string).collect();
    match runs.len() {
        0 => "nothing".to_owned(),
        1 => format!("run {}", named[0]),
        n if n <= RUNS_SHOWN => format!("{n} runs: {}", named.join(", ")),
        n => format!("{n} runs: {} and {} more", named.join(", "), n - RUNS_SHOWN),
    }
}

fn next(next: &NextStep) -> String {
    match next {
        NextStep::Nothing => "nothing is started again by itself".to_owned(),
        NextStep::Restart { nth: 0, .. } => "it is started again, and that does not count".to_owned(),
        NextStep::Restart { after_ms: 0, nth, of } => {
            format!("it is started again now (restart {nth} of {of})")
        }
        NextStep::Restart { after_ms, nth, of } => {
            format!("it is started again in {} (restart {nth} of {of})", lines::duration(*after_ms))
        }
        NextStep::GiveUp { reason } => format!("Outlive gives up: {reason}"),
    }
}

/// The page as it is written, from top to bottom.
struct Page {
    width: usize,
    lines: Vec<Line>,
}

impl Page {
    fn head(&mut self, report: &FailureReport, cause: &Cause) {
        let heading = format!("{} {}: {}", report.subject, verb(report, cause.code), cause.label());
        self.paragraph(0, Role::Heading, &heading);
        self.blank();
        self.paragraph(INDENT, Role::Text, &format!("{} ({}).", capital(&cause.summary), cause.confidence));
    }

    fn facts(&mut self, facts: &[(&str, String)]) {
        self.blank();
        let width = facts.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
        for (label, text) in facts {
            self.fact(label, width, text);
        }
    }

    /// A label and its text, wrapped beside it.
    fn fact(&mut self, label: &str, label_width: usize, text: &str) {
        let indent = INDENT + label_width + 2;
        for (nth, piece) in wrap(text, self.width - indent).into_iter().enumerate() {
            let label = if nth == 0 { label } else { "" };
            let label = span(Role::Label, &format!("{label:label_width$}  "));
            self.lines.push(vec![pad(INDENT), label, span(Role::Text, &piece)]);
        }
    }

    /// Sources in a column, named once for neighbours of the same.
    fn evidence(&mut self, evidence: &[EvidenceLine]) {
        let widths = evidence.iter().map(|line| line.source.chars().count());
        let column = widths.filter(|width| *width <= SOURCE_WIDTH_MAX).max().unwrap_or(0);
        let mut last = "";
        for EvidenceLine { source, text } in evidence {
            let mut label = if source == last { "" } else { source.as_str() };
            last = source;
            if label.chars().count() > column {
                self.lines.push(vec![pad(INDENT), span(Role::Label, label)]);
                label = "";
            }
            for piece in wrap(text, self.width - INDENT - column - 2) {
                let shown = span(Role::Label, &format!("{label:column$}  "));
                self.lines.push(vec![pad(INDENT), shown, span(Role::Evidence, &piece)]);
                label = "";
            }
        }
    }

    /// The last lines of standard error, unless the evidence shows how it ended.
    fn tail(&mut self, report: &FailureReport, cause: &Cause, tail_lines: usize) {
        let text = lines::clean(&report.evidence.stderr_tail);
        let written: Vec<&str> =
            text.iter().map(String::as_str).filter(|line| !line.trim().is_empty()).collect();
        let Some(last) = written.last() else { return };
        let shown = cause.evidence.iter().filter(|line| line.source == "stderr");
        if shown.clone().count() >= TAIL_SHOWN && shown.clone().any(|line| line.text == *last) {
            return;
        }
        self.part("Last lines of standard error");
        for line in &written[written.len().saturating_sub(tail_lines)..] {
            for piece in wrap(line, self.width - INDENT - 2) {
                self.lines.push(vec![pad(INDENT), span(Role::Dim, "│ "), span(Role::Evidence, &piece)]);
            }
        }
    }

    fn part(&mut self, name: &str) {
        self.blank();
        self.lines.push(vec![span(Role::Label, name)]);
    }

    fn paragraph(&mut self, indent: usize, role: Role, text: &str) {
        for piece in wrap(text, self.width - indent) {
            self.lines.push(vec![pad(indent), span(role, &piece)]);
        }
    }

    fn blank(&mut self) {
        self.lines.push(Vec::new());
    }
}

fn span(role: Role, text: &str) -> Span {
    Span { role, text: text.to_owned() }
}

fn pad(columns: usize) -> Span {
    span(Role::Text, &" ".repeat(columns))
}

/// Breaks text at blanks into lines of at most `width` columns; a longer word is cut. Blanks at the beginning are
/// kept, on each line: they are the indentation of code.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let indent = text.chars().take_while(|c| *c == ' ').count().min(width / 2);
    let room = width - indent;
    let mut lines: Vec<String> = vec![String::new()];
    let mut used = 0;
    for word in text.trim().split(' ') {
        let mut rest: Vec<char> = word.chars().collect();
        let gap = usize::from(used > 0);
        if used > 0 && used + gap + rest.len() > room {
            lines.push(String::new());
            used = 0;
        } else if used > 0 {
            lines.last_mut().expect("one line at least").push(' ');
            used += 1;
        }
        while rest.len() > room {
            let cut: String = rest.drain(..room).collect();
            lines.last_mut().expect("one line at least").push_str(&cut);
            lines.push(String::new());
        }
        used += rest.len();
        lines.last_mut().expect("one line at least").extend(rest);
    }
    lines.into_iter().map(|line| format!("{:indent$}{line}", "")).collect()
}

/// A wall time on the calendar of a zone, for instance `2026-11-21 22:52:03 UTC`.
fn civil(at: WallTime, utc_offset_s: i32) -> String {
    let seconds = i64::try_from(at.0 / 1_000_000).unwrap_or(i64::MAX / 2) + i64::from(utc_offset_s);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date(days);
    let zone = match utc_offset_s {
        0 => "UTC".to_owned(),
        offset => {
            let sign = if offset < 0 { '-' } else { '+' };
            format!("{sign}{:02}:{:02}", offset.abs() / 3_600, offset.abs() % 3_600 / 60)
        }
    };
    let (hour, minute, second) = (second / 3_600, second % 3_600 / 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} {zone}")
}

/// Year, month and day of a day since 1970-01-01, by Howard Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>).
const fn date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}
