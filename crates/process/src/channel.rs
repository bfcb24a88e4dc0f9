//! A private channel to a program: it reads from descriptor 3 and writes to descriptor 4, so that its standard streams
//! stay its own.

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::pipe::{PIPE_BYTES, Pipe};

/// Where the program reads what it is told.
pub const PROGRAM_READS_FD: RawFd = 3;
/// Where the program writes what it says.
pub const PROGRAM_WRITES_FD: RawFd = 4;

/// Our ends of a channel.
#[derive(Debug)]
pub struct Channel {
    /// What the program says.
    pub from: Pipe,
    /// What it is told.
    pub to: PipeWriter,
}

/// The program's ends. They have blocking mode, as a program expects it.
#[derive(Debug)]
pub(crate) struct ProgramEnds {
    pub(crate) reads: OwnedFd,
    pub(crate) writes: OwnedFd,
}

impl Channel {
    /// Makes both pipes; all four descriptors are closed on exec. Needs a tokio runtime.
    ///
    /// # Errors
    /// As pipe2(2): no file descriptors left.
    pub(crate) fn new() -> io::Result<(Self, ProgramEnds)> {
        let (from, writes) = Pipe::new()?;
        let (to, reads) = PipeWriter::new()?;
        Ok((Self { from, to }, ProgramEnds { reads, writes }))
    }
}

/// A non-blocking writing end.
#[derive(Debug)]
pub struct PipeWriter {
    fd: AsyncFd<OwnedFd>,
}

impl PipeWriter {
    fn new() -> io::Result<(Self, OwnedFd)> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        // Refused when this user has too much memory in pipes: the default size works too.
        let _refused = fcntl_setpipe_size(&write, PIPE_BYTES);
        fcntl_setfl(&write, OFlags::NONBLOCK)?;
        // SAFETY: an OwnedFd that is moved in stays open, and the same, until the AsyncFd is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(write, Interest::WRITABLE) }?;
        Ok((Self { fd }, read))
    }

    /// Waits for room and writes some of `bytes`; says how much. Cancel-safe.
    ///
    /// # Errors
    /// As write(2): `BrokenPipe` when nobody can read it any more.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.fd.async_io(Interest::WRITABLE, |fd| Ok(rustix::io::write(fd, bytes)?)).await
    }
}
