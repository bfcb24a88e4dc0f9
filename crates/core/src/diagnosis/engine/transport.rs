//! The connection between members of a group of workers broke: NCCL, Gloo, MLX's ring.

use super::Finding;
use crate::diagnosis::case::{Case, Pattern, matches};
use crate::diagnosis::cause::CauseCode;
use crate::diagnosis::lines;

const PATTERNS: &[Pattern] = &[
    &["watchdog caught collective operation timeout"],
    &["nccl", "timeout"],
    &["nccl error"],
    &["ncclsystemerror"],
    &["ncclremoteerror"],
    &["ncclinternalerror"],
    &["[ring]", "errno"],
    &["[ring]", "error: "],
    &["[ring]", "aborted"],
    &["[ring]", "couldn't connect"],
    &["ring transport", "aborted"],
    &["gloo/transport", "error"],
    &["gloo/transport", "closed by peer"],
    &["gloo/transport", "reset by peer"],
    &["gloo", "connectfullmesh failed"],
];

pub(super) fn examine(case: &Case<'_>) -> Option<Finding> {
    let hit = case.find(PATTERNS)?;
    let said = hit.lines.iter().rfind(|line| matches(line, PATTERNS)).copied().unwrap_or_default().trim();
    let name = socket_errno(said).map(|name| format!(" ({name})")).unwrap_or_default();
    let summary = format!("the connection to another member of the group broke: {said}{name}");
    let finding = Finding::of_text(hit.weight, CauseCode::TransportFailed, summary);
    Some(finding.evidence(lines::evidence(hit.source, hit.lines)).remedy(
        "Usually another member died first: look for the earliest failure in the group. If all live, check that \
         they reach each other (interface, firewall, NCCL_SOCKET_IFNAME) and that no rank waits for a collective \
         that another never calls.",
    ))
}

/// The name of a socket error in a line like `… errno 54` or `(error: 60)`. The numbers of macOS and Linux do not
/// meet among those that a socket gives.
fn socket_errno(line: &str) -> Option<&'static str> {
    let lower = line.to_lowercase();
    let number = ["errno ", "errno: ", "errno=", "error: "].into_iter().find_map(|marker| {
        let rest = &lower[lower.find(marker)? + marker.len()..];
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u32>().ok()
    })?;
    Some(match number {
        32 => "EPIPE, the other side has closed",
        54 | 104 => "ECONNRESET, the other side has reset the connection",
        57 | 107 => "ENOTCONN, not connected",
        60 | 110 => "ETIMEDOUT, no answer in time",
        61 | 111 => "ECONNREFUSED, nobody listens there",
        65 | 113 => "EHOSTUNREACH, no way to that machine",
        _ => return None,
    })
}
