//! What an operator sees meanwhile, and what must hold when all have left: nothing is in memory; what was acknowledged
//! is in each notebook and in its file; and each comes back as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt as _;
use outlive_core::id::SessionId;
use outlive_core::time::Tick;
use outlive_node::api::Api;
use outlive_protocol::http::{FileConflict, RuntimeState, SavedState, SessionView};

use super::marks::{cells_of, lacking, text_of};
use super::tab::Tab;
use super::{NODE, Visitor, cells_in};
use crate::schedule::Place;
use crate::store::short;
use crate::story::clients::Again;

/// So long after everybody has left nothing may be in memory any more: a save that failed is tried again within it.
const EMPTY_MS: u64 = 40_000;
/// How often is looked whether it is so.
const LOOK_MS: u64 = 250;

/// Cells by their ids, as somebody sees them.
type Cells = Vec<(String, String)>;

impl Visitor {
    /// Asks now and then what there is.
    pub(super) async fn operates(mut self) {
        let mut before = BTreeSet::new();
        while self.client.is_time_left() {
            self.client.wait(50..800).await;
            let asked = self.world.schedule.now();
            let Some(views) = self.lists(false).await else { continue };
            self.left_in_time(&views, asked);
            let two = two_with_one_path(views.iter().filter(|view| self.marks.is_known(view.id)));
            // A list is not made in one moment: a session may move while it is made.
            if let Some((path, ids)) = two.iter().find(|pair| before.contains(*pair)) {
                self.note(format!("{path} is that of {ids:?}"));
            }
            before = two;
            let zombies = self.counted().await.get("outlive_zombie_sessions").copied().unwrap_or_default();
            if zombies > 0 {
                self.note(format!("{zombies} sessions should have left long ago"));
            }
        }
    }

    /// None of these has left sooner after it was asked for something than it may.
    fn left_in_time(&self, views: &[SessionView], asked: Tick) {
        let (now, life) = (self.world.schedule.now(), self.world.life(NODE));
        for view in views.iter().filter(|view| !view.loaded && self.marks.is_open(view.id)) {
            let Some(at) = self.marks.last_answered(view.id, asked, life) else { continue };
            // What was answered was on its way for a moment.
            if now.since(at) + Duration::from_millis(2) < self.idle {
                let (id, ms) = (short(view.id), now.since(at).as_millis());
                self.note(format!("{id} has left {ms} ms after it was asked for something"));
            }
        }
    }

    async fn lists(&mut self, all: bool) -> Option<Vec<SessionView>> {
        let listed =
            self.client.ask(Again::Always, move |node| async move { node.sessions(all).await }.boxed());
        match listed.await {
            Ok(views) => views,
            Err(problem) => {
                self.note(format!("sessions are not listed: {problem:?}"));
                None
            }
        }
    }

    /// The node's counters.
    async fn counted(&mut self) -> BTreeMap<String, u64> {
        let asked =
            self.client.ask(Again::Always, move |node| async move { Ok(node.metrics().await) }.boxed());
        let text = asked.await.ok().flatten().unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
        lines.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
    }

    /// When all have done what they came for.
    pub(super) async fn looks_after(mut self, storm: Duration) {
        let done = self.name.clone();
        self.client.ledger.begin(&done);
        self.world.schedule.until(Tick(0) + storm + Duration::from_millis(1), Place::Clients).await;
        while self.client.ledger.unfinished() != [format!("{done} has not come to its end")] {
            self.client.wait(LOOK_MS..LOOK_MS + 1).await;
        }
        self.lets_kernels_go().await;
        if self.until_empty("everybody has left").await {
            let seen = self.visits_all().await;
            if self.until_empty("everybody was here once more").await {
                self.nothing_is_held().await;
                self.files_hold(&seen).await;
                self.all_come_back(&seen).await;
            }
        }
        self.client.ledger.done(&done);
    }

    async fn lets_kernels_go(&mut self) {
        for view in self.lists(false).await.unwrap_or_default() {
            let is_down = matches!(view.runtime.state, RuntimeState::Down | RuntimeState::Exited { .. });
            if view.loaded && !is_down {
                self.rests(view.id).await;
            }
        }
    }

    /// Waits until nothing is in memory.
    async fn until_empty(&mut self, since: &str) -> bool {
        let late = self.world.schedule.now() + 4 * self.idle + Duration::from_millis(EMPTY_MS);
        let mut was_empty = false;
        loop {
            let views = self.lists(false).await.unwrap_or_default();
            let here: Vec<_> = views.iter().filter(|view| view.loaded).collect();
            // One that leaves at this moment is listed as it was when it came.
            if here.is_empty() && was_empty {
                self.dormant_as_promised(&views);
                return true;
            }
            was_empty = here.is_empty();
            if self.world.schedule.now() > late {
                for view in here {
                    let (id, peers, saved, runtime) =
                        (short(view.id), view.peers, &view.saved, &view.runtime.state);
                    self.note(format!(
                        "{id} is in memory long after {since}: {peers} peers, {saved:?}, {runtime:?}"
                    ));
                }
                return false;
            }
            self.client.wait(LOOK_MS..LOOK_MS + 1).await;
        }
    }

    /// Nothing left memory that was not written and could have been.
    fn dormant_as_promised(&self, views: &[SessionView]) {
        for view in views {
            if matches!(view.saved, Some(SavedState::Unsaved)) {
                self.note(format!("{} left memory and its file was not written", short(view.id)));
            }
            if let (Some(SavedState::Saved { .. }), Some(path)) = (&view.saved, &view.path)
                && let Some(bytes) = self.world.disks.read(NODE, Path::new(path))
                && let Some(cells) = cells_of(&bytes)
            {
                let missing = lacking(&text_of(&cells), &self.marks.acknowledged(view.id));
                if !missing.is_empty() && self.marks.is_open(view.id) {
                    self.note(format!(
                        "{} left memory, is said to be saved, and {path} has no {missing:?}",
                        short(view.id)
                    ));
                }
            }
        }
    }

    /// Comes to each session once more, with all editors that were ever there; what everybody sees.
    async fn visits_all(&mut self) -> BTreeMap<SessionId, Cells> {
        let mut tabs: BTreeMap<SessionId, Vec<Tab>> = BTreeMap::new();
        for tab in self.marks.tabs() {
            tabs.entry(tab.session).or_default().push(tab);
        }
        let mut seen = BTreeMap::new();
        for session in self.marks.open() {
            if !self.opens(session).await {
                continue;
            }
            let mut here = Vec::new();
            for mut tab in tabs.remove(&session).unwrap_or_default() {
                if self.takes_up(&mut tab).await {
                    here.push(tab);
                }
            }
            // What another program has done while nobody was there is taken over while they are.
            self.client.wait(3_000..6_000).await;
            let Some(view) = self.reads(session).await else { continue };
            let cells = cells_in(&view);
            for tab in &mut here {
                if tab.exchange(&self.world).await.is_err() {
                    self.note(format!("an editor of {} is parted in the calm", short(session)));
                } else if tab.shows() != cells {
                    let (id, shows) = (short(session), tab.shows());
                    self.note(format!("an editor of {id} shows {shows:?}, the notebook says {cells:?}"));
                }
            }
            seen.insert(session, cells);
        }
        seen
    }

    async fn nothing_is_held(&mut self) {
        let counted = self.counted().await;
        let get = |name: &str| counted.get(name).copied().unwrap_or_default();
        let evictions = |what: &str| {
            let prefix = format!("outlive_evictions_{what}");
            counted.iter().filter(|(name, _)| name.starts_with(&prefix)).map(|(_, value)| *value).sum::<u64>()
        };
        let became = ["done_total", "cancelled_total", "skipped_total", "due"].map(evictions);
        let scheduled = evictions("scheduled_total");
        self.tell(format!("counts {scheduled} evictions: done, cancelled, skipped, due {became:?}"));
        if scheduled != became.iter().sum::<u64>() {
            self.note(format!("{scheduled} evictions were scheduled, and became {became:?}"));
        }
        let left = ["outlive_zombie_sessions", "outlive_sessions{state=\"open\"}", "outlive_claims_held"]
            .into_iter()
            .chain(["outlive_sessions{state=\"broken\"}", "outlive_peers"]);
        for name in left.filter(|name| get(name) != 0) {
            self.note(format!("{name} is {} and nobody is there", get(name)));
        }
    }

    /// What everybody saw stands in the file, unless there is a reason; nothing that was ever in a file is nowhere.
    async fn files_hold(&mut self, seen: &BTreeMap<SessionId, Cells>) {
        let views = self.lists(false).await.unwrap_or_default();
        for (session, cells) in seen {
            let Some(view) = views.iter().find(|view| view.id == *session) else {
                self.note(format!("{} is not listed", short(*session)));
                continue;
            };
            let path = view.path.clone().unwrap_or_default();
            let there = self.world.disks.read(NODE, Path::new(&path));
            let whole = there.as_deref().and_then(cells_of);
            let is_right = match &view.saved {
                Some(SavedState::Saved { .. }) => whole.as_ref() == Some(cells),
                Some(SavedState::Untitled) => view.path.is_none() && view.untitled,
                Some(SavedState::Failing { .. }) => self.world.disks.is_stuck(NODE, Path::new(&path)),
                Some(SavedState::Conflict { conflict: FileConflict::NotANotebook, .. }) => {
                    there.is_some() && whole.is_none()
                }
                Some(SavedState::Conflict {
                    conflict: FileConflict::Deleted | FileConflict::Claimed,
                    ..
                }) => there.is_none(),
                Some(SavedState::Conflict { .. } | SavedState::Unsaved | SavedState::Unknown) | None => false,
            };
            if !is_right {
                let (id, saved) = (short(*session), &view.saved);
                self.note(format!("{id} is {saved:?} at {path}, which has {whole:?}; it says {cells:?}"));
            }
        }
        let files = self.world.disks.shared();
        let files = files.iter().filter_map(|path| self.world.disks.read(NODE, path));
        let mut all: String = files.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect();
        all.extend(seen.values().map(|cells| text_of(cells)));
        let ended = self.lists(true).await.unwrap_or_default();
        let said = ended.iter().filter(|view| view.save_problem.is_some()).map(|view| view.id).collect();
        let nowhere = lacking(&all, &self.marks.somewhere(&said));
        if !nowhere.is_empty() {
            self.note(format!("{nowhere:?} is in no notebook and no file"));
        }
    }

    /// Whoever wakes a session finds it as it was.
    async fn all_come_back(&mut self, seen: &BTreeMap<SessionId, Cells>) {
        let before = self.lists(false).await.unwrap_or_default();
        for (session, cells) in seen {
            let Some(view) = self.reads(*session).await else { continue };
            if cells_in(&view) != *cells {
                let (id, now) = (short(*session), cells_in(&view));
                self.note(format!("{id} comes back with {now:?}, and it had {cells:?}"));
            }
            let was = before.iter().find(|view| view.id == *session).and_then(|view| view.path.clone());
            if view.path != was {
                self.note(format!("{} was at {was:?} and comes back at {:?}", short(*session), view.path));
            }
        }
        let is_conflict = |view: &&SessionView| matches!(view.saved, Some(SavedState::Conflict { .. }));
        for view in before.iter().filter(is_conflict).filter(|view| seen.contains_key(&view.id)) {
            self.client.wait(2_000..2_001).await;
            let listed = self.lists(false).await.unwrap_or_default();
            let now = listed.into_iter().find(|now| now.id == view.id).and_then(|now| now.saved);
            // Whose file another session has by now knows only that it is gone.
            let kind = |saved: &Option<SavedState>| match saved {
                Some(SavedState::Conflict { conflict: FileConflict::Claimed, .. }) => {
                    Some(FileConflict::Deleted)
                }
                Some(SavedState::Conflict { conflict, .. }) => Some(*conflict),
                _ => None,
            };
            if kind(&now) != kind(&view.saved) {
                let (id, was) = (short(view.id), &view.saved);
                self.note(format!("{id} comes back with {now:?}, and it had {was:?}"));
            }
        }
    }
}

fn two_with_one_path<'a>(
    views: impl Iterator<Item = &'a SessionView>,
) -> BTreeSet<(String, BTreeSet<SessionId>)> {
    let mut had: BTreeMap<&String, BTreeSet<SessionId>> = BTreeMap::new();
    for view in views {
        if let Some(path) = &view.path {
            had.entry(path).or_default().insert(view.id);
        }
    }
    had.into_iter().filter(|(_, ids)| ids.len() > 1).map(|(path, ids)| (path.clone(), ids)).collect()
}
