//! The project's own commands, as `cargo xtask COMMAND`. Each is one file; `shell` runs programs for them.
#![expect(clippy::print_stdout, reason = "a command line tool talks to its terminal")]

mod limits;
mod python;
mod shell;
mod test;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Commands for working on Outlive.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything that has to pass before a change lands: format, tidy, clippy, all tests.
    Test {
        /// Leave out the end-to-end tests.
        #[arg(long)]
        fast: bool,
    },
    /// Checks the conventions that no compiler knows.
    Tidy,
    /// Writes docs/limits.md from crates/core/src/limits.rs.
    Limits,
    /// Makes the Python environment that tests with real kernels use, and prints its path.
    Python,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command, &root()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, root: &Path) -> Result<()> {
    match command {
        Command::Test { fast } => test::run(root, fast),
        Command::Tidy => tidy::run(root),
        Command::Limits => limits::write(root),
        Command::Python => {
            println!("{}", python::test_environment(root)?.display());
            Ok(())
        }
    }
}

/// The repository, wherever `cargo xtask` was called.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("xtask is a folder of the workspace").to_owned()
}
