//! The `outlive` binary: one file per command.
//!
//! ```text
//! main ─► shim                       before anything else: every kernel waits for it
//!    └──► command line ─► config ─► command ─► client ─► daemon (started when none runs)
//!                                      └─────► follow: stream → watch → screen
//! ```
//! Data goes to standard output, talk to standard error; [`exit`] has the exit codes, [`failure`] what is said when
//! something fails.

mod client;
mod clock;
mod command;
mod complete;
mod config;
mod daemon;
mod exit;
mod failure;
mod follow;
mod hint;
mod launch;
mod moved;
mod nodes;
mod report;
mod select;
mod table;
mod takeover;
mod terminal;
mod values;

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Parser;

use command::{Cli, Command, shim};
use config::{Config, Sources};
use exit::Exit;
use failure::Failure;
use terminal::{Ink, Paint};

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == shim::NAME) {
        return shim::run(words.next());
    }
    complete::answer();
    let exit = match Cli::try_parse() {
        Ok(cli) => run(cli).unwrap_or_else(|failure| {
            tell(&failure);
            failure.exit
        }),
        Err(error) => {
            // Help and version go to standard output, which may be closed.
            drop(error.print());
            if error.use_stderr() { Exit::Usage } else { Exit::Ok }
        }
    };
    ExitCode::from(exit.code())
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    let config = load(flags(&cli))?;
    cli.command.run(config)
}

/// Values that are given on the command line, by key and flag name.
type Flags = BTreeMap<&'static str, (&'static str, String)>;

fn flags(cli: &Cli) -> Flags {
    let mut flags = BTreeMap::new();
    let mut flag = |key: &'static str, name: &'static str, value: &Option<String>| {
        if let Some(value) = value {
            flags.insert(key, (name, value.clone()));
        }
    };
    flag("state_dir", "state-dir", &cli.state_dir);
    flag("url", "url", &cli.url);
    if let Command::Serve(serve) = &cli.command {
        flag("runtime_dir", "runtime-dir", &serve.runtime_dir);
        flag("cache_dir", "cache-dir", &serve.cache_dir);
        flag("tcp", "tcp", &serve.tcp);
        flag("token_file", "token-file", &serve.token_file);
        flag("log_level", "log-level", &serve.log_level);
        flag("idle_timeout_s", "idle-timeout", &serve.idle_timeout);
        flag("max_sessions", "max-sessions", &serve.max_sessions);
        flag("memory_bytes_max", "memory", &serve.memory);
        flag("cluster.servers", "cluster", &serve.cluster);
        flag("cluster.name", "name", &serve.name);
        flag("cluster.advertise", "advertise", &serve.advertise);
        flag("cluster.wait", "wait", &serve.wait);
        flag("cluster.replicas", "replicas", &serve.replicas);
        flag("cluster.volumes", "volumes", &serve.volumes);
    }
    flags
}

/// The settings, with what the environment and the configuration file say.
fn load(flags: Flags) -> Result<Config, Failure> {
    let cwd = std::env::current_dir().map_err(|error| {
        Failure::new(Exit::Usage, format!("the current directory cannot be used: {error}"))
            .hint("cd to one that exists")
    })?;
    Config::load(&Sources {
        env: &|name| std::env::var_os(name),
        flags,
        cwd,
        home: std::env::home_dir().filter(|home| home.is_absolute()),
        uid: rustix::process::geteuid().as_raw(),
    })
}

/// What happened, to what, what to do.
fn tell(failure: &Failure) {
    if failure.what.is_empty() {
        return;
    }
    let paint = Paint::err();
    terminal::talk(format!("{} {}", paint.text(Ink::Red, "error:"), failure.what));
    for (name, value) in &failure.facts {
        terminal::talk(format!("  {}: {value}", paint.text(Ink::Bold, name)));
    }
    if let Some(hint) = &failure.hint {
        terminal::talk(format!("{} {hint}", paint.text(Ink::Bold, "hint:")));
    }
}
