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
    /// The client leaves: the task is being cancelled already.
    Leave,
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

    /// Whether somebody is to be asked what Ctrl-C means.
    pub const fn asks(&self) -> bool {
        match self {
            Self::Session(_) => true,
            Self::Task(task) => matches!(task.on_interrupt, OnInterrupt::Ask),
        }
    }

    /// Whether this Ctrl-C cancels the task; the next one does not.
    pub fn take_cancel(&mut self) -> bool {
        match self {
            Self::Task(task) => {
                let is_first = task.on_interrupt == OnInterrupt::Cancel;
                if is_first {
                    task.on_interrupt = OnInterrupt::Leave;
                }
                is_first
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
            Self::Task(Task { on_interrupt: OnInterrupt::Leave, group, run, .. }) => {
                let run = short_run(*run);
                format!(
                    "detached; the task is being cancelled. `outlive task attach {group} {run}` shows what came of it"
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

#[cfg(test)]
mod tests {
    use super::*;

    fn task(on_interrupt: OnInterrupt) -> Subject {
        let id = uuid::Uuid::from_u128(0x1a2b_3c4d << 96);
        Subject::Task(Task {
            group: "llm".to_owned(),
            session: SessionId::from_uuid(id),
            run: RunId::from_uuid(id),
            on_interrupt,
        })
    }

    #[test]
    fn the_first_interrupt_cancels_and_the_second_leaves() {
        let mut subject = task(OnInterrupt::Cancel);
        assert!(subject.take_cancel() && !subject.take_cancel());
        assert!(!subject.asks(), "there is nothing to choose any more");
        assert!(subject.farewell(false).contains("is being cancelled"));
        let mut asking = task(OnInterrupt::Ask);
        assert!(!asking.take_cancel() && asking.asks());
        assert!(asking.farewell(false).contains("`outlive task cancel llm 1a2b3c4d`"));
    }

    #[test]
    fn a_task_is_not_interrupted_and_a_session_not_cancelled() {
        let session = Subject::Session(SessionId::from_uuid(uuid::Uuid::nil()));
        let task = task(OnInterrupt::Ask);
        let keys = [None, Some("d"), Some("i"), Some("S"), Some("c"), Some("x")];
        use Chosen::{Cancel, Continue, Interrupt, Leave, Stop};
        assert_eq!(keys.map(|key| session.chosen(key)), [Leave, Leave, Interrupt, Stop, Continue, Continue]);
        assert_eq!(keys.map(|key| task.chosen(key)), [Leave, Leave, Continue, Cancel, Continue, Continue]);
    }
}
