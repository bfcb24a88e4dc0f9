//! Which runs a kernel was given and how far they are. Pure.
//!
//! A run's request carries its run and attempt in the message id, so every output names its run by itself. A run is
//! finished when both its reply (shell) and its idle status (iopub) have come, in whichever order.

use std::collections::VecDeque;
use std::time::Duration;

use outlive_core::id::{Attempt, RunId};
use outlive_core::session::RunOutcome;
use outlive_core::time::Tick;
use outlive_jupyter::message::Message;
use outlive_protocol::shim::StateNotice;

/// How many finished runs are remembered, so that a daemon that asks again is not obeyed twice. It asks again only
/// for what it had not stored, and that is within its window.
const FINISHED_MAX: usize = 2_048;

/// How long a reply may come after the idle status, in milliseconds. Kernels send it before.
const REPLY_MS: u64 = 1_000;

/// One try of one run.
pub(crate) type RunKey = (RunId, Attempt);

/// The message id of a run's request.
pub(crate) fn message_id((run, attempt): RunKey) -> String {
    format!("{run}_{attempt}")
}

/// Reads [`message_id`] back; `None` for a message that is not a run's.
pub(crate) fn parse_message_id(id: &str) -> Option<RunKey> {
    let (run, attempt) = id.split_once('_')?;
    Some((run.parse().ok()?, attempt.parse().ok()?))
}

/// How a reply ended a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reply {
    pub(crate) outcome: RunOutcome,
    pub(crate) execution_count: Option<u32>,
}

#[derive(Debug)]
struct OpenRun {
    key: RunKey,
    begun: Begun,
    end: End,
    question: Option<Message>,
}

impl OpenRun {
    const fn reply_by(&self) -> Option<Tick> {
        match self.end {
            End::Idle(by) => Some(by),
            End::Nothing | End::Replied(_) => None,
        }
    }
}

/// How far a run's beginning is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Begun {
    Not,
    /// Status busy came.
    Busy,
    /// Something came of it, if only the news that its code is executed.
    Heard,
}

/// What has come of a run's end.
#[derive(Debug)]
enum End {
    Nothing,
    /// Status idle, and the time to which the reply may be awaited.
    Idle(Tick),
    Replied(Reply),
}

/// Runs that were given and are not finished, in the order in which they were given.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    open: Vec<OpenRun>,
    finished: VecDeque<RunKey>,
    /// The last one that was interrupted.
    interrupted: Option<RunKey>,
}

impl Runs {
    /// Takes a run. `false` when it was given before.
    pub(crate) fn give(&mut self, key: RunKey) -> bool {
        if self.finished.contains(&key) || self.find(key).is_some() {
            return false;
        }
        self.open.push(OpenRun { key, begun: Begun::Not, end: End::Nothing, question: None });
        true
    }

    /// Whether it was given and is finished.
    pub(crate) fn has_finished(&self, key: RunKey) -> bool {
        self.finished.contains(&key)
    }

    pub(crate) fn open(&self) -> Vec<RunKey> {
        self.open.iter().map(|run| run.key).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Status busy came for this run.
    pub(crate) fn busy(&mut self, key: RunKey) -> Option<StateNotice> {
        let run = self.find(key)?;
        let is_news = run.begun == Begun::Not;
        if is_news {
            run.begun = Begun::Busy;
        }
        is_news.then_some(StateNotice::RunStarted { run: key.0, attempt: key.1 })
    }

    /// Output came of this run.
    pub(crate) fn heard(&mut self, key: RunKey) {
        if let Some(run) = self.find(key) {
            run.begun = Begun::Heard;
        }
    }

    /// A run was given, and nothing has come of any yet.
    pub(crate) fn is_beginning(&self) -> bool {
        !self.open.is_empty() && self.open.iter().all(|run| run.begun != Begun::Heard)
    }

    /// The kernel was interrupted.
    pub(crate) fn interrupt(&mut self) {
        self.interrupted = self.open.first().map(|run| run.key);
    }

    /// Status idle came for this run: its output is complete.
    pub(crate) fn idle(&mut self, key: RunKey, now: Tick) -> Option<StateNotice> {
        let run = self.find(key)?;
        let until = now + Duration::from_millis(REPLY_MS);
        match std::mem::replace(&mut run.end, End::Idle(until)) {
            End::Replied(reply) => Some(self.finish(key, reply)),
            End::Nothing | End::Idle(_) => None,
        }
    }

    /// The reply came for this run.
    pub(crate) fn reply(&mut self, key: RunKey, reply: Reply) -> Option<StateNotice> {
        let run = self.find(key)?;
        match run.end {
            End::Idle(_) => Some(self.finish(key, reply)),
            End::Nothing => {
                run.end = End::Replied(reply);
                None
            }
            // The first one counts.
            End::Replied(_) => None,
        }
    }

    /// When [`Self::expire`] wants to be called.
    pub(crate) fn next_deadline(&self) -> Option<Tick> {
        self.open.iter().filter_map(OpenRun::reply_by).min()
    }

    /// Finishes a run whose reply does not come. The kernel is done with it, and whoever waits must not wait for ever.
    pub(crate) fn expire(&mut self, now: Tick) -> Option<StateNotice> {
        let key = self.open.iter().find(|run| run.reply_by().is_some_and(|by| by <= now))?.key;
        let (ename, evalue) = if self.interrupted == Some(key) {
            // ipykernel swallows an interrupt that hits it between two steps of its own, and the reply with it.
            ("KeyboardInterrupt", "")
        } else {
            ("NoReply", "the kernel is done with this and gave no reply")
        };
        let outcome = RunOutcome::Raised { ename: ename.to_owned(), evalue: evalue.to_owned() };
        Some(self.finish(key, Reply { outcome, execution_count: None }))
    }

    /// The run asks for input.
    pub(crate) fn ask(&mut self, key: RunKey, question: Message) {
        if let Some(run) = self.find(key) {
            run.question = Some(question);
        }
    }

    /// The question of a run, once.
    pub(crate) fn take_question(&mut self, run: RunId) -> Option<Message> {
        self.open.iter_mut().find(|open| open.key.0 == run)?.question.take()
    }

    /// Whether the run waits for an answer.
    pub(crate) fn is_asking(&self, run: RunId) -> bool {
        self.open.iter().any(|open| open.key.0 == run && open.question.is_some())
    }

    fn find(&mut self, key: RunKey) -> Option<&mut OpenRun> {
        self.open.iter_mut().find(|run| run.key == key)
    }

    fn finish(&mut self, key: RunKey, reply: Reply) -> StateNotice {
        self.open.retain(|run| run.key != key);
        if self.finished.len() == FINISHED_MAX {
            self.finished.pop_front();
        }
        self.finished.push_back(key);
        StateNotice::RunFinished {
            run: key.0,
            attempt: key.1,
            outcome: reply.outcome,
            execution_count: reply.execution_count,
        }
    }
}

#[cfg(test)]
mod tests {
    use outlive_core::session::RunOutcome;
    use uuid::Uuid;

    use super::*;

    fn key(n: u128) -> RunKey {
        (RunId::from_uuid(Uuid::from_u128(n)), Attempt(3))
    }

    fn reply() -> Reply {
        Reply { outcome: RunOutcome::Succeeded, execution_count: Some(1) }
    }

    #[test]
    fn a_message_id_says_run_and_attempt() {
        assert_eq!(parse_message_id(&message_id(key(7))), Some(key(7)));
        assert_eq!(parse_message_id("kernel-info"), None);
        assert_eq!(parse_message_id("d3b07384-d9a0_x"), None);
    }

    #[test]
    fn a_run_is_finished_by_reply_and_idle_in_either_order() {
        let mut runs = Runs::default();
        assert!(runs.give(key(1)) && runs.give(key(2)));
        assert!(runs.busy(key(1)).is_some() && runs.busy(key(1)).is_none(), "it starts once");
        assert_eq!(runs.reply(key(1), reply()), None);
        assert!(matches!(runs.idle(key(1), Tick::default()), Some(StateNotice::RunFinished { .. })));
        assert_eq!(runs.idle(key(2), Tick::default()), None);
        assert!(matches!(runs.reply(key(2), reply()), Some(StateNotice::RunFinished { .. })));
        assert!(runs.is_empty());
    }

    #[test]
    fn a_run_that_was_given_is_not_taken_again() {
        let mut runs = Runs::default();
        assert!(runs.give(key(1)) && !runs.give(key(1)));
        runs.reply(key(1), reply());
        runs.idle(key(1), Tick::default());
        assert!(!runs.give(key(1)), "not even when it is finished");
    }

    #[test]
    fn what_comes_for_a_stranger_changes_nothing() {
        let mut runs = Runs::default();
        assert_eq!(runs.busy(key(9)), None);
        assert_eq!(runs.idle(key(9), Tick::default()), None);
        assert_eq!(runs.reply(key(9), reply()), None);
    }

    #[test]
    fn a_run_without_a_reply_ends_all_the_same() {
        let mut runs = Runs::default();
        runs.give(key(1));
        runs.interrupt();
        assert_eq!(runs.next_deadline(), None);
        assert_eq!(runs.idle(key(1), Tick::default()), None);
        let by = runs.next_deadline().expect("the reply is awaited");
        assert_eq!(runs.expire(Tick::default()), None, "not before its time");
        let Some(StateNotice::RunFinished { outcome: RunOutcome::Raised { ename, .. }, .. }) =
            runs.expire(by)
        else {
            panic!("it has to end");
        };
        assert_eq!(ename, "KeyboardInterrupt");
        assert!(runs.is_empty() && runs.expire(by).is_none());
    }

    #[test]
    fn a_run_is_beginning_until_something_comes_of_it() {
        let mut runs = Runs::default();
        assert!(!runs.is_beginning(), "there is none");
        runs.give(key(1));
        runs.busy(key(1));
        assert!(runs.is_beginning(), "busy is said before the code is executed");
        runs.heard(key(1));
        assert!(!runs.is_beginning());
    }
}
