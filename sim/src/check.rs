//! What must hold, meanwhile and at the end.
//!
//! | what | where |
//! |---|---|
//! | what counts under a claim was written by the one who claimed | [`owners`] |
//! | what its writer knows to be there is there, and counts | [`owners`] |
//! | what every watcher has is what the log says, which is what programs said | [`outputs`] |
//! | a run that somebody was told of has one end | [`outputs`] |
//! | a runtime does not have two processes that do something, but for a short time | [`watch`] |
//! | a process that is there belongs to who has its session | [`settled`] |
//! | one path, one session; one name, one group | [`settled`] |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use outlive_core::id::{Attempt, BootId, Position, RunId, RuntimeId, SessionId};
use outlive_core::log::fold::{Effect, Fold, Ownership, Verdict, VoidWhy};
use outlive_core::log::{Chunk, ChunkKind, Entry, FencedBody, Payload, Record, RunRecord};
use outlive_core::session::RunOutcome;
use outlive_core::time::Tick;
use serde_json::Value;

use crate::machine::{Emitted, GUARD};
use crate::schedule::Place;
use crate::store::short;
use crate::story::{Given, Ledger, Watched};
use crate::world::{World, boot_id};

/// How often processes are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// For so long one runtime may have two processes that do something: until the cut off node notices, or the shim of a
/// frozen daemon.
const TWO: Duration = Duration::from_millis(9_500);

/// All that must hold at the end.
#[must_use]
pub fn all(world: &World, ledger: &Ledger) -> Vec<String> {
    let mut wrong = owners(world);
    wrong.extend(outputs(world, ledger));
    wrong
}

/// What counts under a claim was written by the one who claimed; what its writer knows to be there counts.
#[must_use]
pub fn owners(world: &World) -> Vec<String> {
    let mut wrong = Vec::new();
    let stored = world.store.stored();
    let mut seen: BTreeSet<(SessionId, Position)> = BTreeSet::new();
    for session in world.store.sessions() {
        let mut fold = Fold::default();
        for entry in world.store.log(session) {
            let Some(by) = stored.get(&(session, entry.position)) else { continue };
            seen.insert((session, entry.position));
            let verdict = fold.push(&entry);
            let boot: BootId = boot_id(by.by);
            let owner = fold.claim().map(|claim| claim.boot);
            let is_fenced = matches!(entry.record, Record::Fenced(_));
            match verdict {
                Verdict::Counted(_) if is_fenced && owner != Some(boot) => wrong.push(format!(
                    "{} of {} counts and was written by {:?}, who does not own it",
                    entry.position,
                    short(session),
                    by.by
                )),
                Verdict::Alarm(why) if !world.store.is_torn(session) => {
                    wrong.push(format!("{} of {} raises an alarm: {why:?}", entry.position, short(session)));
                }
                Verdict::Void(why @ (VoidWhy::StaleClaim | VoidWhy::WrongAttempt | VoidWhy::WrongLane))
                    if is_fenced && by.is_acknowledged && !world.store.is_torn(session) =>
                {
                    wrong.push(format!(
                        "{} of {} was acknowledged to {:?} and does not count: {why:?}",
                        entry.position,
                        short(session),
                        by.by
                    ));
                }
                Verdict::Counted(_) | Verdict::Void(_) | Verdict::Alarm(_) => {}
            }
        }
    }
    let lost = stored.iter().filter(|(key, stored)| stored.is_acknowledged && !seen.contains(key));
    wrong.extend(lost.map(|((session, position), _)| {
        format!("{position} of {} was acknowledged and is not there", short(session))
    }));
    wrong
}

/// A run, as its log says.
#[derive(Clone, PartialEq, Debug, Default)]
struct Run {
    chunks: Vec<(ChunkKind, String)>,
    outcome: Option<RunOutcome>,
    ends: u32,
    attempts: Attempt,
}

fn text(chunk: &Chunk) -> String {
    match &chunk.payload {
        Payload::Inline(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Payload::Blob(blob) => blob.sha256.clone(),
    }
}

fn runs(log: &[Entry]) -> BTreeMap<RunId, Run> {
    let mut fold = Fold::default();
    let mut runs: BTreeMap<RunId, Run> = BTreeMap::new();
    for entry in log {
        let verdict = fold.push(entry);
        let (Record::Fenced(fenced), Verdict::Counted(effect)) = (&entry.record, verdict) else { continue };
        match effect {
            Effect::Opened { run, attempt, base, .. } => {
                let run = runs.entry(run).or_default();
                run.chunks.truncate(usize::try_from(base.0).unwrap_or(usize::MAX));
                run.attempts = attempt;
            }
            Effect::Appended { run, skip, .. } => {
                let FencedBody::Run(RunRecord::Data { chunks, .. }) = &fenced.body else { continue };
                let new = chunks.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX));
                runs.entry(run)
                    .or_default()
                    .chunks
                    .extend(new.map(|chunk| (chunk.kind.clone(), text(chunk))));
            }
            Effect::Ended { run, .. } => {
                let FencedBody::Run(RunRecord::End { outcome, .. }) = &fenced.body else { continue };
                let run = runs.entry(run).or_default();
                run.outcome = Some(outcome.clone());
                run.ends += 1;
            }
            _ => {}
        }
    }
    runs
}

/// What every watcher has is what the log says, which is what programs said.
#[must_use]
pub fn outputs(world: &World, ledger: &Ledger) -> Vec<String> {
    let mut wrong = Vec::new();
    let (given, watched, emitted) = (ledger.given(), ledger.all_watched(), world.machines.emitted());
    let sessions: BTreeSet<SessionId> = given.values().map(|given| given.session).collect();
    let logs: BTreeMap<_, _> =
        sessions.into_iter().map(|session| (session, runs(&world.store.log(session)))).collect();
    for (id, given) in &given {
        let name = format!("run {} ({}) of {}", short(id), given.what, short(given.session));
        let is_torn = world.store.is_torn(given.session);
        let Some(run) = logs[&given.session].get(id) else {
            // One that was cancelled while it waited never opened, and ends in the journal.
            if !is_torn && !given.is_unwanted {
                wrong.push(format!("{name} was acknowledged and is not in the log"));
            }
            continue;
        };
        if run.ends != 1 {
            wrong.push(format!("{name} has {} ends", run.ends));
        }
        if let Some(why) = as_said(run, given, emitted.get(id).map_or(&[], Vec::as_slice)) {
            wrong.push(format!("{name}: {why}; it has {}", clip(&run.chunks)));
        }
        for watcher in watched.get(id).map_or(&[][..], Vec::as_slice) {
            if let Some(why) = as_watched(run, watcher) {
                wrong.push(format!("{name}, watched by {}: {why}", watcher.who));
            }
        }
    }
    wrong
}

fn as_watched(run: &Run, watched: &Watched) -> Option<String> {
    if watched.outcome != run.outcome {
        return Some(format!("ends with {:?}, the log says {:?}", watched.outcome, run.outcome));
    }
    if watched.chunks.len() != run.chunks.len() {
        return Some(format!("has {}, the log {}", clip(&watched.chunks), clip(&run.chunks)));
    }
    let same = |(seen, (_, there)): (&String, &(ChunkKind, String))| {
        seen == there || serde_json::from_str::<Value>(seen).ok() == serde_json::from_str::<Value>(there).ok()
    };
    let differs = watched.chunks.iter().zip(&run.chunks).position(|pair| !same(pair))?;
    Some(format!("has {:?} as chunk {differs}, the log {:?}", watched.chunks[differs], run.chunks[differs]))
}

/// The last of a list, for people.
fn clip(all: &[impl std::fmt::Debug]) -> String {
    let last = &all[all.len().saturating_sub(12)..];
    format!("{} chunks, the last of them {last:?}", all.len())
}

/// Each step once and in order, said by an attempt that is not earlier than the one before; all of them if it succeeded.
fn as_said(run: &Run, given: &Given, emitted: &[Emitted]) -> Option<String> {
    let said = |kind: &ChunkKind| matches!(kind, ChunkKind::Text | ChunkKind::Stdout);
    let mut last = (Attempt(0), 0);
    for (_, text) in run.chunks.iter().filter(|(kind, _)| said(kind)) {
        // What a command says when it is begun again stands behind what it has said before.
        let begins_again = |one: &Emitted| given.what == "command" && one.attempt > last.0 && one.step == 1;
        let follows = |one: &&Emitted| one.text == *text && (one.step == last.1 + 1 || begins_again(one));
        let Some(source) = emitted.iter().find(follows) else {
            return Some(format!("{text:?} behind step {} was said by nobody", last.1));
        };
        if source.attempt < last.0 && given.what != "exact" {
            return Some(format!("{text:?} stands behind output of attempt {}", last.0));
        }
        last = (source.attempt.max(last.0), source.step);
    }
    if let Some(n) = given.n.filter(|n| run.outcome == Some(RunOutcome::Succeeded) && last.1 != *n) {
        return Some(format!("it succeeded after {} of {n} steps", last.1));
    }
    None
}

/// Looks again and again that no runtime has two processes that do something.
pub fn watch(world: &Arc<World>, ledger: &Arc<Ledger>) {
    look_again(Arc::clone(world), Arc::clone(ledger), BTreeMap::new());
}

fn look_again(world: Arc<World>, ledger: Arc<Ledger>, since: BTreeMap<RuntimeId, Tick>) {
    world.schedule.clone().after(LOOK, Place::World, move || {
        let now = world.schedule.now();
        let mut running: BTreeMap<RuntimeId, Vec<(usize, SessionId)>> = BTreeMap::new();
        for (session, node, process, runs) in world.machines.alive() {
            if runs {
                running.entry(process.runtime).or_default().push((node, session));
            }
        }
        let mut still = BTreeMap::new();
        for (runtime, places) in running.into_iter().filter(|(_, places)| places.len() > 1) {
            let began = since.get(&runtime).copied().unwrap_or(now);
            if now.since(began) > TWO.max(GUARD) {
                let session = short(places[0].1);
                ledger.note(format!(
                    "a runtime of {session} runs twice since {} ms: {places:?}",
                    began.0 / 1_000_000
                ));
                still.insert(runtime, now);
            } else {
                still.insert(runtime, began);
            }
        }
        look_again(world, ledger, still);
    });
}

/// After a calm time: every process belongs to who has its session, and no two sessions have one path or one name.
#[must_use]
pub fn settled(world: &World) -> Vec<String> {
    let mut wrong = Vec::new();
    let owner = |session| {
        let mut fold = Fold::default();
        for entry in world.store.log(session) {
            fold.push(&entry);
        }
        fold.ownership()
    };
    for (session, node, process, runs) in world.machines.alive() {
        let owns = match owner(session) {
            Ownership::Claimed(claim) => world.life(node).is_some_and(|life| boot_id(life) == claim.boot),
            Ownership::Unclaimed | Ownership::Released { .. } | Ownership::Closed => false,
        };
        let name = format!("process {} of {} on n{node}", short(process), short(session));
        if !owns {
            wrong.push(format!("{name} is there, and the session is {:?}", owner(session)));
        } else if !runs {
            wrong.push(format!("{name} is frozen, and nobody thaws it"));
        }
    }
    let mut had: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in world.store.rows("sessions") {
        let Ok(row) = serde_json::from_slice::<Value>(&row.value) else { continue };
        let view = &row["view"];
        let what = view["path"].as_str().map(str::to_owned);
        let what = what.or_else(|| view["group"].is_object().then(|| format!("group {}", view["title"])));
        // Of what was never made a row may be left that came late. A node that is alone finds that when it starts.
        let was_made = |id: SessionId| world.setup.is_cluster || !world.store.log(id).is_empty();
        let is_there = serde_json::from_value(view["id"].clone()).is_ok_and(was_made);
        if let Some(what) = what.filter(|_| row["presence"] != "ended" && is_there) {
            had.entry(what).or_default().push(view["id"].to_string());
        }
    }
    let two = had.into_iter().filter(|(_, sessions)| sessions.len() > 1);
    wrong.extend(two.map(|(what, sessions)| format!("{what} belongs to {sessions:?}")));
    wrong
}
