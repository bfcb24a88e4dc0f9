//! A program that is run: to its end, or line by line while it runs.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::clock::{Deadline, now};
use crate::process::{self, Signal};

/// What a program said and how it ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// As it was started.
    pub shown: String,
    /// Its exit status.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
    /// From its start to its end.
    pub took: Duration,
}

impl Finished {
    /// Its exit code; `None` when a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Checks its exit code.
    ///
    /// # Panics
    /// With all that it printed, when the code is another one.
    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Self {
        assert_eq!(self.code(), Some(code), "exit code of {self}");
        self
    }

    /// Its standard output as JSON.
    ///
    /// # Panics
    /// With all that it printed, when that is none.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}) from {self}"))
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let signal = self.status.signal().map(|number| format!(" (signal {number})")).unwrap_or_default();
        writeln!(f, "`{}` after {:?}: {}{signal}", self.shown, self.took, self.status)?;
        write!(f, "--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr)
    }
}

/// Which stream a line came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of a running program.
#[derive(Clone, Debug)]
pub struct Line {
    /// Where it was printed.
    pub stream: Stream,
    /// The line with its end.
    pub text: String,
    /// When it was read.
    pub at: Instant,
}

/// A program that runs. Dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    shown: String,
    child: Child,
    began: Instant,
    lines: Receiver<Line>,
    stdout: String,
    stderr: String,
}

impl Running {
    /// Starts it with pipes for its output and no input.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let shown = words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start `{shown}`: {error}"));
        let (sender, lines) = channel();
        forward(child.stdout.take().expect("it was asked for"), Stream::Stdout, sender.clone());
        forward(child.stderr.take().expect("it was asked for"), Stream::Stderr, sender);
        Self { shown, child, began: now(), lines, stdout: String::new(), stderr: String::new() }
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid fits")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// Reads on to the first line that contains `text`, on either stream.
    ///
    /// # Panics
    /// At the deadline or at the end of its output, with all that it printed.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str, deadline: Deadline) -> Line {
        loop {
            match self.next_line(deadline) {
                Ok(line) if line.text.contains(text) => return line,
                Ok(_) => {}
                Err(why) => panic!("{why} before {text:?} came from {}", self.transcript()),
            }
        }
    }

    fn next_line(&mut self, deadline: Deadline) -> Result<Line, &'static str> {
        let line = self.lines.recv_timeout(deadline.left()).map_err(|error| match error {
            RecvTimeoutError::Timeout => "time was over",
            RecvTimeoutError::Disconnected => "its output ended",
        })?;
        match line.stream {
            Stream::Stdout => self.stdout.push_str(&line.text),
            Stream::Stderr => self.stderr.push_str(&line.text),
        }
        Ok(line)
    }

    fn transcript(&self) -> String {
        format!("`{}`\n--- stdout\n{}\n--- stderr\n{}", self.shown, self.stdout, self.stderr)
    }

    /// Waits for its end and the end of its output.
    ///
    /// # Panics
    /// At the deadline, with all that it printed.
    #[track_caller]
    pub fn finish(mut self, deadline: Deadline) -> Finished {
        let ended = loop {
            match self.next_line(deadline) {
                Ok(_) => {}
                Err(why) => break why,
            }
        };
        assert_eq!(ended, "its output ended", "it did not end in time: {}", self.transcript());
        // Its output has ended, so it is about to end too, unless it closed its streams and lives on.
        let this = process::find(self.pid());
        let gone = this.is_none_or(|this| process::wait_gone(&this, deadline));
        assert!(gone, "it closed its output and lives on: {}", self.transcript());
        let status = self.child.wait().expect("our own child can be waited for");
        Finished {
            shown: self.shown.clone(),
            status,
            stdout: std::mem::take(&mut self.stdout),
            stderr: std::mem::take(&mut self.stderr),
            took: now() - self.began,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a stream on a thread of its own, so that the program never waits for the test. The thread ends with the
/// stream, or at the next line after the receiver is gone.
fn forward(stream: impl Read + Send + 'static, which: Stream, sender: Sender<Line>) {
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if sender.send(Line { stream: which, text, at: now() }).is_err() {
                return;
            }
            bytes.clear();
        }
    });
}
