//! The user's own matchers (`causes.toml`): what only their programs say of their end.

use std::path::{Path, PathBuf};

use outlive_core::diagnosis::Matchers;

use crate::session::with_sources;

/// What became of the user's file.
#[derive(Clone, Debug, Default)]
pub enum Causes {
    /// There is none.
    #[default]
    None,
    /// It counts.
    Installed {
        /// Where it is.
        path: PathBuf,
        /// How many matchers it has.
        number: usize,
    },
    /// It does not count, for this reason: the built-in ones are used alone.
    Unusable {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl Causes {
    /// Reads the file and makes its matchers count in this process; what is wrong with it is said in the daemon's log and
    /// by `doctor`, and keeps nothing from starting.
    #[must_use]
    pub fn install(path: &Path) -> Self {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Self::None,
            Err(error) => return Self::unusable(path, error.to_string()),
        };
        let installed =
            Matchers::parse(&text).and_then(|own| Ok((own.len(), Matchers::builtin().with(&own)?)));
        match installed {
            Ok((number, all)) => match all.install() {
                Ok(()) => {
                    tracing::info!(path = %path.display(), number, "causes of the user's own");
                    Self::Installed { path: path.to_owned(), number }
                }
                Err(error) => Self::unusable(path, with_sources(&error)),
            },
            Err(error) => Self::unusable(path, with_sources(&error)),
        }
    }

    fn unusable(path: &Path, why: String) -> Self {
        tracing::error!(path = %path.display(), why, "the causes of the user's own are not used");
        Self::Unusable { path: path.to_owned(), why }
    }
}
