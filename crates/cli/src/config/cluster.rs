//! What makes a daemon one of several: the `[cluster]` table.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use outlive_core::limits;
use outlive_node::cluster::OnIsolation;

use super::kind::{BETWEEN, Kind};
use super::{Key, Origin, Row, Setting, default, flag, number, optional, shown};
use crate::client::way::Secret;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::values;

/// How a node can be told to treat what runs while it is cut off.
const ON_ISOLATION: [&str; 3] = ["freeze", "continue", "stop"];
/// Most stream shards: each is a Raft group of its own in a NATS cluster.
const SHARDS_MAX: u64 = 64;
/// Longest name, in bytes: it stands in tables and in every heartbeat.
const NAME_BYTES_MAX: usize = 63;

const fn key(name: &'static str, about: &'static str, kind: Kind) -> Key {
    Key { name, about, kind }
}

/// Every setting of a cluster.
pub(super) const KEYS: [Key; 17] = [
    key("cluster.servers", "NATS servers of the cluster; none: this daemon is alone", Kind::List),
    key("cluster.name", "this node's name, which no other node has", Kind::Text),
    key("cluster.advertise", "where the other nodes and clients reach this one", Kind::Text),
    key("cluster.replicas", "copies of everything in NATS: 1, 3 or 5", Kind::Number("copies", 1, 5)),
    key("cluster.shards", "streams that share the sessions", Kind::Number("streams", 1, SHARDS_MAX)),
    key("cluster.prefix", "what the cluster's NATS subjects begin with", Kind::Text),
    key("cluster.token", "token for NATS", Kind::Secret),
    key("cluster.user", "user for NATS", Kind::Text),
    key("cluster.password", "its password", Kind::Secret),
    key("cluster.credentials", "credentials file for NATS", Kind::Path),
    key("cluster.nkey", "file with the seed of an NKey for NATS", Kind::Path),
    key("cluster.tls_ca", "certificates that NATS is checked against", Kind::Path),
    key("cluster.wait", "how long NATS is waited for at the start", Kind::Span),
    key("cluster.kernel_grace", "how long a lost node's kernels are left to it", Kind::Span),
    key("cluster.on_isolation", "what happens to what runs here while cut off", Kind::Choice(&ON_ISOLATION)),
    key("cluster.wide", "heartbeats for a wide area network", Kind::Flag),
    key("cluster.volumes", "directories that all nodes share, by name", Kind::Directories),
];

/// The settings of a cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// NATS servers; none: the daemon is alone.
    pub servers: Setting<Vec<String>>,
    /// This node's name.
    pub name: Setting<String>,
    /// Where it is reached; without one, where it listens.
    pub advertise: Setting<Option<String>>,
    /// Copies of everything.
    pub replicas: Setting<Option<u64>>,
    /// Streams of sessions.
    pub shards: Setting<Option<u64>>,
    /// What its subjects begin with.
    pub prefix: Setting<Option<String>>,
    /// A token for NATS.
    pub token: Setting<Option<Secret>>,
    /// A user of NATS.
    pub user: Setting<Option<String>>,
    /// Their password.
    pub password: Setting<Option<Secret>>,
    /// A credentials file.
    pub credentials: Setting<Option<PathBuf>>,
    /// A file with the seed of an NKey.
    pub nkey: Setting<Option<PathBuf>>,
    /// What the servers' certificates are checked against.
    pub tls_ca: Setting<Option<PathBuf>>,
    /// How long NATS is waited for; without it, its absence is an error.
    pub wait: Setting<Option<Duration>>,
    /// How long kernels are left to a node that was lost.
    pub kernel_grace: Setting<Duration>,
    /// What happens to what runs here while this node is cut off.
    pub on_isolation: Setting<OnIsolation>,
    /// Slower heartbeats.
    pub wide: Setting<bool>,
    /// Directories that all nodes share.
    pub volumes: Setting<BTreeMap<String, PathBuf>>,
}

impl Cluster {
    /// Whether this daemon is one of several.
    pub const fn is_on(&self) -> bool {
        !self.servers.value.is_empty()
    }

    /// Gives the values their types, and fills in the defaults.
    pub(super) fn typed(said: &mut BTreeMap<&'static str, Setting<String>>) -> Result<Self, Failure> {
        let mut take = |key: &'static str| said.remove(key);
        let servers = optional(take("cluster.servers"));
        let path = |setting| optional(setting).map(|path| path.map(PathBuf::from));
        let span = |setting| optional(setting).map(|text| text.and_then(|text| values::duration(&text).ok()));
        let name = match optional(take("cluster.name")) {
            Setting { value: Some(value), origin } => named(value, origin)?,
            Setting { value: None, .. } => default(host_name()),
        };
        let on_isolation = optional(take("cluster.on_isolation")).map(|word| match word.as_deref() {
            Some("continue") => OnIsolation::Continue,
            Some("stop") => OnIsolation::Stop,
            Some(_) | None => OnIsolation::Freeze,
        });
        let kernel_grace: Setting<Option<Duration>> = span(take("cluster.kernel_grace"));
        let cluster = Self {
            servers: servers.map(|text| split(text.as_deref(), ',')),
            name,
            advertise: optional(take("cluster.advertise")),
            replicas: number(take("cluster.replicas")),
            shards: number(take("cluster.shards")),
            prefix: optional(take("cluster.prefix")),
            token: secret("cluster.token", take("cluster.token"))?,
            user: optional(take("cluster.user")),
            password: secret("cluster.password", take("cluster.password"))?,
            credentials: path(take("cluster.credentials")),
            nkey: path(take("cluster.nkey")),
            tls_ca: path(take("cluster.tls_ca")),
            wait: span(take("cluster.wait")),
            kernel_grace: kernel_grace
                .map(|grace| grace.unwrap_or(Duration::from_millis(limits::KERNEL_GRACE_MS))),
            on_isolation,
            wide: flag(take("cluster.wide"), false),
            volumes: optional(take("cluster.volumes")).map(|text| {
                split(text.as_deref(), BETWEEN)
                    .iter()
                    .filter_map(|volume| volume.split_once('='))
                    .map(|(name, directory)| (name.to_owned(), PathBuf::from(directory)))
                    .collect()
            }),
        };
        cluster.fits()?;
        Ok(cluster)
    }

    /// What does not go together.
    fn fits(&self) -> Result<(), Failure> {
        if let Setting { value: Some(copies @ (2 | 4)), origin } = &self.replicas {
            let what = format!("`cluster.replicas` is 1, 3 or 5, and {origin} says {copies}");
            return Err(Failure::new(Exit::Usage, what).hint("an even number survives no more than one less"));
        }
        let ways = [
            ("token", self.token.value.is_some()),
            ("user", self.user.value.is_some()),
            ("credentials", self.credentials.value.is_some()),
            ("nkey", self.nkey.value.is_some()),
        ];
        let given: Vec<_> = ways.iter().filter(|(_, is_given)| *is_given).map(|(name, _)| *name).collect();
        if given.len() > 1 {
            let what = format!("NATS is told who we are in {} ways: {}", given.len(), given.join(", "));
            return Err(Failure::new(Exit::Usage, what).hint("keep one of them in [cluster]"));
        }
        if self.user.value.is_some() != self.password.value.is_some() {
            return Err(Failure::new(Exit::Usage, "`cluster.user` and `cluster.password` go together"));
        }
        Ok(())
    }

    /// Each setting as text. Without a cluster the first says it all.
    pub(super) fn rows(&self) -> Vec<Row<'_>> {
        let text = |setting: &Setting<Option<String>>| setting.value.clone().unwrap_or_default();
        let path = |setting: &Setting<Option<PathBuf>>| {
            setting.value.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
        };
        let hidden = |setting: &Setting<Option<Secret>>| {
            if setting.value.is_some() { "(set)".to_owned() } else { String::new() }
        };
        let servers = self.servers.value.iter().map(|server| without_password(server)).collect::<Vec<_>>();
        let volumes = self.volumes.value.iter().map(|(name, at)| format!("{name}={}", at.display()));
        let isolation = match self.on_isolation.value {
            OnIsolation::Freeze => ON_ISOLATION[0],
            OnIsolation::Continue => ON_ISOLATION[1],
            OnIsolation::Stop => ON_ISOLATION[2],
        };
        let wait = self.wait.value.map_or_else(String::new, |wait| format!("{}s", wait.as_secs_f64()));
        let values = [
            (servers.join(","), &self.servers.origin),
            (self.name.value.clone(), &self.name.origin),
            (text(&self.advertise), &self.advertise.origin),
            (shown(self.replicas.value), &self.replicas.origin),
            (shown(self.shards.value), &self.shards.origin),
            (text(&self.prefix), &self.prefix.origin),
            (hidden(&self.token), &self.token.origin),
            (text(&self.user), &self.user.origin),
            (hidden(&self.password), &self.password.origin),
            (path(&self.credentials), &self.credentials.origin),
            (path(&self.nkey), &self.nkey.origin),
            (path(&self.tls_ca), &self.tls_ca.origin),
            (wait, &self.wait.origin),
            (format!("{}s", self.kernel_grace.value.as_secs_f64()), &self.kernel_grace.origin),
            (isolation.to_owned(), &self.on_isolation.origin),
            (self.wide.value.to_string(), &self.wide.origin),
            (volumes.collect::<Vec<_>>().join(","), &self.volumes.origin),
        ];
        let count = if self.is_on() { KEYS.len() } else { 1 };
        KEYS.iter()
            .zip(values)
            .take(count)
            .map(|(key, (value, origin))| (key.name, value, origin, key.about))
            .collect()
    }
}

fn split(text: Option<&str>, between: char) -> Vec<String> {
    text.unwrap_or_default().split(between).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// A name that can stand in a table and in a URL.
fn named(value: String, origin: Origin) -> Result<Setting<String>, Failure> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if value.len() <= NAME_BYTES_MAX && value.chars().all(fits) {
        return Ok(Setting { value, origin });
    }
    let what = format!(
        "`cluster.name` is 1 to {NAME_BYTES_MAX} letters, digits, dots, - and _, and {origin} says {value:?}"
    );
    Err(Failure::new(Exit::Usage, what))
}

/// The machine's name up to its first dot, as far as it can be a node's.
fn host_name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    let name: String = name
        .chars()
        .take_while(|c| *c != '.')
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        .take(NAME_BYTES_MAX)
        .collect();
    if name.is_empty() { "node".to_owned() } else { name }
}

fn secret(name: &str, said: Option<Setting<String>>) -> Result<Setting<Option<Secret>>, Failure> {
    let Setting { value, origin } = optional(said);
    let value = value.map(|text| Secret::new(&text)).transpose().map_err(|why| {
        Failure::new(Exit::Usage, format!("`{name}` (from {origin}) cannot be used: {why}"))
    })?;
    Ok(Setting { value, origin })
}

/// A server's URL as it may be shown.
pub fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        (None, Some((_, host))) => format!("…@{host}"),
        (_, None) => url.to_owned(),
    }
}
