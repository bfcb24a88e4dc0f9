//! Keeps the file from which this machine's clients know the other nodes.

use std::path::PathBuf;
use std::sync::Arc;

use outlive_node::cluster::Members;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::nodes::{Known, Nodes};

/// Writes it whenever a node comes or goes, until the end. It stays afterwards: clients go on with the others.
pub(super) async fn keep(
    socket: PathBuf,
    me: String,
    token: String,
    mut members: watch::Receiver<Arc<Members>>,
    end: CancellationToken,
) {
    let mut written = Vec::new();
    loop {
        let known = known(&members.borrow_and_update());
        if known != written {
            let nodes = Nodes::new(me.clone(), token.clone(), known.clone());
            match nodes.write(&socket) {
                Ok(()) => written = known,
                Err(error) => {
                    tracing::warn!(%error, "clients of this machine are not told which nodes there are")
                }
            }
        }
        tokio::select! {
            biased;
            () = end.cancelled() => return,
            changed = members.changed() => if changed.is_err() { return },
        }
    }
}

/// The nodes that are there and can be reached, by name.
fn known(members: &Members) -> Vec<Known> {
    let alive = members
        .alive()
        .filter_map(|(_, seen)| Some(Known { name: seen.name.clone(), url: seen.url.clone()? }));
    let mut known: Vec<Known> = alive.collect();
    known.sort_by(|a, b| a.name.cmp(&b.name));
    known
}
