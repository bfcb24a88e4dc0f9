//! Failure reports on a terminal: core says what each piece of text is, and here it gets its colour.

use outlive_core::diagnosis::evidence::LaunchStep;
use outlive_core::diagnosis::explain::{ExplainOptions, Role, explain_lines};
use outlive_core::diagnosis::{CauseCode, FailureReport};
use outlive_core::session::spec::Trust;
use outlive_protocol::http::SessionView;

use crate::select::short;
use crate::terminal::{self, Ink, Paint};

/// Widest text, in columns: longer lines are tiring to read.
const COLUMNS_MAX: usize = 100;

/// A report as text, ended by a line feed.
pub fn text(report: &FailureReport, paint: Paint) -> String {
    let options = ExplainOptions {
        width: terminal::width().min(COLUMNS_MAX),
        utc_offset_s: utc_offset_s(),
        ..Default::default()
    };
    let mut text = String::new();
    for line in explain_lines(report, &options) {
        for span in &line {
            let ink = match span.role {
                Role::Heading => Some(Ink::Red),
                Role::Label => Some(Ink::Bold),
                Role::Evidence => Some(Ink::Yellow),
                Role::Dim => Some(Ink::Dim),
                Role::Text => None,
            };
            match ink {
                Some(ink) if !span.text.trim().is_empty() => {
                    text.push_str(&paint.text(ink, &span.text).to_string());
                }
                Some(_) | None => text.push_str(&span.text),
            }
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

/// The same of a session that is known: what there is to do about it as commands.
pub fn text_in(session: Option<&SessionView>, report: &FailureReport, paint: Paint) -> String {
    let mut text = text(report, paint);
    if let Some(commands) = session.and_then(|session| commands(session, report)) {
        text.push_str(&format!("{} {commands}\n", paint.text(Ink::Bold, "hint:")));
    }
    text
}

/// How a kernel is started that could not have its environment.
fn commands(session: &SessionView, report: &FailureReport) -> Option<String> {
    let launch = report.evidence.launch.as_ref()?;
    if launch.step != LaunchStep::Environment || session.closed_at.is_some() {
        return None;
    }
    let id = short(session.id);
    Some(match session.trust {
        Trust::Untrusted => {
            format!(
                "`outlive trust {id}` vouches for the notebook, then `outlive restart {id}` starts its kernel"
            )
        }
        Trust::Trusted => format!("`outlive restart {id}` starts its kernel again"),
    })
}

/// Whether a report tells somebody who watches something new: not the end that a user asked for.
pub fn is_news(report: &FailureReport) -> bool {
    report.cause().code != CauseCode::KilledByOperator
}

/// Whether a report says no more than that a command ended with an exit code of its own.
pub fn is_plain_exit(report: &FailureReport) -> bool {
    report.cause().code == CauseCode::ExitCode
}

/// The user's time zone in seconds east of UTC, as `date` says it; UTC when there is no `date`.
fn utc_offset_s() -> i32 {
    use std::sync::OnceLock;
    static OFFSET: OnceLock<i32> = OnceLock::new();
    *OFFSET.get_or_init(|| {
        let output = std::process::Command::new("date").arg("+%z").output().ok();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        text.as_deref().and_then(parse_offset).unwrap_or(0)
    })
}

/// `+0130` is 5400.
fn parse_offset(text: &str) -> Option<i32> {
    let sign = match text.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let digits: i32 = text.get(1..5)?.parse().ok()?;
    Some(sign * (digits / 100 * 3_600 + digits % 100 * 60))
}

#[cfg(test)]
mod tests {
    use super::parse_offset;

    #[test]
    fn time_zones_as_date_prints_them() {
        assert_eq!(parse_offset("+0130"), Some(5_400));
        assert_eq!(parse_offset("-0800"), Some(-28_800));
        assert_eq!(parse_offset("UTC"), None);
    }
}
