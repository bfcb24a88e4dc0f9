//! What matchers find in what a program wrote, and what it weighs.
//!
//! A match is strong in its last words: in the exception that it died of, or among its last lines when none stands
//! there. Elsewhere, and in lines that speak of a retry or a warning, it may have been survived: it is a suspicion.

use std::collections::BTreeMap;

use super::{Finding, Rank};
use crate::diagnosis::case::{Case, Weight, is_survived};
use crate::diagnosis::cause::{CauseCode, Confidence};
use crate::diagnosis::matchers::{Matcher, MatcherRank, Matchers, Reading, Streams, any};
use crate::diagnosis::{lines, template};
use crate::limits::MATCHER_CAPTURE_BYTES_MAX;
use crate::runtime::ExitStatus;

/// A matcher that looks at fewer last lines than this has anchors that many programs write on many occasions: what it
/// finds earlier says nothing.
const GENERAL_WITHIN: usize = 10;

pub(super) fn examine(case: &Case<'_>, matchers: &Matchers) -> Vec<Finding> {
    let stderr = matchers.scan(&case.stderr);
    let stdout = matchers.scan(&case.stdout);
    let on_each = matchers.iter().zip(stderr.iter().zip(&stdout));
    on_each
        .filter(|(matcher, _)| explains(matcher, case))
        .filter_map(|(matcher, (stderr, stdout))| {
            Some(finding(case, matcher, &find(case, matcher, stderr, stdout)?))
        })
        .collect()
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

fn find<'a>(case: &'a Case<'_>, matcher: &Matcher, stderr: &[usize], stdout: &[usize]) -> Option<Match<'a>> {
    if matcher.streams != Streams::Stdout
        && matcher.also.is_empty()
        && let Some((link, Weight::Strong)) =
            case.link(|link| link.words.iter().any(|line| matcher.matches(line)))
    {
        let at = link.words.iter().position(|line| matcher.matches(line))?;
        let next = link.words.get(at + 1).map(String::as_str);
        let (line, shown) = (&link.words[at], link.lines().collect());
        return Some(Match { weight: Weight::Strong, source: case.exception_source, line, next, shown });
    }
    let stderr = if matcher.streams == Streams::Stdout { &[] } else { stderr };
    let stdout = if matcher.streams == Streams::Stderr { &[] } else { stdout };
    in_stream("stderr", &case.stderr, matcher, stderr, case.stderr_from(matcher.within))
        .or_else(|| {
            in_stream("stdout", &case.stdout, matcher, stdout, case.recent_from(&case.stdout, matcher.within))
        })
        .or_else(|| earlier("stderr", &case.stderr, matcher, stderr))
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
    matcher.also.iter().all(|also| text.iter().any(|line| also.is_match(line.as_bytes())))
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
    let mut take = |pattern: &regex::bytes::Regex, line: &str| {
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
