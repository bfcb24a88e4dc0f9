//! The documentation tells the truth: links lead somewhere, each cause has its page, the limits are current.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Finding;
use super::tree::Tree;
use crate::limits;

/// Where the codes of causes stand.
const CAUSES: &str = "crates/core/src/diagnosis/cause.rs";
/// The folder with a page for each.
const CAUSE_PAGES: &str = "docs/causes";

pub fn check(root: &Path, tree: &Tree) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (page, text) in &tree.pages {
        findings.extend(dead_links(page, text, |target| root.join(target).exists()));
    }

    let causes = fs::read_to_string(root.join(CAUSES)).with_context(|| format!("cannot read {CAUSES}"))?;
    let pages = tree.pages.iter().map(|(path, _)| path.clone()).collect();
    findings.extend(cause_pages(&codes(&causes), &pages));

    let page = fs::read_to_string(root.join(limits::PAGE)).unwrap_or_default();
    if page != limits::render(root)? {
        findings.push(Finding::new(
            limits::PAGE,
            0,
            "does not say what the source says: run `cargo xtask limits`",
        ));
    }
    Ok(findings)
}

/// Relative links whose target does not exist.
fn dead_links(page: &Path, text: &str, exists: impl Fn(&Path) -> bool) -> Vec<Finding> {
    let folder = page.parent().unwrap_or(Path::new(""));
    let mut findings = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for part in line.split("](").skip(1) {
            let target = part.split([')', ' ']).next().unwrap_or_default();
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if !exists(&normal(&folder.join(path))) {
                findings.push(Finding::new(page, index + 1, format!("the link leads nowhere: {target}")));
            }
        }
    }
    findings
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                out.pop();
            }
            std::path::Component::CurDir => {}
            part => out.push(part),
        }
    }
    out
}

/// The codes in `Self::Name => "the-code",` of `CauseCode`.
fn codes(source: &str) -> BTreeSet<String> {
    let body =
        source.lines().skip_while(|line| !line.starts_with("impl CauseCode")).take_while(|line| *line != "}");
    let arms = body.filter_map(|line| line.trim().strip_prefix("Self::")?.split_once(" => \""));
    arms.filter_map(|(_, rest)| rest.strip_suffix("\",")).map(ToOwned::to_owned).collect()
}

/// Codes without a page, and pages without a code.
fn cause_pages(codes: &BTreeSet<String>, pages: &BTreeSet<PathBuf>) -> Vec<Finding> {
    let page_of = |code: &str| Path::new(CAUSE_PAGES).join(format!("{code}.md"));
    let mut findings: Vec<Finding> = codes
        .iter()
        .filter(|code| !pages.contains(&page_of(code)))
        .map(|code| Finding::new(page_of(code), 0, format!("the cause `{code}` has no page")))
        .collect();
    for page in pages.iter().filter(|page| page.parent() == Some(Path::new(CAUSE_PAGES))) {
        let name = page.file_stem().unwrap_or_default().to_string_lossy();
        if name != "README" && !codes.contains(&*name) {
            findings.push(Finding::new(page, 0, format!("no cause has the code `{name}`")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let text = "[a](b.md) [c](../d.md#e) [f](https://example.org/x) [g](#h)\n```\n[no](link.md)\n```\n[i](gone.md)\n";
        let there = |path: &Path| path == Path::new("docs/b.md") || path == Path::new("d.md");
        let found = dead_links(Path::new("docs/page.md"), text, there);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].to_string(), "docs/page.md:5: the link leads nowhere: gone.md");
    }

    #[test]
    fn causes_and_pages_belong_together() {
        let codes = codes(
            "impl CauseCode {\n  Self::DiskFull => \"disk-full\",\n  Self::Hung => \"hung\",\n}\nimpl B {\n  Self::No => \"no\",\n}\n",
        );
        assert_eq!(codes.len(), 2);
        let pages = BTreeSet::from([
            "docs/causes/hung.md".into(),
            "docs/causes/old.md".into(),
            "docs/causes/README.md".into(),
        ]);
        let found: Vec<String> = cause_pages(&codes, &pages).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "docs/causes/disk-full.md: the cause `disk-full` has no page",
                "docs/causes/old.md: no cause has the code `old`"
            ]
        );
    }
}
