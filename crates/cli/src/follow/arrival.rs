//! Waiting for members of groups to come up, or to go down: a line for each of them that is drawn anew on a terminal, a
//! line for each change elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use outlive_core::id::SessionId;
use outlive_protocol::http::{GroupView, MemberView, SessionView, StreamEvent};

use super::Left;
use super::members::{self, Said, Stand};
use crate::client::Client;
use crate::client::attached::{Attached, Next, Target};
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::report;
use crate::terminal::{self, Ink, Paint};

/// How often the spinners turn.
const TICK: Duration = Duration::from_millis(120);

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Goal {
    /// Each member is ready, or will not be.
    Up,
    /// Each member has ended.
    Down,
}

/// Members that are waited for.
#[derive(Clone, Debug)]
pub struct Awaited {
    /// The group as it was told last.
    pub session: SessionView,
    /// Only this member.
    pub member: Option<String>,
}

impl Awaited {
    fn members(&self) -> impl Iterator<Item = &MemberView> {
        let members = self.session.group.iter().flat_map(|group| &group.members);
        members.filter(|member| self.member.as_ref().is_none_or(|name| *name == member.name))
    }

    /// Whether nothing is left to wait for.
    pub fn is_there(&self, goal: Goal) -> bool {
        let is_over = self.session.closed_at.is_some();
        is_over
            || self.members().all(|member| match (goal, members::stand(member)) {
                (_, Stand::Down) | (Goal::Up, Stand::Ready) => true,
                // One that is on its way out may be so because its group is: that is known when it is gone.
                (Goal::Down, Stand::Ready) | (_, Stand::Coming | Stand::Going) => false,
            })
    }

    /// The members that are not up and will not be.
    fn failed(&self) -> impl Iterator<Item = &MemberView> {
        self.members().filter(|member| matches!(members::stand(member), Stand::Down | Stand::Going))
    }
}

/// Waits for all of them. Gives what they have become, unless the user left before.
pub async fn wait(
    daemon: &Daemon,
    client: &Client,
    mut groups: Vec<Awaited>,
    goal: Goal,
) -> Result<(Vec<Awaited>, Left), Failure> {
    let mut shown = Shown::new(&groups);
    let mut streams = Vec::new();
    for group in &groups {
        let target = Target::States { id: group.session.id };
        let after = Some(group.session.position.to_string());
        streams.push(Attached::open(daemon, client.clone(), target, true, after).await?);
        shown.show(&group.session, group.member.as_deref());
    }
    loop {
        let waiting: Vec<usize> = (0..groups.len()).filter(|place| !groups[*place].is_there(goal)).collect();
        if waiting.is_empty() {
            shown.finish();
            return Ok((groups, Left::Seen));
        }
        let ids: Vec<SessionId> = waiting.iter().map(|place| groups[*place].session.id).collect();
        let open = streams.iter_mut().enumerate().filter(|(place, _)| waiting.contains(place));
        let nexts = open.map(|(_, stream)| Box::pin(stream.next()));
        let (next, place) = tokio::select! {
            biased;
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(|error| Failure::new(Exit::Failed, format!("Ctrl-C cannot be heard: {error}")))?;
                shown.finish();
                return Ok((groups, Left::Detached(Exit::INTERRUPTED)));
            }
            (next, place, _) = futures_util::future::select_all(nexts) => (next, place),
        };
        match next? {
            Next::Event(StreamEvent::Session { session }) => {
                let group = &mut groups[waiting[place]];
                shown.show(&session, group.member.as_deref());
                group.session = *session;
            }
            Next::End | Next::Event(StreamEvent::End { .. }) => {
                groups[waiting[place]].session = client.session(ids[place]).await?;
                // A stream that ends belongs to a group that has ended.
                groups[waiting[place]].session.closed_at.get_or_insert(crate::clock::now());
            }
            Next::Event(_) => {}
            Next::Notice(text) => shown.say(&text),
        }
    }
}

/// Says why members are not up. Nothing is said when all are.
pub async fn explain(client: &Client, groups: &[Awaited]) -> Result<Exit, Failure> {
    let mut exit = Exit::Ok;
    for group in groups {
        let Some(view) = &group.session.group else { continue };
        if group.session.closed_at.is_some() {
            terminal::talk(format!("the group {} was taken down meanwhile", view.name));
            exit = Exit::Stopped;
            continue;
        }
        let failed: Vec<&MemberView> = group.failed().collect();
        if failed.is_empty() {
            continue;
        }
        exit = Exit::CannotStart;
        let reports = client.reports(group.session.id).await?;
        for member in failed {
            let runtime = Some(member.runtime.id);
            let last =
                reports.iter().rev().find(|report| report.process.map(|process| process.runtime) == runtime);
            if let Some(last) = last.filter(|report| report::is_news(report)) {
                terminal::error_bytes(format!("\n{}", report::text(last, Paint::err())).as_bytes());
            }
            terminal::talk(not_up(view, member));
        }
    }
    Ok(exit)
}

/// Why a member is not up, and what brings it there.
fn not_up(group: &GroupView, member: &MemberView) -> String {
    let name = terminal::one_line(&format!("{}/{}", group.name, member.name));
    let (_, word) = members::word(member);
    format!(
        "{name} is not up ({word}): `outlive runner start {name}` tries again, `outlive explain {name}` says more"
    )
}

/// What stands on the terminal.
enum Shown {
    /// A line for each member.
    Lines { all: MultiProgress, bars: BTreeMap<String, ProgressBar>, room: usize },
    /// A line for each change.
    Changes(Said),
}

impl Shown {
    fn new(groups: &[Awaited]) -> Self {
        let count: usize = groups.iter().map(|group| group.members().count()).sum();
        let rows = console::Term::stderr().size_checked().map_or(0, |(rows, _)| usize::from(rows));
        if !terminal::err_is_terminal() || count + 2 > rows {
            return Self::Changes(Said::default());
        }
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(15));
        let names = groups.iter().flat_map(|group| group.session.group.iter());
        let names = names.flat_map(|group| group.members.iter().map(|member| name(group, member).len()));
        Self::Lines { all, bars: BTreeMap::new(), room: names.max().unwrap_or(0) }
    }

    fn show(&mut self, session: &SessionView, only: Option<&str>) {
        let Some(group) = &session.group else { return };
        match self {
            Self::Changes(said) => {
                said.changes(group, only, Paint::err()).into_iter().for_each(terminal::talk);
            }
            Self::Lines { all, bars, room } => {
                for member in
                    group.members.iter().filter(|member| only.is_none_or(|name| name == member.name))
                {
                    let name = name(group, member);
                    let bar = bars.entry(name.clone()).or_insert_with(|| {
                        let bar = all.add(ProgressBar::new_spinner());
                        bar.set_prefix(format!("{name:room$}"));
                        bar
                    });
                    line(bar, member);
                }
            }
        }
    }

    fn say(&self, text: &str) {
        match self {
            Self::Changes(_) => terminal::talk(text),
            Self::Lines { all, .. } => all.suspend(|| terminal::talk(text)),
        }
    }

    /// The lines stay as they are.
    fn finish(&self) {
        if let Self::Lines { bars, .. } = self {
            for bar in bars.values() {
                bar.disable_steady_tick();
                bar.abandon();
            }
        }
    }
}

fn name(group: &GroupView, member: &MemberView) -> String {
    terminal::one_line(&format!("{}/{}", group.name, member.name))
}

fn line(bar: &ProgressBar, member: &MemberView) {
    let style = |template: &str| ProgressStyle::with_template(template).expect("the template is a literal");
    let (ink, text) = members::doing(member);
    match members::stand(member) {
        Stand::Coming | Stand::Going => {
            bar.set_style(style("{spinner:.cyan} {prefix:.bold}  {wide_msg} {elapsed:.dim}"));
            bar.enable_steady_tick(TICK);
        }
        Stand::Ready | Stand::Down => {
            bar.disable_steady_tick();
            let mark = if members::stand(member) == Stand::Ready { "✓" } else { "✗" };
            bar.set_style(style(&format!("{mark} {{prefix:.bold}}  {{wide_msg}}")));
        }
    }
    let paint = Paint::err();
    bar.set_message(paint.text(if ink == Ink::Dim { Ink::Bold } else { ink }, text).to_string());
    bar.tick();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::members::tests::{member, session};
    use super::*;

    fn awaited(states: &[(&str, &str)], only: Option<&str>) -> Awaited {
        let members: Vec<_> = (0_u32..)
            .zip(states)
            .map(|(rank, (state, phase))| {
                member(rank, &json!({"state": state, "reason": "r"}), phase, json!({}))
            })
            .collect();
        Awaited { session: session(1, &members), member: only.map(str::to_owned) }
    }

    #[test]
    fn a_group_is_there_when_each_member_is_ready_or_will_not_be() {
        let both = [("idle", "ready"), ("launching", "loading")];
        assert!(!awaited(&both, None).is_there(Goal::Up));
        assert!(awaited(&both, Some("llm-0")).is_there(Goal::Up), "only this one was asked for");
        let one_failed = awaited(&[("busy", "ready"), ("gave_up", "connecting")], None);
        assert!(one_failed.is_there(Goal::Up));
        assert_eq!(one_failed.failed().map(|member| member.name.as_str()).collect::<Vec<_>>(), ["llm-1"]);
        let mut closed = awaited(&both, None);
        closed.session.closed_at = Some(outlive_core::time::WallTime(1));
        assert!(closed.is_there(Goal::Up), "nothing is to be waited for");
    }

    #[test]
    fn a_member_that_is_being_stopped_is_waited_for() {
        let group = |states| {
            let mut group = awaited(&[("idle", "ready"), states], None);
            let view = group.session.group.as_mut().expect("a group");
            view.members[1].comes = false;
            group
        };
        assert!(!group(("launching", "loading")).is_there(Goal::Up), "its group may be on its way out");
        assert!(group(("down", "connecting")).is_there(Goal::Up), "it is known to stay down");
    }

    #[test]
    fn a_group_is_down_when_nothing_of_it_runs() {
        let stopped = |states| {
            let mut group = awaited(states, None);
            let view = group.session.group.as_mut().expect("a group");
            view.members.iter_mut().for_each(|member| member.comes = false);
            group
        };
        assert!(!stopped(&[("down", "connecting"), ("idle", "ready")]).is_there(Goal::Down));
        assert!(!stopped(&[("down", "connecting"), ("launching", "loading")]).is_there(Goal::Down));
        assert!(stopped(&[("down", "connecting"), ("gave_up", "connecting")]).is_there(Goal::Down));
    }
}
