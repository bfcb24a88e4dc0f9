//! Python environments below `target/`: one for the tests, one for the peers of the benchmarks.
//!
//! Each holds exactly what a `requirements.txt` pins. A copy of that file inside the environment says that it is
//! complete; without it, or with another content, the environment is made anew.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell;

/// The environment with ipykernel and its friends that tests with real kernels use.
///
/// # Errors
/// No suitable Python on this machine, or pip failed.
pub fn test_environment(root: &Path) -> Result<PathBuf> {
    environment(root, "test-venv", &root.join("e2e/requirements.txt"))
}

/// Makes `target/NAME` from `requirements`, or finds it made.
///
/// # Errors
/// No suitable Python on this machine, or pip failed.
pub fn environment(root: &Path, name: &str, requirements: &Path) -> Result<PathBuf> {
    let target = root.join("target");
    let home = target.join(name);
    let stamp = home.join("outlive-requirements.txt");
    let wanted = fs::read(requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    fs::create_dir_all(&target).with_context(|| format!("cannot make {}", target.display()))?;

    // Two commands at once make one environment: the second waits here and finds it.
    let lock_path = target.join(format!("{name}.lockfile"));
    let lock = File::create(&lock_path).with_context(|| format!("cannot make {}", lock_path.display()))?;
    lock.lock().with_context(|| format!("cannot lock {}", lock_path.display()))?;
    if fs::read(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(home);
    }

    let python = find_python(root)?;
    if !home.join("bin/python").exists() {
        shell::run(&mut shell::command(root, python, ["-m".as_ref(), "venv".as_ref(), home.as_os_str()]))?;
    }
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    shell::run(shell::command(root, home.join("bin/python"), pip).arg(requirements))?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(home)
}

/// A Python of 3.9 or newer that can make environments.
fn find_python(root: &Path) -> Result<&'static str> {
    const CHECK: &str = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))";
    for candidate in ["python3", "python"] {
        let tried = shell::command(root, candidate, ["-c", CHECK]).output();
        if tried.is_ok_and(|output| output.status.success()) {
            return Ok(candidate);
        }
    }
    bail!(
        "no Python 3.9 or newer with the venv and ensurepip modules was found as python3 or python; \
         install it (Debian and Ubuntu: apt-get install python3-venv) and try again"
    )
}
