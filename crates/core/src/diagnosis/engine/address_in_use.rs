//! A port or socket that it needs is taken.

use super::{Finding, Rank};
use crate::diagnosis::case::{Case, Pattern, Weight};
use crate::diagnosis::cause::{CauseCode, Confidence};
use crate::diagnosis::lines;

/// EADDRINUSE on Linux, macOS.
const ERRNOS: [i32; 2] = [98, 48];

const PATTERNS: &[Pattern] = &[
    &["address already in use"],
    &["address in use"],
    &["eaddrinuse"],
    &["[errno 98]"],
    &["port", "is already in use"],
    &["port", "is already allocated"],
    &["failed to bind", "in use"],
];

pub(super) fn examine(case: &Case<'_>) -> Option<Finding> {
    if let Some(launch) =
        case.evidence.launch.as_ref().filter(|l| l.errno.is_some_and(|n| ERRNOS.contains(&n)))
    {
        let what = launch.path.as_deref().unwrap_or("an address");
        let summary = format!("{what} is already in use: {}", launch.message);
        let finding = Finding::new(Rank::Root, CauseCode::AddressInUse, Confidence::Certain, summary);
        return Some(finding.evidence([lines::fact("launch", launch.message.clone())]).remedy(remedy(None)));
    }
    let hit = case.find(PATTERNS)?;
    let port = hit.lines.iter().rev().find_map(|line| port(line));
    let summary = match (&port, hit.weight) {
        (Some(port), Weight::Strong) => format!("port {port} is already in use"),
        (None, Weight::Strong) => "an address that it needs is already in use".to_owned(),
        (_, Weight::Weak) => "an address was in use earlier".to_owned(),
    };
    let finding = Finding::of_text(hit.weight, CauseCode::AddressInUse, summary);
    Some(finding.evidence(lines::evidence(hit.source, hit.lines)).remedy(remedy(port.as_deref())))
}

fn remedy(port: Option<&str>) -> String {
    let who = port.map_or_else(|| "`ss -ltnp`".to_owned(), |port| format!("`ss -ltnp 'sport = :{port}'`"));
    format!(
        "{who} shows who holds it: end that program, or give this one another port (0 lets the system choose)."
    )
}

/// A port number in a line: after a colon, the word `port`, or in a Python address tuple.
fn port(line: &str) -> Option<String> {
    let lower = line.to_lowercase();
    let after = |marker: &str| {
        lower.match_indices(marker).find_map(|(at, _)| {
            let digits: String =
                lower[at + marker.len()..].trim_start().chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u16>().ok().filter(|port| *port > 0).map(|port| port.to_string())
        })
    };
    ["port ", "port: ", "port=", "', ", ":"].into_iter().find_map(after)
}
