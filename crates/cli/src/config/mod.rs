//! Settings: file < environment < flag, each value with where it is from (`outlive config show`).

pub mod cluster;
mod file;
pub mod groups;
mod kind;
pub mod paths;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use outlive_core::limits;
use sha2::{Digest, Sha256};

use self::cluster::Cluster;
use self::kind::Kind;
use crate::exit::Exit;
use crate::failure::Failure;

/// One setting.
pub struct Key {
    /// Its name in the file, with its table's before it; `OUTLIVE_` and the name in capitals, with `_` for a dot, in
    /// the environment.
    pub name: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    /// What its value looks like.
    kind: Kind,
}

/// Every setting but those of a cluster.
const OWN_KEYS: [Key; 12] = [
    Key { name: "state_dir", about: "logs, tables and the daemon's own log", kind: Kind::Path },
    Key { name: "runtime_dir", about: "the daemon's socket", kind: Kind::Path },
    Key { name: "cache_dir", about: "managed Python environments", kind: Kind::Path },
    Key { name: "start_daemon", about: "start a daemon when none runs", kind: Kind::Flag },
    Key { name: "log_level", about: "what the daemon logs", kind: Kind::Text },
    Key { name: "tcp", about: "address to listen on, beside the socket", kind: Kind::Text },
    Key { name: "token_file", about: "the token that TCP clients must know", kind: Kind::Path },
    Key {
        name: "idle_timeout_s",
        about: "how long a session without kernel, work and clients stays in memory",
        kind: Kind::Number("seconds", limits::IDLE_TIMEOUT_S_MIN, limits::IDLE_TIMEOUT_S_MAX),
    },
    Key {
        name: "max_sessions",
        about: "sessions in memory before idle kernels are stopped",
        kind: Kind::Number("sessions", 1, limits::SESSIONS_MAX),
    },
    Key {
        name: "memory_bytes_max",
        about: "memory of all kernels before idle ones are stopped",
        kind: Kind::Size,
    },
    Key { name: "url", about: "daemons over TCP, instead of this machine's", kind: Kind::List },
    Key {
        name: "patience_s",
        about: "how long a command waits for a daemon that went away",
        kind: Kind::Number("seconds", 1, PATIENCE_S_MAX),
    },
];

/// Longest wait of a command for a daemon that went away, in seconds.
const PATIENCE_S_MAX: u64 = 86_400;
/// The usual one: longer than a storage leader's death, a takeover after a kernel's grace, and a restart.
const PATIENCE_S: u64 = 60;

/// Every setting.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    OWN_KEYS.iter().chain(&cluster::KEYS)
}

/// A setting as it is shown: name, value, where it is from, what it is.
pub type Row<'a> = (&'static str, String, &'a Origin, &'static str);

/// Where a value is from; later ones win.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A line of the configuration file.
    File { path: PathBuf, line: usize },
    /// An environment variable.
    Env(String),
    /// A flag of this command.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => write!(f, "${name}"),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// A value with where it is from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Where it is from.
    pub origin: Origin,
}

/// All settings of this command.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything durable is.
    pub state_dir: Setting<PathBuf>,
    /// Where sockets are.
    pub runtime_dir: Setting<PathBuf>,
    /// What can be made again.
    pub cache_dir: Setting<PathBuf>,
    /// Whether a daemon is started when none runs.
    pub start_daemon: Setting<bool>,
    /// A `tracing` filter for the daemon.
    pub log_level: Setting<String>,
    /// A TCP address to listen on.
    pub tcp: Setting<Option<String>>,
    /// Where the token for TCP is.
    pub token_file: Setting<PathBuf>,
    /// How long a session that nobody needs stays in the daemon's memory, in seconds.
    pub idle_timeout_s: Setting<u64>,
    /// How many sessions may be in memory before idle kernels are stopped.
    pub max_sessions: Setting<Option<u64>>,
    /// How much memory all kernels may take up before idle ones are stopped, in bytes.
    pub memory_bytes_max: Setting<Option<u64>>,
    /// Daemons that are reached over TCP, instead of this machine's.
    pub url: Setting<Vec<String>>,
    /// How long a command waits for a daemon that went away, in seconds.
    pub patience_s: Setting<u64>,
    /// What makes the daemon one of several.
    pub cluster: Cluster,
    /// The daemon's socket, which follows from the directories.
    pub socket: Setting<PathBuf>,
    /// The configuration file, whether or not it exists.
    pub file: PathBuf,
}

/// What configuration is read from, so that tests can give it.
pub struct Sources<'a> {
    /// An environment variable's value; an empty one counts as unset.
    pub env: &'a dyn Fn(&str) -> Option<OsString>,
    /// Values of flags, by key and flag name.
    pub flags: BTreeMap<&'static str, (&'static str, String)>,
    /// What relative paths of environment and flags are relative to.
    pub cwd: PathBuf,
    /// The user's home directory.
    pub home: Option<PathBuf>,
    /// The user's id.
    pub uid: u32,
}

impl Sources<'_> {
    fn env(&self, name: &str) -> Option<OsString> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    /// An XDG base directory: only absolute ones count (XDG Base Directory Specification).
    fn xdg(&self, name: &str, below_home: &str) -> Option<PathBuf> {
        let said = self.env(name).map(PathBuf::from).filter(|path| path.is_absolute());
        said.or_else(|| self.home.as_ref().map(|home| home.join(below_home)))
    }
}

impl Config {
    /// Reads all layers.
    pub fn load(sources: &Sources<'_>) -> Result<Self, Failure> {
        let named = sources.env("OUTLIVE_CONFIG").map(|path| sources.cwd.join(path));
        let file = match &named {
            Some(path) => path.clone(),
            None => sources.xdg("XDG_CONFIG_HOME", ".config").unwrap_or_default().join("outlive/config.toml"),
        };
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                let what = format!("the configuration file {} cannot be read: {error}", file.display());
                return Err(Failure::new(Exit::Usage, what));
            }
        };
        let values = file::parse(&file, &text)
            .map_err(|error| Failure { hint: error.hint, ..Failure::new(Exit::Usage, error.what) })?;
        let mut layered = BTreeMap::new();
        for key in keys() {
            if let Some(setting) = layer(key, &file, &values, sources)? {
                layered.insert(key.name, setting);
            }
        }
        Self::typed(layered, file, sources)
    }

    /// Gives the values their types, and fills in the defaults.
    fn typed(
        mut said: BTreeMap<&'static str, Setting<String>>,
        file: PathBuf,
        sources: &Sources<'_>,
    ) -> Result<Self, Failure> {
        let homeless = |key: &str| {
            Failure::new(Exit::Usage, format!("there is no home directory to put {key} into"))
                .hint(format!("set OUTLIVE_{}", key.to_uppercase()))
        };
        let mut path = |key: &'static str, default: Option<PathBuf>| match said.remove(key) {
            Some(setting) => Ok(setting.map(PathBuf::from)),
            None => match default {
                Some(value) => Ok(Setting { value, origin: Origin::Default }),
                None => Err(homeless(key)),
            },
        };
        let below = |base: Option<PathBuf>| base.map(|base| base.join("outlive"));
        let state_default = below(sources.xdg("XDG_STATE_HOME", ".local/state"));
        let runtime_default =
            sources.env("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute()).map_or_else(
                || PathBuf::from(format!("/tmp/outlive-{}", sources.uid)),
                |base| base.join("outlive"),
            );
        let state_dir = path("state_dir", state_default.clone())?;
        let runtime_dir = path("runtime_dir", Some(runtime_default))?;
        let cache_dir = path("cache_dir", below(sources.xdg("XDG_CACHE_HOME", ".cache")))?;
        let token_file = path("token_file", Some(state_dir.value.join("token")))?;
        let socket = socket(&state_dir, state_default.as_deref(), &runtime_dir);
        Ok(Self {
            state_dir,
            runtime_dir,
            cache_dir,
            token_file,
            socket,
            start_daemon: flag(said.remove("start_daemon"), true),
            log_level: said.remove("log_level").unwrap_or_else(|| default("info".to_owned())),
            tcp: optional(said.remove("tcp")),
            idle_timeout_s: number(said.remove("idle_timeout_s"))
                .map(|seconds| seconds.unwrap_or(limits::IDLE_TIMEOUT_S)),
            max_sessions: number(said.remove("max_sessions")),
            memory_bytes_max: number(said.remove("memory_bytes_max")),
            url: optional(said.remove("url")).map(|urls| {
                urls.unwrap_or_default().split(',').filter(|url| !url.is_empty()).map(str::to_owned).collect()
            }),
            patience_s: number(said.remove("patience_s")).map(|seconds| seconds.unwrap_or(PATIENCE_S)),
            cluster: Cluster::typed(&mut said)?,
            file,
        })
    }

    /// Each setting as text with where it is from and what it is.
    pub fn rows(&self) -> Vec<Row<'_>> {
        let path = |setting: &Setting<PathBuf>| setting.value.display().to_string();
        let about = |name| keys().find(|key| key.name == name).map_or("", |key| key.about);
        let row = |name, value, origin| (name, value, origin, about(name));
        let mut rows = vec![
            row("state_dir", path(&self.state_dir), &self.state_dir.origin),
            row("runtime_dir", path(&self.runtime_dir), &self.runtime_dir.origin),
            row("cache_dir", path(&self.cache_dir), &self.cache_dir.origin),
            row("start_daemon", self.start_daemon.value.to_string(), &self.start_daemon.origin),
            row("log_level", self.log_level.value.clone(), &self.log_level.origin),
            row("tcp", self.tcp.value.clone().unwrap_or_default(), &self.tcp.origin),
            row("token_file", path(&self.token_file), &self.token_file.origin),
            row("idle_timeout_s", self.idle_timeout_s.value.to_string(), &self.idle_timeout_s.origin),
            row("max_sessions", shown(self.max_sessions.value), &self.max_sessions.origin),
            row("memory_bytes_max", shown(self.memory_bytes_max.value), &self.memory_bytes_max.origin),
            row("url", self.url.value.join(","), &self.url.origin),
            row("patience_s", self.patience_s.value.to_string(), &self.patience_s.origin),
            ("socket", path(&self.socket), &self.socket.origin, "follows from the directories"),
        ];
        rows.extend(self.cluster.rows());
        rows
    }
}

impl<T> Setting<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Setting<U> {
        Setting { value: change(self.value), origin: self.origin }
    }
}

/// A number that was checked when it was read; none when nobody said one, or nothing.
fn number(said: Option<Setting<String>>) -> Setting<Option<u64>> {
    optional(said).map(|text| text.and_then(|text| text.parse().ok()))
}

fn default<T>(value: T) -> Setting<T> {
    Setting { value, origin: Origin::Default }
}

/// A flag that was checked when it was read.
fn flag(said: Option<Setting<String>>, otherwise: bool) -> Setting<bool> {
    said.map_or_else(|| default(otherwise), |setting| setting.map(|value| value == "true"))
}

fn shown(number: Option<u64>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

fn optional(said: Option<Setting<String>>) -> Setting<Option<String>> {
    match said {
        Some(Setting { value, origin }) => {
            Setting { value: Some(value).filter(|text| !text.is_empty()), origin }
        }
        None => default(None),
    }
}

/// The value of one key by the highest layer that has one, checked.
fn layer(
    key: &Key,
    file: &Path,
    values: &file::Values,
    sources: &Sources<'_>,
) -> Result<Option<Setting<String>>, Failure> {
    let variable = format!("OUTLIVE_{}", key.name.replace('.', "_").to_uppercase());
    let (setting, base) = if let Some((flag, value)) = sources.flags.get(key.name) {
        (
            Setting { value: value.clone(), origin: Origin::Flag((*flag).to_owned()) },
            Some(sources.cwd.as_path()),
        )
    } else if let Some(value) = sources.env(&variable) {
        let value = value
            .into_string()
            .map_err(|_| Failure::new(Exit::Usage, format!("${variable} is not valid UTF-8")))?;
        (Setting { value, origin: Origin::Env(variable) }, Some(sources.cwd.as_path()))
    } else if let Some((value, line)) = values.get(key.name) {
        let origin = Origin::File { path: file.to_owned(), line: *line };
        (Setting { value: value.clone(), origin }, file.parent())
    } else {
        return Ok(None);
    };
    kind::checked(key.name, key.kind, setting, base, sources.home.as_deref()).map(Some)
}

/// The runtime directory is shared by all daemons of a user, so the socket of a daemon with a state directory of its
/// own gets a name of its own; a runtime directory of its own is enough by itself.
fn socket(
    state: &Setting<PathBuf>,
    state_default: Option<&Path>,
    runtime: &Setting<PathBuf>,
) -> Setting<PathBuf> {
    let usual = Some(state.value.as_path()) == state_default || runtime.origin != Origin::Default;
    if usual {
        return Setting { value: runtime.value.join("outlive.sock"), origin: runtime.origin.clone() };
    }
    let digest = Sha256::digest(state.value.as_os_str().as_encoded_bytes());
    let name: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    Setting { value: runtime.value.join(format!("outlive-{name}.sock")), origin: state.origin.clone() }
}

#[cfg(test)]
mod tests;
