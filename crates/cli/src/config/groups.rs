//! Groups of runners as a file describes them (`outlive up runners.toml`). The whole file is read before anything is
//! asked of a daemon, and all that is wrong in it is said at once, each with its place.
//!
//! ```text
//!  text ─► tables ─► draft of a group ─► its members: {rank}, directory, environment, program
//!            └─ each mistake: FILE:LINE:COLUMN, the line, a caret, what is allowed
//! ```

mod member;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use outlive_core::group::Strategy;
use outlive_core::limits;
use outlive_core::runtime::runner::{Speaks, Watchdogs};
use outlive_core::runtime::{RestartPolicy, RestartType};
use outlive_core::session::spec::{AfterLoss, HangPolicy};
use outlive_protocol::http::GroupConfig;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::{pointed, suggestion};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::values;

/// Largest file, in bytes. A thousand groups are far below it.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How many mistakes of a file are shown.
const MISTAKES_MAX: usize = 20;

/// The keys of `[group.NAME]`.
const GROUP_KEYS: [&str; 16] = [
    "command",
    "count",
    "strategy",
    "cwd",
    "env",
    "memory",
    "protocol",
    "restart",
    "restarts_max",
    "period",
    "backoff",
    "on_hang",
    "on_node_loss",
    "wait",
    "cancel_grace",
    "watch",
];
/// The keys of `watch`.
const WATCH_KEYS: [&str; 3] = ["load", "first_chunk", "between_chunks"];

const STRATEGIES: [(&str, Strategy); 2] =
    [("one_for_one", Strategy::OneForOne), ("one_for_all", Strategy::OneForAll)];
const PROTOCOLS: [(&str, Speaks); 2] = [("runner", Speaks::Protocol), ("none", Speaks::Nothing)];
const RESTARTS: [(&str, RestartType); 3] = [
    ("permanent", RestartType::Permanent),
    ("transient", RestartType::Transient),
    ("temporary", RestartType::Temporary),
];
const ON_NODE_LOSS: [(&str, AfterLoss); 2] = [("restart", AfterLoss::Restart), ("leave", AfterLoss::Leave)];
const ON_HANG: [(&str, HangPolicy); 2] = [("report", HangPolicy::Report), ("restart", HangPolicy::Restart)];

/// Reads a file: its groups in the order in which they stand there, for a caller with this environment.
pub fn read(
    path: &Path,
    environment: &BTreeMap<String, String>,
) -> Result<Vec<(String, GroupConfig)>, Failure> {
    let text = text(path)?;
    let folder = std::path::absolute(path).ok().and_then(|path| path.parent().map(Path::to_owned));
    let mut reader = Reader {
        path,
        text: &text,
        folder: folder.unwrap_or_else(|| PathBuf::from("/")),
        environment,
        mistakes: Vec::new(),
    };
    let groups = reader.groups();
    reader.finish(groups)
}

/// The names of a file's groups; what else stands in it is not looked at, so that they can be taken down whatever has
/// become of the rest.
pub fn names(path: &Path) -> Result<Vec<String>, Failure> {
    let text = text(path)?;
    let table = DeTable::parse(&text).map_err(|error| broken(path, &text, &error))?;
    let groups = table.get_ref().get("group").and_then(|group| group.get_ref().as_table());
    let Some(groups) = groups.filter(|groups| !groups.is_empty()) else {
        return Err(without_groups(path));
    };
    Ok(in_order(groups).into_iter().map(|(name, _)| name.get_ref().to_string()).collect())
}

fn text(path: &Path) -> Result<String, Failure> {
    let wrong = |what: String| Failure::new(Exit::Usage, format!("{} {what}", path.display()));
    let metadata = path.metadata().map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if metadata.is_dir() {
        return Err(wrong("is a directory".to_owned()).hint("name the TOML file that describes the groups"));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(wrong(format!("is larger than {FILE_BYTES_MAX} bytes, and no list of runners")));
    }
    std::fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read: {error}")))
}

fn broken(path: &Path, text: &str, error: &toml::de::Error) -> Failure {
    Failure::new(Exit::Usage, pointed(path, text, error.span().unwrap_or(0..0), error.message()))
}

fn without_groups(path: &Path) -> Failure {
    Failure::new(Exit::Usage, format!("{} describes no group", path.display()))
        .hint("a group is a table `[group.NAME]` with a `command`")
}

/// The entries of a table as they stand in the file.
fn in_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(&'t Spanned<std::borrow::Cow<'i, str>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

/// Reads one file, and collects what is wrong in it.
struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    /// What relative paths are relative to.
    folder: PathBuf,
    environment: &'a BTreeMap<String, String>,
    mistakes: Vec<String>,
}

/// A group as its table says, before its members are made of it.
struct Draft {
    /// The words of the command, and where they stand.
    command: Option<(Vec<String>, Range<usize>)>,
    count: usize,
    strategy: Strategy,
    /// As it is written, and where.
    cwd: Option<(String, Range<usize>)>,
    env: Vec<(String, String)>,
    memory_bytes_max: Option<u64>,
    speaks: Speaks,
    restart: RestartPolicy,
    on_hang: HangPolicy,
    on_node_loss: Option<AfterLoss>,
    wait_ms: Option<u64>,
    cancel_grace_ms: Option<u64>,
    watch: Watchdogs,
}

impl Draft {
    fn new() -> Self {
        Self {
            command: None,
            count: 1,
            strategy: Strategy::default(),
            cwd: None,
            env: Vec::new(),
            memory_bytes_max: None,
            speaks: Speaks::default(),
            restart: RestartPolicy {
                restart: RestartType::Permanent,
                restarts_max: limits::RESTARTS_MAX,
                period_ms: limits::RESTART_PERIOD_MS,
                backoff_ms: limits::BACKOFF_MS,
                backoff_ms_max: limits::BACKOFF_MS_MAX,
            },
            on_hang: HangPolicy::Restart,
            on_node_loss: None,
            wait_ms: None,
            cancel_grace_ms: None,
            watch: Watchdogs::default(),
        }
    }
}

impl Reader<'_> {
    fn groups(&mut self) -> Vec<(String, GroupConfig)> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        if !errors.is_empty() {
            for error in errors {
                self.wrong(error.span().unwrap_or(0..0), error.message(), None);
            }
            return Vec::new();
        }
        let mut groups = Vec::new();
        for (key, value) in in_order(table.get_ref()) {
            if key.get_ref() != "group" {
                let message = format!("unknown key `{}`", key.get_ref());
                self.wrong(key.span(), &message, Some("groups are tables `[group.NAME]`"));
                continue;
            }
            let Some(tables) = self.table("group", value) else { continue };
            for (name, value) in in_order(tables) {
                groups.extend(self.group(name, value));
            }
        }
        groups
    }

    fn group(
        &mut self,
        name: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<(String, GroupConfig)> {
        let title = format!("group.{}", name.get_ref());
        if let Err(wrong) = values::name(name.get_ref()) {
            self.wrong(name.span(), &format!("`{}` is no name for a group", name.get_ref()), Some(&wrong));
        }
        let table = self.table(&title, value)?;
        let before = self.mistakes.len();
        let mut draft = Draft::new();
        for (key, value) in in_order(table) {
            self.key(&mut draft, key, value);
        }
        if table.get("command").is_none() {
            let message = format!("[{title}] has no `command`");
            self.wrong(
                name.span(),
                &message,
                Some("it is what starts a runner, for instance [\"python3\", \"serve.py\"]"),
            );
        }
        if draft.speaks == Speaks::Nothing
            && let Some((key, _)) = table.get_key_value("watch")
        {
            let hint = "a program that speaks nothing shows no progress that could be watched";
            self.wrong(key.span(), "`watch` needs protocol = \"runner\"", Some(hint));
        }
        if self.mistakes.len() > before {
            return None;
        }
        let members = self.members(name.get_ref(), &draft)?;
        Some((
            name.get_ref().to_string(),
            GroupConfig {
                members,
                strategy: draft.strategy,
                restart: draft.restart,
                on_hang: draft.on_hang,
                on_node_loss: draft.on_node_loss,
                wait_ms: draft.wait_ms,
                cancel_grace_ms: draft.cancel_grace_ms,
            },
        ))
    }

    fn key(
        &mut self,
        draft: &mut Draft,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let name = key.get_ref().as_ref();
        match name {
            "command" => draft.command = self.command(value).map(|words| (words, value.span())),
            "count" => set(&mut draft.count, self.number(name, value, 1, limits::GROUP_MEMBERS_MAX)),
            "strategy" => set(&mut draft.strategy, self.choice(name, value, &STRATEGIES)),
            "cwd" => draft.cwd = self.string(name, value).map(|text| (text.to_owned(), value.span())),
            "env" => draft.env = self.env(value),
            "memory" => draft.memory_bytes_max = self.size(name, value),
            "protocol" => set(&mut draft.speaks, self.choice(name, value, &PROTOCOLS)),
            "restart" => set(&mut draft.restart.restart, self.choice(name, value, &RESTARTS)),
            "restarts_max" => {
                let most = limits::RESTART_HISTORY_MAX;
                let number = self.number(name, value, 0, most).and_then(|number| u32::try_from(number).ok());
                set(&mut draft.restart.restarts_max, number);
            }
            "period" => set(&mut draft.restart.period_ms, self.span(name, value, 1)),
            "backoff" => {
                set(&mut draft.restart.backoff_ms, self.span(name, value, 0));
                draft.restart.backoff_ms_max = limits::BACKOFF_MS_MAX.max(draft.restart.backoff_ms);
            }
            "on_hang" => set(&mut draft.on_hang, self.choice(name, value, &ON_HANG)),
            "on_node_loss" => draft.on_node_loss = self.choice(name, value, &ON_NODE_LOSS),
            "wait" => draft.wait_ms = self.span(name, value, 0),
            "cancel_grace" => draft.cancel_grace_ms = self.span(name, value, 0),
            "watch" => self.watch(&mut draft.watch, value),
            other => {
                let hint = suggestion(other, &GROUP_KEYS);
                self.wrong(key.span(), &format!("unknown key `{other}`"), Some(&hint));
            }
        }
    }

    fn watch(&mut self, watch: &mut Watchdogs, value: &Spanned<DeValue<'_>>) {
        let Some(table) = self.table("watch", value) else { return };
        for (key, value) in in_order(table) {
            let name = key.get_ref().as_ref();
            let place = match name {
                "load" => &mut watch.load_ms,
                "first_chunk" => &mut watch.first_chunk_ms,
                "between_chunks" => &mut watch.between_chunks_ms,
                other => {
                    let hint = suggestion(other, &WATCH_KEYS);
                    self.wrong(key.span(), &format!("unknown key `{other}`"), Some(&hint));
                    continue;
                }
            };
            if value.get_ref().as_str() == Some("off") {
                *place = None;
            } else {
                *place = self.span(name, value, 1);
            }
        }
    }

    /// A string for `sh -c`, or the words of a command.
    fn command(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Vec<String>> {
        let hint = "a list of words like [\"python3\", \"serve.py\"], or one string for `sh -c`";
        let inner = value.get_ref();
        let words = match (inner.as_str(), inner.as_array()) {
            (Some(text), _) if !text.trim().is_empty() => {
                return Some(vec!["sh".to_owned(), "-c".to_owned(), text.to_owned()]);
            }
            (None, Some(words)) => words,
            (_, _) => {
                self.wrong(value.span(), "`command` says nothing that can be started", Some(hint));
                return None;
            }
        };
        let mut argv = Vec::new();
        for word in words {
            let Some(text) = word.get_ref().as_str() else {
                let message = format!("a word of `command` is a string, not {}", kind(word.get_ref()));
                self.wrong(word.span(), &message, Some(hint));
                return None;
            };
            argv.push(text.to_owned());
        }
        if argv.first().is_none_or(String::is_empty) {
            self.wrong(value.span(), "`command` names no program", Some(hint));
            return None;
        }
        Some(argv)
    }

    fn env(&mut self, value: &Spanned<DeValue<'_>>) -> Vec<(String, String)> {
        let Some(table) = self.table("env", value) else { return Vec::new() };
        let mut env = Vec::new();
        for (name, value) in in_order(table) {
            if name.get_ref().is_empty() || name.get_ref().contains(['=', '\0']) {
                self.wrong(name.span(), "a variable's name is not empty and has no `=`", None);
                continue;
            }
            match said(value.get_ref()) {
                Some(text) => env.push((name.get_ref().to_string(), text)),
                None => {
                    let message = format!("a variable is text, not {}", kind(value.get_ref()));
                    self.wrong(value.span(), &message, Some("put it into quotes"));
                }
            }
        }
        env
    }

    fn table<'t, 'i>(&mut self, name: &str, value: &'t Spanned<DeValue<'i>>) -> Option<&'t DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            let message = format!("`{name}` is a table, not {}", kind(value.get_ref()));
            self.wrong(value.span(), &message, None);
        }
        table
    }

    fn string<'t>(&mut self, name: &str, value: &'t Spanned<DeValue<'_>>) -> Option<&'t str> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            let message = format!("`{name}` is a string, not {}", kind(value.get_ref()));
            self.wrong(value.span(), &message, Some("put it into quotes"));
        }
        text
    }

    fn choice<T: Copy>(
        &mut self,
        name: &str,
        value: &Spanned<DeValue<'_>>,
        words: &[(&str, T)],
    ) -> Option<T> {
        let text = self.string(name, value)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, found)| *found);
        if found.is_none() {
            let all: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            self.wrong(value.span(), &format!("`{name}` is {}", all.join(" or ")), None);
        }
        found
    }

    fn number(
        &mut self,
        name: &str,
        value: &Spanned<DeValue<'_>>,
        least: usize,
        most: usize,
    ) -> Option<usize> {
        let number = value.get_ref().as_integer();
        let number = number
            .and_then(|number| usize::from_str_radix(number.as_str(), number.radix()).ok())
            .filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.wrong(value.span(), &format!("`{name}` is a whole number from {least} to {most}"), None);
        }
        number
    }

    /// A time span in milliseconds, at least so long.
    fn span(&mut self, name: &str, value: &Spanned<DeValue<'_>>, least: u64) -> Option<u64> {
        let text = said(value.get_ref()).unwrap_or_default();
        let wrong = match values::duration(&text).map(values::millis) {
            Ok(span) if span >= least => return Some(span),
            Ok(_) => format!("`{name}` is longer than that"),
            Err(wrong) => format!("`{name}`: {wrong}"),
        };
        let hint = WATCH_KEYS.contains(&name).then_some("\"off\" switches the watchdog off");
        self.wrong(value.span(), &wrong, hint);
        None
    }

    fn size(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Option<u64> {
        let size = values::size(&said(value.get_ref()).unwrap_or_default());
        if let Err(wrong) = &size {
            self.wrong(value.span(), &format!("`{name}`: {wrong}"), None);
        }
        size.ok()
    }

    fn wrong(&mut self, span: Range<usize>, message: &str, help: Option<&str>) {
        let mut text = pointed(self.path, self.text, span, message);
        if let Some(help) = help {
            text.push_str(&format!("\n  = {help}"));
        }
        self.mistakes.push(text);
    }

    fn finish(self, groups: Vec<(String, GroupConfig)>) -> Result<Vec<(String, GroupConfig)>, Failure> {
        let count = self.mistakes.len();
        match count {
            0 if groups.is_empty() => return Err(without_groups(self.path)),
            0 => return Ok(groups),
            _ => {}
        }
        let mut mistakes = self.mistakes;
        mistakes.truncate(MISTAKES_MAX);
        let text = mistakes.join("\n\n");
        let more = match count - mistakes.len() {
            0 => String::new(),
            more => format!("\n\nand {more} more"),
        };
        Err(Failure::new(Exit::Usage, format!("{text}{more}")).hint("nothing was started"))
    }
}

/// A value as text, where it is one value.
fn said(value: &DeValue<'_>) -> Option<String> {
    let number = value.as_integer().map(|number| number.as_str().to_owned());
    let flag = value.as_bool().map(|flag| flag.to_string());
    let fraction = value.as_float().map(|number| number.as_str().to_owned());
    value.as_str().map(str::to_owned).or(number).or(fraction).or(flag)
}

/// What a value is, with its article.
fn kind(value: &DeValue<'_>) -> String {
    let name = value.type_str();
    let article = if name.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {name}")
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}
