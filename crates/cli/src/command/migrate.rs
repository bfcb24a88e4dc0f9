//! `outlive migrate`: the sessions of a daemon that was alone go into a cluster. The old store stays as it is, and is
//! marked, so that nobody goes on with it by accident.

use std::path::{Path, PathBuf};

use futures_util::{StreamExt as _, stream};
use outlive_core::id::SessionId;
use outlive_node::lock;
use outlive_node::moving::{self, MoveError, Moved};
use outlive_store::{Embedded, Engine};
use outlive_store_nats::Nats;
use serde_json::json;

use super::serve::cluster as several;
use crate::config::cluster::without_password;
use crate::config::{Config, Origin, Setting};
use crate::exit::Exit;
use crate::failure::{Failure, with_sources};
use crate::moved::{self, Mark};
use crate::{clock, launch, select, terminal};

/// Sessions that are copied at a time: each waits for the answer to one record.
const AT_ONCE: usize = 8;

/// Arguments.
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The state directory of the daemon that was alone [default: this user's]
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// The NATS servers of the cluster, with commas between them [default: those of the configuration]
    #[arg(long, value_name = "nats://HOST:PORT")]
    to: Option<String>,
    /// What the cluster's NATS subjects begin with
    #[arg(long, value_name = "WORD")]
    prefix: Option<String>,
    /// Say what would be moved, and move nothing
    #[arg(long)]
    dry_run: bool,
    /// Print what was moved as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Does it. Asks no daemon and starts none.
    pub async fn run(self, config: &Config) -> Result<Exit, Failure> {
        let state = match &self.from {
            Some(directory) => launch::absolute(directory)?,
            None => config.state_dir.value.clone(),
        };
        let mut config = config.clone();
        let flag = |name: &str| Origin::Flag(name.to_owned());
        if let Some(to) = &self.to {
            let servers = to.split(',').map(str::trim).filter(|server| !server.is_empty());
            config.cluster.servers =
                Setting { value: servers.map(str::to_owned).collect(), origin: flag("to") };
        }
        if let Some(prefix) = &self.prefix {
            config.cluster.prefix = Setting { value: Some(prefix.clone()), origin: flag("prefix") };
        }
        if !config.cluster.is_on() && !self.dry_run {
            return Err(Failure::new(Exit::Usage, "it is not said which cluster the sessions go to")
                .hint("--to nats://HOST:PORT, or `servers` in [cluster] of the configuration"));
        }
        self.moved(&config, &state).await
    }

    async fn moved(self, config: &Config, state: &Path) -> Result<Exit, Failure> {
        let store = moved::store(state);
        if !store.is_dir() {
            let what = format!(
                "{} is no state directory of a daemon that was alone: it has no store",
                state.display()
            );
            return Err(Failure::new(Exit::NotFound, what).hint("--from names it"));
        }
        // A daemon that runs writes into it.
        let _lock = lock::take(state).map_err(|error| {
            Failure::new(Exit::Conflict, error.to_string())
                .hint("`outlive daemon stop --keep-runtimes` ends it and leaves running what runs")
        })?;
        let unreadable = |error: &dyn std::error::Error| {
            Failure::new(
                Exit::Failed,
                format!("the store {} cannot be read: {}", store.display(), with_sources(error)),
            )
        };
        let old = Embedded::open(&store).map_err(|error| unreadable(&error))?;
        let ids = old.sessions().await.map_err(|error| unreadable(&error))?;
        if self.dry_run {
            return self.listed(&old, &ids).await;
        }
        let spool = tempfile::tempdir_in(state).map_err(|error| {
            Failure::new(Exit::Failed, format!("{} cannot be written: {error}", state.display()))
        })?;
        let new = several::connect(&config.cluster, spool.path(), None).await?;
        let done = Done { moved: Vec::new(), there: 0, failed: Vec::new() };
        let done = self.copied(&old, &new, &ids, done).await?;
        if done.failed.is_empty() {
            let servers = config.cluster.servers.value.iter().map(|server| without_password(server));
            let mark = Mark {
                to: servers.collect::<Vec<_>>().join(","),
                prefix: config.cluster.prefix.value.clone().unwrap_or_else(|| "outlive".to_owned()),
                sessions: ids.len(),
                at: clock::now(),
            };
            moved::set(state, &mark)?;
        }
        self.said(state, &done)?;
        Ok(if done.failed.is_empty() { Exit::Ok } else { Exit::Failed })
    }

    /// What there is to be moved.
    async fn listed(&self, old: &Embedded, ids: &[SessionId]) -> Result<Exit, Failure> {
        let (mut bytes, mut rows) = (0, Vec::new());
        for id in ids {
            let usage = old.usage(*id).await.unwrap_or_default();
            bytes += usage.log_bytes + usage.blob_bytes;
            rows.push(json!({"session": id, "log_bytes": usage.log_bytes, "blob_bytes": usage.blob_bytes}));
            if !self.json {
                let (log, blobs) = (terminal::bytes(usage.log_bytes), terminal::bytes(usage.blob_bytes));
                terminal::line(format!("{} log {log}, blobs {blobs}", select::short(*id)))?;
            }
        }
        if self.json {
            terminal::line(serde_json::to_string_pretty(&rows).expect("string keys"))?;
        }
        terminal::talk(format!("{} sessions, {}, would be moved", ids.len(), terminal::bytes(bytes)));
        Ok(Exit::Ok)
    }

    async fn copied(
        &self,
        old: &Embedded,
        new: &Nats,
        ids: &[SessionId],
        mut done: Done,
    ) -> Result<Done, Failure> {
        let copies = ids.iter().map(|id| async move { (*id, moving::session(old, new, *id).await) });
        let mut copies = stream::iter(copies).buffer_unordered(AT_ONCE);
        while let Some((id, copied)) = copies.next().await {
            match copied {
                Ok(moved) if !moved.is_new => done.there += 1,
                Ok(moved) => {
                    if !self.json {
                        terminal::line(line(id, moved))?;
                    }
                    done.moved.push((id, moved));
                }
                Err(error) => {
                    terminal::talk(format!("{} was not moved: {}", select::short(id), with_sources(&error)));
                    done.failed.push((id, error));
                }
            }
        }
        moving::tables(old, new).await.map_err(|error| Failure::new(Exit::Failed, with_sources(&error)))?;
        Ok(done)
    }

    fn said(&self, state: &Path, done: &Done) -> Result<(), Failure> {
        if self.json {
            let moved = done
                .moved
                .iter()
                .map(|(id, moved)| json!({"session": id, "records": moved.records, "blobs": moved.blobs}));
            let failed =
                done.failed.iter().map(|(id, error)| json!({"session": id, "why": with_sources(error)}));
            let text = json!({
                "moved": moved.collect::<Vec<_>>(), "there_already": done.there, "failed": failed.collect::<Vec<_>>(),
            });
            terminal::line(serde_json::to_string_pretty(&text).expect("string keys"))?;
        }
        let there =
            if done.there > 0 { format!(", {} were there already", done.there) } else { String::new() };
        let sessions = if done.moved.len() == 1 { "session" } else { "sessions" };
        terminal::talk(format!("{} {sessions} moved{there}", done.moved.len()));
        if done.failed.is_empty() {
            terminal::talk(format!(
                "the old store {} is as it was; `outlive serve --cluster …` goes on with the sessions and what they run",
                moved::store(state).display()
            ));
        } else {
            terminal::talk(format!(
                "{} were not moved; the same command goes on where it was",
                done.failed.len()
            ));
        }
        Ok(())
    }
}

/// What was done so far.
struct Done {
    moved: Vec<(SessionId, Moved)>,
    /// Sessions that the cluster had already.
    there: usize,
    failed: Vec<(SessionId, MoveError)>,
}

fn line(id: SessionId, moved: Moved) -> String {
    let blobs = if moved.blobs > 0 { format!(", {} blobs", moved.blobs) } else { String::new() };
    let before = moved.records - moved.written.min(moved.records);
    let before = if before > 0 { format!(" ({before} of them before)") } else { String::new() };
    format!("{} {} records{before}{blobs}", select::short(id), moved.records)
}
