//! Which kernels are installed: kernel.json files, found where and in the order in which Jupyter finds them.
//!
//! Sources: jupyter_core `paths.py` (`jupyter_path`, `prefer_environment_over_user`), jupyter_client
//! `kernelspec.py`. A kernel found earlier hides one of the same name found later.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use outlive_core::runtime::InterruptMode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::surroundings::Surroundings;

/// The content of a kernel.json. What is not known here is kept.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct KernelSpec {
    /// The command, with `{connection_file}`.
    pub argv: Vec<String>,
    /// What people call it.
    #[serde(default)]
    pub display_name: String,
    /// The language that it runs, in lower case by custom.
    #[serde(default)]
    pub language: String,
    /// Added to the environment; `${NAME}` stands for a variable of the environment before.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// How it is interrupted.
    #[serde(default)]
    pub interrupt_mode: InterruptMode,
    /// For clients.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A kernelspec and where it stands.
#[derive(Clone, PartialEq, Debug)]
pub struct InstalledKernel {
    /// The folder's name in lower case: what a notebook names.
    pub name: String,
    /// The content.
    pub spec: KernelSpec,
    /// The folder, with logos beside kernel.json.
    pub resource_dir: PathBuf,
}

/// What is installed.
#[derive(Debug, Default)]
pub struct Installed {
    /// Usable ones by name.
    pub kernels: BTreeMap<String, InstalledKernel>,
    /// Files that cannot be used. They hide nothing.
    pub broken: Vec<SpecError>,
}

/// A kernel.json cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Reading failed.
    #[error("cannot read the kernelspec {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not what a kernel.json is.
    #[error("{path} is not a kernelspec: {source}; correct it or remove its folder")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Where it breaks.
        source: serde_json::Error,
    },
    /// There is nothing to start.
    #[error("the kernelspec {path} has an empty argv: it names no program to start")]
    EmptyArgv {
        /// Which.
        path: PathBuf,
    },
}

/// No such kernel.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// None of that name.
    #[error("there is no kernel `{name}`; {}", known(.available))]
    NotFound {
        /// What was asked for.
        name: String,
        /// The names that exist.
        available: Vec<String>,
    },
    /// There is one, but its file cannot be used.
    #[error(transparent)]
    Broken(#[from] SpecError),
}

fn known(available: &[String]) -> String {
    if available.is_empty() {
        "none is installed (looked where `jupyter kernelspec list` looks)".to_owned()
    } else {
        format!("these exist: {}", available.join(", "))
    }
}

/// All kernels that can be found from here. Blocks.
#[must_use]
pub fn list(surroundings: &Surroundings) -> Installed {
    let mut installed = Installed::default();
    for folder in search_path(surroundings) {
        // A folder that cannot be listed holds no kernels for this user: most of them do not exist.
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        let mut directories: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        directories.sort();
        for directory in directories {
            let Some(name) = kernel_name(&directory) else { continue };
            if installed.kernels.contains_key(&name) || !directory.join("kernel.json").exists() {
                continue;
            }
            match read(&directory, &name) {
                Ok(kernel) => {
                    installed.kernels.insert(name, kernel);
                }
                Err(error) => installed.broken.push(error),
            }
        }
    }
    installed
}

/// The kernel of that name; case does not matter. Blocks.
///
/// # Errors
/// When there is none, with the names that exist; or when its file cannot be used.
pub fn find(name: &str, surroundings: &Surroundings) -> Result<InstalledKernel, FindError> {
    let wanted = name.to_ascii_lowercase();
    let mut installed = list(surroundings);
    if let Some(kernel) = installed.kernels.remove(&wanted) {
        return Ok(kernel);
    }
    let broken = installed.broken.into_iter().find(|error| {
        error.path().parent().and_then(kernel_name).is_some_and(|of_broken| of_broken == wanted)
    });
    match broken {
        Some(error) => Err(error.into()),
        None => Err(FindError::NotFound {
            name: name.to_owned(),
            available: installed.kernels.into_keys().collect(),
        }),
    }
}

/// What a notebook says about its kernel (`metadata.kernelspec`, `metadata.language_info`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NotebookKernel {
    /// The kernelspec's name where it was last run.
    pub name: Option<String>,
    /// The language.
    pub language: Option<String>,
}

impl NotebookKernel {
    /// Reads a notebook's `metadata`.
    #[must_use]
    pub fn from_metadata(metadata: &Value) -> Self {
        let text = |path: &str| metadata.pointer(path).and_then(Value::as_str).map(str::to_owned);
        Self {
            name: text("/kernelspec/name").filter(|name| !name.is_empty()),
            language: text("/kernelspec/language").or_else(|| text("/language_info/name")),
        }
    }

    /// The kernel of its name, else one of its language. Blocks.
    ///
    /// # Errors
    /// When there is neither.
    pub fn find(&self, surroundings: &Surroundings) -> Result<InstalledKernel, FindError> {
        let by_name = match &self.name {
            Some(name) => find(name, surroundings),
            None => Err(FindError::NotFound {
                name: self.language.clone().unwrap_or_else(|| "(none named)".to_owned()),
                available: list(surroundings).kernels.into_keys().collect(),
            }),
        };
        by_name.or_else(|error| {
            let same = |kernel: &InstalledKernel| {
                self.language
                    .as_ref()
                    .is_some_and(|wanted| wanted.eq_ignore_ascii_case(&kernel.spec.language))
            };
            list(surroundings).kernels.into_values().find(same).ok_or(error)
        })
    }
}

impl SpecError {
    fn path(&self) -> &Path {
        match self {
            Self::Read { path, .. } | Self::Parse { path, .. } | Self::EmptyArgv { path } => path,
        }
    }
}

/// jupyter_client allows ASCII letters, digits, dot, dash and underscore, and compares in lower case.
fn kernel_name(directory: &Path) -> Option<String> {
    let name = directory.file_name()?.to_str()?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (!name.is_empty() && name.chars().all(allowed)).then(|| name.to_ascii_lowercase())
}

fn read(directory: &Path, name: &str) -> Result<InstalledKernel, SpecError> {
    let path = directory.join("kernel.json");
    let bytes = fs::read(&path).map_err(|source| SpecError::Read { path: path.clone(), source })?;
    let mut spec: KernelSpec =
        serde_json::from_slice(&bytes).map_err(|source| SpecError::Parse { path: path.clone(), source })?;
    if spec.argv.is_empty() {
        return Err(SpecError::EmptyArgv { path });
    }
    if spec.display_name.is_empty() {
        spec.display_name = name.to_owned();
    }
    Ok(InstalledKernel { name: name.to_owned(), spec, resource_dir: directory.to_owned() })
}

/// The folders that hold kernelspecs, the preferred first.
#[must_use]
pub fn search_path(surroundings: &Surroundings) -> Vec<PathBuf> {
    let mut data = surroundings.folders("JUPYTER_PATH");
    let home = surroundings.home();
    let mut user: Vec<PathBuf> = Vec::new();
    user.extend(surroundings.path("JUPYTER_DATA_DIR").or_else(|| user_data_dir(surroundings)));
    user.extend(
        surroundings
            .path("PYTHONUSERBASE")
            .or_else(|| home.as_ref().map(|home| home.join(".local")))
            .map(|base| base.join("share/jupyter")),
    );
    let environment = active_prefix(surroundings).or_else(|| python_prefix(surroundings));
    let environment = environment.map(|prefix| prefix.join("share/jupyter"));
    if prefers_environment(surroundings) {
        data.extend(environment);
        data.extend(user);
    } else {
        data.extend(user);
        data.extend(environment);
    }
    data.extend(["/usr/local/share/jupyter", "/usr/share/jupyter"].map(PathBuf::from));
    let mut folders: Vec<PathBuf> = data.into_iter().map(|folder| folder.join("kernels")).collect();
    folders.extend(home.map(|home| home.join(".ipython/kernels")));
    let mut seen = std::collections::BTreeSet::new();
    folders.retain(|folder| seen.insert(folder.clone()));
    folders
}

fn user_data_dir(surroundings: &Surroundings) -> Option<PathBuf> {
    let home = surroundings.home();
    if cfg!(target_os = "macos") {
        return home.map(|home| home.join("Library/Jupyter"));
    }
    let data = surroundings.path("XDG_DATA_HOME").or_else(|| home.map(|home| home.join(".local/share")));
    data.map(|data| data.join("jupyter"))
}

/// The prefix of the active virtual or conda environment: Jupyter's `sys.prefix`, as it would run in it.
pub(crate) fn active_prefix(surroundings: &Surroundings) -> Option<PathBuf> {
    surroundings.path("VIRTUAL_ENV").or_else(|| surroundings.path("CONDA_PREFIX"))
}

/// The prefix of the Python on PATH, as far as its path tells.
fn python_prefix(surroundings: &Surroundings) -> Option<PathBuf> {
    Some(surroundings.program("python3")?.parent()?.parent()?.to_owned())
}

fn prefers_environment(surroundings: &Surroundings) -> bool {
    if let Some(flag) = surroundings.variables().get("JUPYTER_PREFER_ENV_PATH") {
        // jupyter_core `envset`.
        return !matches!(flag.to_ascii_lowercase().as_str(), "no" | "n" | "false" | "off" | "0" | "0.0");
    }
    let in_virtualenv = surroundings.get("VIRTUAL_ENV").is_some();
    let in_conda_env = surroundings.get("CONDA_PREFIX").is_some()
        && surroundings.get("CONDA_DEFAULT_ENV").is_some_and(|name| name != "base");
    in_virtualenv || in_conda_env
}
