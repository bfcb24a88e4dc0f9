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

pub(super) fn take(session: &Session, path: String, why: PathWhy, now: Now) -> Result<Decision, Denied> {
    open_notebook(session)?;
    Ok(if session.path.as_ref() == Some(&path) && session.claiming.is_none() {
        Decision::none()
    } else {
        Decision::none().happened(now.wall, Happened::PathChanged { path, why })
    })
}

pub(super) fn trust(session: &Session, trust: Trust, now: Now) -> Result<Decision, Denied> {
    open_notebook(session)?;
    Ok(if session.trust == trust {
        Decision::none()
    } else {
        Decision::none().happened(now.wall, Happened::TrustChanged(trust))
    })
}
