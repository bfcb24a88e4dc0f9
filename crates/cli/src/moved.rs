//! Whether a state directory's sessions are in it or in a cluster: a store that was moved is marked, so that nobody goes
//! on with it by accident, and one that was not is not left behind unseen.

use std::path::{Path, PathBuf};

use outlive_core::time::WallTime;
use outlive_store::{Embedded, Engine as _};
use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::failure::{Failure, with_sources};

/// Where the sessions of a store have gone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mark {
    /// The NATS servers of the cluster, without passwords.
    pub to: String,
    /// What its subjects begin with.
    pub prefix: String,
    /// How many sessions there were.
    pub sessions: usize,
    /// When.
    pub at: WallTime,
}

/// The store of a daemon that is alone.
pub fn store(state: &Path) -> PathBuf {
    state.join("store")
}

/// The mark's file, beside the store, which stays as it was.
pub fn mark(state: &Path) -> PathBuf {
    state.join("store.moved.json")
}

/// Where a state directory's sessions were moved to.
pub fn mark_of(state: &Path) -> Option<Mark> {
    let text = std::fs::read(mark(state)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Marks a state directory whose sessions a cluster has.
pub fn set(state: &Path, moved: &Mark) -> Result<(), Failure> {
    let path = mark(state);
    let text = serde_json::to_vec_pretty(moved).expect("string keys");
    let draft = path.with_extension("json.new");
    std::fs::write(&draft, text).and_then(|()| std::fs::rename(&draft, &path)).map_err(|error| {
        let what = format!("all sessions are moved, and {} cannot be written: {error}", path.display());
        Failure::new(Exit::Failed, what)
            .hint("without it a daemon that is alone would go on with the old store")
    })
}

/// A daemon without a cluster does not go on with sessions that a cluster has.
pub fn stays_alone(state: &Path) -> Result<(), Failure> {
    let Some(moved) = mark_of(state) else { return Ok(()) };
    let what = format!("the sessions of {} were moved to the cluster at {}", state.display(), moved.to);
    Err(Failure::new(Exit::Conflict, what).hint(format!(
        "start it with `outlive serve --cluster {}`; to go back to the sessions as they were then, remove {}",
        moved.to,
        mark(state).display()
    )))
}

/// A node of a cluster does not leave the sessions behind that its state directory has, nor end their processes as those
/// of nobody.
pub async fn may_join(state: &Path) -> Result<(), Failure> {
    let store = store(state);
    if mark_of(state).is_some() || !store.exists() {
        return Ok(());
    }
    let unreadable = |error: &dyn std::error::Error| {
        Failure::new(
            Exit::Daemon,
            format!("the store {} cannot be looked at: {}", store.display(), with_sources(error)),
        )
    };
    let engine = Embedded::open(&store).map_err(|error| unreadable(&error))?;
    let sessions = engine.sessions().await.map_err(|error| unreadable(&error))?.len();
    if sessions == 0 {
        return Ok(());
    }
    let what = format!(
        "{} holds {sessions} sessions of a daemon that was alone, which the cluster does not have",
        state.display()
    );
    Err(Failure::new(Exit::Conflict, what).hint(
        "`outlive migrate --to nats://HOST:PORT` moves them into the cluster; --state-dir names another directory for the node",
    ))
}
