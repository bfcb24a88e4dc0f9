//! A module or package could not be imported.

use super::{Finding, Rank};
use crate::diagnosis::case::{Case, Pattern, Weight};
use crate::diagnosis::cause::{CauseCode, Confidence};
use crate::diagnosis::lines;
use crate::diagnosis::traceback::Link;

/// Python without a traceback (`python -m x`), Node, R.
const PATTERNS: &[Pattern] =
    &[&["no module named "], &["error: cannot find module '"], &["there is no package called"]];

pub(super) fn is_import_error(link: &Link) -> bool {
    matches!(link.short_type(), "ModuleNotFoundError" | "ImportError" | "PackageNotFoundError")
}

/// The module is there, and a shared library that it needs is not: a matcher's.
fn is_library(link: &Link) -> bool {
    [
        "shared object file",
        "undefined symbol",
        "not defined in file",
        "' not found",
        "DLL load failed",
        "Library not loaded",
    ]
    .iter()
    .any(|words| link.message.contains(words))
}

pub(super) fn examine(case: &Case<'_>) -> Option<Finding> {
    let is_module = |link: &Link| is_import_error(link) && !is_library(link);
    if let Some((link, weight)) = case.link(is_module) {
        let summary = summary_of(link);
        let mut finding = Finding::of_text(weight, CauseCode::MissingModule, summary);
        if weight == Weight::Strong
            && case.exception.as_ref().is_some_and(|t| std::ptr::eq(t.uncaught(), link))
        {
            finding.cause.confidence = Confidence::Certain;
        }
        let evidence = lines::evidence(case.exception_source, link.lines());
        return Some(finding.evidence(evidence).remedy(remedy(case, link)));
    }
    let hit = case.find(PATTERNS)?;
    let line = hit.lines.last().copied().unwrap_or_default();
    let module = quoted_or_last(line);
    let summary = format!("there is no module or package named `{module}`");
    let mut finding = Finding::of_text(hit.weight, CauseCode::MissingModule, summary);
    if hit.weight == Weight::Strong && case.last_lines(1).any(|last| last == line) {
        finding.cause.confidence = Confidence::Certain;
        finding.rank = Rank::Root;
    }
    Some(
        finding
            .evidence(lines::evidence(hit.source, hit.lines.iter().copied()))
            .remedy(install(case, &module)),
    )
}

fn summary_of(link: &Link) -> String {
    match link.message.strip_prefix("No module named ") {
        Some(module) => format!("there is no module named `{}`", module.trim_matches(['\'', '"'])),
        None => format!("an import failed: {}", link.message),
    }
}

fn remedy(case: &Case<'_>, link: &Link) -> String {
    if link.message.starts_with("cannot import name") {
        return "The module is there without that name: its version is another one than the code wants, or a file of \
                your own has the same name and hides it."
            .to_owned();
    }
    if link.message.starts_with("No module named ") {
        return install(case, &quoted_or_last(&link.message));
    }
    "Check that the package and what it was built against are installed in this environment.".to_owned()
}

/// How to install it into the environment that the process ran in.
fn install(case: &Case<'_>, module: &str) -> String {
    /// Modules whose package has another name.
    const PACKAGES: [(&str, &str); 12] = [
        ("cv2", "opencv-python"),
        ("sklearn", "scikit-learn"),
        ("PIL", "pillow"),
        ("yaml", "pyyaml"),
        ("bs4", "beautifulsoup4"),
        ("dotenv", "python-dotenv"),
        ("skimage", "scikit-image"),
        ("dateutil", "python-dateutil"),
        ("google", "google-api-python-client"),
        ("ipykernel_launcher", "ipykernel"),
        ("serial", "pyserial"),
        ("zmq", "pyzmq"),
    ];
    let top = module.split('.').next().unwrap_or(module);
    let package = PACKAGES.iter().find(|(name, _)| *name == top).map_or(top, |(_, package)| package);
    let python = case
        .evidence
        .argv
        .first()
        .filter(|program| program.contains("python"))
        .map_or("python", String::as_str);
    format!(
        "Install it in the environment that this ran in: `{python} -m pip install {package}`. If it is your own \
         module, set the working directory or PYTHONPATH so that it is found."
    )
}

/// What stands in quotes, or the last word.
fn quoted_or_last(line: &str) -> String {
    let quoted = line.split(['\'', '‘', '’', '"']).nth(1);
    let name = quoted.unwrap_or_else(|| line.rsplit(' ').next().unwrap_or(line));
    name.trim_matches(|c: char| !c.is_alphanumeric() && !"_-@/.".contains(c)).to_owned()
}
