//! What matchers find in what a program wrote, and what it weighs.
//!
//! A match is strong in its last words: in the exception that it died of, or among its last lines when none stands
//! there. Elsewhere, and in lines that speak of a retry or a warning, it may have been survived: it is a suspicion.

use std::collections::BTreeMap;

use super::{Finding, Rank};
use crate::diagnosis::case::{Case, Weight, is_survived};
use crate::diagnosis::cause::{CauseCode, Confidence};
use crate::diagnosis::matchers::{Matcher, MatcherRank, Matchers, Pattern, Reading, Streams, any};
use crate::diagnosis::traceback::{Link, Traceback};
use crate::diagnosis::{lines, template};
use crate::limits::MATCHER_CAPTURE_BYTES_MAX;
use crate::runtime::ExitStatus;

/// A matcher that looks at fewer last lines than this has anchors that many programs write on many occasions: what it
/// finds earlier says nothing.
const GENERAL_WITHIN: usize = 10;

pub(super) fn examine(case: &Case<'_>, matchers: &Matchers) -> Vec<Finding> {
    let (stderr, stdout) = (matchers.scan(&case.stderr), matchers.scan(&case.stdout));
    // The chain that it died of, from its end towards the root, as far as each is its consequence for certain.
    let chain = case.last_exception().into_iter().flat_map(Traceback::towards_root);
    let chain: Vec<(&Link, Vec<Vec<usize>>)> =
        chain.take_while(|(_, sure)| *sure).map(|(link, _)| (link, matchers.scan(&link.words))).collect();
    let mut findings = Vec::new();
    for (nth, matcher) in matchers.iter().enumerate() {
        let words = chain.iter().find_map(|(link, hits)| Some((*link, *hits[nth].first()?)));
        let hits = Hits { words, stderr: &stderr[nth], stdout: &stdout[nth] };
        if hits.any() && explains(matcher, case) {
            findings.extend(hits.best(case, matcher).map(|hit| finding(case, matcher, &hit)));
        }
    }
    findings
}

/// The lines that a matcher matches.
struct Hits<'a> {
    /// A link of the chain that it died of, and which of its words.
    words: Option<(&'a Link, usize)>,
    /// Indices of lines, oldest first.
    stderr: &'a [usize],
    stdout: &'a [usize],
}

/// Whether a matcher speaks of such an end.
fn explains(matcher: &Matcher, case: &Case<'_>) -> bool {
    if matcher.codes.is_empty() && matcher.signals.is_empty() {
        return true;
    }
    match case.status {
        Some(ExitStatus::Code { code }) => matcher.codes.contains(&code),
        Some(ExitStatus::Signal { number, .. }) => matcher.signals.contains(&number),
        Some(ExitStatus::Unknown) | None => true,
    }
}

/// Where a matcher matched.
struct Match<'a> {
    weight: Weight,
    source: &'static str,
    /// The line that gave its captures.
    line: &'a str,
    /// The line behind it.
    next: Option<&'a str>,
    /// Everything that is shown, in the order in which it was written.
    shown: Vec<&'a str>,
}

impl<'a> Hits<'a> {
    fn any(&self) -> bool {
        self.words.is_some() || !self.stderr.is_empty() || !self.stdout.is_empty()
    }

    /// The one that weighs most.
    fn best(&self, case: &'a Case<'_>, matcher: &Matcher) -> Option<Match<'a>> {
        let (reads_stderr, reads_stdout) = match matcher.streams {
            Streams::Stderr => (true, false),
            Streams::Stdout => (false, true),
            Streams::Both => (true, true),
        };
        if let Some((link, at)) = self.words.filter(|_| reads_stderr && matcher.also.is_empty()) {
            return Some(Match {
                weight: Weight::Strong,
                source: case.exception_source,
                line: &link.words[at],
                next: link.words.get(at + 1).map(String::as_str),
                shown: link.lines().collect(),
            });
        }
        let stderr = if reads_stderr { self.stderr } else { &[] };
        let stdout = if reads_stdout { self.stdout } else { &[] };
        let printed_from = case.recent_from(&case.stdout, matcher.within);
        in_stream("stderr", &case.stderr, matcher, stderr, case.stderr_from(matcher.within))
            .or_else(|| in_stream("stdout", &case.stdout, matcher, stdout, printed_from))
            .or_else(|| earlier("stderr", &case.stderr, matcher, stderr))
    }
}

/// A match among the last words of a stream: the lines from `recent` on.
fn in_stream<'a>(
    source: &'static str,
    text: &'a [String],
    matcher: &Matcher,
    hits: &[usize],
    recent: usize,
) -> Option<Match<'a>> {
    let strong =
        || hits.iter().copied().filter(|&at| at >= recent && !is_survived(&matcher.rest_of(&text[at])));
    let (first, last) = (strong().next()?, strong().next_back()?);
    if !has_company(text, matcher) || text[last + 1..].iter().any(|line| any(&matcher.unless, line)) {
        return None;
    }
    let behind = first + 1..text.len().min(first + 1 + matcher.after);
    let mut shown: Vec<usize> = strong().chain(behind).collect();
    shown.sort_unstable();
    shown.dedup();
    Some(Match {
        weight: Weight::Strong,
        source,
        line: &text[first],
        next: text[first + 1..].iter().map(String::as_str).find(|line| !line.trim().is_empty()),
        shown: shown.into_iter().map(|at| text[at].as_str()).collect(),
    })
}

/// A match that stands too early to be what it died of, or that was survived.
fn earlier<'a>(
    source: &'static str,
    text: &'a [String],
    matcher: &Matcher,
    hits: &[usize],
) -> Option<Match<'a>> {
    let first = *hits.first()?;
    if matcher.within < GENERAL_WITHIN || !has_company(text, matcher) {
        return None;
    }
    let shown = hits.iter().map(|&at| text[at].as_str()).collect();
    Some(Match { weight: Weight::Weak, source, line: &text[first], next: None, shown })
}

/// Whether the lines are there that must stand beside an anchor.
fn has_company(text: &[String], matcher: &Matcher) -> bool {
    matcher.also.iter().all(|also| text.iter().any(|line| also.regex().is_match(line.as_bytes())))
}

fn finding(case: &Case<'_>, matcher: &Matcher, hit: &Match<'_>) -> Finding {
    let values = captures(matcher, hit);
    let title = template::first_filled(&matcher.title, &values)
        .unwrap_or_else(|| format!("{}: {}", matcher.name, hit.line.trim()));
    let remedy = template::first_filled(&matcher.remedy, &values)
        .unwrap_or_else(|| "Read its last lines: they say what it was.".to_owned());
    let (rank, confidence) = weigh(case, matcher, hit);
    let title = if rank == Rank::Suspicion { format!("it had said before: {title}") } else { title };
    let mut finding = Finding::new(rank, matcher.code, confidence, title);
    finding.cause.name = (matcher.code == CauseCode::Custom).then(|| matcher.name.clone());
    finding.evidence(lines::evidence(hit.source, hit.shown.iter().copied())).remedy(remedy)
}

fn weigh(case: &Case<'_>, matcher: &Matcher, hit: &Match<'_>) -> (Rank, Confidence) {
    if hit.weight == Weight::Weak {
        return (Rank::Suspicion, Confidence::Possible);
    }
    let confidence = match hit.source {
        "stdout" => matcher.confidence.min(Confidence::Likely),
        _ => matcher.confidence,
    };
    match case.stopped() {
        None if case.asked_from_outside() && matcher.reading == Reading::AfterTheEnd => {
            (Rank::Suspicion, Confidence::Possible)
        }
        None => match matcher.rank {
            MatcherRank::Root => (Rank::Root, confidence),
            MatcherRank::Consequence => (Rank::Consequence, confidence),
        },
        // It said this, lived on and did nothing, until Outlive ended it for that.
        Some(_) if case.ended_by_verdict() && matcher.reading == Reading::Alive => (Rank::Told, confidence),
        Some(_) => (Rank::Suspicion, Confidence::Possible),
    }
}

/// What the patterns captured, from the line that matched first, then from all that is shown.
fn captures(matcher: &Matcher, hit: &Match<'_>) -> BTreeMap<String, String> {
    let mut values = BTreeMap::from([("line".to_owned(), clip(hit.line.trim()))]);
    values.extend(hit.next.map(|next| ("next".to_owned(), clip(next.trim()))));
    let mut take = |pattern: &Pattern, line: &str| {
        let pattern = pattern.regex();
        let Some(found) = pattern.captures(line.as_bytes()) else { return };
        for name in pattern.capture_names().flatten() {
            let value = found.name(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
            let value = value.as_deref().map(|value| value.trim().trim_matches(['\'', '"', '`']));
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                values.entry(name.to_owned()).or_insert_with(|| clip(value));
            }
        }
    };
    for anchor in &matcher.anchors {
        take(anchor, hit.line);
    }
    for detail in matcher.details.iter().chain(&matcher.also) {
        std::iter::once(&hit.line).chain(&hit.shown).for_each(|line| take(detail, line));
    }
    values
}

fn clip(text: &str) -> String {
    if text.len() <= MATCHER_CAPTURE_BYTES_MAX {
        return text.to_owned();
    }
    let end = (0..=MATCHER_CAPTURE_BYTES_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    format!("{}…", &text[..end])
}
