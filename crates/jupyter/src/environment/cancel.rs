//! Ending the making of an environment from outside.

use std::process::Child;
use std::sync::{Mutex, MutexGuard};

use rustix::process::{Pid, Signal, kill_process_group};

/// Shared by whoever makes an environment and whoever may no longer want it.
#[derive(Default, Debug)]
pub struct Cancel(Mutex<Going>);

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Going {
    /// No tool runs at this moment.
    #[default]
    On,
    /// This one does, with what it has started, as a group of its own.
    Tool(Pid),
    Cancelled,
}

impl Cancel {
    fn going(&self) -> MutexGuard<'_, Going> {
        self.0.lock().expect("nothing panics while it holds this")
    }

    /// Ends the tool that runs, and begins no other.
    pub fn cancel(&self) {
        let before = std::mem::replace(&mut *self.going(), Going::Cancelled);
        if let Going::Tool(group) = before {
            // It has not been waited for, so nobody else has its pid.
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }

    /// Whether somebody has.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        *self.going() == Going::Cancelled
    }

    /// A tool was started as the leader of its own group.
    pub(super) fn started(&self, tool: &Child) {
        let group = i32::try_from(tool.id()).ok().and_then(Pid::from_raw);
        let mut going = self.going();
        match (*going, group) {
            (Going::Cancelled, Some(group)) => {
                let _gone = kill_process_group(group, Signal::KILL);
            }
            (Going::On | Going::Tool(_), Some(group)) => *going = Going::Tool(group),
            (_, None) => {}
        }
    }

    /// It has written its last line; from here on it may be waited for.
    pub(super) fn ended(&self) {
        let mut going = self.going();
        if *going != Going::Cancelled {
            *going = Going::On;
        }
    }
}
