//! Which groups can chat.

use std::collections::BTreeSet;

use outlive_core::runtime::runner::Phase;
use outlive_node::api::Api;
use outlive_protocol::http::{ChatModel, Problem, SessionView};

use super::request::CHAT;
use crate::problem;

/// Whether a group can chat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Chats {
    /// A runner of it says so.
    Yes,
    /// None has said so, but some have not spoken yet.
    Unknown,
    /// None does.
    No,
}

/// The groups that can chat.
pub(super) async fn list(api: &dyn Api) -> Result<Vec<ChatModel>, Problem> {
    let groups = api.groups().await?;
    Ok(groups.iter().filter(|group| chats(group) == Chats::Yes).filter_map(model).collect())
}

/// One group that can chat.
pub(super) async fn one(api: &dyn Api, name: &str) -> Result<ChatModel, Problem> {
    let models = list(api).await?;
    let names: Vec<_> = models.iter().map(|model| model.id.clone()).collect();
    models.into_iter().find(|model| model.id == name).ok_or_else(|| problem::no_such_model(name, &names))
}

/// Whether a task for a chat can be queued there. A runner that has not spoken yet may turn out to serve it: the task
/// waits for it then, as every task does.
pub(super) async fn check(api: &dyn Api, name: &str) -> Result<(), Problem> {
    match api.group(name).await {
        Ok(group) if chats(&group) == Chats::No => Err(problem::not_a_chat_model(name)),
        Ok(_) => Ok(()),
        Err(unknown) if unknown.status == 404 => one(api, name).await.map(drop),
        Err(other) => Err(other),
    }
}

fn chats(group: &SessionView) -> Chats {
    let Some(group) = &group.group else { return Chats::No };
    if group.members.iter().any(|member| member.capabilities.contains(CHAT)) {
        Chats::Yes
    } else if group.members.iter().any(|member| member.phase == Phase::Connecting) {
        Chats::Unknown
    } else {
        Chats::No
    }
}

fn model(session: &SessionView) -> Option<ChatModel> {
    let group = session.group.as_ref()?;
    let capabilities: BTreeSet<_> =
        group.members.iter().flat_map(|member| &member.capabilities).cloned().collect();
    Some(ChatModel {
        id: group.name.clone(),
        object: "model".to_owned(),
        created: session.created_at.0 / 1_000_000,
        owned_by: "outlive".to_owned(),
        capabilities,
    })
}
