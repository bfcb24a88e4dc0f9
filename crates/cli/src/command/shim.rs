//! `outlive shim DIRECTORY`: not for people. The daemon starts it as the parent of one process, with the listening
//! socket at [`INHERITED_FD`].
//!
//! It is dispatched before anything else in this binary has run: each kernel waits for it.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use outlive_process::detached::INHERITED_FD;
use outlive_process::signals;

use crate::exit::Exit;
use crate::terminal;

/// The name of the hidden subcommand.
pub const NAME: &str = "shim";

/// Runs the shim for a process's directory.
pub fn run(directory: Option<OsString>) -> ExitCode {
    let Some(directory) = directory else {
        terminal::talk("outlive shim is for the daemon: it takes the directory of a process");
        return ExitCode::from(Exit::Usage.code());
    };
    match signals::inherited_fd(INHERITED_FD) {
        Ok(listener) => outlive_shim::run(Path::new(&directory), listener),
        Err(error) => {
            terminal::talk(format!("outlive shim is for the daemon: it has inherited no socket ({error})"));
            ExitCode::from(Exit::Usage.code())
        }
    }
}
