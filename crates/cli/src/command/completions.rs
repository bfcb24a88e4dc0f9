//! `outlive completions`: a script for the user's shell.

use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::terminal;

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Args {
    /// Does it.
    pub fn run(self) -> Result<Exit, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "outlive", &mut script);
        terminal::data(&script)?;
        Ok(Exit::Ok)
    }
}
