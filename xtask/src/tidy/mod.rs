//! The conventions that no compiler knows, as rules over the files of the repository.
//!
//! Each rule is a function from what was read to findings; only this module reads the tree and prints.

mod asynchronous;
mod crates;
mod documents;
mod rows;
mod shape;
mod source;
mod tree;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use tree::Tree;

/// One breach of a convention.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Finding {
    /// Relative to the repository.
    path: PathBuf,
    /// From 1; 0 when the finding is about the whole file.
    line: usize,
    /// What is wrong and what to do.
    text: String,
}

impl Finding {
    fn new(path: impl Into<PathBuf>, line: usize, text: impl Into<String>) -> Self {
        Self { path: path.into(), line, text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path.display(), self.text),
            line => write!(f, "{}:{line}: {}", self.path.display(), self.text),
        }
    }
}

/// Applies every rule to the repository.
///
/// # Errors
/// A rule is broken (all findings are printed before), or the repository cannot be read.
pub fn run(root: &Path) -> Result<()> {
    let tree = Tree::read(root)?;
    let mut findings = crates::check(root)?;
    for source in &tree.sources {
        findings.extend(shape::check(source));
        findings.extend(asynchronous::check(source));
    }
    findings.extend(rows::check(&tree));
    findings.extend(documents::check(root, &tree)?);
    findings.sort();
    for finding in &findings {
        eprintln!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        1 => bail!("tidy: 1 finding"),
        n => bail!("tidy: {n} findings"),
    }
}
