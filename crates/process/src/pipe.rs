//! The reading end of a program's standard output or error.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The size that is asked for a pipe, in bytes. Four times the default: a program that writes in bursts waits less,
/// and what is left in the pipe at its death stays cheap to read.
pub const PIPE_BYTES: usize = 262_144;

/// A non-blocking reading end.
#[derive(Debug)]
pub struct Pipe {
    fd: AsyncFd<OwnedFd>,
    capacity: usize,
}

impl Pipe {
    /// Makes a pipe: our reading end, and the writing end for the program. Both are closed on exec.
    ///
    /// # Errors
    /// As pipe2(2): no file descriptors left. Needs a tokio runtime.
    pub fn new() -> io::Result<(Self, OwnedFd)> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        // Refused when this user has too much memory in pipes: the default size works too, only slower.
        let capacity = fcntl_setpipe_size(&write, PIPE_BYTES)
            .or_else(|_| rustix::pipe::fcntl_getpipe_size(&write))
            .unwrap_or(PIPE_BYTES);
        // Only our end: the program would not expect EAGAIN on its own.
        fcntl_setfl(&read, OFlags::NONBLOCK)?;
        // SAFETY: an OwnedFd that is moved in stays open, and the same, until the AsyncFd is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(read, Interest::READABLE) }?;
        Ok((Self { fd, capacity }, write))
    }

    /// Waits for output and reads it into `buffer`; 0 means end of file. Cancel-safe.
    ///
    /// # Errors
    /// As read(2).
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fd.async_io(Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut *buffer)?)).await
    }

    /// Reads what is in the pipe now, without waiting. After the writer's death this is all that it wrote: a pipe
    /// holds no more than its capacity, so the loop ends although a grandchild may hold the pipe and write on.
    ///
    /// # Errors
    /// As read(2).
    pub fn drain(&self, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = vec![0_u8; 65_536];
        let mut left = self.capacity;
        while left > 0 {
            let room = buffer.len().min(left);
            // Not through the runtime's readiness, which may not have seen the last write yet.
            match rustix::io::read(self.fd.get_ref(), &mut buffer[..room]) {
                Ok(0) | Err(rustix::io::Errno::AGAIN) => break,
                Ok(count) => {
                    take(&buffer[..count]);
                    left -= count;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Ok(())
    }
}
