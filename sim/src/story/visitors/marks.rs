//! What visitors have written, mark by mark, and what they have been told of it.
//!
//! A mark is a few letters that stand nowhere else. Nobody takes one out again: what was acknowledged once is there
//! for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use outlive_core::id::SessionId;
use outlive_core::time::Tick;
use serde_json::Value;

use super::tab::Tab;
use crate::schedule::Life as NodeLife;

/// What visitors know of each other.
#[derive(Default)]
pub(super) struct Marks(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    next: u64,
    sessions: BTreeMap<SessionId, Kept>,
    /// Marks that other programs have put into files.
    outside: BTreeSet<String>,
    /// Marks that were in a file when another program deleted it, or made something else of it.
    destroyed: BTreeSet<String>,
    /// Editors that nobody looks at any more, with all that they hold.
    tabs: Vec<Tab>,
}

/// What is known of a session.
#[derive(Default)]
struct Kept {
    acknowledged: BTreeSet<String>,
    life: Life,
    /// When somebody was answered last who had asked it to do something, and by which life of the node.
    answered: Option<(Tick, NodeLife)>,
}

/// How far a session is, as its clients know.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Life {
    #[default]
    Open,
    /// Somebody has asked for its end, and does not know what came of that.
    Closing,
    Closed,
}

impl Marks {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A mark that stands nowhere yet.
    pub(super) fn fresh(&self) -> String {
        format!("#{};", self.number())
    }

    /// A number that nobody has had.
    pub(super) fn number(&self) -> u64 {
        let mut inner = self.lock();
        inner.next += 1;
        inner.next
    }

    /// A node says that there is this session.
    pub(super) fn know(&self, session: SessionId) {
        self.lock().sessions.entry(session).or_default();
    }

    /// There never was such a session, as far as anybody was promised.
    pub(super) fn forget(&self, session: SessionId) {
        self.lock().sessions.remove(&session);
    }

    /// The sessions that nobody has asked to end.
    pub(super) fn open(&self) -> Vec<SessionId> {
        let inner = self.lock();
        inner.sessions.iter().filter(|(_, kept)| kept.life == Life::Open).map(|(id, _)| *id).collect()
    }

    /// Whether somebody was told of it.
    pub(super) fn is_known(&self, session: SessionId) -> bool {
        self.lock().sessions.contains_key(&session)
    }

    /// Whether nobody has asked for its end.
    pub(super) fn is_open(&self, session: SessionId) -> bool {
        self.lock().sessions.get(&session).is_some_and(|kept| kept.life == Life::Open)
    }

    /// Somebody asks for its end.
    pub(super) fn closes(&self, session: SessionId) {
        self.lock().sessions.entry(session).or_default().life = Life::Closing;
    }

    /// It has ended, or somebody was told that it does not.
    pub(super) fn is_closed(&self, session: SessionId, is_closed: bool) {
        let life = if is_closed { Life::Closed } else { Life::Open };
        self.lock().sessions.entry(session).or_default().life = life;
    }

    /// What has to stand in a session's notebook from now on.
    pub(super) fn acknowledged(&self, session: SessionId) -> BTreeSet<String> {
        let inner = self.lock();
        inner.sessions.get(&session).map(|kept| kept.acknowledged.clone()).unwrap_or_default()
    }

    /// A node says that it has these.
    pub(super) fn acknowledge(&self, session: SessionId, marks: impl IntoIterator<Item = String>) {
        self.lock().sessions.entry(session).or_default().acknowledged.extend(marks);
    }

    /// It has done what somebody asked for.
    pub(super) fn answered(&self, session: SessionId, at: Tick, by: Option<NodeLife>) {
        if let (Some(kept), Some(by)) = (self.lock().sessions.get_mut(&session), by) {
            kept.answered = Some((at, by));
        }
    }

    /// When it has done that last, if that was before `limit`, in this life of the node.
    pub(super) fn last_answered(
        &self,
        session: SessionId,
        limit: Tick,
        by: Option<NodeLife>,
    ) -> Option<Tick> {
        let (at, life) = self.lock().sessions.get(&session)?.answered?;
        (Some(life) == by && at < limit).then_some(at)
    }

    /// Another program has put this one into a file.
    pub(super) fn put_outside(&self, mark: String) {
        self.lock().outside.insert(mark);
    }

    /// What stands in this file is deleted, or made something else.
    pub(super) fn destroy(&self, content: &[u8]) {
        let found = marks_in(&String::from_utf8_lossy(content));
        self.lock().destroyed.extend(found);
    }

    /// What must be in some notebook or some file: nobody is asked any more which. Of those that `said` that they could
    /// not be saved at their end, the log is the place.
    pub(super) fn somewhere(&self, said: &BTreeSet<SessionId>) -> BTreeSet<String> {
        let inner = self.lock();
        let closed = inner.sessions.iter().filter(|(id, kept)| kept.life != Life::Open && !said.contains(id));
        let all = closed.flat_map(|(_, kept)| &kept.acknowledged).chain(&inner.outside);
        all.filter(|mark| !inner.destroyed.contains(*mark)).cloned().collect()
    }

    /// Nobody looks at this editor any more.
    pub(super) fn lay_down(&self, tab: Tab) {
        self.lock().tabs.push(tab);
    }

    /// All editors that were laid down.
    pub(super) fn tabs(&self) -> Vec<Tab> {
        std::mem::take(&mut self.lock().tabs)
    }
}

/// The marks that stand in a text.
pub(super) fn marks_in(text: &str) -> BTreeSet<String> {
    let candidates = text.split('#').skip(1).filter_map(|rest| rest.split_once(';'));
    candidates
        .filter(|(number, _)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        .map(|(number, _)| format!("#{number};"))
        .collect()
}

/// The marks that are missing in a text.
pub(super) fn lacking(text: &str, wanted: &BTreeSet<String>) -> Vec<String> {
    let found = marks_in(text);
    wanted.iter().filter(|mark| !found.contains(*mark)).cloned().collect()
}

/// The ids and sources of a notebook's file; `None` when it is none.
pub(super) fn cells_of(bytes: &[u8]) -> Option<Vec<(String, String)>> {
    let notebook: Value = serde_json::from_slice(bytes).ok()?;
    let source = |cell: &Value| match &cell["source"] {
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
        other => other.as_str().unwrap_or_default().to_owned(),
    };
    let cells = notebook["cells"].as_array()?;
    Some(
        cells.iter().map(|cell| (cell["id"].as_str().unwrap_or_default().to_owned(), source(cell))).collect(),
    )
}

/// All sources, one behind the other.
pub(super) fn text_of(cells: &[(String, String)]) -> String {
    cells.iter().map(|(_, source)| source.as_str()).collect::<Vec<_>>().join("\n")
}
