//! Builds and runs the programs that exercise the real binary: benchmarks, chaos, soak, stress.

use std::path::Path;

use anyhow::Result;

use crate::{nats, python, shell};

/// Compares with the peers. `rest` goes to the program as it is.
///
/// # Errors
/// A step failed.
pub fn bench(root: &Path, quick: bool, dev: bool, rest: &[String]) -> Result<()> {
    let environment = python::test_environment(root)?;
    let peers = python::environment(root, "bench-venv", &root.join("benches/requirements.txt"))?;
    let (profile, folder) = if dev { ("dev", "debug") } else { ("release", "release") };
    let build =
        ["build", "--locked", "--profile", profile, "--package", "outlive-cli", "--package", "outlive-bench"];
    shell::run(&mut shell::cargo(root, &build))?;
    let program = root.join("target").join(folder).join("outlive-bench");
    let mut command = shell::command(root, program, quick.then_some("--quick"));
    command.arg("--python").arg(peers).arg("--out").arg(root.join("target/bench")).args(rest);
    command.env(nats::VARIABLE, nats::server(root)?);
    shell::run(command.env("OUTLIVE_TEST_VENV", environment))
}

/// Kills things.
///
/// # Errors
/// A step failed.
pub fn chaos(root: &Path, rounds: u64, seed: u64) -> Result<()> {
    end_to_end(root, "chaos", &[rounds, seed])?;
    end_to_end(root, "chaos_nodes", &[rounds, seed])
}

/// Tells the stories of seeds. `rest` goes to the program as it is.
///
/// # Errors
/// A step failed, or a seed went wrong.
pub fn sim(root: &Path, rest: &[String]) -> Result<()> {
    shell::run(&mut shell::cargo(root, &["build", "--locked", "--package", "outlive-sim"]))?;
    shell::run(&mut shell::command(root, root.join("target/debug/outlive-sim"), rest))
}

/// Uses hundreds of sessions at random.
///
/// # Errors
/// Something was lost, mixed up or left behind.
pub fn soak(root: &Path, minutes: u64, seed: u64, sessions: u64) -> Result<()> {
    end_to_end(root, "soak", &[minutes, seed, sessions])
}

/// Kills runners in mid-task.
///
/// # Errors
/// A task was lost, doubled or ended twice, or something was left behind.
pub fn stress(root: &Path, plan: [u64; 5]) -> Result<()> {
    end_to_end(root, "stress", &plan)
}

fn end_to_end(root: &Path, program: &str, arguments: &[u64]) -> Result<()> {
    let environment = python::test_environment(root)?;
    shell::run(&mut shell::cargo(root, &["build", "--locked", "--workspace", "--bins"]))?;
    let arguments = arguments.iter().map(u64::to_string);
    let mut command = shell::command(root, root.join("target/debug").join(program), arguments);
    command.env(nats::VARIABLE, nats::server(root)?);
    shell::run(command.env("OUTLIVE_TEST_VENV", environment))
}
