//! `outlive completions`: a script for the user's shell, which asks this program at each Tab ([`crate::complete`]).

use clap_complete::Shell;
use clap_complete::env::Shells;

use crate::complete::VARIABLE;
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
        let shells = Shells::builtins();
        let shell = shells.completer(&self.shell.to_string()).expect("every shell of the list is built in");
        shell
            .write_registration(VARIABLE, "outlive", "outlive", "outlive", &mut script)
            .expect("a vector takes everything");
        terminal::data(&script)?;
        Ok(Exit::Ok)
    }
}
