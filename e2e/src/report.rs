//! What a failure report says.

use serde_json::Value;

/// The code of the first cause.
#[must_use]
pub fn code(report: &Value) -> &str {
    report["causes"][0]["code"].as_str().unwrap_or_default()
}

/// The sentence of the first cause.
#[must_use]
pub fn summary(report: &Value) -> &str {
    report["causes"][0]["summary"].as_str().unwrap_or_default()
}

/// The evidence lines of all causes, one a line.
#[must_use]
pub fn evidence(report: &Value) -> String {
    let causes = report["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let lines =
        causes.iter().flat_map(|cause| cause["evidence"].as_array().map(Vec::as_slice).unwrap_or_default());
    lines.filter_map(|line| line["text"].as_str()).collect::<Vec<_>>().join("\n")
}
