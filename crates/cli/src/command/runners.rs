//! `outlive runners`: the groups and their members as a table, once or live.

use std::time::Duration;

use outlive_protocol::http::SessionView;

use super::attach::quietly;
use super::watch::Screen;
use crate::client::{CallError, Client};
use crate::daemon::{self, Daemon};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::follow::members::{self, Said};
use crate::terminal::{self, Ink, Paint};
use crate::{clock, values};

/// How often the live view looks. People see nothing faster, and the answer costs the daemon next to nothing.
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// Arguments.
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Only this group
    #[arg(value_name = "NAME", add = crate::complete::groups(), value_parser = values::name)]
    name: Option<String>,
    /// Show it live, until Ctrl-C
    #[arg(short, long, conflicts_with = "json")]
    watch: bool,
    /// Print the groups as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let client = quietly(daemon).await?;
        if self.watch {
            return live(daemon, client, self.name.as_deref()).await;
        }
        let groups = groups(&client, self.name.as_deref()).await?;
        if self.json {
            terminal::line(serde_json::to_string_pretty(&groups).expect("sessions have string keys"))?;
        } else if groups.is_empty() {
            terminal::talk("no group of runners is up; `outlive up FILE.toml` brings some up");
        } else {
            let width = if terminal::out_is_terminal() { terminal::width() } else { usize::MAX };
            let text = members::text(&groups, clock::now().0, width, Paint::out());
            terminal::data(text.as_bytes())?;
        }
        Ok(Exit::Ok)
    }
}

async fn groups(client: &Client, name: Option<&str>) -> Result<Vec<SessionView>, CallError> {
    match name {
        Some(name) => Ok(vec![client.group(name).await?]),
        None => client.groups().await,
    }
}

/// The table as it changes, until Ctrl-C or until the group that was named has ended.
pub async fn live(daemon: &Daemon, mut client: Client, name: Option<&str>) -> Result<Exit, Failure> {
    let mut view = View::new(groups(&client, name).await?)?;
    let mut look = tokio::time::interval(LOOK_PERIOD);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        view.draw()?;
        tokio::select! {
            biased;
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(|error| Failure::new(Exit::Failed, format!("Ctrl-C cannot be heard: {error}")))?;
                return Ok(Exit::Ok);
            }
            _ = look.tick() => {}
        }
        match groups(&client, name).await {
            Ok(groups) => view.groups = groups,
            Err(CallError::Refused(problem)) if problem.status == 404 && name.is_some() => {
                drop(view);
                terminal::talk(format!("the group {} has ended", name.unwrap_or_default()));
                return Ok(Exit::Ok);
            }
            // What was seen last stays; the next look may find a daemon again.
            Err(error) if error.is_daemon_gone() => {
                if let Ok(found) = daemon.connect_or_start(&mut daemon::silent).await {
                    client = found;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The live view: a screen, or a line for each change.
struct View {
    groups: Vec<SessionView>,
    shown: Shown,
}

enum Shown {
    Screen(Screen),
    Lines(Said),
}

impl View {
    fn new(groups: Vec<SessionView>) -> Result<Self, Failure> {
        let shown = if terminal::out_is_terminal() {
            Shown::Screen(Screen::begin()?)
        } else {
            Shown::Lines(Said::default())
        };
        Ok(Self { groups, shown })
    }

    fn draw(&mut self) -> Result<(), Failure> {
        match &mut self.shown {
            Shown::Screen(screen) => {
                let (height, width) = console::Term::stdout().size_checked().unwrap_or((24, 80));
                let lines = lines(
                    &self.groups,
                    clock::now().0,
                    usize::from(width),
                    usize::from(height),
                    Paint::out(),
                );
                screen.draw("runners – outlive", &lines)
            }
            Shown::Lines(said) => {
                let groups = self.groups.iter().filter_map(|session| session.group.as_ref());
                groups.flat_map(|group| said.changes(group, None, Paint::out())).try_for_each(terminal::line)
            }
        }
    }
}

/// The screen: a line for each group, then the table.
fn lines(groups: &[SessionView], now: u64, width: usize, height: usize, paint: Paint) -> Vec<String> {
    if groups.is_empty() {
        return vec!["no group of runners is up".to_owned()];
    }
    let names = groups.iter().filter_map(|session| session.group.as_ref().map(|group| group.name.len()));
    let room = names.max().unwrap_or(0);
    let mut lines: Vec<String> =
        groups.iter().filter_map(|session| head(session, room, width, paint)).collect();
    lines.push(String::new());
    lines.extend(members::text(groups, now, width, paint).lines().map(str::to_owned));
    if lines.len() > height {
        let hidden = lines.len() + 1 - height;
        lines.truncate(height.saturating_sub(1));
        lines.push(paint.text(Ink::Dim, format!("… {hidden} lines more")).to_string());
    }
    lines
}

/// `llm  2/3 ready · 5 running, 12 queued, 40 done, 1 failed`
fn head(session: &SessionView, room: usize, width: usize, paint: Paint) -> Option<String> {
    let group = session.group.as_ref()?;
    let runs = session.runs;
    let name = format!("{:room$}", terminal::one_line(&group.name));
    let rest = format!(
        "  {} · {} running, {} queued, {} done, {} failed",
        members::summary(group),
        runs.running,
        runs.queued,
        runs.succeeded,
        runs.failed
    );
    let room = width.saturating_sub(console::measure_text_width(&name));
    Some(format!("{}{}", paint.text(Ink::Bold, name), terminal::fit(&rest, room)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::follow::members::tests::{member, session};

    #[test]
    fn the_live_view_fits_its_screen() {
        let members: Vec<_> =
            (0..30).map(|rank| member(rank, &json!({"state": "idle"}), "ready", json!({}))).collect();
        let groups = [session(1, &members)];
        let shown = lines(&groups, 9_000_000, 60, 12, Paint::OFF);
        assert_eq!(shown[0], "llm  30/30 ready · 2 running, 12 queued, 3 done, 1 failed");
        assert_eq!((shown.len(), shown[11].as_str()), (12, "… 22 lines more"));
        assert!(shown.iter().all(|line| console::measure_text_width(line) <= 60), "{shown:#?}");
        assert_eq!(lines(&[], 0, 60, 12, Paint::OFF), ["no group of runners is up"]);
    }
}
