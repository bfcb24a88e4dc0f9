//! `cargo xtask test`: all that has to pass, cheapest first, closing with the test runner's own summary.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{nats, python, shell, tidy};

/// Runs every step; with `fast`, without the end-to-end tests.
///
/// # Errors
/// Names the step that failed.
pub fn run(root: &Path, fast: bool) -> Result<()> {
    step("format", || shell::run(&mut shell::cargo(root, &["fmt", "--all", "--check"])))?;
    step("tidy", || tidy::run(root))?;
    step("clippy", || {
        let arguments = ["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"];
        shell::run(&mut shell::cargo(root, &arguments))
    })?;
    let python = step("python", || python::test_environment(root))?;
    let nats = step("nats", || nats::server(root))?;
    let programs = Programs { python, nats };
    // The end-to-end tests start the binary by its path, and no dependency of theirs makes cargo build it.
    step("build", || shell::run(&mut shell::cargo(root, &["build", "--workspace", "--bins", "--locked"])))?;
    let examples = crates_with_examples(root)?;
    if !examples.is_empty() {
        step("documentation tests", || {
            let mut command = shell::cargo(root, &["test", "--doc", "--locked"]);
            shell::run(command.args(examples.iter().flat_map(|name| ["--package", name])))
        })?;
    }
    step("python client", || client(root, fast, &programs))?;
    // Not a step: its last line is the runner's summary, and so is ours.
    tests(root, fast, &programs).context("the step `tests` failed")
}

/// Programs that tests run and the repository does not build.
struct Programs {
    /// An environment with kernels.
    python: PathBuf,
    nats: PathBuf,
}

impl Programs {
    /// Tells the tests that `command` runs where they are.
    fn tell<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("OUTLIVE_TEST_VENV", &self.python).env(nats::VARIABLE, &self.nats)
    }
}

/// The Python client: its form, its types and, but for `fast`, its tests with the real daemon.
fn client(root: &Path, fast: bool, programs: &Programs) -> Result<()> {
    let folder = root.join("python/outlive");
    let run = |program: &str, arguments: &[&str]| {
        let mut command = shell::command(&folder, programs.python.join("bin").join(program), arguments);
        // The daemon that was built just now, and caches that a clean tree does not keep.
        command.env("OUTLIVE_PROGRAM", root.join("target/debug/outlive"));
        programs.tell(&mut command).env("PYTHONPATH", folder.join("src"));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        shell::run(&mut command)
    };
    run("ruff", &["check", "--no-cache", "."])?;
    run("ruff", &["format", "--no-cache", "--check", "."])?;
    let cache = root.join("target/mypy").to_string_lossy().into_owned();
    run("mypy", &["--cache-dir", &cache, "src", "tests"])?;
    let tests: &[&str] = if fast { &["tests/test_wire.py"] } else { &[] };
    run("pytest", &[&["-q", "-p", "no:cacheprovider"], tests].concat())
}

/// Runs one step, says how long it took, and names it when it fails.
fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let began = now();
    let result = work().with_context(|| format!("the step `{name}` failed"));
    eprintln!("xtask: {name}: {} s", began.elapsed().max(Duration::from_millis(1)).as_secs_f32().round());
    result
}

#[expect(clippy::disallowed_methods, reason = "a stopwatch for people")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// The tests by nextest, which knows groups and time limits; without it by cargo's own runner.
fn tests(root: &Path, fast: bool, programs: &Programs) -> Result<()> {
    let nextest =
        shell::cargo(root, &["nextest", "--version"]).output().is_ok_and(|output| output.status.success());
    if nextest { by_nextest(root, fast, programs) } else { by_cargo(root, fast, programs) }
}

fn by_nextest(root: &Path, fast: bool, programs: &Programs) -> Result<()> {
    let mut arguments = vec!["nextest", "run", "--workspace", "--locked", "--profile", "ci"];
    if fast {
        arguments.extend(["--exclude", "outlive-e2e"]);
    }
    let (mut summary, mut last) = (None, String::new());
    let mut command = shell::cargo(root, &arguments);
    programs.tell(&mut command).env("CARGO_TERM_COLOR", "never");
    let passed = shell::run_looking(&mut command, |line| {
        if line.trim_start().starts_with("Summary [") {
            summary = Some(line.to_owned());
        }
        line.clone_into(&mut last);
    })?;
    if let Some(summary) = summary.filter(|summary| *summary != last) {
        eprintln!("{summary}");
    }
    ensure!(passed, "tests failed: see above");
    Ok(())
}

/// cargo's runner knows neither groups nor a process for each test, and some tests count what their process has open:
/// one after the other, then. It sums nothing up, so that is done here.
fn by_cargo(root: &Path, fast: bool, programs: &Programs) -> Result<()> {
    eprintln!("cargo-nextest is not installed: using cargo test, which takes longer");
    let mut arguments = vec!["test", "--workspace", "--all-targets", "--no-fail-fast", "--locked"];
    if fast {
        arguments.extend(["--exclude", "outlive-e2e"]);
    }
    arguments.extend(["--", "--test-threads=1"]);
    let mut total = Total::default();
    let mut command = shell::cargo(root, &arguments);
    programs.tell(&mut command).env("CARGO_TERM_COLOR", "never");
    let passed = shell::run_looking(&mut command, |line| total.add(line))?;
    eprintln!("{} passed, {} failed", total.passed, total.failed);
    ensure!(passed && total.failed == 0, "tests failed: see above");
    Ok(())
}

/// What `cargo test` says at the end of each binary, added up.
#[derive(Default)]
struct Total {
    passed: u64,
    failed: u64,
}

impl Total {
    /// `test result: ok. 3 passed; 0 failed; …`
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.split_once("test result: ").and_then(|(_, rest)| rest.split_once(". "))
        else {
            return;
        };
        for count in counts.split("; ") {
            match count.split_once(' ') {
                Some((n, "passed")) => self.passed += n.parse::<u64>().unwrap_or(0),
                Some((n, "failed")) => self.failed += n.parse::<u64>().unwrap_or(0),
                _ => {}
            }
        }
    }
}

/// The crates whose doc comments hold an example that rustdoc would run: building the others for nothing takes half
/// a minute.
fn crates_with_examples(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("crates");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        if holds_example(&entry.path())? {
            names.push(format!("outlive-{}", entry.file_name().to_string_lossy()));
        }
    }
    names.sort();
    Ok(names)
}

fn holds_example(path: &Path) -> Result<bool> {
    let context = || format!("cannot read {}", path.display());
    if !path.is_dir() {
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        return Ok(is_rust && has_example(&fs::read_to_string(path).with_context(context)?));
    }
    for entry in fs::read_dir(path).with_context(context)? {
        if holds_example(&entry.with_context(context)?.path())? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_example(text: &str) -> bool {
    let mut fenced = false;
    for line in text.lines() {
        let line = line.trim_start();
        let Some(comment) = line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) else {
            fenced = false;
            continue;
        };
        let Some(language) = comment.trim().strip_prefix("```") else { continue };
        if !fenced && ["", "rust", "no_run", "should_panic", "rust,no_run"].contains(&language) {
            return true;
        }
        fenced = !fenced;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_binaries_are_added_up() {
        let mut total = Total::default();
        total.add(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        );
        total.add("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s");
        total.add("test tidy::tests::a ... ok");
        assert_eq!((total.passed, total.failed), (4, 2));
    }

    #[test]
    fn only_examples_in_rust_are_run_by_rustdoc() {
        assert!(has_example("/// ```\n/// let a = 1;\n/// ```\nfn a() {}"));
        assert!(!has_example("//! ```text\n//! a -> b\n//! ```\n"));
        assert!(!has_example("let a = \"```\";"));
    }
}
