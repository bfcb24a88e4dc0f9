//! Those who ask for something and go: edits cell by cell, runs, saves, a look, the end of the session.

use std::collections::BTreeMap;
use std::path::Path;

use futures_util::FutureExt as _;
use futures_util::future::{Either, select};
use outlive_core::id::SessionId;
use outlive_node::api::{Api, AttachSession, From};
use outlive_protocol::http::{
    CellEdit, Close, EditNotebook, Opened, Problem, SaveHow, SaveSession, Stop, SubmitRuns, Where,
};
use tokio::sync::mpsc::UnboundedReceiver;

use super::marks::{cells_of, lacking, text_of};
use super::{NODE, SESSIONS_MAX, Visitor, path};
use crate::schedule::Place;
use crate::store::short;
use crate::story::clients::Again;
use crate::world::{Called, Told};

/// What a save may be refused for: other programs, and disks.
const NOT_SAVED: [&str; 9] = [
    "file-changed",
    "file-deleted",
    "file-exists",
    "path-already-open",
    "has-a-path",
    "no-path",
    "not-writable",
    "disk-full",
    "unsaved",
];

impl Visitor {
    /// Comes to one session after the other.
    pub(super) async fn visits(mut self) {
        let done = self.name.clone();
        self.client.ledger.begin(&done);
        self.client.wait(0..1_000).await;
        while self.client.is_time_left() {
            if let Some(session) = self.comes().await {
                for _ in 0..self.client.random.of(1..5) {
                    self.does_something(session).await;
                    if self.client.random.happens(300) {
                        self.stays_away().await;
                    }
                }
            }
            self.stays_away().await;
        }
        self.client.ledger.done(&done);
    }

    async fn does_something(&mut self, session: SessionId) {
        let what = self.client.random.of(0..100);
        self.tell(format!("does {what} with {}", short(session)));
        match what {
            0..=34 => self.edits(session).await,
            35..=54 => self.looks(session).await,
            55..=62 => self.attends(session).await,
            63..=74 => self.saves(session).await,
            75..=82 => self.saves_to(session).await,
            83..=93 => self.runs(session).await,
            94..=96 => self.closes(session).await,
            _ => drop(self.opens(session).await),
        }
    }

    async fn edits(&mut self, session: SessionId) {
        let Some(view) = self.reads(session).await else { return };
        let mark = self.marks.fresh();
        let edit = match view.cells.get(self.client.random.place(view.cells.len() + 2)) {
            Some(cell) => {
                let begin = if cell.source.is_empty() { "say 3 1000 " } else { "" };
                let source = format!("{}{begin}{mark}", cell.source);
                CellEdit::SetSource { cell: cell.id.clone(), source, expected: Some(cell.source.clone()) }
            }
            None => {
                let (at, source) = (Where::End, format!("say 3 1000 {mark}"));
                CellEdit::Insert { at, kind: outlive_protocol::http::CellKindName::Code, source, id: None }
            }
        };
        let edits = EditNotebook { edits: vec![edit] };
        let edited = self.client.ask(Again::Always, move |node| {
            let edits = edits.clone();
            async move { node.edit(session, edits).await }.boxed()
        });
        match edited.await {
            Ok(Some(_)) => {
                self.answered(session);
                self.marks.acknowledge(session, [mark]);
            }
            Ok(None) => {}
            // Somebody was quicker; or it was done, and the answer was lost.
            Err(problem) => self.refused(session, "an edit", &problem, &["cell-changed", "no-such-cell"]),
        }
    }

    /// Looks at something without waking anybody.
    async fn looks(&mut self, session: SessionId) {
        let looked = if self.client.random.happens(500) {
            let look = move |node: std::sync::Arc<outlive_node::Node>| {
                async move { node.session(session).await.map(drop) }.boxed()
            };
            self.client.ask(Again::Always, look).await
        } else if self.client.random.happens(500) {
            let look = move |node: std::sync::Arc<outlive_node::Node>| {
                async move { node.runs(session).await.map(drop) }.boxed()
            };
            self.client.ask(Again::Always, look).await
        } else {
            return drop(self.reads(session).await);
        };
        if let Err(problem) = looked {
            self.refused(session, "a look", &problem, &[]);
        }
    }

    /// Hears for a while what happens.
    async fn attends(&mut self, session: SessionId) {
        let how = AttachSession { from: From::Head, interactive: false, follow: true, outputs: false };
        let attached = self.world.follow(
            NODE,
            &mut self.client.random,
            move |node: std::sync::Arc<outlive_node::Node>| async move { node.attach(session, how).await },
        );
        match attached.await {
            Called::Answered(Ok(heard)) => self.hears(session, heard).await,
            Called::Answered(Err(problem)) if problem.status != 503 => {
                self.refused(session, "attaching", &problem, &[]);
            }
            Called::Answered(Err(_)) | Called::Nobody | Called::Lost => {}
        }
    }

    /// As long as somebody hears it, a session stays.
    async fn hears(&mut self, session: SessionId, mut heard: UnboundedReceiver<Told>) {
        let life = self.world.life(NODE);
        let until = self.world.schedule.now() + self.client.random.millis(1..1_200);
        loop {
            let over = self.world.schedule.until(until, Place::Clients);
            match select(std::pin::pin!(heard.recv()), over).await {
                Either::Left((Some(Told::Event(_) | Told::Comment), _)) => {}
                Either::Left((Some(Told::End) | None, _)) => break,
                Either::Right(_) => return,
            }
        }
        if self.world.life(NODE) == life && self.marks.is_open(session) {
            self.note(format!("nothing more is heard of {}", short(session)));
        }
    }

    async fn saves(&mut self, session: SessionId) {
        let overwrite = self.client.random.happens(300);
        self.asks_to_save(session, SaveSession { overwrite, ..SaveSession::default() }).await;
    }

    /// To a path that nothing has, or that somebody may have.
    async fn saves_to(&mut self, session: SessionId) {
        let how = *self.client.random.one(&[SaveHow::Save, SaveHow::SaveAs, SaveHow::SaveAs, SaveHow::Copy]);
        let files = self.world.disks.shared();
        let to = if files.len() >= 2 * SESSIONS_MAX || self.client.random.happens(250) && !files.is_empty() {
            self.client.random.one(&files).display().to_string()
        } else {
            path(self.marks.number())
        };
        let save = SaveSession { path: Some(to.clone()), how, overwrite: false };
        if let Some(opened) = self.asks_to_save(session, save).await
            && opened.path.as_deref() != Some(&to)
        {
            self.note(format!("{} was saved to {to}, and is said to be {:?}", short(session), opened.path));
        }
    }

    /// What was acknowledged before stands in the file when it is answered.
    async fn asks_to_save(&mut self, session: SessionId, save: SaveSession) -> Option<Opened> {
        let (wanted, since) = (self.marks.acknowledged(session), self.world.schedule.now());
        let saved = self.client.ask(Again::Always, move |node| {
            let save = save.clone();
            async move { node.save(session, save).await }.boxed()
        });
        let opened = match saved.await {
            Ok(opened) => opened?,
            Err(problem) => {
                self.refused(session, "a save", &problem, &NOT_SAVED);
                return None;
            }
        };
        if opened.session_id != session {
            self.note(format!("{} is {} after a save", short(session), short(opened.session_id)));
        }
        let file = Path::new(opened.path.as_deref().unwrap_or_default());
        if !self.world.disks.is_meddled(NODE, file, since) {
            let content = self.world.disks.read(NODE, file).and_then(|bytes| cells_of(&bytes));
            let missing = lacking(&text_of(&content.unwrap_or_default()), &wanted);
            if !missing.is_empty() {
                let (id, file) = (short(session), file.display());
                self.note(format!("{id} is saved to {file}, and {missing:?} is not there"));
            }
        }
        Some(opened)
    }

    /// Runs cells, and most often lets the kernel go soon.
    async fn runs(&mut self, session: SessionId) {
        let Some(view) = self.reads(session).await else { return };
        if view.cells.is_empty() {
            return;
        }
        let work = if self.client.random.happens(100) {
            SubmitRuns::Code { code: "die 9 1000".to_owned() }
        } else {
            let cell = self.client.random.one(&view.cells).id.clone();
            SubmitRuns::CellIds { cells: vec![cell], required: None, expected: BTreeMap::new() }
        };
        self.submits(session, work).await;
        self.client.wait(0..600).await;
        if self.client.random.happens(800) {
            self.rests(session).await;
        }
    }

    /// Submits work, once.
    pub(super) async fn submits(&mut self, session: SessionId, work: SubmitRuns) {
        let what = if matches!(work, SubmitRuns::Code { .. }) { "die" } else { "cell" };
        let submitted = self.client.ask(Again::Never, move |node| {
            let work = work.clone();
            async move { node.submit(session, work).await }.boxed()
        });
        match submitted.await {
            Ok(Some(runs)) => self.client.given(session, &runs, what, None),
            Ok(None) => {}
            Err(problem) if problem.code == "runtime-down" => self.client.restart(session).await,
            Err(problem) => self.refused(session, "a run", &problem, &["no-such-cell", "document-behind"]),
        }
    }

    /// Stops the kernel.
    pub(super) async fn rests(&mut self, session: SessionId) {
        self.client.ledger.unwant_all(session);
        let how = Stop { force: self.client.random.happens(300) };
        let rested =
            self.client.ask(Again::Always, move |node| async move { node.rest(session, how).await }.boxed());
        if let Err(problem) = rested.await {
            self.refused(session, "resting", &problem, &["runtime-down"]);
        }
    }

    async fn closes(&mut self, session: SessionId) {
        self.marks.closes(session);
        self.client.ledger.unwant_all(session);
        let closed = self.client.ask(Again::Always, move |node| {
            async move { node.close(session, Close { discard: false }).await }.boxed()
        });
        match closed.await {
            Ok(Some(_)) => self.marks.is_closed(session, true),
            Ok(None) => {}
            Err(problem) => self.not_closed(session, &problem),
        }
    }

    fn not_closed(&mut self, session: SessionId, problem: &Problem) {
        // It was answered before, and the answer was lost; or somebody else has closed it.
        if problem.code == "session-ended" {
            return self.marks.is_closed(session, true);
        }
        self.refused(session, "the end", problem, &NOT_SAVED);
        self.marks.is_closed(session, false);
    }
}
