//! The evidence of one end, prepared once for all engines.

use super::evidence::Evidence;
use super::lines;
use super::traceback::{Link, Place, Traceback};
use crate::runtime::stop::StopKind;
use crate::runtime::{ExitStatus, StopWhy};

/// How many of its last lines count as what it died of, when no traceback stands at the end.
const LAST_WORDS_LINES: usize = 20;

/// The same before an exception that only tells of the failure of something else: such reports are long.
const BEHIND_MESSENGER_LINES: usize = 60;

/// What engines look at.
pub(super) struct Case<'a> {
    pub(super) evidence: &'a Evidence,
    pub(super) status: Option<ExitStatus>,
    /// Standard error, cleaned. Empty when the program ended well: then nothing it wrote was fatal.
    pub(super) stderr: Vec<String>,
    /// Standard output, the same.
    pub(super) stdout: Vec<String>,
    /// The exception that it told of, or that stands in standard error.
    pub(super) exception: Option<Traceback>,
    /// Where that is from.
    pub(super) exception_source: &'static str,
}

/// How much a match in the text weighs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Weight {
    /// Written, but earlier, or in a line that speaks of a retry or a warning: it may have been survived.
    Weak,
    /// In its last words.
    Strong,
}

/// Lines that match a pattern.
pub(super) struct Hit<'a> {
    pub(super) weight: Weight,
    /// The lines, oldest first; of the last words only, when it is strong.
    pub(super) lines: Vec<&'a str>,
    /// Where they are from.
    pub(super) source: &'static str,
}

/// Pieces of lower-case text that must all stand in one line.
pub(super) type Pattern = &'static [&'static str];

impl<'a> Case<'a> {
    pub(super) fn new(evidence: &'a Evidence, status: Option<ExitStatus>) -> Self {
        let survived = status.is_some_and(ExitStatus::is_success);
        let clean = |tail| if survived { Vec::new() } else { lines::clean(tail) };
        let (stderr, stdout) = (clean(&evidence.stderr_tail), clean(&evidence.stdout_tail));
        let raised = evidence.exception.as_ref().map(|told| (Traceback::told(told), "exception"));
        let last_words =
            || evidence.last_words.as_ref().map(|words| (Traceback::last_words(words), "last words"));
        let said = || Traceback::last(&stderr).map(|traceback| (traceback, "stderr"));
        // Who writes everything to standard output has its last words there.
        let silent = stderr.iter().all(|line| line.trim().is_empty());
        let printed = || Traceback::last(&stdout).filter(|_| silent).map(|traceback| (traceback, "stdout"));
        let (exception, exception_source) = raised.or_else(last_words).or_else(said).or_else(printed).unzip();
        Self {
            evidence,
            status,
            exception,
            exception_source: exception_source.unwrap_or("stderr"),
            stderr,
            stdout,
        }
    }

    /// Who wanted its end, when we ended it.
    pub(super) fn stopped(&self) -> Option<StopWhy> {
        self.evidence.stop.as_ref().map(|stop| stop.why)
    }

    /// Whether Outlive ended it because it did not go on: what it had said before may be why.
    pub(super) fn ended_by_verdict(&self) -> bool {
        self.stopped().is_some_and(|why| why.kind() == StopKind::Verdict)
    }

    /// Whether somebody else asked for its end: SIGTERM, SIGINT or SIGHUP that we did not send.
    pub(super) fn asked_from_outside(&self) -> bool {
        const REQUESTS: [i32; 3] = [1, 2, 15];
        self.evidence.stop.is_none() && self.fatal_signal().is_some_and(|signal| REQUESTS.contains(&signal))
    }

    /// The signal that ended it, or that a shell says has ended what it ran (128 + n).
    pub(super) fn fatal_signal(&self) -> Option<i32> {
        match self.status? {
            ExitStatus::Signal { number, .. } => Some(number),
            ExitStatus::Code { code: code @ 129..=159 } => Some(code - 128),
            ExitStatus::Code { .. } | ExitStatus::Unknown => None,
        }
    }

    /// The exception chain, if it was what the program died of.
    pub(super) fn last_exception(&self) -> Option<&Traceback> {
        self.exception.as_ref().filter(|traceback| traceback.is_final())
    }

    /// The same, unless it only tells that something else has failed: then that is looked for before it.
    fn telling_exception(&self) -> Option<&Traceback> {
        self.last_exception().filter(|traceback| !is_messenger(traceback.uncaught()))
    }

    /// The link nearest to the end of the last exception's chain that `wanted` takes, and what it weighs.
    pub(super) fn link(&self, wanted: impl Fn(&Link) -> bool) -> Option<(&Link, Weight)> {
        let (link, sure) = self.exception.as_ref()?.towards_root().find(|(link, _)| wanted(link))?;
        let strong = sure && self.last_exception().is_some();
        Some((link, if strong { Weight::Strong } else { Weight::Weak }))
    }

    /// The last lines of standard error that are not blank, in their order.
    pub(super) fn last_lines(&self, n: usize) -> impl Iterator<Item = &str> {
        let shown: Vec<&str> =
            self.stderr.iter().map(String::as_str).filter(|line| !line.trim().is_empty()).collect();
        let from = shown.len().saturating_sub(n);
        shown.into_iter().skip(from)
    }

    /// Looks for any of the patterns in standard error. When an exception stands at its end, only that exception's
    /// chain is strong; else the last lines are.
    pub(super) fn find(&self, patterns: &[Pattern]) -> Option<Hit<'_>> {
        if let Some((link, Weight::Strong)) =
            self.link(|link| link.words.iter().any(|line| matches(line, patterns)))
        {
            let source = self.exception_source;
            return Some(Hit { weight: Weight::Strong, lines: link.lines().collect(), source });
        }
        let recent = self.stderr_from(LAST_WORDS_LINES);
        let hits = |from: usize, to: usize| -> Vec<&str> {
            self.stderr[from..to].iter().map(String::as_str).filter(|line| matches(line, patterns)).collect()
        };
        let strong: Vec<&str> =
            hits(recent, self.stderr.len()).into_iter().filter(|line| !is_survived(line)).collect();
        if !strong.is_empty() {
            return Some(Hit { weight: Weight::Strong, lines: strong, source: "stderr" });
        }
        let weak = hits(0, self.stderr.len());
        (!weak.is_empty()).then_some(Hit { weight: Weight::Weak, lines: weak, source: "stderr" })
    }

    /// The index of the first of the last words of standard error.
    pub(super) fn stderr_from(&self, within: usize) -> usize {
        // What a traceback says that was logged, and that much came after, has been survived.
        let survived = self.exception.as_ref().filter(|traceback| !traceback.last_words);
        let survived = survived.filter(|traceback| traceback.place == Place::Logged);
        let behind = survived.map_or(0, |traceback| traceback.end.min(self.stderr.len()));
        self.recent_from(&self.stderr, within).max(behind)
    }

    /// The index of the first of the last words of a stream: of so many lines, and of none when an exception tells
    /// what it died of. Frames of stacks do not count: a crash prints many.
    pub(super) fn recent_from(&self, text: &[String], within: usize) -> usize {
        if self.telling_exception().is_some() {
            return text.len();
        }
        let within =
            if self.last_exception().is_some() { within.max(BEHIND_MESSENGER_LINES) } else { within };
        let weighty = |line: &str| !line.trim().is_empty() && !line.starts_with("  ");
        let mut lines = text.iter().enumerate().rev().filter(|(_, line)| weighty(line));
        lines.nth(within.max(1) - 1).map_or(0, |(i, _)| i)
    }
}

/// Whether an exception only says that another process or part has failed.
fn is_messenger(link: &Link) -> bool {
    const TYPES: [&str; 7] = [
        "ChildFailedError",
        "CalledProcessError",
        "BrokenProcessPool",
        "TerminatedWorkerError",
        "ProcessExitedException",
        "WorkerCrashedError",
        "SystemExit",
    ];
    const ABOVE: [&str; 4] = ["root cause above", "errors above", "error above", "see above"];
    let message = link.message.to_lowercase();
    TYPES.contains(&link.short_type()) || ABOVE.iter().any(|words| message.contains(words))
}

/// Whether a line holds all pieces of one of the patterns.
pub(super) fn matches(line: &str, patterns: &[Pattern]) -> bool {
    let line = line.to_lowercase();
    patterns.iter().any(|pattern| pattern.iter().all(|piece| line.contains(piece)))
}

/// Whether a line says that the program went on: a warning, a retry, information.
pub(super) fn is_survived(line: &str) -> bool {
    const WORDS: [&str; 13] = [
        "warning",
        "warn",
        "debug",
        "info",
        "retry",
        "retrying",
        "retried",
        "ignored",
        "ignoring",
        "recovered",
        "handled",
        "skipping",
        "skipped",
    ];
    /// The same in several words.
    const PHRASES: [&str; 6] =
        ["trying again", "try again in", "falling back", "continuing", "reconnecting", "going on without"];
    let line = line.to_lowercase();
    line.split(|c: char| !c.is_alphanumeric()).any(|word| WORDS.contains(&word))
        || PHRASES.iter().any(|phrase| line.contains(phrase))
}
