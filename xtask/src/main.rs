//! The project's own commands, as `cargo xtask COMMAND`. Each is one file; `shell` runs programs for them.
#![expect(clippy::print_stdout, reason = "a command line tool talks to its terminal")]

mod fuzz;
mod limits;
mod nats;
mod programs;
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
    /// Compares Outlive with its peers; writes target/bench/bench.md and bench.json.
    Bench {
        /// Few and small rounds: shows that everything works, not how fast it is.
        #[arg(long)]
        quick: bool,
        /// Measure the development build, which is slower and quicker to make.
        #[arg(long)]
        dev: bool,
        /// Handed on: `--only TEXT`, `--contestants NAME,NAME`, `--minutes N`.
        #[arg(last = true)]
        rest: Vec<String>,
    },
    /// Kills kernels, shims, daemons and clients in mid-work, then nodes of a cluster, and checks what is left of it.
    Chaos {
        /// How many are killed; of a cluster, how often each fault is made.
        #[arg(long, default_value_t = 20)]
        rounds: u64,
        /// The same seed kills at the same moments.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Several nodes over a made-up world in which everything fails that a seed says: `cargo xtask sim -- --help`.
    Sim {
        /// Handed on: `--seeds N`, `--from N`, `--seed N --trace`, `--only TROUBLE`, `--alone`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Hundreds of sessions used at random; once a minute nothing may be lost, mixed up or left behind.
    Soak {
        /// How long.
        #[arg(long, default_value_t = 5)]
        minutes: u64,
        /// The same seed does the same things.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many sessions at a time.
        #[arg(long, default_value_t = 200)]
        sessions: u64,
    },
    /// Many tasks over a few runners that are killed all the time: each ends once, with all that was said.
    Stress {
        /// How long they take about, with nobody killed.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// How many tasks.
        #[arg(long, default_value_t = 200)]
        tasks: u64,
        /// How many runners.
        #[arg(long, default_value_t = 4)]
        runners: u64,
        /// How often one of them is killed, in milliseconds.
        #[arg(long, default_value_t = 300)]
        kill_ms: u64,
        /// The same seed kills the same runners in the same order.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Feeds random bytes to everything that parses bytes from outside.
    Fuzz {
        /// How long for each target, in seconds.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Makes the Python environment that tests with real kernels use, and prints its path.
    Python,
    /// Installs the NATS server that tests of several nodes use, and prints its path.
    Nats,
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
        Command::Bench { quick, dev, rest } => programs::bench(root, quick, dev, &rest),
        Command::Chaos { rounds, seed } => programs::chaos(root, rounds, seed),
        Command::Sim { rest } => programs::sim(root, &rest),
        Command::Soak { minutes, seed, sessions } => programs::soak(root, minutes, seed, sessions),
        Command::Stress { seconds, tasks, runners, kill_ms, seed } => {
            programs::stress(root, [seconds, tasks, runners, kill_ms, seed])
        }
        Command::Fuzz { seconds } => fuzz::run(root, seconds),
        Command::Python => {
            println!("{}", python::test_environment(root)?.display());
            Ok(())
        }
        Command::Nats => {
            println!("{}", nats::server(root)?.display());
            Ok(())
        }
    }
}

/// The repository, wherever `cargo xtask` was called.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("xtask is a folder of the workspace").to_owned()
}
