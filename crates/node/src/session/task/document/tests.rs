//! The document plane of a real task, over a real store: edits of peers and of programs, runs, restarts and crashes.

mod crashes;
mod editor;
mod peers;
mod runs;
mod space;

use std::time::Duration;

use outlive_core::id::SessionId;
use outlive_protocol::http::{CellEdit, EditNotebook, Edited, Problem};

use crate::session::handle::{Answer, Ask, DocumentAsk};
use crate::session::open;
use crate::session::peers::DocumentPeer;
use crate::session::task::file::tests::world::Daemon;
use editor::Editor;

const PATIENCE: Duration = Duration::from_secs(60);

async fn ask(daemon: &Daemon, id: SessionId, ask: Ask) -> Result<Answer, Problem> {
    let entered = open::wake(&daemon.context, id).await?;
    tokio::time::timeout(PATIENCE, entered.handle.ask(ask)).await.expect("an answer comes")
}

async fn peer(daemon: &Daemon, id: SessionId) -> DocumentPeer {
    match ask(daemon, id, Ask::Document(DocumentAsk::Join)).await.unwrap() {
        Answer::Joined(peer) => peer,
        other => panic!("{other:?}"),
    }
}

async fn joined(daemon: &Daemon, id: SessionId, client: u64) -> Editor {
    let mut editor = Editor::new(client);
    editor.join(peer(daemon, id).await).await;
    editor
}

async fn edit(daemon: &Daemon, id: SessionId, edits: Vec<CellEdit>) -> Result<Edited, Problem> {
    match ask(daemon, id, Ask::Document(DocumentAsk::Edit(EditNotebook { edits }))).await? {
        Answer::Edited(edited) => Ok(edited),
        other => panic!("{other:?}"),
    }
}

/// All that was sent before is taken in by all.
async fn settle(editors: &mut [Editor]) {
    for _ in 0..2 {
        for editor in editors.iter_mut().filter(|editor| editor.is_connected()) {
            editor.flush().await;
            editor.sync().await;
        }
    }
}

/// Numbers that look random, the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % sides
    }
}
