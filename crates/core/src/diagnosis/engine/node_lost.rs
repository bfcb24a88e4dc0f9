//! The node that it ran on was lost: nobody can say how it ended, and the session goes on elsewhere.

use super::{Finding, Rank};
use crate::diagnosis::case::Case;
use crate::diagnosis::cause::{CauseCode, Confidence};
use crate::diagnosis::lines;
use crate::failover::TakenWhy;

pub(super) fn examine(case: &Case<'_>) -> Option<Finding> {
    let lost = case.evidence.node_lost.as_ref()?;
    let how = match lost.why {
        TakenWhy::Silent => "it was not heard any more and did not answer",
        TakenWhy::Disconnected => "its connection ended and it did not answer",
        TakenWhy::Left => "it went without giving its work away",
        TakenWhy::Reborn => "it was started anew",
        TakenWhy::Ownerless => "no node that lives had its session",
        TakenWhy::Drained => "it gave its session away",
    };
    let summary = format!("the node {} that it ran on was lost: {how}", lost.name);
    let silent =
        lost.silent_ms.map(|ms| format!("not heard for {} when its loss was noticed", lines::duration(ms)));
    let evidence = [format!("{} ({})", lost.name, lost.node), format!("noticed as {}", lost.why)];
    let evidence = evidence.into_iter().chain(silent).map(|line| lines::fact("node", line));
    Some(
        Finding::new(Rank::Decision, CauseCode::NodeLost, Confidence::Certain, summary).evidence(evidence).remedy(
            "`outlive nodes` shows whether it is back, its own log why it went. Output up to here is kept; what is \
             begun again by itself, and what is not, is the session's policy (`on_node_loss`).",
        ),
    )
}
