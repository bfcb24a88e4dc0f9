//! The repository's files, read once.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::source::Source;

/// Folders that hold nothing of ours.
const SKIPPED: [&str; 5] = ["target", "node_modules", "dist", "corpus", "artifacts"];

/// What the rules look at.
pub struct Tree {
    /// Every Rust file.
    pub sources: Vec<Source>,
    /// Every Markdown file: path relative to the repository, and text.
    pub pages: Vec<(PathBuf, String)>,
    /// The acceptance rows that are in scope, `e2e/rows.txt`.
    pub rows: String,
}

impl Tree {
    /// Reads all of it.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read(root: &Path) -> Result<Self> {
        let mut tree = Self { sources: Vec::new(), pages: Vec::new(), rows: String::new() };
        tree.rows = fs::read_to_string(root.join(super::rows::LIST))
            .with_context(|| format!("cannot read {}", super::rows::LIST))?;
        tree.walk(root, Path::new(""))?;
        Ok(tree)
    }

    fn walk(&mut self, root: &Path, folder: &Path) -> Result<()> {
        let absolute = root.join(folder);
        let context = || format!("cannot read {}", absolute.display());
        for entry in fs::read_dir(&absolute).with_context(context)? {
            let entry = entry.with_context(context)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let path = folder.join(&*name);
            if entry.file_type().with_context(context)?.is_dir() {
                if !name.starts_with('.') && !SKIPPED.contains(&&*name) {
                    self.walk(root, &path)?;
                }
                continue;
            }
            let rust = name.ends_with(".rs");
            if rust || name.ends_with(".md") {
                let text = fs::read_to_string(root.join(&path))
                    .with_context(|| format!("cannot read {}", path.display()))?;
                if rust {
                    self.sources.push(Source::new(path, text));
                } else {
                    self.pages.push((path, text));
                }
            }
        }
        Ok(())
    }
}
