//! Claims of paths in the cluster's store, so that a file that several nodes reach has one session.
//!
//! A path is a place in a volume: a directory that nodes share, configured by name on each that has it, wherever it is
//! mounted there. Everything else is on a volume of the node's own, which no other node reaches.
//!
//! The row names the session and not the node: it moves with the session and is not touched by a takeover. One whose
//! session has ended, or was never made, is nobody's, and is replaced.

use std::path::{Path, PathBuf};

use outlive_core::failover::Member;
use outlive_core::id::{NodeId, Revision, SessionId};
use outlive_protocol::http::Problem;
use outlive_store::TableError;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Cluster;
use crate::context::{Context, Presence};
use crate::problem;
use crate::session::hex;

/// The table of claims.
const PATHS: &str = "paths";

/// How often a claim is tried again because somebody else has written the row meanwhile.
const TRIES: usize = 16;

/// Where a file is, for every node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VolumePath {
    /// The volume's name; of one that is a node's own, `node:` and the node's id.
    pub volume: String,
    /// The path in it.
    pub path: String,
}

impl VolumePath {
    fn key(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.volume.as_bytes());
        hash.update([0]);
        hash.update(self.path.as_bytes());
        hex(&<[u8; 32]>::from(hash.finalize()))
    }

    /// The node that alone has the volume.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        self.volume.strip_prefix("node:")?.parse().ok()
    }
}

/// Who has a path.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Row {
    #[serde(flatten)]
    place: VolumePath,
    session: SessionId,
    /// Who claimed it, and may be making the session now.
    #[serde(flatten)]
    maker: Member,
}

/// Why a path is not had.
#[derive(Debug)]
pub(crate) enum NotTaken {
    /// This session has it.
    By(SessionId),
    /// The store does not say.
    Store(TableError),
}

impl From<TableError> for NotTaken {
    fn from(error: TableError) -> Self {
        Self::Store(error)
    }
}

impl Cluster {
    /// Where a file of this node (absolute, links resolved) is for every node.
    #[must_use]
    pub fn place(&self, path: &Path) -> VolumePath {
        let within =
            self.volumes.iter().filter_map(|(name, root)| Some((name, root, path.strip_prefix(root).ok()?)));
        match within.max_by_key(|(_, root, _)| root.components().count()) {
            Some((name, _, inside)) => {
                VolumePath { volume: name.clone(), path: inside.display().to_string() }
            }
            None => VolumePath { volume: format!("node:{}", self.me.node), path: path.display().to_string() },
        }
    }

    /// Where a place is on this node; `None`: this node does not reach it.
    #[must_use]
    pub fn local(&self, place: &VolumePath) -> Option<PathBuf> {
        if place.node() == Some(self.me.node) {
            return Some(PathBuf::from(&place.path));
        }
        self.volumes.get(&place.volume).map(|root| root.join(&place.path))
    }

    /// The nodes that reach a volume which this one does not, for people.
    #[must_use]
    pub fn who_has(&self, place: &VolumePath) -> String {
        match place.node() {
            Some(node) => {
                let members = self.members.borrow();
                let name =
                    members.seen.iter().find(|(member, _)| member.node == node).map(|(_, seen)| &seen.name);
                format!("node {}", name.cloned().unwrap_or_else(|| node.to_string()))
            }
            None => format!("nodes with the volume {}", place.volume),
        }
    }
}

async fn row(context: &Context, key: &str) -> Result<Option<(Row, Revision)>, TableError> {
    let row = context.engine.get(PATHS, key).await?;
    Ok(row.and_then(|row| Some((serde_json::from_slice(&row.value).ok()?, row.revision))))
}

/// Claims a path for a session.
pub(crate) async fn claim(
    context: &Context,
    cluster: &Cluster,
    path: &Path,
    session: SessionId,
) -> Result<(), NotTaken> {
    let place = cluster.place(path);
    let key = place.key();
    let wanted = Row { place, session, maker: cluster.me };
    let value = serde_json::to_vec(&wanted).expect("a claim is plain data");
    let mut last = TableError::Unknown;
    for _ in 0..TRIES {
        let before = context.engine.get(PATHS, &key).await?;
        let revision = before.as_ref().map_or(Revision(0), |row| row.revision);
        if let Some(before) = before.and_then(|row| serde_json::from_slice::<Row>(&row.value).ok())
            && before.session != session
            && is_there(context, cluster, &before).await?
        {
            return Err(NotTaken::By(before.session));
        }
        match context.engine.put_if(PATHS, &key, revision, &value).await {
            Ok(_) => return Ok(()),
            Err(error @ (TableError::Conflict { .. } | TableError::Unknown)) => last = error,
            Err(error) => return Err(error.into()),
        }
    }
    Err(last.into())
}

/// Whether the session of a claim is there, or may be made at this moment.
async fn is_there(context: &Context, cluster: &Cluster, row: &Row) -> Result<bool, TableError> {
    if context.is_here(row.session) {
        return Ok(true);
    }
    Ok(match context.indexed(row.session).await? {
        Some(indexed) => indexed.presence != Presence::Ended,
        None => row.maker != cluster.me && !cluster.is_gone(row.maker),
    })
}

/// The session that has a path, as the cluster's store says. One that another node is making at this moment is to be asked
/// for there.
pub(crate) async fn holder(context: &Context, path: &Path) -> Result<Option<SessionId>, Problem> {
    let Some(cluster) = &context.cluster else { return Ok(None) };
    let failed = |error: TableError| problem::store(&error);
    let Some((row, _)) = row(context, &cluster.place(path).key()).await.map_err(failed)? else {
        return Ok(None);
    };
    if !is_there(context, cluster, &row).await.map_err(failed)? {
        return Ok(None);
    }
    if !context.is_here(row.session) && context.indexed(row.session).await.map_err(failed)?.is_none() {
        let elsewhere = context.ask_member(row.maker, &path.display().to_string());
        return Err(elsewhere.unwrap_or_else(|| crate::session::handle::moving(row.session)));
    }
    Ok(Some(row.session))
}

/// Gives a path back, if it is still the session's. One that is not given back is replaced by whoever wants it.
pub(crate) async fn free(context: &Context, cluster: &Cluster, path: &Path, session: SessionId) {
    let key = cluster.place(path).key();
    let freed = async {
        let Some((row, revision)) = row(context, &key).await? else { return Ok(()) };
        if row.session != session {
            return Ok(());
        }
        match context.engine.delete_if(PATHS, &key, revision).await {
            Ok(()) | Err(TableError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    };
    if let Err(error) = freed.await {
        tracing::warn!(%session, path = %path.display(), %error, "a path is not given back");
    }
}
