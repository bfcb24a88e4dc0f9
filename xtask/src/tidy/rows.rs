//! Each acceptance row in scope has a test that names it: a comment that begins with the row, `// A3`.

use std::collections::BTreeSet;
use std::path::Path;

use super::Finding;
use super::source::Source;
use super::tree::Tree;

/// The rows in scope, one a line: the row, then what it is about.
pub const LIST: &str = "e2e/rows.txt";

pub fn check(tree: &Tree) -> Vec<Finding> {
    let named: BTreeSet<&str> = tree.sources.iter().flat_map(rows_named).collect();
    let mut findings = Vec::new();
    for (index, line) in tree.rows.lines().enumerate() {
        let Some(row) = line.split_whitespace().next().filter(|word| !word.starts_with('#')) else {
            continue;
        };
        if !is_row(row) {
            findings.push(Finding::new(
                LIST,
                index + 1,
                format!("{row:?} is not a row of the acceptance matrix"),
            ));
        } else if !named.contains(row) {
            findings.push(Finding::new(
                LIST,
                index + 1,
                format!("no test names {row}: write one, with `// {row}` on it"),
            ));
        }
    }
    findings
}

/// The rows in comments of a file's tests: `// A1, A2: what they say`.
fn rows_named(source: &Source) -> Vec<&str> {
    let mut rows = Vec::new();
    let mut at = 0;
    for line in source.text.split_inclusive('\n') {
        let comment = line
            .trim_start()
            .strip_prefix("//")
            .filter(|_| source.is_test(at) || is_end_to_end(&source.path));
        if let Some(comment) = comment {
            let words =
                comment.trim_start_matches(['/', '!']).split([' ', ',']).filter(|word| !word.is_empty());
            rows.extend(
                words.map(|word| word.trim_end_matches([':', '.', '\n'])).take_while(|word| is_row(word)),
            );
        }
        at += line.len();
    }
    rows
}

fn is_end_to_end(path: &Path) -> bool {
    path.starts_with("e2e/tests") || path.starts_with("sim")
}

/// `A1` to `E12`, and `E10b`.
fn is_row(word: &str) -> bool {
    let Some(number) = word.strip_prefix(['A', 'B', 'C', 'D', 'E']) else { return false };
    let digits = number.trim_end_matches(['b', 'c']);
    number.len() - digits.len() <= 1 && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_one(rows: &str, path: &str, text: &str) -> Vec<Finding> {
        check(&Tree { sources: vec![Source::new(path, text)], pages: Vec::new(), rows: rows.to_owned() })
    }

    #[test]
    fn a_row_that_no_test_names_is_found() {
        let found = check_one(
            "# in scope\nA1 exit\nA3 memory\n",
            "e2e/tests/a.rs",
            "// A1: exit\n#[test]\nfn a() {}\n",
        );
        assert_eq!(found.len(), 1);
        assert!(found[0].to_string().starts_with("e2e/rows.txt:3: no test names A3"), "{found:?}");
    }

    #[test]
    fn several_rows_stand_on_one_test_and_code_names_none() {
        assert_eq!(check_one("A1\nA2\nE10b\n", "e2e/tests/a.rs", "    // A1, A2, E10b: all\n"), []);
        assert_eq!(check_one("A1\n", "crates/x/src/a.rs", "// A1\nfn a() {}\n").len(), 1);
        assert_eq!(
            check_one("A1\n", "crates/x/src/a.rs", "#[cfg(test)]\nmod tests {\n// A1\nfn a() {}\n}\n"),
            []
        );
    }

    #[test]
    fn words_that_are_no_rows_are_found() {
        assert!(check_one("Z9\n", "e2e/tests/a.rs", "")[0].to_string().contains("not a row"));
        assert!(!is_row("A") && !is_row("A1x") && !is_row("A1bb") && is_row("E12"));
    }
}
