//! A home of its own for a test; the daemon that is started in it is stopped at the end.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A home of its own; the daemon that is started in it is stopped at the end.
pub struct Home(TempDir);

impl Home {
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("olc-").tempdir_in("/tmp").expect("a directory"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outlive"));
        command.args(arguments).current_dir(self.path()).stdin(Stdio::null()).env_clear();
        command.env("HOME", self.path()).env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.env("OUTLIVE_RUNTIME_DIR", self.path().join("outlive"));
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("started")
    }

    /// Exit code, standard output and standard error.
    pub fn said(&self, arguments: &[&str]) -> (i32, String, String) {
        said(self.run(arguments))
    }
}

/// Exit code, standard output and standard error.
pub fn said(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

impl Drop for Home {
    fn drop(&mut self) {
        let stopped = self.run(&["daemon", "stop"]);
        if !stopped.status.success() && !std::thread::panicking() {
            panic!("the daemon was not stopped: {stopped:?}");
        }
    }
}
