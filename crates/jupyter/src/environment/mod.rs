//! Finds the kernel for a notebook, and makes one for Python where there is none.
//!
//! In this order (the first that is there):
//!
//! 1. the kernelspec that was asked for by name;
//! 2. the active virtual or conda environment, when it has ipykernel;
//! 3. a kernelspec as Jupyter finds it, whose program exists;
//! 4. the project's `.venv`, beside the notebook or in a folder above, when it has ipykernel;
//! 5. an environment that Outlive makes and keeps in its cache ([`managed`]).
//!
//! 2, 4 and 5 are for Python. A notebook that lists packages in its metadata (`outlive.requirements`) gets 5 at once
//! unless a kernel was asked for: an environment that somebody else keeps may have other versions of them.

mod cancel;
pub mod managed;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use outlive_core::runtime::spec::Transport;
use outlive_core::runtime::{InterruptMode, Program};
use serde_json::Value;

use crate::kernelspec::{self, FindError, InstalledKernel, NotebookKernel};
use crate::surroundings::Surroundings;
pub use cancel::Cancel;
use managed::MakeError;

/// What somebody wants to run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// The kernel asked for by name (`--kernel`, or a client's choice).
    pub kernel: Option<String>,
    /// What the notebook says.
    pub notebook: NotebookKernel,
    /// Packages that the notebook needs, as PEP 508 strings.
    pub requirements: Vec<String>,
}

/// A kernel ready to be launched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResolvedKernel {
    /// The kernelspec's name.
    pub name: String,
    /// What people call it.
    pub display_name: String,
    /// The language that it runs.
    pub language: String,
    /// The command; `{connection_file}` and `{resource_dir}` are still to be filled in.
    pub argv: Vec<String>,
    /// To be added to the environment.
    pub env: BTreeMap<String, String>,
    /// The kernelspec's folder.
    pub resource_dir: Option<PathBuf>,
    /// How it is interrupted.
    pub interrupt_mode: InterruptMode,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a kernel comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The environment that is active in the shell, by its prefix.
    Active(PathBuf),
    /// A kernelspec, by its folder.
    Kernelspec(PathBuf),
    /// A project's `.venv`.
    Project(PathBuf),
    /// An environment in Outlive's cache.
    Managed(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Active(prefix) => write!(f, "the active environment {}", prefix.display()),
            Self::Kernelspec(folder) => write!(f, "the kernelspec {}", folder.display()),
            Self::Project(prefix) => write!(f, "the project's environment {}", prefix.display()),
            Self::Managed(prefix) => write!(f, "the environment {} made by Outlive", prefix.display()),
        }
    }
}

/// What goes on while an environment is made. Its text is one line for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Another process makes the same environment.
    Waiting(PathBuf),
    /// It is begun.
    Creating(PathBuf),
    /// Packages are being installed.
    Installing(Vec<String>),
    /// A line of the tool that does it.
    Output(String),
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting(_) => f.write_str("waiting for another Outlive that makes this environment"),
            Self::Creating(path) => write!(f, "making a Python environment in {}", path.display()),
            Self::Installing(packages) => write!(f, "installing {}", packages.join(", ")),
            Self::Output(line) => f.write_str(line),
        }
    }
}

/// There is no kernel to launch.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// No kernelspec, and none that can be made.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The kernelspec's program is gone.
    #[error(
        "the kernelspec {} starts `{program}`, which does not exist or is not executable: \
         the environment that it belongs to was probably removed; reinstall it, or choose another kernel",
        .folder.display()
    )]
    ProgramMissing {
        /// The kernelspec's folder.
        folder: PathBuf,
        /// Its `argv[0]`.
        program: String,
    },
    /// A Python environment could not be made.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// Something would have to be installed for a notebook that nobody has vouched for.
    #[error(
        "the notebook is not trusted, and {} would have to be installed for it: look at what it does, then trust it \
         and start its kernel again",
        packages(.requirements)
    )]
    NotTrusted {
        /// What it asks for, beside a kernel.
        requirements: Vec<String>,
    },
}

impl Wanted {
    /// What a notebook's `metadata` wants, unless `kernel` was asked for.
    #[must_use]
    pub fn from_metadata(metadata: &Value, kernel: Option<&str>) -> Self {
        let requirements = metadata.pointer("/outlive/requirements").and_then(Value::as_array);
        let requirements = requirements.into_iter().flatten().filter_map(Value::as_str);
        Self {
            kernel: kernel.map(str::to_owned),
            notebook: NotebookKernel::from_metadata(metadata),
            requirements: requirements.map(|requirement| requirement.trim().to_owned()).collect(),
        }
    }

    /// Whether any Python with ipykernel will do.
    fn is_any_python(&self) -> bool {
        let generic = |name: &str| matches!(name.to_ascii_lowercase().as_str(), "python" | "python3");
        match (&self.kernel, &self.notebook.name, &self.notebook.language) {
            (Some(kernel), _, _) => generic(kernel),
            (None, Some(name), _) if generic(name) => true,
            (None, _, Some(language)) => language.eq_ignore_ascii_case("python"),
            (None, name, None) => name.is_none(),
        }
    }
}

fn packages(requirements: &[String]) -> String {
    if requirements.is_empty() { "ipykernel".to_owned() } else { requirements.join(", ") }
}

/// Whether an environment may be made where there is none.
#[derive(Clone, Copy, Debug)]
pub enum Making<'a> {
    /// It may.
    Allowed,
    /// It may, until this is cancelled.
    Until(&'a Cancel),
    /// Nothing is installed: the notebook is not trusted.
    Forbidden,
}

impl ResolvedKernel {
    /// What is to be started, and what is added to the environment for it.
    #[must_use]
    pub fn into_program(self) -> (Program, BTreeMap<String, String>) {
        // ipykernel listens on Unix sockets as well, which only this user can reach; of other kernels we do not know.
        let is_ipykernel = self.argv.iter().any(|word| word.starts_with("ipykernel"));
        let program = Program::Kernel {
            name: self.name,
            display_name: self.display_name,
            language: self.language,
            argv: self.argv,
            resource_dir: self.resource_dir.map(|path| path.to_string_lossy().into_owned()),
            interrupt_mode: self.interrupt_mode,
            transport: if is_ipykernel { Transport::Ipc } else { Transport::Tcp },
        };
        (program, self.env)
    }
}

/// Finds or makes the kernel. Blocks, for minutes when packages have to be fetched; `progress` hears what goes on.
///
/// # Errors
/// When there is none and none can be made; the text says what to do.
pub fn resolve(
    wanted: &Wanted,
    surroundings: &Surroundings,
    progress: &mut dyn FnMut(Progress),
) -> Result<ResolvedKernel, ResolveError> {
    resolve_with(wanted, surroundings, Making::Allowed, progress)
}

/// As [`resolve`], where making an environment may be forbidden or given up.
///
/// # Errors
/// When there is none and none can or may be made; the text says what to do.
pub fn resolve_with(
    wanted: &Wanted,
    surroundings: &Surroundings,
    making: Making<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<ResolvedKernel, ResolveError> {
    let by_name = |name: &str| kernelspec::find(name, surroundings);
    if !wanted.is_any_python() {
        // A name that says more than "some Python" is taken at its word; a notebook's may be unknown here.
        let found = match &wanted.kernel {
            Some(kernel) => by_name(kernel)?,
            None => wanted.notebook.find(surroundings)?,
        };
        return from_kernelspec(found, surroundings);
    }
    let asked_for = wanted.kernel.as_deref().map(by_name).transpose();
    if let Ok(Some(kernel)) = asked_for
        && let Ok(resolved) = from_kernelspec(kernel, surroundings)
    {
        return Ok(resolved);
    }
    if wanted.requirements.is_empty() {
        let existing = existing_python(wanted, surroundings);
        if let Some(resolved) = existing {
            return Ok(resolved);
        }
    }
    let requirements = &wanted.requirements;
    let prefix = match making {
        Making::Allowed => managed::find_or_make(requirements, surroundings, None, progress)?,
        Making::Until(cancel) => managed::find_or_make(requirements, surroundings, Some(cancel), progress)?,
        Making::Forbidden => match managed::find(requirements, surroundings) {
            Some(prefix) => prefix,
            None => return Err(ResolveError::NotTrusted { requirements: requirements.clone() }),
        },
    };
    Ok(from_prefix(&prefix, surroundings, Origin::Managed(prefix.clone())))
}

/// Steps 2 to 4.
fn existing_python(wanted: &Wanted, surroundings: &Surroundings) -> Option<ResolvedKernel> {
    if let Some(prefix) = kernelspec::active_prefix(surroundings)
        && has_ipykernel(&prefix)
    {
        return Some(from_prefix(&prefix, surroundings, Origin::Active(prefix.clone())));
    }
    let named = NotebookKernel {
        name: Some(wanted.notebook.name.clone().unwrap_or_else(|| "python3".to_owned())),
        language: Some("python".to_owned()),
    };
    if let Ok(kernel) = named.find(surroundings)
        && let Ok(resolved) = from_kernelspec(kernel, surroundings)
    {
        return Some(resolved);
    }
    let project = surroundings
        .directory()
        .ancestors()
        .map(|folder| folder.join(".venv"))
        .find(|prefix| has_ipykernel(prefix))?;
    Some(from_prefix(&project, surroundings, Origin::Project(project.clone())))
}

/// Asks the interpreter itself: a folder's presence says nothing about a broken link to a removed Python, and
/// packages may come from the base installation.
fn has_ipykernel(prefix: &Path) -> bool {
    const PROBE: &str = "import importlib.util, sys; sys.exit(importlib.util.find_spec('ipykernel') is None)";
    let python = python_of(prefix);
    python.exists()
        && Command::new(python)
            .args(["-I", "-c", PROBE])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}

pub(crate) fn python_of(prefix: &Path) -> PathBuf {
    prefix.join("bin/python")
}

/// ipykernel's own command in an environment. Frozen modules hide the standard library's files from the debugger,
/// which warns about it on stderr.
fn from_prefix(prefix: &Path, surroundings: &Surroundings, origin: Origin) -> ResolvedKernel {
    let python = python_of(prefix).to_string_lossy().into_owned();
    let argv = [&python, "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "{connection_file}"];
    let resource_dir = prefix.join("share/jupyter/kernels/python3");
    ResolvedKernel {
        name: "python3".to_owned(),
        display_name: "Python 3 (ipykernel)".to_owned(),
        language: "python".to_owned(),
        argv: argv.map(str::to_owned).to_vec(),
        env: activation(prefix, surroundings),
        resource_dir: resource_dir.is_dir().then_some(resource_dir),
        interrupt_mode: InterruptMode::Signal,
        origin,
    }
}

/// What `activate` would set, so that a cell's `!pip install` and subprocesses meet the same environment.
fn activation(prefix: &Path, surroundings: &Surroundings) -> BTreeMap<String, String> {
    let mut folders = vec![prefix.join("bin")];
    folders.extend(surroundings.folders("PATH"));
    folders.dedup();
    let path = std::env::join_paths(folders).map_or_else(
        |_| surroundings.get("PATH").unwrap_or_default().to_owned(),
        |path| path.to_string_lossy().into_owned(),
    );
    let is_virtual = prefix.join("pyvenv.cfg").exists();
    let name = if is_virtual { "VIRTUAL_ENV" } else { "CONDA_PREFIX" };
    BTreeMap::from([("PATH".to_owned(), path), (name.to_owned(), prefix.to_string_lossy().into_owned())])
}

fn from_kernelspec(
    kernel: InstalledKernel,
    surroundings: &Surroundings,
) -> Result<ResolvedKernel, ResolveError> {
    let InstalledKernel { name, spec, resource_dir } = kernel;
    // PREFIX/share/jupyter/kernels/NAME
    let prefix = resource_dir.ancestors().nth(4).map(Path::to_owned);
    let mut argv = spec.argv;
    if let Some(prefix) = &prefix {
        let text = prefix.to_string_lossy();
        argv.iter_mut().for_each(|word| *word = word.replace("{prefix}", &text));
        // ipykernel's wheel brings a spec with a bare `python`: it means the Python of its own environment.
        let of_its_prefix = prefix.join("bin").join(&argv[0]);
        if argv[0].starts_with("python") && !argv[0].contains('/') && of_its_prefix.exists() {
            argv[0] = of_its_prefix.to_string_lossy().into_owned();
        }
    }
    if surroundings.program(&argv[0]).is_none() {
        return Err(ResolveError::ProgramMissing { folder: resource_dir, program: argv.swap_remove(0) });
    }
    let substitute = |(name, value): (String, String)| (name, substitute(&value, surroundings));
    Ok(ResolvedKernel {
        name,
        display_name: spec.display_name,
        language: spec.language,
        argv,
        env: spec.env.into_iter().map(substitute).collect(),
        origin: Origin::Kernelspec(resource_dir.clone()),
        resource_dir: Some(resource_dir),
        interrupt_mode: spec.interrupt_mode,
    })
}

/// `${NAME}` from the environment, as jupyter_client does; an unknown name stays as it stands.
fn substitute(value: &str, surroundings: &Surroundings) -> String {
    let mut result = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(start) = rest.find("${") {
        let (before, from_here) = rest.split_at(start);
        result.push_str(before);
        let Some(end) = from_here.find('}') else {
            rest = from_here;
            break;
        };
        let (reference, after) = from_here.split_at(end + 1);
        result.push_str(surroundings.get(&reference[2..end]).unwrap_or(reference));
        rest = after;
    }
    result.push_str(rest);
    result
}
