//! People and programs at a few notebooks that nobody needs in memory for long. They come back at every moment of it:
//! while a session waits for its end, while it is saved, while it leaves, when it is gone.
//!
//! | file | holds |
//! |---|---|
//! | [`visit`] | those who ask: for edits, runs, saves, and the end of it all |
//! | [`typing`] | those who edit live, and lose their connection |
//! | [`tab`] | what they edit live with |
//! | [`meddling`] | other programs, and disks that are full |
//! | [`marks`] | what everybody has written |
//! | [`afterwards`] | what must hold when all have left |

mod afterwards;
mod marks;
mod meddling;
mod tab;
mod typing;
mod visit;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use outlive_core::id::SessionId;
use outlive_core::limits::FSYNC_MS;
use outlive_node::api::Api as _;
use outlive_protocol::http::{NewSession, NotebookView, OpenSession, Problem};

use super::clients::{Again, Client, notebook};
use super::{Ledger, Trouble};
use crate::files::SHARED;
use crate::schedule::Place;
use crate::store::short;
use crate::world::{Moment, Order, Sim, World};
use marks::{Marks, lacking, text_of};

/// The node that there is.
const NODE: usize = 0;
/// So many sessions are made at most, so that many meet in each.
const SESSIONS_MAX: usize = 7;

/// One who comes and goes.
#[derive(Clone)]
struct Visitor {
    client: Client,
    world: Arc<World>,
    marks: Arc<Marks>,
    idle: Duration,
    /// How long what an editor was answered for may still be lost.
    unsafe_for: Duration,
    name: String,
}

/// All of them come.
pub(super) fn begin(sim: &Sim, ledger: &Arc<Ledger>, storm: Duration, troubles: &[Trouble]) {
    let world = &sim.world;
    let marks = Arc::new(Marks::default());
    let mut random = world.seed.draw("visitors");
    for n in 0..random.of(1..4) {
        world.disks.put(world, NODE, path(n).as_ref(), notebook(n));
    }
    let loses_power = troubles.contains(&Trouble::LostTail);
    let unsafe_for = if loses_power { Duration::from_millis(FSYNC_MS + 1) } else { Duration::ZERO };
    let visitor = |what: &'static str, n: u64| Visitor {
        client: Client::new(sim, ledger, storm, (what, n)),
        world: Arc::clone(world),
        marks: Arc::clone(&marks),
        idle: world.setup.idle,
        unsafe_for,
        name: format!("{what} {n}"),
    };
    for n in 0..random.of(2..5) {
        sim.client(visitor("visitor", n).visits());
    }
    for n in 0..random.of(1..5) {
        sim.client(visitor("editor", n).types());
    }
    if random.happens(700) {
        sim.client(visitor("program", 0).meddles());
    }
    if troubles.contains(&Trouble::Kills) {
        sim.client(visitor("killer", 0).kills());
    }
    sim.client(visitor("operator", 0).operates());
    sim.client(visitor("afterwards", 0).looks_after(storm));
}

fn path(n: u64) -> String {
    format!("{SHARED}/v{n}.ipynb")
}

impl Visitor {
    fn note(&self, wrong: impl AsRef<str>) {
        self.client.ledger.note(format!("{}: {}", self.name, wrong.as_ref()));
    }

    /// A session has done what was asked.
    fn answered(&self, session: SessionId) {
        self.marks.answered(session, self.world.schedule.now(), self.world.life(NODE));
    }

    fn tell(&self, what: impl AsRef<str>) {
        let now = self.world.schedule.now();
        self.world.trace.remark(now, None, format_args!("{} {}", self.name, what.as_ref()));
    }

    /// A refusal. Some are what must be expected.
    fn refused(&self, session: SessionId, what: &str, problem: &Problem, expected: &[&str]) {
        self.tell(format!("is refused {what} of {}: {}", short(session), problem.code));
        let has_ended = problem.code == "session-ended" && !self.marks.is_open(session);
        if has_ended || expected.contains(&problem.code.as_str()) {
            return;
        }
        // It went with the power, and whoever made it was told so soon that it may have.
        let is_torn = problem.code == "no-such-session" && self.world.store.is_torn(session);
        if is_torn && self.marks.acknowledged(session).is_empty() {
            return self.marks.forget(session);
        }
        self.note(format!("{what} of {} is refused: {problem:?}", short(session)));
    }

    /// Comes to a session: by the path of a file, by its id, or to a new one without a file.
    async fn comes(&mut self) -> Option<SessionId> {
        let (known, files) = (self.marks.open(), self.world.disks.shared());
        let has_room = known.len() < SESSIONS_MAX;
        match self.client.random.of(0..100) {
            0..=9 if has_room => self.makes().await,
            10..=54 if !known.is_empty() => {
                let session = *self.client.random.one(&known);
                self.opens(session).await.then_some(session)
            }
            _ if !files.is_empty() => {
                let path = self.client.random.one(&files).display().to_string();
                self.opens_path(&path).await
            }
            _ => None,
        }
    }

    async fn makes(&mut self) -> Option<SessionId> {
        let id = self.client.session_id();
        let request = NewSession {
            id: Some(id),
            kernel: Some("made-up".to_owned()),
            env: Some(BTreeMap::new()),
            ..NewSession::default()
        };
        let made = self.client.ask(Again::Always, move |node| {
            let request = request.clone();
            async move { node.new_session(request).await }.boxed()
        });
        match made.await {
            Ok(Some(opened)) if opened.session_id == id => {
                self.marks.know(id);
                self.tell(format!("has made {}", short(id)));
                Some(id)
            }
            Ok(Some(opened)) => {
                self.note(format!("{} was wanted and {} was made", short(id), short(opened.session_id)));
                None
            }
            Ok(None) => None,
            Err(problem) => {
                self.note(format!("an untitled notebook is not made: {problem:?}"));
                None
            }
        }
    }

    /// Opens a session by its id, which it keeps.
    async fn opens(&mut self, session: SessionId) -> bool {
        self.tell(format!("opens {}", short(session)));
        let request = OpenSession { id: Some(session), ..OpenSession::default() };
        let opened = self.client.ask(Again::Always, move |node| {
            let request = request.clone();
            async move { node.open(request).await }.boxed()
        });
        match opened.await {
            Ok(Some(opened)) if opened.session_id == session => {
                self.answered(session);
                return true;
            }
            Ok(Some(opened)) => {
                self.note(format!("{} was opened and {} came", short(session), short(opened.session_id)))
            }
            Ok(None) => {}
            Err(problem) => self.refused(session, "opening", &problem, &[]),
        }
        false
    }

    async fn opens_path(&mut self, path: &str) -> Option<SessionId> {
        let since = self.world.schedule.now();
        self.tell(format!("opens {path}"));
        let request = OpenSession { path: Some(path.to_owned()), ..OpenSession::default() };
        let opened = self.client.ask(Again::Always, move |node| {
            let request = request.clone();
            async move { node.open(request).await }.boxed()
        });
        match opened.await {
            Ok(Some(opened)) => {
                self.marks.know(opened.session_id);
                self.tell(format!("finds {} at {path}", short(opened.session_id)));
                Some(opened.session_id)
            }
            Ok(None) => None,
            Err(problem) => {
                self.tell(format!("does not open {path}: {}", problem.code));
                // Somebody has deleted or broken it, or has just renamed it to where another session is.
                let is_meddled = self.world.disks.is_meddled(NODE, Path::new(path), since);
                let expected = match problem.code.as_str() {
                    "no-such-file" => is_meddled || self.world.disks.read(NODE, Path::new(path)).is_none(),
                    "not-a-notebook" => true,
                    _ => false,
                };
                if !expected {
                    self.note(format!("{path} is not opened: {problem:?}"));
                }
                None
            }
        }
    }

    /// Reads a notebook, in which all must stand that was acknowledged before.
    async fn reads(&mut self, session: SessionId) -> Option<NotebookView> {
        let wanted = self.marks.acknowledged(session);
        let read = self
            .client
            .ask(Again::Always, move |node| async move { node.notebook(session, false).await }.boxed());
        match read.await {
            Ok(Some(view)) => {
                self.answered(session);
                let missing = lacking(&text_of(&cells_in(&view)), &wanted);
                if !missing.is_empty() {
                    self.note(format!("{} is read without {missing:?}", short(session)));
                }
                Some(view)
            }
            Ok(None) => None,
            Err(problem) => {
                self.refused(session, "reading", &problem, &[]);
                None
            }
        }
    }

    /// Stays away: for a moment, until the session is due, until it is saved, or until it leaves.
    async fn stays_away(&mut self) {
        self.tell("stays away");
        let idle = u64::try_from(self.idle.as_micros()).expect("it is some seconds");
        let random = &mut self.client.random;
        let wait = match random.of(0..6) {
            0 => random.micros(100..300_000),
            1 => random.micros(idle - 8_000..idle + 8_000),
            2 => random.micros(0..3 * idle),
            3 => return self.world.ambush(Moment::Writing, 2 * self.idle).await,
            _ => return self.world.ambush(Moment::Leaving, 2 * self.idle).await,
        };
        self.world.schedule.sleep(wait, Place::Clients).await;
    }

    /// Kills the daemon in the middle of what a session does to leave.
    async fn kills(mut self) {
        while self.client.is_time_left() {
            self.world.ambush(Moment::Leaving, Duration::from_secs(5)).await;
            if self.client.random.happens(150) && self.client.is_time_left() {
                self.world.order(NODE, Order::Kill);
                self.client.wait(20..2_000).await;
                self.world.order(NODE, Order::Start);
            }
            self.client.wait(1..300).await;
        }
    }
}

fn cells_in(view: &NotebookView) -> Vec<(String, String)> {
    view.cells.iter().map(|cell| (cell.id.clone(), cell.source.clone())).collect()
}
