//! The shape of a file: its length, its name, its opening, its lint exceptions.

use super::Finding;
use super::source::Source;

/// Longest file, in lines outside its tests.
const LINES_MAX: usize = 600;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 11] =
    ["utils", "util", "common", "helpers", "helper", "manager", "managers", "imp", "misc", "shared", "stuff"];

pub fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |line, text: String| findings.push(Finding::new(&source.path, line, text));

    let lines = source.lines_outside_tests();
    if lines >= LINES_MAX {
        find(
            0,
            format!("{lines} lines outside its tests; {LINES_MAX} is too many: split it by what it is about"),
        );
    }
    if !source.text.starts_with("//!") {
        find(1, "a module begins with //! and says what it is for".to_owned());
    } else if source.text.lines().next().is_some_and(|line| line.trim() == "//!") {
        find(1, "the module's opening line is empty: say what it is for".to_owned());
    }
    for part in source.path.with_extension("").components() {
        let name = part.as_os_str().to_string_lossy();
        if EMPTY_NAMES.contains(&&*name) {
            find(0, format!("a module named `{name}` says nothing: name it after what it holds"));
        }
    }
    for module in ["mod utils ", "mod common ", "mod helpers ", "mod manager ", "mod imp "] {
        for (at, _) in source.code.match_indices(module) {
            find(source.line(at), format!("`{}` says nothing: name it after what it holds", module.trim()));
        }
    }
    for allow in ["#[allow(", "#![allow("] {
        for (at, _) in source.code.match_indices(allow) {
            find(
                source.line(at),
                "use #[expect(…, reason = \"…\")]: it goes away when it is not needed".to_owned(),
            );
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(path: &str, text: &str) -> String {
        check(&Source::new(path, text)).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_good_file_passes() {
        assert_eq!(
            texts(
                "crates/x/src/launch.rs",
                "//! Launches.\n#[expect(clippy::x, reason = \"y\")]\nfn a() {}\n"
            ),
            ""
        );
    }

    #[test]
    fn a_long_file_is_found_but_long_tests_are_not() {
        let code = "fn a() {}\n".repeat(600);
        assert!(texts("a.rs", &format!("//! A.\n{code}")).contains("601 lines"));
        assert_eq!(texts("a.rs", &format!("//! A.\n#[cfg(test)]\nmod tests {{\n{code}}}\n")), "");
    }

    #[test]
    fn a_file_without_an_opening_is_found() {
        assert!(texts("a.rs", "fn a() {}\n").contains("begins with //!"));
        assert!(texts("a.rs", "//!\nfn a() {}\n").contains("opening line is empty"));
    }

    #[test]
    fn names_that_say_nothing_are_found() {
        assert!(texts("crates/x/src/utils.rs", "//! A.\n").contains("`utils`"));
        assert!(texts("crates/x/src/helpers/a.rs", "//! A.\n").contains("`helpers`"));
        assert!(texts("crates/x/src/a.rs", "//! A.\nmod imp {\n}\n").contains("a.rs:2"));
    }

    #[test]
    fn allow_is_found_in_code_and_not_in_text() {
        assert!(texts("a.rs", "//! A.\n#[allow(dead_code)]\nfn a() {}\n").contains("a.rs:2"));
        assert_eq!(texts("a.rs", "//! A.\nfn a() { b(\"#[allow(\"); }\n"), "");
    }
}
