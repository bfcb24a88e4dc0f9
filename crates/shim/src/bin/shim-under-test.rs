//! `shim-under-test DIRECTORY`, with the listener at descriptor 3: what the hidden subcommand of `outlive` does.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    tracing_to_stderr();
    let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) else { return ExitCode::FAILURE };
    match outlive_process::signals::inherited_fd(outlive_process::detached::INHERITED_FD) {
        Ok(listener) => outlive_shim::run(&directory, listener),
        Err(error) => {
            eprintln!("no listener: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Warnings go to the shim's log, which a failing test prints.
fn tracing_to_stderr() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::INFO).init();
}
