//! A notebook that its log cannot give: what it is made of is damaged, or gone.
//!
//! Its file is taken then, if that is a whole notebook: nobody's edit is written over it. Where there is none, it is what
//! can be had of the log. Both are said; the session goes on, and can be saved, closed and forgotten like any other.

use std::path::Path;

use outlive_core::id::Position;
use outlive_core::session::event::{Happened, SessionEvent};
use outlive_core::session::spec::Trust;
use outlive_core::session::{Fact, Session, apply};
use outlive_document::Notebook;
use outlive_document::live::Live;
use outlive_protocol::http::{FileConflict, Problem};

use super::not_written;
use crate::context::Context;
use crate::problem;
use crate::session::journal::Journal;
use crate::session::notebook::document::Kept;
use crate::session::notebook::record::Saved;
use crate::session::notebook::restore::{self, DocumentLane, RestoreError, Restored};
use crate::session::notebook::{BlobFolder, Document, NotebookPlane, with_sources};
use crate::trust;

/// What a session goes on with instead of what its log should have given.
#[derive(Debug)]
pub(super) struct Instead {
    /// The file as it was taken; nothing when the log was all there was.
    file: Option<Saved>,
    /// What happened, for people.
    why: String,
    edits: Edits,
    /// Whether the file is what the session had read or written last.
    is_ours: bool,
}

/// Whether the file lacks what somebody had written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Edits {
    InFile,
    Lost,
}

/// What the notebook is made of, whose log gives `error`. All that runs did `through` this is in the file.
pub(super) async fn restore_instead(
    context: &Context,
    session: &Session,
    lane: DocumentLane,
    blobs: BlobFolder,
    (through, error): (Position, RestoreError),
) -> (Restored, Instead) {
    let id = session.spec.id;
    let error = with_sources(&error);
    let (lane, blobs) = crate::aside::run(move || {
        blobs.put_damaged_aside(lane.beside());
        (lane, blobs)
    })
    .await;
    let edits = if lane.has_unsaved_edits() { Edits::Lost } else { Edits::InFile };
    let from_file = match &session.path {
        Some(path) => context.files.read(Path::new(path)).await.ok().and_then(|(bytes, stamp)| {
            let notebook = Notebook::parse(&bytes).ok()?;
            Some((notebook, Saved { stamp, path: path.clone() }))
        }),
        None => None,
    };
    let (restored, instead) = match from_file {
        Some((notebook, file)) => {
            let lost = match edits {
                Edits::Lost => "; edits that were not in it yet are lost",
                Edits::InFile => "",
            };
            let why = format!("{error}: the notebook is what its file holds{lost}");
            let opened = notebook.cells().map(|cell| cell.key().clone()).collect();
            let kept = Kept { through, ..Kept::default() };
            let document = Document::taken_up(id, Live::new(notebook), opened, kept, blobs);
            let (opened, saved) = (Some(file.stamp.clone()), Some(file.clone()));
            let is_ours = lane.knows(&file.stamp);
            let instead = Instead { file: Some(file), why, edits, is_ours };
            (Restored { document, opened, saved, rendered: None }, instead)
        }
        None => {
            let why = format!("{error}: the notebook is what could be had without it");
            let restored = crate::aside::run(move || lane.restore_what_is_whole(id, blobs)).await;
            let file = restored.saved.clone();
            (restored, Instead { file, why, edits: Edits::InFile, is_ours: true })
        }
    };
    tracing::error!(session = %id, why = instead.why, "a notebook's log is damaged");
    context.note_damage(id, &instead.why);
    (restored, instead)
}

impl Instead {
    /// Puts it into the log, and says what it means for the notebook's file.
    pub(super) async fn note(
        self,
        context: &Context,
        journal: &mut Journal,
        session: &mut Session,
        plane: &mut NotebookPlane,
    ) -> Result<(), Problem> {
        if !self.is_ours && session.trust == Trust::Trusted {
            // Somebody else may have written the file meanwhile.
            let key = plane.document.trust_key();
            let known = trust::is_trusted(&*context.engine, &key).await;
            if !known.map_err(|error| problem::store(&error))? {
                let (at, what) = (context.clock.now().wall, Happened::TrustChanged(Trust::Untrusted));
                let fact = Fact::Journal(SessionEvent { at, what });
                journal.fact(&fact, None).await.map_err(|error| not_written(&error))?;
                apply(session, &fact);
            }
        }
        let (document, file) = (&mut plane.document, self.file);
        let (kept, file) = (document.kept(), file.map(|saved| (saved.stamp, saved.path)).unzip());
        let written = restore::snapshot(journal, document, kept, file, None).await;
        written.map_err(|error| not_written(&error))?;
        if self.edits == Edits::Lost {
            plane.file.conflicted(FileConflict::Changed, format!("{}; a save goes on with it", self.why));
        }
        Ok(())
    }
}
