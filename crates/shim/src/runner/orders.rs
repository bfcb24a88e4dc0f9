//! What a runner is told.

use outlive_core::id::{Attempt, RunId};
use outlive_core::runtime::runner::TaskOrder;
use outlive_core::time::Tick;
use outlive_protocol::runner::{Framed, RunnerCodecError, ToRunner};

use super::channel::SayError;
use super::tasks::Standing;
use super::{Runner, Talk, content};
use crate::kernel::runs::RunKey;

impl Runner {
    pub(super) fn tell(&mut self, frame: ToRunner) -> Result<(), SayError> {
        self.channel.say(&Framed { frame, bytes: None })
    }

    /// Gives it a task. One that was given before is ignored; one that cannot be sent ends at once.
    pub(crate) fn give(&mut self, key: RunKey, order: TaskOrder, now: Tick) {
        let TaskOrder { task, input, key: idempotency, checkpoint, replay } = order;
        if !self.tasks.give(key, task.clone(), replay, now) {
            return;
        }
        let (id, attempt) = key;
        let frame = |input| ToRunner::Task { id, attempt, task, key: idempotency, input, checkpoint };
        let mut framed = Framed { frame: frame(Some(input)), bytes: None };
        let mut refused = self.channel.say(&framed);
        if matches!(refused, Err(SayError::TooLarge(RunnerCodecError::LineTooLong { .. })))
            && let ToRunner::Task { input, .. } = &mut framed.frame
        {
            framed.bytes = input.take().map(|input| input.to_string().into_bytes());
            refused = self.channel.say(&framed);
        }
        if let Err(error) = refused {
            let kind = match error {
                SayError::TooLarge(_) => "FrameTooLarge",
                SayError::Full { .. } => "RunnerBusy",
            };
            self.raise(key, "task", &content::own_exception(kind, error.to_string()));
        }
    }

    /// Tells it to stop a task, once.
    pub(crate) fn cancel(&mut self, key @ (id, attempt): (RunId, Attempt)) {
        let Standing::Open(open) = self.tasks.standing(key) else { return };
        if std::mem::replace(&mut open.is_cancelled, true) {
            return;
        }
        if let Err(error) = self.tell(ToRunner::Cancel { id, attempt }) {
            tracing::warn!(%error, run = %id, "the runner could not be told to stop a task");
        }
    }

    /// Sends a ping. One that does not read what it was told before is not told more.
    pub(crate) fn ping(&mut self) {
        self.pings += 1;
        if !self.channel.is_slow() {
            let _full_and_so_silent = self.tell(ToRunner::Ping { n: self.pings });
        }
    }

    /// Asks it to end; `false` when it cannot be asked.
    pub(crate) fn shut_down(&mut self, grace_ms: u64, hand_over: bool) -> bool {
        self.hands_over |= hand_over;
        self.talk == Talk::Talking && self.tell(ToRunner::Shutdown { grace_ms, hand_over }).is_ok()
    }
}
