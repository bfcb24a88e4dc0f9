//! A daemon in the foreground: `outlive serve`.

use crate::clock::{PATIENCE, eventually, within};
use crate::command::{Finished, Running};
use crate::http::Api;
use crate::process::Signal;

/// A daemon that the test started. Dropped, it is killed; what it supervises goes with the world.
#[derive(Debug)]
pub struct Daemon {
    running: Running,
}

impl Daemon {
    /// Waits until a daemon that was started takes work.
    ///
    /// # Panics
    /// When it does not within a minute.
    #[must_use]
    #[track_caller]
    pub fn wait_ready(running: Running, api: &Api) -> Self {
        let pid = running.pid();
        eventually("the daemon is ready", within(PATIENCE), || {
            let response =
                api.try_request("GET", "/v1/ready", None).ok().filter(|response| response.status == 200)?;
            (response.json()["pid"].as_i64() == Some(i64::from(pid))).then_some(())
        });
        Self { running }
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.running.pid()
    }

    /// Kills it with SIGKILL and waits for its end.
    #[track_caller]
    pub fn kill(self) -> Finished {
        self.end(Signal::KILL)
    }

    /// Asks it to end with SIGTERM and waits for its end.
    #[track_caller]
    pub fn terminate(self) -> Finished {
        self.end(Signal::TERM)
    }

    /// Waits for its end, which somebody has asked for.
    #[track_caller]
    pub fn ended(self) -> Finished {
        self.running.finish(within(PATIENCE))
    }

    #[track_caller]
    fn end(self, signal: Signal) -> Finished {
        self.running.signal(signal);
        self.running.finish(within(PATIENCE))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }
}
