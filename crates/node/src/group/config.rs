//! What a group is made with, as clients say it.

use std::collections::BTreeSet;
use std::path::Path;

use outlive_core::group::{GroupSpec, MemberSpec};
use outlive_core::id::{RuntimeId, SessionId};
use outlive_core::limits::{CANCEL_GRACE_MS, GROUP_MEMBERS_MAX, TASK_WAIT_MS};
use outlive_core::runtime::{LaunchSpec, Program};
use outlive_core::time::WallTime;
use outlive_protocol::http::{GroupConfig, MemberConfig, Problem};

use super::names::is_name;

/// The specification of a group that is to be made.
///
/// # Errors
/// `bad-group`: what is wrong with the configuration.
pub(super) fn spec(
    name: &str,
    id: SessionId,
    config: &GroupConfig,
    now: WallTime,
) -> Result<GroupSpec, Problem> {
    check(name, config)?;
    let member = |member: &MemberConfig| MemberSpec {
        runtime: RuntimeId::from_uuid(crate::ids::by_time()),
        name: member.name.clone(),
        launch: member.launch.clone(),
    };
    Ok(GroupSpec {
        id,
        name: name.to_owned(),
        members: config.members.iter().map(member).collect(),
        strategy: config.strategy,
        restart: config.restart,
        on_hang: config.on_hang,
        on_node_loss: config.on_node_loss,
        wait_ms: config.wait_ms.unwrap_or(TASK_WAIT_MS),
        cancel_grace_ms: config.cancel_grace_ms.unwrap_or(CANCEL_GRACE_MS),
        created_at: now,
    })
}

/// The configuration that a group was made with, with what was left out filled in.
pub(super) fn of(spec: &GroupSpec) -> GroupConfig {
    let member =
        |member: &MemberSpec| MemberConfig { name: member.name.clone(), launch: member.launch.clone() };
    GroupConfig {
        members: spec.members.iter().map(member).collect(),
        strategy: spec.strategy,
        restart: spec.restart,
        on_hang: spec.on_hang,
        on_node_loss: spec.on_node_loss,
        wait_ms: Some(spec.wait_ms),
        cancel_grace_ms: Some(spec.cancel_grace_ms),
    }
}

/// What is different in a configuration, by the names of its fields; of the environment the variables' names, never what
/// they hold.
pub(super) fn differences(is: &GroupConfig, wanted: &GroupConfig) -> Vec<String> {
    let mut differences = Vec::new();
    let mut differs = |what: &str, differs: bool| {
        if differs {
            differences.push(what.to_owned());
        }
    };
    differs("strategy", is.strategy != wanted.strategy);
    differs("restart", is.restart != wanted.restart);
    differs("on_hang", is.on_hang != wanted.on_hang);
    differs("on_node_loss", is.on_node_loss != wanted.on_node_loss);
    differs("wait_ms", is.wait_ms != Some(wanted.wait_ms.unwrap_or(TASK_WAIT_MS)));
    let grace = wanted.cancel_grace_ms.unwrap_or(CANCEL_GRACE_MS);
    differs("cancel_grace_ms", is.cancel_grace_ms != Some(grace));
    let names = |config: &GroupConfig| -> Vec<String> {
        config.members.iter().map(|member| member.name.clone()).collect()
    };
    if names(is) != names(wanted) {
        differs("members", true);
        return differences;
    }
    for (is, wanted) in is.members.iter().zip(&wanted.members) {
        differences.extend(of_launch(&is.launch, &wanted.launch).map(|what| format!("{}: {what}", is.name)));
    }
    differences
}

fn of_launch(is: &LaunchSpec, wanted: &LaunchSpec) -> impl Iterator<Item = String> {
    let names: BTreeSet<_> = is.env.keys().chain(wanted.env.keys()).collect();
    let env = names.into_iter().filter(|name| is.env.get(*name) != wanted.env.get(*name));
    let env: Vec<_> = env.map(|name| format!("env {name}")).collect();
    let fields = [
        ("program", is.program != wanted.program),
        ("cwd", is.cwd != wanted.cwd),
        ("memory_bytes_max", is.memory_bytes_max != wanted.memory_bytes_max),
        ("ready_timeout_ms", is.ready_timeout_ms != wanted.ready_timeout_ms),
    ];
    fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name.to_owned()).chain(env)
}

fn check(name: &str, config: &GroupConfig) -> Result<(), Problem> {
    let bad = |detail: String| Err(Problem::new(422, "bad-group", "The group cannot be made", detail));
    let rule = "a name is 1 to 63 of a-z, 0-9, - and _, and begins with a letter or a digit";
    if !is_name(name) {
        return bad(format!("{name:?} cannot be a group's name: {rule}"));
    }
    if config.members.is_empty() {
        return bad(format!("group {name:?} has no members; name at least one"));
    }
    if config.members.len() > GROUP_MEMBERS_MAX {
        let n = config.members.len();
        return bad(format!("group {name:?} has {n} members; at most {GROUP_MEMBERS_MAX} are possible"));
    }
    let mut names = BTreeSet::new();
    for MemberConfig { name: member, launch } in &config.members {
        if !is_name(member) {
            return bad(format!("{member:?} cannot be a member's name: {rule}"));
        }
        if !names.insert(member) {
            return bad(format!(
                "two members of group {name:?} are called {member:?}; each needs a name of its own"
            ));
        }
        match &launch.program {
            Program::Runner { argv, .. } if argv.is_empty() => {
                return bad(format!("member {member:?} has an empty command; name a program"));
            }
            Program::Runner { .. } => {}
            Program::Kernel { .. } | Program::OfNotebook { .. } | Program::Command { .. } => {
                return bad(format!("the program of member {member:?} must be of kind `runner`"));
            }
        }
        if !Path::new(&launch.cwd).is_absolute() {
            return bad(format!("member {member:?} has the cwd {:?}; it must be absolute", launch.cwd));
        }
    }
    Ok(())
}
