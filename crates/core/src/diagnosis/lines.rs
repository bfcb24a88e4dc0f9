//! Text from outside, made fit to be looked at: without terminal escapes, in bounded lines, repeats collapsed.

use super::cause::EvidenceLine;
use crate::limits::{EVIDENCE_LINE_BYTES_MAX, EVIDENCE_LINES_MAX};

/// Splits text into lines as a terminal would have shown them: escapes removed, the part after the last lone
/// carriage return kept (progress bars), trailing blanks cut, long lines cut.
pub(super) fn clean(text: &str) -> Vec<String> {
    text.lines().map(clean_line).collect()
}

fn clean_line(raw: &str) -> String {
    let raw = raw.trim_end();
    let shown = raw.rsplit('\r').next().unwrap_or(raw);
    let mut out = String::with_capacity(shown.len().min(EVIDENCE_LINE_BYTES_MAX));
    let mut chars = shown.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            '\t' => out.push_str("    "),
            c if c.is_control() => {}
            c => out.push(c),
        }
        if out.len() >= EVIDENCE_LINE_BYTES_MAX {
            out.push('…');
            break;
        }
    }
    out
}

/// Skips one escape sequence of ECMA-48: CSI to its final byte, OSC to its terminator, anything else one character.
fn skip_escape(chars: &mut std::str::Chars<'_>) {
    match chars.next() {
        Some('[') => {
            chars.find(|c| ('@'..='~').contains(c));
        }
        Some(']') => {
            let mut escaped = false;
            chars.find(|&c| c == '\u{7}' || std::mem::replace(&mut escaped, c == '\u{1b}') && c == '\\');
        }
        Some(_) | None => {}
    }
}

/// Evidence from one source: blank lines dropped, neighbours that repeat collapsed into `… (×n)`, the last ones kept
/// when there are more than a cause may hold.
pub(super) fn evidence<'a>(source: &str, lines: impl IntoIterator<Item = &'a str>) -> Vec<EvidenceLine> {
    let mut kept: Vec<(&str, usize)> = Vec::new();
    for line in lines {
        if line.trim().is_empty() {
            continue;
        }
        match kept.last_mut() {
            Some((last, count)) if same_but_for_digits(last, line) => *count += 1,
            _ => kept.push((line, 1)),
        }
    }
    let from = kept.len().saturating_sub(EVIDENCE_LINES_MAX);
    kept[from..]
        .iter()
        .map(|(line, count)| EvidenceLine {
            source: source.to_owned(),
            text: if *count == 1 { (*line).to_owned() } else { format!("{line} … (×{count})") },
        })
        .collect()
}

/// One line of evidence.
pub(super) fn fact(source: impl Into<String>, text: impl Into<String>) -> EvidenceLine {
    EvidenceLine { source: source.into(), text: text.into() }
}

/// Lines that differ only in numbers (times, pids, counters) say the same.
fn same_but_for_digits(a: &str, b: &str) -> bool {
    let text = |line: &str| -> Vec<char> { line.chars().filter(|c| !c.is_ascii_digit()).collect() };
    a == b || (a.chars().any(|c| c.is_ascii_digit()) && text(a) == text(b))
}

/// Bytes for people, in binary units, for instance `1.9 GiB`.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1_024 {
        return format!("{n} bytes");
    }
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let mut value = n as f64;
    let mut unit = "";
    for next in UNITS {
        if value < 1_023.95 {
            break;
        }
        value /= 1_024.0;
        unit = next;
    }
    if value.fract() < 0.05 || value.fract() > 0.95 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// A length of time for people, for instance `1 h 12 min` or `3.2 s`.
pub(super) fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => {
            let (whole, tenth) = (ms / 1_000, ms % 1_000 / 100);
            if tenth == 0 { format!("{whole} s") } else { format!("{whole}.{tenth} s") }
        }
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
        3_600_000..86_400_000 => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
        _ => format!("{} d {} h", ms / 86_400_000, ms % 86_400_000 / 3_600_000),
    }
}
