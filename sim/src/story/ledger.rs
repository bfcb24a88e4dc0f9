//! What clients have asked for and been told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use outlive_core::id::{RunId, SessionId};
use outlive_core::session::RunOutcome;

/// A run that a node has said it has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Given {
    /// Its session.
    pub session: SessionId,
    /// What kind it is: a task's name, `code` or `command`.
    pub what: String,
    /// How many chunks it says; `None`: a cell that waits is not queued again, and says what it said when it was queued.
    pub n: Option<u64>,
    /// Somebody wanted it cancelled, or its process stopped.
    pub is_unwanted: bool,
}

/// What a watcher has in the end.
#[derive(Clone, PartialEq, Debug)]
pub struct Watched {
    /// Who.
    pub who: String,
    /// Each chunk, as text.
    pub chunks: Vec<String>,
    /// The terminal.
    pub outcome: Option<RunOutcome>,
}

/// What clients have asked for and been told.
#[derive(Default)]
pub struct Ledger(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    given: BTreeMap<RunId, Given>,
    watched: BTreeMap<RunId, Vec<Watched>>,
    /// What is still being waited for.
    open: BTreeSet<String>,
    /// Cells that were edited, by session: what has to stand there.
    edits: BTreeMap<(SessionId, String), String>,
    /// Sessions that were opened by path: which, when (ns) and for how long nobody closed them.
    opened: BTreeMap<String, BTreeSet<SessionId>>,
    ended: BTreeSet<usize>,
    wrong: Vec<String>,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nothing panics while it holds the ledger")
    }

    /// Something does not hold.
    pub fn note(&self, wrong: String) {
        let mut inner = self.lock();
        if inner.wrong.len() < 40 {
            inner.wrong.push(wrong);
        }
    }

    /// Things that do not hold.
    pub fn note_all(&self, wrong: Vec<String>) {
        for one in wrong {
            self.note(one);
        }
    }

    /// What does not hold.
    pub fn wrong(&self) -> Vec<String> {
        self.lock().wrong.clone()
    }

    /// Somebody begins to wait for something.
    pub fn begin(&self, what: &str) {
        self.lock().open.insert(what.to_owned());
    }

    /// It has come.
    pub fn done(&self, what: &str) {
        self.lock().open.remove(what);
    }

    /// Whether nobody waits for anything.
    pub fn is_all_done(&self) -> bool {
        self.lock().open.is_empty()
    }

    /// What is waited for.
    pub fn unfinished(&self) -> Vec<String> {
        self.lock().open.iter().take(10).map(|what| format!("{what} has not come to its end")).collect()
    }

    /// A node says that it has this run.
    pub fn give(&self, run: RunId, given: Given) {
        self.lock().given.entry(run).or_insert(given);
    }

    /// Somebody does not want it any more.
    pub fn unwant(&self, run: RunId) {
        if let Some(given) = self.lock().given.get_mut(&run) {
            given.is_unwanted = true;
        }
    }

    /// Nothing of this session that is not done yet is wanted.
    pub fn unwant_all(&self, session: SessionId) {
        for given in self.lock().given.values_mut().filter(|given| given.session == session) {
            given.is_unwanted = true;
        }
    }

    /// All runs that some node said it has.
    pub fn given(&self) -> BTreeMap<RunId, Given> {
        self.lock().given.clone()
    }

    /// A watcher has come to the end.
    pub fn watched(&self, run: RunId, watched: Watched) {
        self.lock().watched.entry(run).or_default().push(watched);
    }

    /// What all watchers have in the end.
    pub fn all_watched(&self) -> BTreeMap<RunId, Vec<Watched>> {
        self.lock().watched.clone()
    }

    /// An edit was acknowledged.
    pub fn edited(&self, session: SessionId, cell: &str, source: &str) {
        self.lock().edits.insert((session, cell.to_owned()), source.to_owned());
    }

    /// What has to stand in cells.
    pub fn edits(&self) -> BTreeMap<(SessionId, String), String> {
        self.lock().edits.clone()
    }

    /// A path was opened, and this session was told to have it.
    pub fn opened(&self, path: &str, session: SessionId) {
        self.lock().opened.entry(path.to_owned()).or_default().insert(session);
    }

    /// The sessions that each path was ever said to belong to.
    pub fn all_opened(&self) -> BTreeMap<String, BTreeSet<SessionId>> {
        self.lock().opened.clone()
    }

    /// A node has ended.
    pub fn ended(&self, node: usize) {
        self.lock().ended.insert(node);
    }

    /// Whether all nodes have.
    pub fn is_ended(&self, nodes: usize) -> bool {
        self.lock().ended.len() == nodes
    }
}
