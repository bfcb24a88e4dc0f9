//! What is followed: a session, or one task of a group; and what somebody who presses Ctrl-C can do about it.

use outlive_core::id::{RunId, SessionId};
use outlive_protocol::http::SessionView;

use crate::client::{CallError, Client};
use crate::select::{short, short_run};

/// What is followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Subject {
    /// A session.
    Session(SessionId),
    /// One task of a group.
    Task(Task),
}

/// A task that is followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Task {
    /// The group's name.
    pub group: String,
    /// Its session.
    pub session: SessionId,
    /// Which task.
    pub run: RunId,
    /// What Ctrl-C means.
    pub on_interrupt: OnInterrupt,
}

/// What Ctrl-C means to a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnInterrupt {
    /// Somebody at a terminal is asked; without one the client leaves.
    Ask,
    /// The task is cancelled.
    Cancel,
}

/// What was chosen from the menu.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Chosen {
    /// To leave; the work goes on.
    Leave,
    /// To interrupt what runs.
    Interrupt,
    /// To end the session.
    Stop,
    /// To cancel the task.
    Cancel,
    /// To go on.
    Continue,
}

impl Subject {
    /// The session that it is, or is in.
    pub const fn session(&self) -> SessionId {
        match self {
            Self::Session(id) => *id,
            Self::Task(task) => task.session,
        }
    }

    /// Whether this Ctrl-C cancels the task; the next one does not.
    pub fn take_cancel(&mut self) -> bool {
        match self {
            Self::Task(task) => {
                std::mem::replace(&mut task.on_interrupt, OnInterrupt::Ask) == OnInterrupt::Cancel
            }
            Self::Session(_) => false,
        }
    }

    /// What is asked after Ctrl-C.
    pub const fn menu(&self) -> &'static str {
        match self {
            Self::Session(_) => "\n[d]etach  [i]nterrupt  [s]top  [c]ontinue? ",
            Self::Task(_) => "\n[d]etach  [s]top the task  [c]ontinue? ",
        }
    }

    /// What a key means; the end of the terminal's input is a wish to leave.
    pub fn chosen(&self, typed: Option<&str>) -> Chosen {
        match (self, typed) {
            (_, None | Some("d" | "D")) => Chosen::Leave,
            (Self::Session(_), Some("i" | "I")) => Chosen::Interrupt,
            (Self::Session(_), Some("s" | "S")) => Chosen::Stop,
            (Self::Task(_), Some("s" | "S")) => Chosen::Cancel,
            (_, Some(_)) => Chosen::Continue,
        }
    }

    /// Does what was chosen.
    pub async fn carry_out(
        &self,
        chosen: Chosen,
        client: &Client,
        view: Option<&SessionView>,
    ) -> Result<(), CallError> {
        match (chosen, self) {
            (Chosen::Interrupt, _) => client.interrupt(self.session()).await.map(drop),
            (Chosen::Stop, _) => match view {
                Some(session) => client.end(session, false).await.map(drop),
                None => Ok(()),
            },
            (Chosen::Cancel, Self::Task(task)) => client.cancel_task(&task.group, task.run).await.map(drop),
            (Chosen::Cancel, Self::Session(_)) | (Chosen::Leave | Chosen::Continue, _) => Ok(()),
        }
    }

    /// What somebody who leaves is told.
    pub fn farewell(&self, is_idle: bool) -> String {
        match self {
            Self::Session(id) => {
                let id = short(*id);
                let stays = if is_idle { "the session stays open" } else { "the run goes on" };
                format!(
                    "detached; {stays}. `outlive attach {id}` comes back to it, `outlive stop {id}` ends it"
                )
            }
            Self::Task(Task { group, run, .. }) => {
                let run = short_run(*run);
                format!(
                    "detached; the task goes on. `outlive task attach {group} {run}` comes back to it, `outlive task cancel {group} {run}` ends it"
                )
            }
        }
    }
}
