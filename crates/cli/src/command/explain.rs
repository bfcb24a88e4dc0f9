//! `outlive explain`: the failures of a session, the last one first, each with cause, evidence and remedy; and how it
//! has moved from node to node.

use outlive_core::id::SessionId;
use outlive_protocol::http::{MemberView, SessionView, TakeoverView};

use super::attach::quietly;
use crate::client::Client;
use crate::daemon::Daemon;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::terminal::{self, Paint};
use crate::values::{self, Runners};
use crate::{clock, report, select, takeover};

/// Arguments.
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Session: id or its beginning, title or file name; or GROUP/MEMBER [default: the latest]
    #[arg(value_name = "SESSION", add = crate::complete::sessions())]
    session: Option<String>,
    /// Only how it has moved from node to node
    #[arg(long)]
    takeovers: bool,
    /// Print the reports (or takeovers) as JSON, oldest first
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let client = quietly(daemon).await?;
        let (session, member) = subject(&client, self.session.as_deref()).await?;
        let moves = client.takeovers(session.id).await?;
        if self.takeovers {
            return moved(&moves, session.id, self.json);
        }
        let mut reports = client.reports(session.id).await?;
        reports.retain(|report| {
            member.as_ref().is_none_or(|member| {
                report.process.is_some_and(|process| process.runtime == member.runtime.id)
            })
        });
        if self.json {
            let text = serde_json::to_string_pretty(&reports).expect("reports have string keys");
            terminal::line(text)?;
            return Ok(Exit::Ok);
        }
        if reports.is_empty() {
            let title = member.map_or_else(|| session.title.clone(), |member| member.name);
            let title = terminal::one_line(&title);
            terminal::talk(format!("nothing has died in {} ({title})", select::short(session.id)));
            if session.runs.failed > 0 {
                terminal::talk(format!(
                    "{} of its runs failed by themselves: `outlive logs {}` shows how",
                    session.runs.failed,
                    select::short(session.id)
                ));
            }
        }
        if let [_, _, ..] = reports.as_slice() {
            terminal::talk(format!("{} failures, the last one first", reports.len()));
        }
        // What is done about it concerns the last one alone.
        for (number, report) in reports.iter().rev().enumerate() {
            let (gap, session) = if number > 0 { ("\n", None) } else { ("", Some(&session)) };
            let text = report::text_in(session, report, Paint::out());
            terminal::data(format!("{gap}{text}").as_bytes())?;
        }
        if !moves.is_empty() {
            terminal::line("")?;
            return moved(&moves, session.id, false);
        }
        Ok(Exit::Ok)
    }
}

/// How a session has changed its nodes.
fn moved(moves: &[TakeoverView], session: SessionId, json: bool) -> Result<Exit, Failure> {
    if json {
        terminal::line(serde_json::to_string_pretty(moves).expect("takeovers have string keys"))?;
        return Ok(Exit::Ok);
    }
    if moves.is_empty() {
        terminal::talk(format!("{} has always been on one node", select::short(session)));
    }
    let now = clock::now().0;
    moves
        .iter()
        .try_for_each(|takeover| terminal::data(takeover::text(takeover, now, Paint::out()).as_bytes()))?;
    Ok(Exit::Ok)
}

/// A session, and the member of it that was named (`GROUP/MEMBER`).
async fn subject(client: &Client, name: Option<&str>) -> Result<(SessionView, Option<MemberView>), Failure> {
    let Some(Runners { group, member: Some(member) }) = name.and_then(|name| values::runners(name).ok())
    else {
        return Ok((select::session(client, name).await?, None));
    };
    let session = match select::session(client, Some(&group)).await {
        Ok(session) if session.group.is_some() => session,
        // It may be the path of a file.
        Ok(_) | Err(_) => return Ok((select::session(client, name).await?, None)),
    };
    let members = session.group.iter().flat_map(|view| &view.members);
    let found = members.clone().find(|known| known.name == member).cloned();
    if found.is_none() {
        let names: Vec<_> = members.map(|known| known.name.as_str()).collect();
        return Err(Failure::new(Exit::NotFound, format!("{group} has no member {member:?}"))
            .hint(format!("it has {}", names.join(", "))));
    }
    Ok((session, found))
}
