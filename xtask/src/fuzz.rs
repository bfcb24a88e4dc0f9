//! Random bytes for everything that parses bytes from outside.
//!
//! With cargo-fuzz and a nightly toolchain, the targets of `fuzz/`. Without, the property tests of the same parsers,
//! with many more cases than in `cargo xtask test`.

use std::path::Path;

use anyhow::Result;

use crate::shell;

/// The crates that parse bytes from outside.
const PARSERS: [&str; 4] = ["outlive-protocol", "outlive-store", "outlive-jupyter", "outlive-document"];
/// A property that asks another program about each case: thousands of them would take hours.
const ASKS_PYTHON: &str = "nbclient";
/// Cases of a property test for each second that was asked for: about what two cores take.
const CASES_PER_SECOND: u64 = 500;

/// Runs each target for so long.
///
/// # Errors
/// A parser failed, or something could not be started.
pub fn run(root: &Path, seconds: u64) -> Result<()> {
    let folder = root.join("fuzz");
    let listed = shell::capture(&mut shell::command(root, "cargo", ["+nightly", "fuzz", "list"]));
    match listed {
        Ok(targets) if folder.is_dir() => {
            for target in targets.lines() {
                let limit = format!("-max_total_time={seconds}");
                shell::run(&mut shell::command(
                    root,
                    "cargo",
                    ["+nightly", "fuzz", "run", target, "--", &limit],
                ))?;
            }
            Ok(())
        }
        _ => {
            eprintln!(
                "xtask: no cargo-fuzz on a nightly toolchain: running the property tests for longer instead"
            );
            let mut command = shell::cargo(root, &["test", "--locked"]);
            command.args(PARSERS.iter().flat_map(|name| ["--package", *name])).args([
                "--",
                "--test-threads=1",
                "--skip",
                ASKS_PYTHON,
            ]);
            shell::run(command.env("PROPTEST_CASES", (seconds * CASES_PER_SECOND).to_string()))
        }
    }
}
