//! From what the user named to what the daemon is asked to start: the notebook is read here first, so that a mistake
//! is said at once and in the user's own words.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use outlive_core::limits;
use outlive_core::runtime::{LaunchSpec, Program};
use outlive_document::{CellKind, Notebook, file};
use outlive_jupyter::environment::{self, Progress, ResolveError, Wanted};
use outlive_jupyter::surroundings::Surroundings;
use serde_json::Value;

use crate::config::Config;
use crate::exit::Exit;
use crate::failure::{Failure, with_sources};
use crate::terminal;

/// How many lines of progress wait to be shown; then the work waits.
const PROGRESS_LINES_MAX: usize = 64;
/// How often the spinner turns.
const SPINNER_TICK: Duration = Duration::from_millis(120);

/// A notebook that can be run.
pub struct Source {
    /// The file that is read, absolute.
    pub source: PathBuf,
    /// The file that is written, absolute.
    pub path: PathBuf,
    /// What it says about its kernel.
    metadata: Value,
}

/// What every launch shares.
pub struct Wishes {
    /// The working directory, when one was named.
    pub cwd: Option<PathBuf>,
    /// Variables beside those of this environment.
    pub env: Vec<(String, String)>,
    /// Memory limit in bytes.
    pub memory_bytes_max: Option<u64>,
}

fn unusable(what: impl Into<String>) -> Failure {
    Failure::new(Exit::CannotStart, what)
}

/// Reads a notebook and checks that the result can be written.
pub fn notebook(
    source: &Path,
    output: Option<&Path>,
    parameters: &BTreeMap<String, Value>,
) -> Result<Source, Failure> {
    let source = absolute(source)?;
    let path = output.map_or_else(|| Ok(source.clone()), absolute)?;
    if path.extension().is_none_or(|extension| extension != "ipynb") {
        return Err(Failure::new(Exit::Usage, format!("{} is no name for a notebook", path.display()))
            .hint("the file that is written must end in .ipynb"));
    }
    let (bytes, _) = file::read(&source).map_err(|error| unusable(with_sources(&error)))?;
    let mut notebook = Notebook::parse(&bytes)
        .map_err(|error| unusable(format!("{} cannot be run: {error}", source.display())))?;
    let values: Vec<_> = parameters.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    // On this copy only: the daemon does it to the notebook that is written.
    notebook
        .inject_parameters(&values)
        .map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", source.display())))?;
    if !notebook.cells().any(|cell| cell.kind() == CellKind::Code && !cell.source().trim().is_empty()) {
        terminal::talk(format!("note: {} has no code to run", source.display()));
    }
    writable(&path)?;
    Ok(Source { source, path, metadata: notebook.kernel_metadata() })
}

/// Whether the file can be replaced: by a rename within its directory.
fn writable(path: &Path) -> Result<(), Failure> {
    use rustix::fs::{Access, access};
    let folder = path.parent().unwrap_or(Path::new("/"));
    let cannot = |what: String| Err(unusable(what).hint("name another file with --output"));
    if !folder.is_dir() {
        return cannot(format!(
            "{} cannot be written: there is no directory {}",
            path.display(),
            folder.display()
        ));
    }
    if path.is_dir() {
        return cannot(format!("{} is a directory", path.display()));
    }
    if let Err(error) = access(folder, Access::WRITE_OK) {
        return cannot(format!("{} cannot be written: its directory refuses it ({error})", path.display()));
    }
    if path.exists()
        && let Err(error) = access(path, Access::WRITE_OK)
    {
        return cannot(format!("{} cannot be written: {error}", path.display()));
    }
    Ok(())
}

/// How the notebook's kernel is started. Finds the kernel, or makes a Python environment for it, which may take
/// minutes; what goes on is said on standard error.
pub async fn kernel(
    source: &Source,
    kernel: Option<&str>,
    wishes: Wishes,
    config: &Config,
) -> Result<LaunchSpec, Failure> {
    let folder = source.source.parent().unwrap_or(Path::new("/"));
    let mut variables = surroundings()?.variables().clone();
    let user_variables = variables.clone();
    let cache = config.cache_dir.value.to_string_lossy().into_owned();
    variables.insert("OUTLIVE_CACHE_DIR".to_owned(), cache);
    let surroundings = Surroundings::new(variables, folder.to_owned());
    let wanted = Wanted::from_metadata(&source.metadata, kernel);
    let (sender, mut progress) = tokio::sync::mpsc::channel(PROGRESS_LINES_MAX);
    let resolving = tokio::task::spawn_blocking(move || {
        environment::resolve(&wanted, &surroundings, &mut |step| {
            // Nobody listens any more when the client is ending.
            drop(sender.blocking_send(step));
        })
    });
    let mut making = Making(None);
    while let Some(step) = progress.recv().await {
        making.show(&step);
    }
    drop(making);
    let resolved = resolving
        .await
        .map_err(|error| unusable(format!("looking for a kernel: {error}")))?
        .map_err(|error| cannot_resolve(&error))?;
    let cwd = wishes.cwd.clone().unwrap_or_else(|| folder.to_owned());
    let mut env = user_variables;
    let (program, kernel_env) = resolved.into_program();
    env.extend(kernel_env);
    spec(program, &cwd, env, wishes)
}

/// What goes on while an environment is made: its steps as lines, and on a terminal the tools' own words in one place
/// that is overwritten. They are in the error too, when it fails.
struct Making(Option<ProgressBar>);

impl Making {
    fn show(&mut self, step: &Progress) {
        let text = terminal::one_line(&step.to_string());
        match step {
            Progress::Output(_) => {
                if let Some(spinner) = &self.0 {
                    spinner.set_message(text);
                }
            }
            Progress::Waiting(_) | Progress::Creating(_) | Progress::Installing(_) => {
                if let Some(spinner) = self.0.take() {
                    spinner.finish_and_clear();
                }
                terminal::talk(text);
                if terminal::err_is_terminal() {
                    let style =
                        ProgressStyle::with_template("{spinner:.cyan} {wide_msg:.dim} {elapsed:.dim}");
                    let spinner =
                        ProgressBar::new_spinner().with_style(style.expect("the template is a literal"));
                    spinner.enable_steady_tick(SPINNER_TICK);
                    self.0 = Some(spinner);
                }
            }
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if let Some(spinner) = self.0.take() {
            spinner.finish_and_clear();
        }
    }
}

fn cannot_resolve(error: &ResolveError) -> Failure {
    unusable(with_sources(error)).hint("`outlive doctor` lists the kernels and Pythons that it finds")
}

/// How a command is started.
pub fn command(argv: Vec<String>, wishes: Wishes) -> Result<LaunchSpec, Failure> {
    let surroundings = surroundings()?;
    let cwd = wishes.cwd.clone().unwrap_or_else(|| surroundings.directory().to_owned());
    let program = argv.first().expect("clap takes at least one word");
    if !program.contains('/') && surroundings.program(program).is_none() {
        return Err(unusable(format!("there is no program {program:?} in the PATH"))
            .hint("name it with its path, or look for a typing mistake"));
    }
    if program.contains('/') && cwd.join(program).is_dir() {
        return Err(unusable(format!("{program} is a directory and no program"))
            .hint("name the program in it that is to be run"));
    }
    let env = surroundings.variables().clone();
    spec(Program::Command { argv }, &cwd, env, wishes)
}

fn spec(
    program: Program,
    cwd: &Path,
    mut env: BTreeMap<String, String>,
    wishes: Wishes,
) -> Result<LaunchSpec, Failure> {
    let cwd = absolute(cwd)?;
    if !cwd.is_dir() {
        return Err(unusable(format!("the working directory {} does not exist", cwd.display()))
            .hint("make it, or name another one with --cwd"));
    }
    let cwd = utf8(&cwd)?;
    // What a shell would say there; the one of this terminal would be wrong.
    env.insert("PWD".to_owned(), cwd.clone());
    env.extend(wishes.env);
    Ok(LaunchSpec {
        program,
        cwd,
        env,
        memory_bytes_max: wishes.memory_bytes_max,
        ready_timeout_ms: limits::READY_TIMEOUT_MS,
    })
}

pub fn surroundings() -> Result<Surroundings, Failure> {
    Surroundings::of_this_process().map_err(|error| {
        unusable(format!("the current directory cannot be used: {error}")).hint("cd to one that exists")
    })
}

/// An absolute path. Links stay: the daemon resolves them when it claims the file.
pub fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::new(Exit::Usage, format!("{} is no usable path: {error}", path.display())))
}

/// A path as the API takes it.
pub fn utf8(path: &Path) -> Result<String, Failure> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("the path {} is not valid UTF-8", path.display())).hint("rename it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes() -> Wishes {
        Wishes { cwd: None, env: vec![("A".to_owned(), "1".to_owned())], memory_bytes_max: Some(9) }
    }

    fn wrong(name: &str, text: &str, output: Option<&str>) -> Failure {
        let folder = tempfile::tempdir().expect("a directory");
        let source = folder.path().join(name);
        std::fs::write(&source, text).expect("written");
        let output = output.map(|output| folder.path().join(output));
        notebook(&source, output.as_deref(), &BTreeMap::new()).map(drop).expect_err("this is wrong")
    }

    const NOTEBOOK: &str = r#"{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}"#;

    #[test]
    fn a_command_is_started_where_the_user_is_with_their_environment() {
        let spec =
            command(vec!["sh".to_owned(), "-c".to_owned(), "true".to_owned()], wishes()).expect("a launch");
        assert_eq!(Path::new(&spec.cwd), std::env::current_dir().expect("there is one"));
        assert_eq!((spec.env["A"].as_str(), spec.env["PWD"].as_str()), ("1", spec.cwd.as_str()));
        assert_eq!(spec.env.get("PATH"), std::env::var("PATH").ok().as_ref());
        assert_eq!(spec.memory_bytes_max, Some(9));
        let missing = command(vec!["no-such-program-here".to_owned()], wishes()).expect_err("missing");
        assert_eq!(missing.exit, Exit::CannotStart);
        assert!(missing.what.contains("no-such-program-here"));
        let directory = command(vec!["/".to_owned()], wishes()).expect_err("no program");
        assert_eq!(
            (directory.exit, directory.what.as_str()),
            (Exit::CannotStart, "/ is a directory and no program")
        );
        let elsewhere = Wishes { cwd: Some("/no/such/place".into()), ..wishes() };
        assert!(
            command(vec!["sh".to_owned()], elsewhere).expect_err("missing").what.contains("/no/such/place")
        );
    }

    // C8
    #[test]
    fn what_is_no_notebook_is_said_before_anything_starts() {
        assert!(wrong("a.ipynb", "{", None).what.contains("not valid JSON"));
        assert!(
            wrong("a.ipynb", r#"{"nbformat": 3, "nbformat_minor": 0, "worksheets": []}"#, None)
                .what
                .contains("nbformat 3")
        );
        assert!(wrong("a.ipynb", "", None).what.contains("empty"));
        assert_eq!(wrong("a.ipynb", NOTEBOOK, Some("b.txt")).exit, Exit::Usage);
        assert!(wrong("a.ipynb", NOTEBOOK, Some("none/b.ipynb")).what.contains("no directory"));
        let missing = notebook(Path::new("/nowhere/a.ipynb"), None, &BTreeMap::new()).map(drop);
        assert!(missing.expect_err("missing").what.contains("/nowhere/a.ipynb"));
    }

    #[test]
    fn parameters_that_the_notebook_does_not_have_are_refused_early() {
        let folder = tempfile::tempdir().expect("a directory");
        let source = folder.path().join("a.ipynb");
        std::fs::write(&source, NOTEBOOK).expect("written");
        let parameters = BTreeMap::from([("n".to_owned(), Value::from(1))]);
        let failure = notebook(&source, None, &parameters).map(drop).expect_err("no parameters cell");
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.what.contains("takes no parameters"), "{}", failure.what);
    }
}
