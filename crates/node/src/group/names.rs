//! Which group has which name: a table of its own, written before anything is started, so that of two daemons or clients
//! that want one name exactly one has it.

use outlive_core::failover::Member;
use outlive_core::id::{Revision, SessionId};
use outlive_protocol::http::Problem;
use outlive_store::TableError;

use crate::context::Context;
use crate::problem;
use crate::session::handle::moving;

/// The table of names.
const RUNNERS: &str = "runners";

/// How often a claim is tried again because somebody else has written the row meanwhile.
const TRIES: usize = 16;

/// The longest name.
const NAME_MAX: usize = 63;

/// Whether a group or a member can have this name: it is a word in paths, on command lines and in TOML.
pub(super) fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let rest = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    first && bytes.all(rest) && name.len() <= NAME_MAX
}

/// Who has a name, and the revision at which that was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Holder {
    /// The group, which may have ended or never have been made: then the name can be taken over.
    pub(super) group: Option<SessionId>,
    /// Of several nodes the one that has claimed the name, and may be making the group now.
    pub(super) maker: Option<Member>,
    revision: Revision,
}

impl Holder {
    const NOBODY: Self = Self { group: None, maker: None, revision: Revision(0) };
}

/// The group, and of several nodes who makes it.
fn written(context: &Context, group: SessionId) -> String {
    match &context.cluster {
        Some(cluster) => format!("{group} {} {}", cluster.me.node, cluster.me.boot),
        None => group.to_string(),
    }
}

/// Looks a name up.
pub(super) async fn holder(context: &Context, name: &str) -> Result<Holder, Problem> {
    let row = context.engine.get(RUNNERS, name).await.map_err(|error| problem::store(&error))?;
    Ok(row.map_or(Holder::NOBODY, |row| {
        let mut words = std::str::from_utf8(&row.value).unwrap_or_default().split_ascii_whitespace();
        let group = words.next().and_then(|id| id.parse().ok());
        let maker = words
            .next()
            .and_then(|node| node.parse().ok())
            .zip(words.next().and_then(|boot| boot.parse().ok()));
        let maker = maker.map(|(node, boot)| Member { node, boot });
        Holder { group, maker, revision: row.revision }
    }))
}

/// What became of a claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Claimed {
    /// It is the group's.
    Yes,
    /// Somebody was quicker: look again.
    No,
}

/// Takes a name that nobody has, or whose `holder` is gone.
pub(super) async fn claim(
    context: &Context,
    name: &str,
    group: SessionId,
    holder: Holder,
) -> Result<Claimed, Problem> {
    match context.engine.put_if(RUNNERS, name, holder.revision, written(context, group).as_bytes()).await {
        Ok(_) => Ok(Claimed::Yes),
        Err(TableError::Conflict { .. }) => Ok(Claimed::No),
        Err(error) => Err(problem::store(&error)),
    }
}

/// Claims the name of a group once more, when the group is listed: a node that stood still meanwhile was perhaps taken for
/// dead, and its claim for left over. From here on nobody takes it for that.
///
/// # Errors
/// `session-moving` when another group has the name; what the store says.
pub(super) async fn claim_again(context: &Context, name: &str, group: SessionId) -> Result<(), Problem> {
    if context.cluster.is_none() {
        return Ok(());
    }
    for _ in 0..TRIES {
        let holder = holder(context, name).await?;
        if holder.group != Some(group) {
            tracing::warn!(name, session = %group, "the name went to another group while this one was made");
            return Err(moving(group));
        }
        let written = written(context, group);
        match context.engine.put_if(RUNNERS, name, holder.revision, written.as_bytes()).await {
            Ok(_) => return Ok(()),
            // Somebody was quicker, or it is written and its answer is lost: look.
            Err(TableError::Conflict { .. } | TableError::Unknown) => {}
            Err(error) => return Err(problem::store(&error)),
        }
    }
    Err(problem::store(&TableError::Unknown))
}

/// Whether the name of a group that is taken up went to another one: then this one was never made, and its row was written
/// when its maker was dead already. One that was made keeps its name to its end.
pub(super) async fn is_anothers(context: &Context, name: &str, group: SessionId) -> Result<bool, Problem> {
    let is_shared = context.cluster.is_some();
    Ok(is_shared && holder(context, name).await?.group.is_some_and(|holder| holder != group))
}

/// Gives a name back, if it is still this group's. One that is not given back can be taken over all the same.
pub(super) async fn release(context: &Context, name: &str, group: SessionId) {
    let released = async {
        let holder = holder(context, name).await?;
        if holder.group != Some(group) {
            return Ok(());
        }
        match context.engine.delete_if(RUNNERS, name, holder.revision).await {
            Ok(()) | Err(TableError::Conflict { .. }) => Ok(()),
            Err(error) => Err(problem::store(&error)),
        }
    };
    if let Err(problem) = released.await {
        tracing::warn!(name, session = %group, %problem, "the name of a group that has ended is not given back");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_word_for_paths_and_command_lines() {
        for good in ["a", "7b", "llm-0", "a_b-c", &"x".repeat(63)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", "_a", "A", "a b", "a/b", "a.b", "ä", "..", &"x".repeat(64)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
