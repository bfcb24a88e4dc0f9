//! The program or its interpreter does not exist or cannot be executed.

use super::{Finding, Rank};
use crate::diagnosis::case::{Case, Hit, Pattern, Weight};
use crate::diagnosis::cause::{CauseCode, Confidence};
use crate::diagnosis::evidence::{LaunchEvidence, LaunchStep};
use crate::diagnosis::{errno, lines};
use crate::runtime::ExitStatus;

const ENOENT: i32 = 2;
const ENOEXEC: i32 = 8;
const EACCES: i32 = 13;
const ENOTDIR: i32 = 20;

/// What shells, env, the loader and Python say of a program that is not there.
const PATTERNS: &[Pattern] = &[
    &["command not found"],
    &[": not found"],
    &["bad interpreter"],
    &["cannot execute"],
    &["exec format error"],
    &["can't open file"],
    &["no such file or directory"],
    &["permission denied"],
    &["error while loading shared libraries"],
];

pub(super) fn examine(case: &Case<'_>) -> Option<Finding> {
    if case.evidence.stop.is_some() {
        return None;
    }
    let launch = case.evidence.launch.as_ref().filter(|launch| launch.step == LaunchStep::Exec);
    launch.and_then(|launch| of_exec(case, launch)).or_else(|| of_shell(case))
}

/// execve refused.
fn of_exec(case: &Case<'_>, launch: &LaunchEvidence) -> Option<Finding> {
    let errno = launch.errno.filter(|errno| [ENOENT, ENOEXEC, EACCES, ENOTDIR].contains(errno))?;
    let program =
        launch.path.as_deref().or(case.evidence.argv.first().map(String::as_str)).unwrap_or("the program");
    let (what, remedy) = match errno {
        EACCES => (
            "may not be executed",
            format!(
                "`chmod +x {program}`, or start it with its interpreter; check that its disk is not `noexec`."
            ),
        ),
        ENOEXEC => (
            "is no program for this machine",
            format!(
                "A script needs a first line like `#!/usr/bin/env python3`; a binary must be built for this \
                 processor. `file {program}` shows which it is."
            ),
        ),
        _ => (
            "does not exist, or the interpreter that its first line names does not",
            format!(
                "Check the name and PATH (`command -v {program}`), and `head -1` of a script. An environment that \
                 was moved or deleted leaves such paths behind: create it again."
            ),
        ),
    };
    // A launch that looked before it leapt knows more than the error number: which of the two is missing.
    let said = launch.message.split("; ").next().filter(|said| said.contains(program));
    let summary = said.map_or_else(|| format!("`{program}` {what}"), str::to_owned);
    let finding = Finding::new(Rank::Root, CauseCode::MissingInterpreter, Confidence::Certain, summary);
    let evidence =
        [lines::fact("execve", errno::of_system_call(errno)), lines::fact("launch", launch.message.clone())];
    Some(finding.evidence(evidence).remedy(remedy))
}

/// A shell, env(1) or Python started and did not find what it was to run.
fn of_shell(case: &Case<'_>) -> Option<Finding> {
    let Some(ExitStatus::Code { code: code @ (2 | 126 | 127) }) = case.status else { return None };
    let hit = case.find(PATTERNS).filter(|hit| hit.weight == Weight::Strong);
    let python =
        hit.as_ref().is_some_and(|hit| hit.lines.iter().any(|line| line.contains("can't open file")));
    if code == 2 && !python {
        return None;
    }
    let said = |hit: &Hit<'_>| hit.lines.last().map(|line| format!(": {}", line.trim()));
    let what = if code == 126 { "could not be executed" } else { "was not found" };
    let summary = format!("the program or script {what}{}", hit.as_ref().and_then(said).unwrap_or_default());
    let confidence = if hit.is_some() { Confidence::Certain } else { Confidence::Likely };
    let finding = Finding::new(Rank::Root, CauseCode::MissingInterpreter, confidence, summary);
    let evidence = hit.into_iter().flat_map(|hit| lines::evidence(hit.source, hit.lines));
    let finding = finding.evidence(evidence).evidence([
        lines::fact("wait status", format!("exit code {code}")),
        lines::fact("working directory", case.evidence.cwd.clone()),
    ]);
    Some(finding.remedy(
        "Check the spelling, the working directory and PATH of this launch; paths are taken relative to the working \
         directory, and aliases of your shell do not count.",
    ))
}
