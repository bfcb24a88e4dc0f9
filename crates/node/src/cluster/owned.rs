//! Whether a session that is open here is still ours: the control lane of its log alone says so.

use outlive_core::failover::isolation::Verdict;
use outlive_core::id::{Position, SessionId};
use outlive_core::log::Lane;
use outlive_core::log::fold::Fold;
use outlive_store::{LaneFilter, ReadError, ReadLimit};

use crate::context::Context;

/// Reads the control lane of a session.
///
/// # Errors
/// As the store says; then nothing is known.
pub(crate) async fn check(context: &Context, id: SessionId) -> Result<Verdict, ReadError> {
    let lanes = LaneFilter::Only(vec![Lane::Control]);
    let mut fold = Fold::default();
    let mut after = Position(0);
    loop {
        let page = context.engine.read(id, after, &lanes, ReadLimit::default()).await?;
        for entry in &page.entries {
            fold.push(entry);
        }
        if page.through == after {
            break;
        }
        after = page.through;
    }
    let is_mine =
        fold.claim().is_some_and(|claim| (claim.node, claim.boot) == (context.who.node, context.who.boot));
    Ok(if is_mine { Verdict::Mine } else { Verdict::NotMine })
}
