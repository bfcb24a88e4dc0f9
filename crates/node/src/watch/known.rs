//! A run, as its log alone tells it: for whoever asks where the session is not open.

use outlive_core::id::{RunId, SessionId};
use outlive_core::log::Lane;
use outlive_protocol::http::Problem;
use outlive_store::LaneFilter;

use crate::context::Context;
use crate::problem;
use crate::session::handle::KnownRun;
use crate::session::open::{Folded, load_lanes};

/// A run of a session that is not open here. Only its own lane is read, and those that say what it is.
///
/// # Errors
/// `no-such-run`, `store-unavailable`.
pub(crate) async fn known_run(context: &Context, id: SessionId, run: RunId) -> Result<KnownRun, Problem> {
    let lanes = LaneFilter::Only(vec![Lane::Control, Lane::Journal, Lane::Run(run)]);
    let Folded { hosted, fold, .. } =
        load_lanes(context, id, &lanes).await.map_err(|error| problem::store(&error))?;
    let view = hosted.and_then(|hosted| hosted.run(&fold, run)).ok_or_else(|| problem::no_run(id, run))?;
    let known = fold.run(run).cloned().unwrap_or_default();
    Ok(KnownRun { view, known, before: fold.before(run) })
}
