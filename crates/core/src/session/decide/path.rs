//! Where a session's notebook is, and whether it is trusted.

use super::super::event::{Happened, PathWhy};
use super::super::input::{Decision, Denied};
use super::super::spec::Trust;
use super::super::state::{Life, Session};
use crate::time::Now;

fn open_notebook(session: &Session) -> Result<(), Denied> {
    match session.life {
        Life::Open if session.is_notebook() => Ok(()),
        Life::Open => Err(Denied::NoNotebook),
        Life::Closing(_) | Life::Saving(_) | Life::Closed { .. } => Err(Denied::Closed),
    }
}

/// The intent to write there, before the write: a crash in between is settled by looking at the file.
pub(super) fn claim(session: &Session, path: String, sha256: String, now: Now) -> Result<Decision, Denied> {
    open_notebook(session)?;
    match &session.claiming {
        Some(claiming) => Err(Denied::PathBeingTaken(claiming.path.clone())),
        None => Ok(Decision::none().happened(now.wall, Happened::PathClaimed { path, sha256 })),
    }
}

/// Nothing to give back is nothing to do.
pub(super) fn release(session: &Session, path: String, now: Now) -> Decision {
    match &session.claiming {
        Some(claiming) if claiming.path == path => {
            Decision::none().happened(now.wall, Happened::PathReleased { path })
        }
        Some(_) | None => Decision::none(),
    }
}

/// A session that is ending goes on to where it has written already, and with its file: its last save goes there.
pub(super) fn take(session: &Session, path: String, why: PathWhy, now: Now) -> Result<Decision, Denied> {
    let is_claimed = session.claiming.as_ref().is_some_and(|claiming| claiming.path == path);
    match session.life {
        Life::Closing(_) | Life::Saving(_) if is_claimed || why == PathWhy::Renamed => {}
        Life::Open | Life::Closing(_) | Life::Saving(_) | Life::Closed { .. } => open_notebook(session)?,
    }
    if session.path.as_ref() == Some(&path) && !is_claimed {
        return Ok(Decision::none());
    }
    match why {
        PathWhy::Renamed if session.path.is_some() => {}
        PathWhy::Saved | PathWhy::SavedAs if is_claimed => {}
        PathWhy::Renamed | PathWhy::Saved | PathWhy::SavedAs => return Err(Denied::PathNotClaimed(path)),
    }
    Ok(Decision::none().happened(now.wall, Happened::PathChanged { path, why }))
}

pub(super) fn trust(session: &Session, trust: Trust, now: Now) -> Result<Decision, Denied> {
    match (trust, &session.life) {
        // Its last save may still take over what another program has made of the file.
        (Trust::Untrusted, Life::Closing(_) | Life::Saving(_)) if session.is_notebook() => {}
        (Trust::Trusted | Trust::Untrusted, _) => open_notebook(session)?,
    }
    Ok(if session.trust == trust {
        Decision::none()
    } else {
        Decision::none().happened(now.wall, Happened::TrustChanged(trust))
    })
}
