//! The members of one group: a launch for each rank.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use outlive_core::limits;
use outlive_core::runtime::runner::Speaks;
use outlive_core::runtime::{LaunchSpec, Program};
use outlive_jupyter::surroundings::Surroundings;
use outlive_protocol::http::MemberConfig;

use super::{Draft, Reader};

/// Variables of the terminal that `up` is called from: they say nothing to a runner, and without them `up` from another
/// terminal describes the same group.
const OF_A_TERMINAL: [&str; 24] = [
    "_",
    "COLORTERM",
    "COLUMNS",
    "GPG_TTY",
    "LINES",
    "OLDPWD",
    "PWD",
    "SHLVL",
    "SSH_AUTH_SOCK",
    "SSH_CLIENT",
    "SSH_CONNECTION",
    "SSH_TTY",
    "STY",
    "TERM",
    "TERM_PROGRAM",
    "TERM_PROGRAM_VERSION",
    "TERM_SESSION_ID",
    "TMUX",
    "TMUX_PANE",
    "VTE_VERSION",
    "WINDOW",
    "WINDOWID",
    "XDG_SESSION_ID",
    "XDG_VTNR",
];

impl Reader<'_> {
    /// All members of a group, unless what they need is not there.
    pub(super) fn members(&mut self, group: &str, draft: &Draft) -> Option<Vec<MemberConfig>> {
        (0..draft.count).map(|rank| self.member(group, rank, draft)).collect()
    }

    fn member(&mut self, group: &str, rank: usize, draft: &Draft) -> Option<MemberConfig> {
        let (words, span) = draft.command.as_ref()?;
        let fill = |text: &str| {
            text.replace("{rank}", &rank.to_string()).replace("{count}", &draft.count.to_string())
        };
        let name = format!("{group}-{rank}");
        let cwd = match &draft.cwd {
            None => self.folder.clone(),
            Some((text, span)) => {
                let cwd = plain(&self.folder.join(fill(text)));
                if !cwd.is_dir() {
                    let message = format!("there is no directory {}", cwd.display());
                    self.wrong(span.clone(), &message, Some("it is relative to the directory of this file"));
                    return None;
                }
                cwd
            }
        };
        let Some(cwd_text) = cwd.to_str() else {
            self.wrong(
                span.clone(),
                &format!("the path {} is not valid UTF-8", cwd.display()),
                Some("rename it"),
            );
            return None;
        };
        let mut env = self.environment.clone();
        env.retain(|name, _| !OF_A_TERMINAL.contains(&name.as_str()));
        env.insert("PWD".to_owned(), cwd_text.to_owned());
        env.insert("OUTLIVE_RUNNER_RANK".to_owned(), rank.to_string());
        env.insert("OUTLIVE_RUNNER_COUNT".to_owned(), draft.count.to_string());
        env.extend(draft.env.iter().map(|(name, value)| (name.clone(), fill(value))));
        let mut argv: Vec<String> = words.iter().map(|word| fill(word)).collect();
        match program(&argv[0], &self.folder, &cwd, &env) {
            Ok(program) => argv[0] = program,
            Err(wrong) => {
                let hint = "a program with a `/` is relative to the directory of this file, others are looked up in the PATH";
                self.wrong(span.clone(), &wrong, Some(hint));
                return None;
            }
        }
        let watch = match draft.speaks {
            Speaks::Protocol => draft.watch,
            Speaks::Nothing => Default::default(),
        };
        let launch = LaunchSpec {
            program: Program::Runner { name: name.clone(), argv, speaks: draft.speaks, watch },
            cwd: cwd_text.to_owned(),
            env,
            memory_bytes_max: draft.memory_bytes_max,
            ready_timeout_ms: limits::READY_TIMEOUT_MS,
        };
        Some(MemberConfig { name, launch })
    }
}

/// The first word of a command as it is started: with its path where it has one.
fn program(word: &str, folder: &Path, cwd: &Path, env: &BTreeMap<String, String>) -> Result<String, String> {
    if !word.contains('/') {
        let found = Surroundings::new(env.clone(), cwd.to_owned()).program(word);
        return found
            .map(|_| word.to_owned())
            .ok_or_else(|| format!("there is no program {word:?} in the PATH"));
    }
    let path = plain(&folder.join(word));
    if path.is_dir() {
        return Err(format!("{} is a directory and no program", path.display()));
    }
    let path_text = path.to_str().ok_or_else(|| format!("{} is not valid UTF-8", path.display()))?;
    if Surroundings::new(BTreeMap::new(), cwd.to_owned()).program(path_text).is_none() {
        let why = if path.exists() { "may not be executed" } else { "does not exist" };
        return Err(format!("{} {why}", path.display()));
    }
    Ok(path_text.to_owned())
}

/// A path without `.`: `..` stays, it may lead over a link.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}
