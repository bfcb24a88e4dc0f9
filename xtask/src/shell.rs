//! Runs programs: what is run is shown, and a failure names it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A command that will run in the repository's root.
pub fn command<S: AsRef<OsStr>>(
    root: &Path,
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(root);
    command
}

/// The same cargo that started us.
pub fn cargo(root: &Path, args: &[&str]) -> Command {
    command(root, std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), args)
}

/// Runs to the end with our terminal.
///
/// # Errors
/// The command and its exit status, when it failed or could not be started.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    eprintln!("$ {shown}");
    let status = command.status().with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// Runs to the end and gives its standard output.
///
/// # Errors
/// The command, its exit status and its standard error.
pub fn capture(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command.output().with_context(|| format!("cannot start {shown}"))?;
    if !output.status.success() {
        bail!("{shown}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{shown} printed something that is not UTF-8"))
}

/// Runs to the end, passes standard output and error on line by line, and shows each line to `look`. Gives whether
/// the command succeeded.
///
/// # Errors
/// The command could not be started or read.
pub fn run_looking(command: &mut Command, mut look: impl FnMut(&str)) -> Result<bool> {
    let shown = show(command);
    eprintln!("$ {shown}");
    // One pipe for both, so that lines keep their order.
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let mut child = command
        .stdout(writer.try_clone().context("cannot share a pipe")?)
        .stderr(writer)
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {shown}"))?;
    // The command holds the pipe's write end too; without this the loop below would never see its end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).with_context(|| format!("cannot read from {shown}"))? > 0 {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']);
        eprintln!("{text}");
        look(text);
        line.clear();
    }
    Ok(child.wait().with_context(|| format!("cannot wait for {shown}"))?.success())
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
