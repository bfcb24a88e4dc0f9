//! A notebook that another program has renamed while its session was not in memory. Opened by its new name it is that
//! session still, with its outputs and history, if that is sure: nothing has the old name, the new one is in the same
//! directory, and the file's inode, size and time are those of the moment in which the session left.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use outlive_core::id::SessionId;
use outlive_core::limits::FOLLOW_WAIT_MS;
use outlive_protocol::http::{Problem, SavedState};

use super::wake;
use crate::context::{Context, Presence};
use crate::problem;

/// Has the session whose file is at `path` by now follow it. Whether there is one, and it did.
///
/// # Errors
/// As the store says; what the session has come back with.
pub(super) async fn is_followed(context: &Arc<Context>, path: &Path) -> Result<bool, Problem> {
    let Some(id) = whose(context, path).await? else { return Ok(false) };
    // It looks at its file when it is back, and finds this one.
    let entered = wake(context, id).await?;
    let mut view = entered.handle.view.clone();
    let enough = context.clock.now().tick + Duration::from_millis(FOLLOW_WAIT_MS);
    let settled = view.wait_for(|view| {
        view.path.as_deref().map(Path::new) == Some(path)
            || matches!(view.saved, Some(SavedState::Conflict { .. }))
    });
    tokio::select! {
        settled = settled => {
            Ok(settled.is_ok_and(|view| view.path.as_deref().map(Path::new) == Some(path)))
        }
        () = context.clock.until(enough) => Ok(false),
    }
}

/// The session that is not in memory and had this file under a name that nothing has any more.
async fn whose(context: &Arc<Context>, path: &Path) -> Result<Option<SessionId>, Problem> {
    let (Some(directory), Ok(Some(there))) = (path.parent(), context.files.stat(path).await) else {
        return Ok(None);
    };
    for (before, id) in context.dormant_in(directory) {
        if !matches!(context.files.stat(&before).await, Ok(None)) {
            continue;
        }
        let row = context.indexed(id).await.map_err(|error| problem::store(&error))?;
        let had_it = row
            .filter(|row| row.presence == Presence::Dormant)
            .and_then(|row| row.file)
            .is_some_and(|file| there.is_renamed(&file));
        if had_it {
            return Ok(Some(id));
        }
    }
    Ok(None)
}
