//! Writes `docs/limits.md` from the doc comments of the limits in `crates/core`, so that the page cannot lie.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Where the limits stand.
const SOURCES: [&str; 3] =
    ["crates/core/src/limits.rs", "crates/core/src/limits/cluster.rs", "crates/core/src/limits/nats.rs"];
/// The page that is written from them.
pub const PAGE: &str = "docs/limits.md";

/// One constant with its reason.
#[derive(Debug, PartialEq, Eq)]
struct Limit {
    name: String,
    expression: String,
    reason: String,
}

/// Writes the page.
///
/// # Errors
/// A file cannot be read or written, or a limit has no reason.
pub fn write(root: &Path) -> Result<()> {
    let page = root.join(PAGE);
    fs::create_dir_all(page.parent().expect("the page is in a folder")).context("cannot make docs/")?;
    fs::write(&page, render(root)?).with_context(|| format!("cannot write {}", page.display()))
}

/// What the page should say.
///
/// # Errors
/// The source cannot be read, or a limit has no reason.
pub fn render(root: &Path) -> Result<String> {
    let mut limits = Vec::new();
    for source in SOURCES {
        let text = fs::read_to_string(root.join(source)).with_context(|| format!("cannot read {source}"))?;
        limits.extend(parse(&text));
    }
    page(&limits)
}

fn page(limits: &[Limit]) -> Result<String> {
    let mut page = format!(
        "# Limits\n\nEvery cap, timeout, queue size and retry. Written by `cargo xtask limits` from `{}`; \
         change them there.\n\n| limit | value | what it bounds, and why |\n|---|---|---|\n",
        SOURCES.join("`, `")
    );
    for limit in limits {
        ensure!(
            !limit.reason.is_empty(),
            "the limit {} has no doc comment that gives its reason",
            limit.name
        );
        let value = evaluate(&limit.expression)
            .map_or_else(|| format!("`{}`", limit.expression), |n| human(n, &limit.name));
        let reason = limit.reason.replace("[`", "`").replace("`]", "`").replace('|', "\\|");
        writeln!(page, "| `{}` | {value} | {reason} |", limit.name).expect("writing to a string succeeds");
    }
    Ok(page)
}

fn parse(source: &str) -> Vec<Limit> {
    let mut limits = Vec::new();
    let mut reason = String::new();
    for line in source.lines() {
        if let Some(text) = line.strip_prefix("///") {
            if !reason.is_empty() {
                reason.push(' ');
            }
            reason.push_str(text.trim());
        } else if let Some((name, rest)) =
            line.strip_prefix("pub const ").and_then(|rest| rest.split_once(':'))
        {
            let expression = rest.split_once('=').map_or("", |(_, value)| value).trim().trim_end_matches(';');
            limits.push(Limit {
                name: name.trim().to_owned(),
                expression: expression.to_owned(),
                reason: std::mem::take(&mut reason),
            });
        } else if !line.trim_start().starts_with("#[") {
            reason.clear();
        }
    }
    limits
}

/// The value of a literal, a shift or a product of literals.
fn evaluate(expression: &str) -> Option<u64> {
    let number = |text: &str| text.trim().replace('_', "").parse::<u64>().ok();
    if let Some((left, right)) = expression.split_once("<<") {
        return number(left)?.checked_shl(u32::try_from(number(right)?).ok()?);
    }
    expression.split('*').map(number).try_fold(1_u64, |product, factor| product.checked_mul(factor?))
}

/// A number with the unit that its name ends in.
fn human(value: u64, name: &str) -> String {
    const BYTES: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    const TIME: [(u64, &str); 3] = [(3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    let unit = name.trim_end_matches("_MAX").rsplit('_').next().unwrap_or_default();
    let (steps, base) = match unit {
        "BYTES" => (&BYTES, "bytes"),
        "MS" => (&TIME, "ms"),
        "DAYS" => return format!("{value} days"),
        _ => return value.to_string(),
    };
    let step = steps.iter().find(|(size, _)| value >= *size && value.is_multiple_of(*size));
    step.map_or_else(|| format!("{value} {base}"), |(size, unit)| format!("{} {unit}", value / size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_shown_with_its_unit_and_reason() {
        let source = "//! Limits.\n\n/// Longest spool, in bytes.\n/// See [`OTHER_MS`].\npub const SPOOL_BYTES_MAX: u64 = 2 << 30;\n\
                      /// Patience.\npub const WAIT_MS: u64 = 1_500;\n/// Tries.\npub const TRIES_MAX: u32 = 3;\n";
        let page = page(&parse(source)).unwrap();
        assert!(
            page.contains("| `SPOOL_BYTES_MAX` | 2 GiB | Longest spool, in bytes. See `OTHER_MS`. |"),
            "{page}"
        );
        assert!(page.contains("| `WAIT_MS` | 1500 ms | Patience. |"), "{page}");
        assert!(page.contains("| `TRIES_MAX` | 3 | Tries. |"), "{page}");
    }

    #[test]
    fn a_limit_without_a_reason_is_refused() {
        let error = page(&parse("/// Of something else.\n\npub const BARE_MS: u64 = 1;\n")).unwrap_err();
        assert!(error.to_string().contains("BARE_MS"), "{error}");
    }

    #[test]
    fn products_are_evaluated_and_names_are_kept_as_they_are() {
        assert_eq!(evaluate("4 * 1_000"), Some(4_000));
        assert_eq!(evaluate("OTHER * 2"), None);
    }
}
