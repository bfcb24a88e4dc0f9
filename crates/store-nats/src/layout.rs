//! Where everything is in NATS.
//!
//! ```text
//!  stream PREFIX-SES-k   PREFIX.s.k.SESSION.control | journal | document | runtime | requests | run.RUN
//!  stream PREFIX-TAB     PREFIX.t.TABLE.HASH-OF-KEY          the last message of each subject is the row
//!  stream PREFIX-BLO     PREFIX.b.SESSION.SHA256             what a blob is made of, or
//!                        PREFIX.b.SESSION.SHA256.UPLOAD      its content in pieces
//!  told live by the server, once stored:
//!                        PREFIX.live.s.k.SESSION.LANE        without content
//!                        PREFIX.live.t.TABLE.HASH-OF-KEY
//! ```

use std::fmt::Write as _;

use outlive_core::id::SessionId;
use outlive_core::log::Lane;
use sha2::{Digest, Sha256};

/// Streams and subjects of one cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    pub(crate) prefix: String,
    pub(crate) shards: u16,
}

impl Layout {
    /// A session stays in its shard for life, so this never changes: by the hash of its id.
    fn shard(&self, session: SessionId) -> u64 {
        let hash = Sha256::digest(session.as_uuid().as_bytes());
        let number = hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
        number % u64::from(self.shards.max(1))
    }

    fn stream(&self, what: &str) -> String {
        format!("{}-{what}", self.prefix.to_uppercase())
    }

    pub(crate) fn session_streams(&self) -> impl Iterator<Item = (u16, String)> + '_ {
        (0..self.shards).map(|k| (k, self.stream(&format!("SES-{k}"))))
    }

    /// All records of a shard.
    pub(crate) fn shard_subjects(&self, k: u16) -> String {
        format!("{}.s.{k}.>", self.prefix)
    }

    /// The control lanes of all sessions of a shard.
    pub(crate) fn shard_controls(&self, k: u16) -> String {
        format!("{}.s.{k}.*.control", self.prefix)
    }

    pub(crate) fn place(&self, session: SessionId) -> Place {
        let k = self.shard(session);
        Place { stream: self.stream(&format!("SES-{k}")), root: format!("{}.s.{k}.{session}", self.prefix) }
    }

    /// Where the server tells of all that is stored in a session.
    pub(crate) fn live_session(&self, session: SessionId) -> String {
        format!("{}.live.s.{}.{session}.>", self.prefix, self.shard(session))
    }

    pub(crate) fn live_shard(&self, k: u16) -> String {
        format!("{}.live.s.{k}.>", self.prefix)
    }

    pub(crate) fn table_stream(&self) -> String {
        self.stream("TAB")
    }

    /// All rows of all tables.
    pub(crate) fn tables(&self) -> String {
        format!("{}.t.>", self.prefix)
    }

    /// All rows of a table.
    pub(crate) fn table(&self, table: &str) -> String {
        format!("{}.t.{table}.*", self.prefix)
    }

    /// A key may be longer than a subject and hold anything: its hash stands for it. The key is in the message.
    pub(crate) fn row(&self, table: &str, key: &str) -> String {
        let hash = Sha256::digest(key.as_bytes());
        let mut subject = format!("{}.t.{table}.", self.prefix);
        for byte in hash.iter().take(16) {
            let _ = write!(subject, "{byte:02x}");
        }
        subject
    }

    /// The table of a row's subject.
    pub(crate) fn table_of(&self, row: &str) -> Option<String> {
        let rest = row.strip_prefix(&self.prefix)?.strip_prefix(".t.")?;
        Some(rest.split_once('.')?.0.to_owned())
    }

    pub(crate) fn live_tables(&self) -> String {
        format!("{}.live.t.>", self.prefix)
    }

    pub(crate) fn blob_stream(&self) -> String {
        self.stream("BLO")
    }

    /// All blobs of all sessions.
    pub(crate) fn blobs(&self) -> String {
        format!("{}.b.>", self.prefix)
    }

    pub(crate) fn session_blobs(&self, session: SessionId) -> String {
        format!("{}.b.{session}.>", self.prefix)
    }

    /// What the blobs of a session are made of, without their content.
    pub(crate) fn session_manifests(&self, session: SessionId) -> String {
        format!("{}.b.{session}.*", self.prefix)
    }

    pub(crate) fn manifest(&self, session: SessionId, sha256: &str) -> String {
        format!("{}.b.{session}.{sha256}", self.prefix)
    }

    pub(crate) fn pieces(&self, session: SessionId, sha256: &str, upload: &str) -> String {
        format!("{}.b.{session}.{sha256}.{upload}", self.prefix)
    }

    /// Where the elected leaders of all our streams are told.
    pub(crate) fn elections(&self) -> String {
        "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.*".to_owned()
    }
}

/// Where one session's log is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) stream: String,
    root: String,
}

impl Place {
    /// All lanes.
    pub(crate) fn all(&self) -> String {
        format!("{}.>", self.root)
    }

    pub(crate) fn lane(&self, lane: Lane) -> String {
        match lane {
            Lane::Control => format!("{}.control", self.root),
            Lane::Journal => format!("{}.journal", self.root),
            Lane::Document => format!("{}.document", self.root),
            Lane::Runtime => format!("{}.runtime", self.root),
            Lane::Requests => format!("{}.requests", self.root),
            Lane::Run(run) => format!("{}.run.{run}", self.root),
        }
    }

    /// The lane of a subject; nothing when it is none of this session, or of a version that has more lanes.
    pub(crate) fn lane_of(&self, subject: &str) -> Option<Lane> {
        let lane = subject.strip_prefix(&self.root)?.strip_prefix('.')?;
        Some(match lane {
            "control" => Lane::Control,
            "journal" => Lane::Journal,
            "document" => Lane::Document,
            "runtime" => Lane::Runtime,
            "requests" => Lane::Requests,
            _ => Lane::Run(lane.strip_prefix("run.")?.parse().ok()?),
        })
    }
}

/// The session of a subject of a control lane.
pub(crate) fn session_of(control: &str) -> Option<SessionId> {
    control.strip_suffix(".control")?.rsplit('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use outlive_core::id::RunId;
    use uuid::Uuid;

    use super::*;

    fn layout() -> Layout {
        Layout { prefix: "outlive".to_owned(), shards: 4 }
    }

    #[test]
    fn a_lane_is_found_again_in_its_subject() {
        let session = SessionId::from_uuid(Uuid::from_u128(7));
        let place = layout().place(session);
        let run = Lane::Run(RunId::from_uuid(Uuid::from_u128(8)));
        for lane in [Lane::Control, Lane::Journal, Lane::Document, Lane::Runtime, Lane::Requests, run] {
            assert_eq!(place.lane_of(&place.lane(lane)), Some(lane));
        }
        assert_eq!(session_of(&place.lane(Lane::Control)), Some(session));
        let other = layout().place(SessionId::from_uuid(Uuid::from_u128(9)));
        assert_eq!(place.lane_of(&other.lane(Lane::Control)), None);
        assert_eq!(place.lane_of("outlive.s.0.x.of-a-later-version"), None);
    }

    /// Sessions that are stored are looked for where they were put.
    #[test]
    fn a_session_stays_in_its_shard() {
        let shards: Vec<_> =
            (0..8).map(|n| layout().shard(SessionId::from_uuid(Uuid::from_u128(n)))).collect();
        assert_eq!(shards, [1, 3, 0, 2, 0, 2, 0, 2]);
    }

    #[test]
    fn a_key_of_any_length_and_content_is_a_subject() {
        let subject = layout().row("paths", &"a path.with * and > ".repeat(1_000));
        assert_eq!(subject.len(), "outlive.t.paths.".len() + 32);
        assert_ne!(subject, layout().row("paths", "b"));
    }
}
