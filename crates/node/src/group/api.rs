//! What surfaces ask of groups.

use std::sync::Arc;

use async_trait::async_trait;
use outlive_core::failover::Member;
use outlive_core::id::{RunId, SessionId};
use outlive_core::runtime::{StopStep, StopWhy};
use outlive_protocol::http::{GroupConfig, Members, Problem, RunView, SessionView, Stop, SubmitTask};

use super::{config, names, open};
use crate::api::{Groups, MemberWish, Up};
use crate::budget::room;
use crate::context::{Context, Entered, Presence};
use crate::node::{Node, unexpected};
use crate::problem;
use crate::session::handle::{Answer, Ask, GroupAsk};
use crate::session::open::wake;

#[async_trait]
impl Groups for Node {
    async fn groups(&self) -> Result<Vec<SessionView>, Problem> {
        let handles = self.context.handles();
        let views = handles.iter().map(|handle| handle.view.borrow().as_ref().clone());
        let mut groups: Vec<_> =
            views.filter(|view| view.group.is_some() && view.closed_at.is_none()).collect();
        if self.context.cluster.is_some() {
            let rows = self.context.all_indexed().await.map_err(|error| problem::store(&error))?;
            let others =
                rows.into_iter().filter(|row| row.presence == Presence::Open && row.view.group.is_some());
            groups.extend(others.map(|row| row.view).filter(|view| !self.context.is_here(view.id)));
        }
        groups.sort_by(|a, b| a.title.cmp(&b.title));
        Ok(groups)
    }

    async fn group(&self, name: &str) -> Result<SessionView, Problem> {
        let entered = enter(&self.context, name).await?;
        Ok(entered.handle.view.borrow().as_ref().clone())
    }

    async fn up(&self, name: &str, config: GroupConfig) -> Result<(SessionView, Up), Problem> {
        let (context, name) = (Arc::clone(&self.context), name.to_owned());
        // In a task of its own: a client that goes away meanwhile must not leave half a group behind.
        let bringing = self.context.tasks.spawn(async move { bring_up(&context, &name, &config).await });
        bringing.await.map_err(|panicked| problem::internal(panicked.to_string()))?
    }

    async fn down(&self, name: &str, how: Stop) -> Result<SessionView, Problem> {
        let from = if how.force { StopStep::Kill } else { StopStep::Ask };
        let entered = enter(&self.context, name).await?;
        match entered.handle.ask(Ask::Stop { why: StopWhy::User, from }).await {
            // Its end came first: what was wanted.
            Err(problem) if problem.code != "session-ended" => Err(problem),
            Ok(_) | Err(_) => Ok(entered.handle.view.borrow().as_ref().clone()),
        }
    }

    async fn members(&self, name: &str, what: MemberWish, which: Members) -> Result<SessionView, Problem> {
        match ask(&self.context, name, Ask::Group(GroupAsk::Members(what, which))).await? {
            Answer::Done(view) => Ok((*view).clone()),
            other => Err(unexpected(&other)),
        }
    }

    async fn submit_task(&self, name: &str, task: SubmitTask) -> Result<RunView, Problem> {
        one(ask(&self.context, name, Ask::Group(GroupAsk::Submit(task))).await?)
    }

    async fn cancel_task(&self, name: &str, run: RunId) -> Result<RunView, Problem> {
        one(ask(&self.context, name, Ask::Cancel(run)).await?)
    }
}

fn one(answer: Answer) -> Result<RunView, Problem> {
    match answer {
        Answer::Runs(mut runs) if runs.len() == 1 => Ok(runs.remove(0)),
        other => Err(unexpected(&other)),
    }
}

async fn ask(context: &Arc<Context>, name: &str, ask: Ask) -> Result<Answer, Problem> {
    let entered = enter(context, name).await?;
    match entered.handle.ask(ask).await {
        Err(problem) => Err(context.surely(entered.handle.id, problem).await),
        answer => answer,
    }
}

/// The group of that name, which is up or on its way down.
async fn enter(context: &Arc<Context>, name: &str) -> Result<Entered, Problem> {
    let (id, maker) = match context.group_named(name) {
        Some(id) => (Some(id), None),
        None if names::is_name(name) => {
            let holder = names::holder(context, name).await?;
            (holder.group, holder.maker)
        }
        None => (None, None),
    };
    let entered = match id {
        Some(id) => there(context, name, id, maker).await?,
        None => None,
    };
    entered.ok_or_else(|| {
        Problem::new(404, "no-such-group", "No such group", format!("no group {name:?} is up"))
            .hint("`outlive runners` lists those that are; `outlive up` brings one up")
    })
}

/// The session, unless it has ended or was never made. One that another node may be making is asked for there.
async fn there(
    context: &Arc<Context>,
    name: &str,
    id: SessionId,
    maker: Option<Member>,
) -> Result<Option<Entered>, Problem> {
    match wake(context, id).await {
        Ok(entered) => Ok(Some(entered)),
        Err(problem) if problem.code == "session-ended" => Ok(None),
        Err(problem) if problem.code == "no-such-session" => {
            let another = maker.filter(|maker| maker.node != context.who.node);
            match another.and_then(|maker| context.ask_member(maker, &format!("group {name:?}"))) {
                Some(elsewhere) => Err(elsewhere),
                None => Ok(None),
            }
        }
        Err(problem) => Err(problem),
    }
}

async fn bring_up(
    context: &Arc<Context>,
    name: &str,
    wanted: &GroupConfig,
) -> Result<(SessionView, Up), Problem> {
    loop {
        // Random, not by time: people type the beginning of it.
        let id = SessionId::from_uuid(crate::ids::random());
        let spec = config::spec(name, id, wanted, context.clock.now().wall)?;
        let holder = names::holder(context, name).await?;
        if let Some(group) = holder.group
            && let Some(entered) = there(context, name, group, holder.maker).await?
        {
            match is_up(&entered, name, wanted).await? {
                Some(view) => return Ok((view, Up::Already)),
                None => continue,
            }
        }
        context.takes_work()?;
        room()?;
        // Before the name is claimed: whoever finds it there waits for the group.
        let Some(reservation) = context.reserve(id) else { continue };
        if names::claim(context, name, id, holder).await? == names::Claimed::No {
            continue;
        }
        let handle = open::create(context, &reservation, spec).await?;
        let view = handle.view.borrow().as_ref().clone();
        return Ok((view, Up::Made));
    }
}

/// A group that is up is left as it is if it is what is wanted; one that is on its way down is waited for, and then there
/// is none.
async fn is_up(entered: &Entered, name: &str, wanted: &GroupConfig) -> Result<Option<SessionView>, Problem> {
    let handle = &entered.handle;
    let joined = handle.ask(Ask::Join { start: None, trust: None }).await;
    if joined.is_err_and(|problem| problem.code == "session-ended") {
        let mut view = handle.view.clone();
        while view.changed().await.is_ok() {}
        return Ok(None);
    }
    let is = match handle.ask(Ask::Group(GroupAsk::Config)).await? {
        Answer::Config(config) => config,
        other => return Err(unexpected(&other)),
    };
    let differences = config::differences(&is, wanted);
    if differences.is_empty() {
        return Ok(Some(handle.view.borrow().as_ref().clone()));
    }
    let differences = differences.join(", ");
    let detail = format!("group {name:?} is up with another configuration; different are: {differences}");
    Err(Problem::new(409, "group-is-up", "The group is up with another configuration", detail)
        .hint(format!("`outlive down {name}` first, which ends its tasks; or bring it up under another name"))
        .fact("session", handle.id.to_string())
        .fact("different", differences))
}
