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
    let mut is_over = false;
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
        if is_over {
            return;
        }
        tokio::select! {
            biased;
            // Looked at once more: who was heard in the last moment may be the one that goes on.
            () = end.cancelled() => is_over = true,
            changed = members.changed() => if changed.is_err() { return },
        }
    }
}

/// The nodes that are there, or about to be, and can be reached; by name.
fn known(members: &Members) -> Vec<Known> {
    let there = members.seen.values().filter(|seen| !seen.is_gone());
    let there = there.filter_map(|seen| Some(Known { name: seen.name.clone(), url: seen.url.clone()? }));
    let mut known: Vec<Known> = there.collect();
    known.sort_by(|a, b| a.name.cmp(&b.name));
    known
}
