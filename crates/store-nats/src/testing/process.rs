//! The process of a server, which does not outlive the test.

use std::fs::File;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// Waits until its standard input ends, then kills the server and removes its folder.
const REAPER: &str = "read -r _; kill -KILL \"$1\"; rm -rf -- \"$2\"";

#[derive(Debug)]
pub(super) struct Process {
    server: Child,
    reaper: Child,
    /// Ends with the test process, however that ends.
    _lifeline: ChildStdin,
}

impl Process {
    /// Starts the server whose configuration is in `home`.
    pub(super) fn start(home: &Path) -> Self {
        let said = || File::options().append(true).create(true).open(home.join("nats.log"));
        let server = Command::new(super::program())
            .arg("-c")
            .arg(home.join("nats.conf"))
            .stdin(Stdio::null())
            .stdout(said().expect("room for a file"))
            .stderr(said().expect("room for a file"))
            .spawn()
            .expect("nats-server starts");
        let mut reaper = Command::new("/bin/sh")
            .args(["-c", REAPER, "reaper", &server.id().to_string()])
            .arg(home)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell starts");
        let lifeline = reaper.stdin.take().expect("it is a pipe");
        Self { server, reaper, _lifeline: lifeline }
    }

    pub(super) fn pid(&self) -> u32 {
        self.server.id()
    }

    /// Returns when it stands still.
    pub(super) fn stop(&self) {
        self.signal(Signal::STOP);
        let stopped = waitpid(Some(self.id()), WaitOptions::UNTRACED);
        assert!(stopped.is_ok(), "the server is our child: {stopped:?}");
    }

    pub(super) fn cont(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let sent = kill_process(self.id(), signal);
        assert!(sent.is_ok(), "the server is our child: {sent:?}");
    }

    fn id(&self) -> Pid {
        i32::try_from(self.server.id()).ok().and_then(Pid::from_raw).expect("a child's id")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The reaper first: it must not kill whoever gets the server's id next.
        for child in [&mut self.reaper, &mut self.server] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
