//! Asking somebody at the terminal, without a thread that cannot be stopped: the terminal is opened anew (so that its
//! flags are ours alone), read when the system says that there is something, and put back as it was afterwards.

use std::fs::File;
use std::io;

use rustix::fs::{Mode, OFlags};
use rustix::process::getpgrp;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use tokio::net::unix::pipe::Receiver;

use crate::terminal;

/// Longest answer, in bytes. A terminal's own line buffer is smaller.
const ANSWER_BYTES_MAX: usize = 65_536;

/// How an answer is typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// A line, shown while it is typed.
    Line,
    /// A line that is not shown.
    Secret,
    /// One key.
    Key,
}

/// The terminal with Ctrl-C and its like not echoed. Dropping it puts it back.
pub struct Quiet(Option<(File, Termios)>);

/// Makes the terminal quiet, if it is ours to change.
pub fn quiet() -> Quiet {
    Quiet(try_quiet().ok().flatten())
}

fn try_quiet() -> io::Result<Option<(File, Termios)>> {
    let terminal = open()?;
    if !is_foreground(&terminal) {
        return Ok(None);
    }
    let before = tcgetattr(&terminal)?;
    let mut modes = before.clone();
    modes.local_modes.remove(LocalModes::ECHOCTL);
    tcsetattr(&terminal, OptionalActions::Now, &modes)?;
    Ok(Some((terminal, before)))
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some((terminal, before)) = self.0.take()
            && is_foreground(&terminal)
        {
            // A terminal that is gone needs no putting back.
            let _ = tcsetattr(&terminal, OptionalActions::Now, &before);
        }
    }
}

/// Whether we are the terminal's foreground job: a background job that changes its modes is stopped (SIGTTOU).
pub(super) fn is_foreground(terminal: &File) -> bool {
    tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp())
}

/// Opens the controlling terminal anew.
pub(super) fn open() -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/dev/tty", flags, Mode::empty())?.into())
}

/// A question that stands at the terminal. Dropping it takes it back.
pub struct Ask {
    terminal: Receiver,
    before: Termios,
    manner: Manner,
    typed: Vec<u8>,
}

impl Ask {
    /// Shows a question.
    pub fn new(prompt: &str, manner: Manner) -> io::Result<Self> {
        let file = open()?;
        let before = tcgetattr(&file)?;
        let mut modes = before.clone();
        match manner {
            Manner::Line => modes.local_modes.insert(LocalModes::ICANON | LocalModes::ECHO),
            Manner::Secret => modes.local_modes.remove(LocalModes::ECHO),
            Manner::Key => modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO),
        }
        tcsetattr(&file, OptionalActions::Now, &modes)?;
        // No pipe, but as good: a descriptor that does not block and can be waited for.
        let terminal = Receiver::from_file_unchecked(file)?;
        terminal::error_bytes(prompt.as_bytes());
        Ok(Self { terminal, before, manner, typed: Vec::new() })
    }

    /// The answer, without its newline; `None` when the terminal is closed (end of file). Cancel-safe.
    pub async fn answer(&mut self) -> io::Result<Option<String>> {
        loop {
            self.terminal.readable().await?;
            let mut buffer = [0; 1_024];
            let count = match self.terminal.try_read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                read => read?,
            };
            self.typed.extend_from_slice(&buffer[..count]);
            let end = match self.manner {
                Manner::Key => (!self.typed.is_empty()).then_some(1),
                Manner::Line | Manner::Secret => self.typed.iter().position(|byte| *byte == b'\n'),
            };
            if let Some(end) = end {
                return Ok(Some(String::from_utf8_lossy(&self.typed[..end]).into_owned()));
            }
            if count == 0 || self.typed.len() > ANSWER_BYTES_MAX {
                return Ok(None);
            }
        }
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        // A terminal that is gone needs no putting back.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
        if self.manner != Manner::Line {
            terminal::error_bytes(b"\n");
        }
    }
}
