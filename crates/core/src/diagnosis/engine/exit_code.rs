//! It ended by itself with an exit code.

use super::{Finding, Rank};
use crate::diagnosis::case::Case;
use crate::diagnosis::cause::{Cause, CauseCode, Confidence};
use crate::diagnosis::evidence::Phase;
use crate::diagnosis::lines;
use crate::runtime::ExitStatus;
use crate::runtime::exit::signal_name;

pub(super) fn examine(case: &Case<'_>) -> Option<Finding> {
    let Some(ExitStatus::Code { code }) = case.status else { return None };
    if case.evidence.stop.is_some() {
        return None;
    }
    let when = match case.evidence.phase {
        Phase::Launching => "before it was ready",
        Phase::Idle => "while it was idle, though nobody had asked it to",
        Phase::Busy => "in the middle of work",
        Phase::Stopping => "while it was stopping",
    };
    let meaning = meaning(code).map(|text| format!(" ({text})")).unwrap_or_default();
    let mut evidence = vec![lines::fact("wait status", format!("exit code {code}"))];
    evidence.extend(lines::evidence("stderr", case.last_lines(LAST_LINES)));
    Some(Finding {
        rank: Rank::End,
        cause: Cause {
            code: CauseCode::ExitCode,
            confidence: Confidence::Certain,
            summary: format!("it exited with code {code} {when}{meaning}"),
            evidence,
            remedy: remedy(code, case.stderr.is_empty()),
        },
    })
}

/// How many lines of standard error stand below an exit code.
const LAST_LINES: usize = 5;

/// Conventions of shells and of sysexits.h.
fn meaning(code: i32) -> Option<String> {
    match code {
        2 => Some("by convention: wrong usage".to_owned()),
        126 => Some("a shell's way to say: found, but could not be executed".to_owned()),
        127 => Some("a shell's way to say: command not found".to_owned()),
        129..=159 => Some(format!(
            "128 + {}: a shell's way to say that {} ended a child",
            code - 128,
            signal_name(code - 128)
        )),
        _ => None,
    }
}

fn remedy(code: i32, silent: bool) -> String {
    match (code, silent) {
        (0, _) => {
            "It called exit by itself although its work was not finished: look for `exit()`, `quit()` or \
                   `os._exit(0)` in the code and in the libraries it calls."
                .to_owned()
        }
        (_, true) => {
            "It wrote nothing to standard error, so the exit was deliberate: look for `sys.exit` or \
                      `os._exit` in the code and in the libraries it calls."
                .to_owned()
        }
        (_, false) => {
            "Read the last lines it wrote; the exit code itself is the program's own choice.".to_owned()
        }
    }
}
