//! Why an engine on NATS cannot begin. Each says what to do.

use std::path::PathBuf;

/// Why [`crate::Nats::connect`] failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// An address, or a name, is none.
    #[error("{what} {found:?} cannot be used: {why}")]
    BadSetting {
        /// Which setting.
        what: &'static str,
        /// What it is.
        found: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nobody is there.
    #[error(
        "no NATS server answers at {servers}: {why}; start one (nats-server -js), or name the right address"
    )]
    Unreachable {
        /// All that were tried.
        servers: String,
        /// What the last one did.
        why: String,
    },
    /// The server does not know us.
    #[error(
        "the NATS server at {servers} refuses the credentials: {used}; check the token, user or file that this node \
         is given (in [cluster], or in the address), and the server's own list"
    )]
    WrongCredentials {
        /// Where.
        servers: String,
        /// Which kind was used, without the secret.
        used: String,
    },
    /// A connection by TLS does not come about: it is not tried without.
    #[error("there is no TLS connection to the NATS server at {servers}: {why}; {remedy}")]
    Tls {
        /// Where.
        servers: String,
        /// What is wrong.
        why: String,
        /// What may help.
        remedy: &'static str,
    },
    /// A file that is named does not exist, cannot be read, or holds something else.
    #[error("{what} {} cannot be used", path.display())]
    BadFile {
        /// What it is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Its appends are not fenced as they must be.
    #[error(
        "the NATS server at {server} is version {found}; Outlive needs {needed} or newer, because older ones store \
         what they should refuse; upgrade it"
    )]
    TooOld {
        /// Which server.
        server: String,
        /// Its version.
        found: String,
        /// The least that will do.
        needed: &'static str,
    },
    /// It keeps nothing.
    #[error(
        "the NATS server at {server} has no JetStream{whose}; start it with -js, or allow JetStream for the account \
         (accounts {{ … jetstream: enabled }})"
    )]
    NoJetStream {
        /// Which server.
        server: String,
        /// Empty, or that it is the account.
        whose: &'static str,
    },
    /// Its messages are too short.
    #[error(
        "the NATS server at {server} takes messages of {found} bytes at most; Outlive needs {needed}: set max_payload \
         to 1MB or more in its configuration"
    )]
    SmallMessages {
        /// Which server.
        server: String,
        /// Its limit, in bytes.
        found: usize,
        /// What is needed, in bytes.
        needed: usize,
    },
    /// Somebody has changed a stream, or made another one with its name.
    #[error(
        "the stream {stream} is not as Outlive needs it: {setting} is {found} instead of {wanted}; put it right \
         (nats stream edit {stream}), or use another prefix; nothing in it was changed"
    )]
    Misconfigured {
        /// The stream.
        stream: String,
        /// Which of its settings.
        setting: String,
        /// As it is.
        found: String,
        /// As it has to be.
        wanted: String,
    },
    /// A server took a stream and not all that was asked of it.
    #[error(
        "NATS has made the stream {stream} without what was asked: {setting} is {found} instead of {wanted}; one of the \
         servers is too old for it: upgrade all of them, remove the stream (nats stream rm {stream}) and try again"
    )]
    Dropped {
        /// The stream.
        stream: String,
        /// Which of its settings.
        setting: String,
        /// As it was made.
        found: String,
        /// As it was asked for.
        wanted: String,
    },
    /// Another stream has our subjects.
    #[error(
        "another stream has subjects of {stream} ({subjects}); remove it, or give this cluster another prefix: {why}"
    )]
    SubjectsTaken {
        /// The stream that could not be made.
        stream: String,
        /// Its subjects.
        subjects: String,
        /// What the server says.
        why: String,
    },
    /// The first node of this cluster settled something else.
    #[error(
        "this cluster was begun with {setting} = {theirs}, and this node is told {ours}; give all nodes the same, or use \
         another prefix"
    )]
    OtherCluster {
        /// Which setting.
        setting: &'static str,
        /// As the cluster has it.
        theirs: String,
        /// As it was given here.
        ours: String,
    },
    /// Not as many as there are to be copies.
    #[error(
        "{replicas} copies need {replicas} NATS servers in one cluster with JetStream, and there are fewer: {why}; start \
         the others, or ask for 1 replica"
    )]
    TooFewServers {
        /// How many copies.
        replicas: u8,
        /// What the server says.
        why: String,
    },
    /// The servers, or the account, have no room for another stream.
    #[error(
        "NATS has no room for the stream {stream}: {why}; raise max_file_store of the servers or the limits of the \
         account, or free some of it"
    )]
    NoRoom {
        /// The stream.
        stream: String,
        /// What the server says.
        why: String,
    },
    /// It answers, and does not do what was asked.
    #[error("NATS cannot {what} now: {why}; see the server's log, then try again")]
    Refused {
        /// What was tried.
        what: String,
        /// What it says.
        why: String,
    },
}

impl ConnectError {
    /// Whether it may pass by itself, so that waiting makes sense.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TooFewServers { .. } | Self::Refused { .. } => true,
            Self::BadSetting { .. }
            | Self::WrongCredentials { .. }
            | Self::Tls { .. }
            | Self::BadFile { .. }
            | Self::TooOld { .. }
            | Self::NoJetStream { .. }
            | Self::SmallMessages { .. }
            | Self::Misconfigured { .. }
            | Self::Dropped { .. }
            | Self::SubjectsTaken { .. }
            | Self::OtherCluster { .. }
            | Self::NoRoom { .. } => false,
        }
    }
}
