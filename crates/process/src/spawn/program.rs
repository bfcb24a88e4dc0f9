//! Finding the program of a command line, and saying exactly why it cannot be executed before it is tried.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

/// Why a command line has no program that can be executed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProgramError {
    /// The command line has no words.
    #[error("the command line is empty; give a program to run")]
    Empty,
    /// No directory of PATH has it.
    #[error(
        "there is no program {program:?} in the session's PATH ({path}); install it or give its full path"
    )]
    NotInPath {
        /// The first word of the command line.
        program: String,
        /// The PATH that was searched.
        path: String,
    },
    /// A path was given and nothing is there.
    #[error("there is no file {0}; check the path of the program")]
    NoSuchFile(PathBuf),
    /// It is there and cannot be executed.
    #[error("{path} cannot be executed: {reason}")]
    NotExecutable {
        /// The file.
        path: PathBuf,
        /// What is wrong and what helps.
        reason: String,
    },
    /// Its first line names an interpreter that is not there.
    #[error(
        "{path} asks for the interpreter {interpreter} in its first line, and that is not there; install it or correct the line"
    )]
    BadInterpreter {
        /// The script.
        path: PathBuf,
        /// What the line names.
        interpreter: String,
    },
    /// It was built for another kind of machine.
    #[error("{path} is built for {found}, and this machine is {}", std::env::consts::ARCH)]
    WrongArchitecture {
        /// The file.
        path: PathBuf,
        /// What it was built for.
        found: String,
    },
}

impl ProgramError {
    /// The file that it is about, when there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Empty | Self::NotInPath { .. } => None,
            Self::NoSuchFile(path)
            | Self::NotExecutable { path, .. }
            | Self::BadInterpreter { path, .. }
            | Self::WrongArchitecture { path, .. } => Some(path),
        }
    }
}

/// Finds what `word` means to a program started in `cwd` with this PATH, and checks that it can be executed.
///
/// # Errors
/// See [`ProgramError`].
pub fn find(word: &str, path: &str, cwd: &Path) -> Result<PathBuf, ProgramError> {
    if word.is_empty() {
        return Err(ProgramError::Empty);
    }
    if word.contains('/') {
        let file = cwd.join(word);
        if !file.exists() {
            return Err(ProgramError::NoSuchFile(file));
        }
        return check(&file, path, cwd).map(|()| file);
    }
    let mut refused = None;
    for directory in path.split(':') {
        // An empty entry means the working directory, as for execvp(3).
        let file = cwd.join(directory).join(word);
        if !file.is_file() {
            continue;
        }
        match check(&file, path, cwd) {
            Ok(()) => return Ok(file),
            // As execvp(3): a later directory may have one that works.
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused
        .unwrap_or_else(|| ProgramError::NotInPath { program: word.to_owned(), path: path.to_owned() }))
}

fn check(file: &Path, path: &str, cwd: &Path) -> Result<(), ProgramError> {
    let refuse =
        |reason: &str| ProgramError::NotExecutable { path: file.to_owned(), reason: reason.to_owned() };
    if file.is_dir() {
        return Err(refuse("it is a directory"));
    }
    if accessat(CWD, file, Access::EXEC_OK, AtFlags::EACCESS).is_err() {
        return Err(refuse("permission denied; make it executable with chmod +x"));
    }
    // A program may be executable and not readable; then exec itself is the judge.
    let Ok(mut opened) = File::open(file) else { return Ok(()) };
    let mut head = Vec::with_capacity(256);
    // 256 bytes is what the kernel looks at for a `#!` line (BINPRM_BUF_SIZE).
    if opened.by_ref().take(256).read_to_end(&mut head).is_err() {
        return Ok(());
    }
    if let Some(line) = head.strip_prefix(b"#!") {
        return check_interpreter(file, line, path, cwd);
    }
    if head.starts_with(b"\x7fELF") {
        return check_elf(file, &head, &opened);
    }
    if head.is_empty() {
        return Err(refuse("the file is empty"));
    }
    // Other formats can be registered with the kernel (binfmt_misc), but a text without a `#!` line is nobody's.
    if head.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
        return Err(refuse("it is a text without a first line like #!/bin/sh that names its interpreter"));
    }
    Ok(())
}

/// `#!interpreter [argument]`, and the usual detour over `/usr/bin/env`.
fn check_interpreter(file: &Path, line: &[u8], path: &str, cwd: &Path) -> Result<(), ProgramError> {
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace();
    let missing = |interpreter: &str| ProgramError::BadInterpreter {
        path: file.to_owned(),
        interpreter: interpreter.to_owned(),
    };
    let Some(interpreter) = words.next() else { return Err(missing("(none)")) };
    // A Windows line end becomes part of the name: the classic reason for a baffling "not found".
    if line.ends_with('\r') {
        return Err(missing(&format!("{interpreter}\\r (the file has Windows line ends)")));
    }
    if accessat(CWD, cwd.join(interpreter), Access::EXEC_OK, AtFlags::EACCESS).is_err() {
        return Err(missing(interpreter));
    }
    if Path::new(interpreter).file_name().is_some_and(|name| name == "env") {
        let program = words.find(|word| !word.starts_with('-') && !word.contains('='));
        if let Some(program) = program
            && !path.split(':').any(|directory| cwd.join(directory).join(program).is_file())
        {
            return Err(missing(&format!("{program} (looked up in PATH by {interpreter})")));
        }
    }
    Ok(())
}

/// ELF header: byte 4 is the word size, byte 5 the byte order, 18..20 the machine (elf(5)).
fn check_elf(file: &Path, head: &[u8], opened: &File) -> Result<(), ProgramError> {
    let (Some(order), Some(machine)) = (head.get(5), head.get(18..20)) else { return Ok(()) };
    let machine = [machine[0], machine[1]];
    let found = if *order == 2 { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) };
    // Ours is read from our own file: no table to keep, and right on every architecture.
    let mut own = [0_u8; 20];
    let Ok(()) = File::open("/proc/self/exe").and_then(|exe| exe.read_exact_at(&mut own, 0)) else {
        return Ok(());
    };
    let ours = u16::from_ne_bytes([own[18], own[19]]);
    // A 32-bit program (i386 = 3, arm = 40) may run on a 64-bit kernel: exec decides.
    if found == ours || matches!((ours, found), (62, 3) | (183, 40)) {
        return check_loader(file, opened);
    }
    let name = match found {
        3 => "x86 (32 bit)".to_owned(),
        40 => "arm (32 bit)".to_owned(),
        62 => "x86_64".to_owned(),
        183 => "aarch64".to_owned(),
        243 => "riscv64".to_owned(),
        other => format!("ELF machine {other}"),
    };
    Err(ProgramError::WrongArchitecture { path: file.to_owned(), found: name })
}

/// A program whose dynamic loader is missing fails with ENOENT, which names the wrong file. The loader's path stands
/// in the PT_INTERP segment (type 3) of a 64-bit program's header table.
fn check_loader(file: &Path, opened: &File) -> Result<(), ProgramError> {
    let loader = || -> Option<String> {
        let mut header = [0_u8; 64];
        opened.read_exact_at(&mut header, 0).ok()?;
        if header[4] != 2 || header[5] != 1 {
            return None;
        }
        let table = u64::from_le_bytes(header[32..40].try_into().ok()?);
        let (size, count) =
            (u16::from_le_bytes([header[54], header[55]]), u16::from_le_bytes([header[56], header[57]]));
        for index in 0..count.min(64) {
            let mut entry = [0_u8; 56];
            opened.read_exact_at(&mut entry, table.checked_add(u64::from(index) * u64::from(size))?).ok()?;
            if u32::from_le_bytes(entry[0..4].try_into().ok()?) == 3 {
                let offset = u64::from_le_bytes(entry[8..16].try_into().ok()?);
                let length = u64::from_le_bytes(entry[32..40].try_into().ok()?).min(4_096);
                let mut name = vec![0_u8; usize::try_from(length).ok()?];
                opened.read_exact_at(&mut name, offset).ok()?;
                return String::from_utf8(name).ok().map(|name| name.trim_end_matches('\0').to_owned());
            }
        }
        None
    };
    match loader() {
        Some(loader) if !Path::new(&loader).exists() => {
            Err(ProgramError::BadInterpreter { path: file.to_owned(), interpreter: loader })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn script(directory: &Path, name: &str, content: &[u8], mode: u32) -> PathBuf {
        let file = directory.join(name);
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("outlive-program-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[test]
    fn every_reason_has_its_name() {
        // A7
        let at = directory("reasons");
        let path = at.to_str().unwrap();
        let find = |word: &str| find(word, path, &at);
        script(&at, "good", b"#!/bin/sh\n", 0o755);
        script(&at, "plain", b"#!/bin/sh\n", 0o644);
        script(&at, "orphan", b"#!/no/such/python\n", 0o755);
        script(&at, "by-env", b"#!/usr/bin/env no-such-python\n", 0o755);
        script(&at, "windows", b"#!/bin/sh\r\n", 0o755);
        script(&at, "text", b"echo hello\n", 0o755);
        let mut foreign = fs::read("/proc/self/exe").unwrap();
        foreign.truncate(64);
        foreign[18] = 0xf3;
        foreign[19] = 0;
        script(&at, "foreign", &foreign, 0o755);

        assert_eq!(find("good"), Ok(at.join("good")));
        assert_eq!(find(""), Err(ProgramError::Empty));
        assert!(matches!(find("none"), Err(ProgramError::NotInPath { .. })));
        assert!(matches!(find("./none"), Err(ProgramError::NoSuchFile(_))));
        assert!(matches!(find("plain"), Err(ProgramError::NotExecutable { .. })));
        assert!(matches!(find("./"), Err(ProgramError::NotExecutable { .. })));
        let interpreter = |word| match find(word) {
            Err(ProgramError::BadInterpreter { interpreter, .. }) => interpreter,
            other => panic!("{word}: {other:?}"),
        };
        assert_eq!(interpreter("orphan"), "/no/such/python");
        assert!(interpreter("by-env").starts_with("no-such-python"));
        assert!(interpreter("windows").contains("Windows"));
        assert!(matches!(find("text"), Err(ProgramError::NotExecutable { .. })));
        assert!(
            matches!(find("foreign"), Err(ProgramError::WrongArchitecture { found, .. }) if found == "riscv64")
        );
        fs::remove_dir_all(at).unwrap();
    }

    #[test]
    fn a_program_that_cannot_run_does_not_hide_one_that_can() {
        let (first, second) = (directory("first"), directory("second"));
        script(&first, "tool", b"#!/bin/sh\n", 0o644);
        let good = script(&second, "tool", b"#!/bin/sh\n", 0o755);
        let path = format!("{}:{}", first.display(), second.display());
        assert_eq!(find("tool", &path, &first), Ok(good));
        fs::remove_dir_all(first).unwrap();
        fs::remove_dir_all(second).unwrap();
    }
}
