//! The nodes of this daemon's cluster, in a file beside its socket: where a client goes on when the daemon does not
//! answer. The daemon writes it when nodes come and go; it holds the cluster's token, so it is its user's alone.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::client::way::{Secret, Way};

/// Version of the file.
const VERSION: u32 = 1;
/// Largest file that is read, in bytes: far more than the largest cluster's.
const BYTES_MAX: u64 = 1 << 20;

/// The file's content.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nodes {
    version: u32,
    /// The name of the node that wrote it.
    pub me: String,
    /// What every node's TCP listener accepts.
    pub token: String,
    /// All nodes that are there.
    pub nodes: Vec<Known>,
}

/// A node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// Where its API is.
    pub url: String,
}

impl Nodes {
    /// The nodes of a cluster, as one of them sees them.
    pub const fn new(me: String, token: String, nodes: Vec<Known>) -> Self {
        Self { version: VERSION, me, token, nodes }
    }

    /// Reads the file of the daemon behind a socket. One that is not there, or not ours, names nobody.
    pub fn read(socket: &Path) -> Option<Self> {
        let path = beside(socket);
        let about = fs::symlink_metadata(&path).ok()?;
        if !about.is_file() || about.len() > BYTES_MAX {
            return None;
        }
        let nodes: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (nodes.version == VERSION).then_some(nodes)
    }

    /// Writes the file, whole or not at all.
    pub fn write(&self, socket: &Path) -> io::Result<()> {
        let path = beside(socket);
        let draft = path.with_extension("json.new");
        drop(fs::remove_file(&draft));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        drop(file);
        fs::rename(draft, path)
    }

    /// Removes the file: the daemon is alone.
    pub fn remove(socket: &Path) {
        // One that stays leads clients to nodes that say themselves what they are.
        drop(fs::remove_file(beside(socket)));
    }

    /// The ways to the other nodes.
    pub fn others(&self) -> Vec<Way> {
        let Ok(token) = Secret::new(&self.token) else { return Vec::new() };
        let others = self.nodes.iter().filter(|node| node.name != self.me);
        others.filter_map(|node| Way::url(&node.url, Some(token.clone())).ok()).collect()
    }
}

/// `cluster.json` beside `outlive.sock`, `cluster-1a2b.json` beside `outlive-1a2b.sock`.
fn beside(socket: &Path) -> PathBuf {
    let stem = socket.file_stem().unwrap_or_default().to_string_lossy();
    let name = stem
        .strip_prefix("outlive")
        .map_or_else(|| format!("cluster-{stem}"), |rest| format!("cluster{rest}"));
    socket.with_file_name(format!("{name}.json"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn known(name: &str, url: &str) -> Known {
        Known { name: name.to_owned(), url: url.to_owned() }
    }

    #[test]
    fn the_other_nodes_are_found_beside_the_socket() {
        let folder = tempfile::tempdir().expect("a directory");
        let socket = folder.path().join("outlive.sock");
        assert!(Nodes::read(&socket).is_none(), "a daemon that is alone");
        let nodes =
            vec![known("a", "http://10.0.0.1:1"), known("b", "http://10.0.0.2:2"), known("c", "rubbish /")];
        let nodes = Nodes::new("a".to_owned(), "secret".to_owned(), nodes);
        nodes.write(&socket).expect("written");
        nodes.write(&socket).expect("written again");
        let file = folder.path().join("cluster.json");
        assert_eq!(fs::metadata(&file).expect("there").mode() & 0o777, 0o600, "it holds a token");
        let ways = Nodes::read(&socket).expect("nodes").others();
        assert_eq!(ways.iter().map(ToString::to_string).collect::<Vec<_>>(), ["http://10.0.0.2:2"]);
        let own = folder.path().join("outlive-1a2b.sock");
        assert!(Nodes::read(&own).is_none(), "each daemon has its own");
        Nodes::remove(&socket);
        assert!(!file.exists());
    }

    #[test]
    fn rubbish_names_nobody() {
        let folder = tempfile::tempdir().expect("a directory");
        let socket = folder.path().join("outlive.sock");
        for text in ["", "{}", "[1]", r#"{"version":9,"me":"a","token":"t","nodes":[]}"#] {
            fs::write(folder.path().join("cluster.json"), text).expect("written");
            assert!(Nodes::read(&socket).is_none(), "{text}");
        }
    }
}
