//! What an engine on NATS is told.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Where the servers are and how the cluster keeps its data there.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Addresses, `nats://host:port` or `tls://host:port`; any of them will do. One may name a user, or a token:
    /// `nats://user:password@host`.
    pub servers: Vec<String>,
    /// How this client says who it is.
    pub credentials: Credentials,
    /// The certificates of those who sign for the servers, PEM, without whom there is no connection; the system's without
    /// it, where a server or an address wants TLS.
    pub tls_ca: Option<PathBuf>,
    /// The node's name. The server's tools show it for the connection to other nodes, and with ` log` behind it for that
    /// of the engine.
    pub name: String,
    /// What every subject and stream of this cluster begins with: two clusters can share one NATS. Lower-case letters,
    /// digits, `-` and `_`.
    pub prefix: String,
    /// Into how many streams the sessions are spread. Settled by the first node of a cluster, for ever.
    pub shards: u16,
    /// On how many servers everything is kept: 1, 3 or 5.
    pub replicas: u8,
    /// How long to wait for servers that cannot be reached or do not take work yet; without it they are asked once.
    pub wait: Option<Duration>,
    /// A folder of this machine for blobs on their way. Belongs to this engine alone.
    pub spool: PathBuf,
}

impl Settings {
    /// The defaults, for servers that take everybody: prefix `outlive`, 4 shards, 1 replica, no waiting.
    #[must_use]
    pub fn new(servers: impl IntoIterator<Item = impl Into<String>>, spool: impl Into<PathBuf>) -> Self {
        Self {
            servers: servers.into_iter().map(Into::into).collect(),
            credentials: Credentials::None,
            tls_ca: None,
            name: "outlive".to_owned(),
            prefix: "outlive".to_owned(),
            shards: 4,
            replicas: 1,
            wait: None,
            spool: spool.into(),
        }
    }
}

/// How a client says who it is. Its text never shows a secret.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Credentials {
    /// It does not.
    #[default]
    None,
    /// A token.
    Token(String),
    /// A user with a password.
    User {
        /// The user's name.
        user: String,
        /// Its password.
        password: String,
    },
    /// A `.creds` file: JWT and nkey.
    File(PathBuf),
    /// A file with the seed of a user's nkey.
    Nkey(PathBuf),
}

/// As it is said to somebody who looks for what is wrong.
impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => write!(f, "none are given"),
            Self::Token(_) => write!(f, "a token"),
            Self::User { user, password: _ } => write!(f, "the user {user} with a password"),
            Self::File(path) => write!(f, "those in {}", path.display()),
            Self::Nkey(path) => write!(f, "the NKey of {}", path.display()),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => write!(f, "None"),
            Self::Token(_) => write!(f, "Token"),
            Self::User { user, password: _ } => write!(f, "User({user})"),
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Nkey(path) => write!(f, "Nkey({})", path.display()),
        }
    }
}
