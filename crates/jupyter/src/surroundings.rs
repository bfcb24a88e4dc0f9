//! The user's environment variables and working directory, as values: what is found depends on them, so tests give
//! their own and the process's own environment is never changed.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Where somebody stands when looking for a kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Surroundings {
    variables: BTreeMap<String, String>,
    directory: PathBuf,
}

impl Surroundings {
    /// With these variables, in this absolute directory.
    #[must_use]
    pub fn new(variables: BTreeMap<String, String>, directory: PathBuf) -> Self {
        Self { variables, directory }
    }

    /// Those of this process. Variables that are not UTF-8 are left out.
    ///
    /// # Errors
    /// When the working directory no longer exists.
    pub fn of_this_process() -> io::Result<Self> {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Ok(Self::new(variables, std::env::current_dir()?))
    }

    /// The same variables in another directory, for instance a notebook's.
    #[must_use]
    pub fn in_directory(&self, directory: &Path) -> Self {
        Self { variables: self.variables.clone(), directory: directory.to_owned() }
    }

    /// All variables.
    #[must_use]
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// The working directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A variable, unless it is empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A variable that names a directory.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    pub(crate) fn home(&self) -> Option<PathBuf> {
        self.path("HOME")
    }

    /// The folders of a variable in the form of PATH.
    pub(crate) fn folders(&self, name: &str) -> Vec<PathBuf> {
        let absolute = |path: PathBuf| self.directory.join(path);
        self.get(name).map(|list| std::env::split_paths(list).map(absolute).collect()).unwrap_or_default()
    }

    /// The program that a shell would start: a path as it is, a bare word from PATH.
    #[must_use]
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        if name.contains('/') {
            let path = self.directory.join(name);
            return is_executable(&path).then_some(path);
        }
        self.folders("PATH").into_iter().map(|folder| folder.join(name)).find(|path| is_executable(path))
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
