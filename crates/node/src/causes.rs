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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_keeps_nothing_from_starting_and_a_right_one_counts() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("causes.toml");
        assert!(matches!(Causes::install(&file), Causes::None), "there is none");
        let wrong =
            "[[matcher]]\nname = \"away\"\nanchors = ['(']\ntitle = [\"it was away\"]\nremedy = [\"wait\"]\n";
        std::fs::write(&file, wrong).unwrap();
        let Causes::Unusable { why, .. } = Causes::install(&file) else { panic!("it is wrong") };
        assert!(why.contains("line "), "it says where: {why}");
        let builtin = Matchers::builtin().len();
        assert_eq!(Matchers::current().len(), builtin, "the built-in ones are used alone");
        std::fs::write(&file, wrong.replace("'('", "'license server away'")).unwrap();
        assert!(matches!(Causes::install(&file), Causes::Installed { number: 1, .. }));
        assert_eq!(Matchers::current().len(), builtin + 1);
        assert!(matches!(Causes::install(&file), Causes::Unusable { .. }), "once for each daemon");
    }
}
