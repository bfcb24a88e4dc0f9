//! A signal ended it.

use super::{Finding, Rank};
use crate::diagnosis::case::Case;
use crate::diagnosis::cause::{Cause, CauseCode, Confidence};
use crate::diagnosis::lines;
use crate::runtime::ExitStatus;
use crate::runtime::exit::signal_name;

pub(super) fn examine(case: &Case<'_>) -> Option<Finding> {
    let Some(ExitStatus::Signal { number, core_dumped }) = case.status else { return None };
    let name = signal_name(number);
    let dumped = if core_dumped { ", core dumped" } else { "" };
    Some(Finding {
        rank: Rank::End,
        cause: Cause {
            code: CauseCode::Signal,
            confidence: Confidence::Certain,
            summary: format!("it was ended by {name}"),
            evidence: vec![lines::fact("wait status", format!("signal {number} ({name}{dumped})"))],
            remedy: String::new(),
        },
    })
}
