//! It ended by itself with an exit code.

use super::{Finding, Rank};
use crate::diagnosis::case::Case;
use crate::diagnosis::cause::{CauseCode, Confidence};
use crate::diagnosis::evidence::Phase;
use crate::diagnosis::lines;
use crate::runtime::ExitStatus;
use crate::runtime::exit::signal_name;

/// How many lines of standard error stand below an exit code.
const LAST_LINES: usize = 5;

pub(super) fn examine(case: &Case<'_>) -> Option<Finding> {
    let Some(ExitStatus::Code { code }) = case.status else { return None };
    if case.evidence.stop.is_some() {
        return None;
    }
    let when = match case.evidence.phase {
        Phase::Launching => " before it was ready",
        Phase::Idle => " while it was idle, though nobody had asked it to",
        Phase::Busy => " in the middle of work",
        Phase::Stopping => " while it was stopping",
    };
    let meaning = meaning(code).map(|text| format!(" ({text})")).unwrap_or_default();
    let summary = format!("exited with code {code}{when}{meaning}");
    let finding = Finding::new(Rank::End, CauseCode::ExitCode, Confidence::Certain, summary);
    Some(
        finding
            .evidence([lines::fact("wait status", format!("exit code {code}"))])
            .evidence(lines::evidence("stderr", case.last_lines(LAST_LINES)))
            .remedy(remedy(code, case.last_lines(1).next().is_none())),
    )
}

/// Conventions of shells and of Rust.
fn meaning(code: i32) -> Option<String> {
    match code {
        2 => Some("by convention: wrong usage".to_owned()),
        101 => Some("a Rust panic".to_owned()),
        126 => Some("a shell's way to say: could not be executed".to_owned()),
        127 => Some("a shell's way to say: not found".to_owned()),
        129..=159 => Some(format!(
            "128 + {0}: a shell's way to say that {1} ended a child",
            code - 128,
            signal_name(code - 128)
        )),
        _ => None,
    }
}

fn remedy(code: i32, silent: bool) -> &'static str {
    match (code, silent) {
        (0, _) => {
            "It ended itself although its work was not done: look for `exit()`, `quit()` or `os._exit(0)` in the code \
             and in the libraries it calls."
        }
        (_, true) => {
            "It wrote nothing to standard error, so the exit was meant: look for `sys.exit` or `os._exit` in the code \
             and in the libraries it calls."
        }
        (_, false) => "Read its last lines; the exit code itself is the program's own choice.",
    }
}
