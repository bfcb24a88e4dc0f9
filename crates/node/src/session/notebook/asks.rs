//! Who waits for something that is done with a notebook's file.

use outlive_core::limits::MAILBOX_MAX;
use outlive_protocol::http::{Close, Problem, SaveSession};
use tokio::sync::oneshot;

use crate::session::handle::Answer;
use crate::trust::TrustKey;

/// The way back to who asked.
pub type Reply = oneshot::Sender<Result<Answer, Problem>>;

/// Those who wait. Several who want a save share one write.
#[derive(Default)]
pub struct FileAsks {
    /// For the next write of the notebook to its own file.
    pub waiting: Vec<Asker>,
    /// For the write that is under way; `None` when none is.
    pub served: Option<Served>,
    /// For a write to another path.
    pub moving: Option<Moving>,
    /// How often the file was changed under the present save.
    pub tries: u32,
    /// What the notebook was known as trusted by when it was saved last.
    pub trusted: Option<TrustKey>,
}

/// One who wants the notebook in its file.
pub struct Asker {
    /// What for.
    pub wish: Wish,
    /// The way back.
    pub reply: Reply,
}

/// What somebody wants the notebook saved for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// To have it there; and a foreign content of the file kept beside it rather than in the way, if that is wanted.
    Save(Foreign),
    /// To close the session.
    Close(Close),
}

/// What becomes of what another program has made of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Foreign {
    /// It stands in the way.
    Respect,
    /// It is kept beside the file.
    Replace,
}

/// A write of the notebook to its own file that is under way.
pub struct Served {
    /// Those whose wish it fulfils.
    pub askers: Vec<Asker>,
    /// What makes the notebook known as trusted once it is written.
    pub trust: Option<TrustKey>,
}

/// One who wants the notebook at another path.
pub struct Moving {
    /// As it was asked.
    pub wish: SaveSession,
    /// The way back.
    pub reply: Reply,
}

impl FileAsks {
    /// Whether another one can wait.
    pub fn has_room(&self) -> bool {
        let served = self.served.as_ref().map_or(0, |served| served.askers.len());
        self.waiting.len() + served < MAILBOX_MAX
    }

    /// Whether those who wait want the session closed, and nobody a save.
    pub fn only_to_close(&self) -> bool {
        self.waiting.iter().all(|asker| matches!(asker.wish, Wish::Close(_)))
    }

    /// Whether somebody has decided that what is in the file gives way.
    pub fn may_overwrite(&self) -> bool {
        self.waiting.iter().any(|asker| asker.wish == Wish::Save(Foreign::Replace))
    }
}
