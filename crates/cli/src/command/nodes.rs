//! `outlive nodes`: the nodes of the cluster, and who has taken over what lately.

use std::collections::BTreeMap;
use std::time::Duration;

use outlive_protocol::http::{ClusterNode, ClusterView, NodeState};

use super::attach::quietly;
use super::watch::Screen;
use crate::client::{Client, Twice};
use crate::daemon::{self, Daemon};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::table::{self, Cell, Shape};
use crate::terminal::{self, Ink, Paint};
use crate::{clock, select, takeover};

/// How often the live view looks.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// Clocks that differ by more than this are said, in milliseconds: records of two nodes are in an order that surprises.
const SKEW_MS_MAX: u64 = 5_000;
/// How many takeovers stand below the nodes.
const TAKEOVERS_MAX: usize = 10;

/// Arguments.
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Show them live
    #[arg(short, long)]
    watch: bool,
    /// Print nodes and takeovers as JSON
    #[arg(long, conflicts_with = "watch")]
    json: bool,
}

impl Args {
    /// Does it.
    pub async fn run(self, daemon: &Daemon) -> Result<Exit, Failure> {
        let mut client = quietly(daemon).await?;
        let view = look(daemon, &mut client).await?;
        if self.json {
            terminal::line(serde_json::to_string_pretty(&view).expect("nodes have string keys"))?;
            return Ok(Exit::Ok);
        }
        if view.nodes.is_empty() {
            terminal::talk(
                "this daemon is alone: `outlive serve --cluster nats://HOST:PORT` makes it one of several",
            );
            return Ok(Exit::Ok);
        }
        if self.watch {
            return live(daemon, client, view).await;
        }
        let width = if terminal::out_is_terminal() { terminal::width() } else { usize::MAX };
        terminal::data(text(&view, clock::now().0, width, Paint::out()).as_bytes())?;
        remarks(&view).into_iter().for_each(|text| terminal::talk(Paint::err().text(Ink::Yellow, text)));
        Ok(Exit::Ok)
    }
}

async fn look(daemon: &Daemon, client: &mut Client) -> Result<ClusterView, Failure> {
    let ask = async |client: Client| client.cluster().await;
    Ok(daemon.persist(client, Twice::Harmless, &mut daemon::silent, ask).await?)
}

async fn live(daemon: &Daemon, mut client: Client, mut view: ClusterView) -> Result<Exit, Failure> {
    let mut screen = if terminal::out_is_terminal() { Some(Screen::begin()?) } else { None };
    let mut said = Said::default();
    let mut period = tokio::time::interval(LOOK_PERIOD);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        match &mut screen {
            Some(screen) => {
                let (height, width) = console::Term::stdout().size_checked().unwrap_or((24, 80));
                let mut lines: Vec<String> = text(&view, clock::now().0, usize::from(width), Paint::out())
                    .lines()
                    .chain(remarks(&view).iter().map(String::as_str))
                    .map(str::to_owned)
                    .collect();
                lines.truncate(usize::from(height));
                screen.draw("nodes – outlive", &lines)?;
            }
            None => said.changes(&view).into_iter().try_for_each(terminal::line)?,
        }
        tokio::select! {
            biased;
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(|error| Failure::new(Exit::Failed, format!("Ctrl-C cannot be heard: {error}")))?;
                return Ok(Exit::Ok);
            }
            _ = period.tick() => {}
        }
        view = look(daemon, &mut client).await?;
    }
}

const NODES: Shape<'static> = Shape {
    head: &["  NAME", "STATE", "SESSIONS", "URL", "SKEW", "SINCE", "VERSION"],
    main: (0, 10),
    spare: (3, 16),
    // Version, skew, since when.
    give_way: &[6, 4, 5],
};
const TAKEOVERS: Shape<'static> = Shape {
    head: &["AGO", "SESSION", "TITLE", "FROM", "TO", "WHY", "GAP"],
    main: (2, 12),
    spare: (5, 6),
    give_way: &[5, 0],
};

/// The nodes, and the latest takeovers below them.
fn text(view: &ClusterView, now: u64, width: usize, paint: Paint) -> String {
    let rows: Vec<Vec<Cell>> = view.nodes.iter().map(|node| row(node, now)).collect();
    let mut text = NODES.text(&rows, width, paint);
    if !view.takeovers.is_empty() {
        let takeovers = view.takeovers.iter().take(TAKEOVERS_MAX);
        let rows: Vec<Vec<Cell>> = takeovers
            .map(|takeover| {
                [
                    table::age(now.saturating_sub(takeover.resumed_at.0)),
                    select::short(takeover.session),
                    terminal::one_line(&takeover.title),
                    terminal::one_line(&takeover.from_name),
                    terminal::one_line(&takeover.to_name),
                    terminal::one_line(&takeover.why),
                    takeover::gap(takeover),
                ]
                .map(table::cell)
                .into()
            })
            .collect();
        text.push('\n');
        text.push_str(&TAKEOVERS.text(&rows, width, paint));
    }
    text
}

fn row(node: &ClusterNode, now: u64) -> Vec<Cell> {
    let (ink, state) = state(node.state);
    let mark = if node.is_me { '*' } else { ' ' };
    let skew_ink = is_skewed(node).then_some(Ink::Yellow);
    vec![
        table::cell(format!("{mark} {}", terminal::one_line(&node.name))),
        (ink, state.to_owned()),
        table::cell(node.sessions.to_string()),
        table::cell(terminal::one_line(node.url.as_deref().unwrap_or("-"))),
        (skew_ink, if node.is_me { "-".to_owned() } else { skew(node.clock_skew_ms) }),
        table::cell(table::age(now.saturating_sub(node.since.0))),
        table::cell(terminal::one_line(&node.version)),
    ]
}

/// A node's state in a word and its colour.
const fn state(state: NodeState) -> (Option<Ink>, &'static str) {
    match state {
        NodeState::Joining => (Some(Ink::Cyan), "joining"),
        NodeState::Alive => (Some(Ink::Green), "alive"),
        NodeState::Suspected => (Some(Ink::Yellow), "suspected"),
        NodeState::Isolated => (Some(Ink::Red), "isolated"),
        NodeState::Draining => (Some(Ink::Yellow), "draining"),
        NodeState::Dead => (Some(Ink::Red), "dead"),
        NodeState::Left => (Some(Ink::Dim), "left"),
    }
}

const fn is_skewed(node: &ClusterNode) -> bool {
    !node.is_me && node.clock_skew_ms.unsigned_abs() > SKEW_MS_MAX
}

/// `+3 ms`, `-2.1 s`, `+2 h 00 min`.
fn skew(millis: i64) -> String {
    let sign = if millis < 0 { '-' } else { '+' };
    match millis.unsigned_abs() {
        millis @ 0..1_000 => format!("{sign}{millis} ms"),
        millis => format!("{sign}{}", terminal::span(millis * 1_000)),
    }
}

/// What somebody should look at.
fn remarks(view: &ClusterView) -> Vec<String> {
    let guard =
        view.guard.iter().map(|guard| format!("nobody is suspected now: {}", terminal::one_line(guard)));
    let skewed = view.nodes.iter().filter(|node| is_skewed(node)).map(|node| {
        let (name, by) = (terminal::one_line(&node.name), terminal::span(node.clock_skew_ms.unsigned_abs() * 1_000));
        let way = if node.clock_skew_ms > 0 { "ahead of" } else { "behind" };
        format!("the clock of {name} is {by} {way} this node's: set both by NTP, times of records are wrong meanwhile")
    });
    guard.chain(skewed).collect()
}

/// What was last said of each node, so that it is said once.
#[derive(Default)]
struct Said {
    states: BTreeMap<String, NodeState>,
    takeovers: usize,
    is_begun: bool,
}

impl Said {
    fn changes(&mut self, view: &ClusterView) -> Vec<String> {
        let mut lines = Vec::new();
        for node in &view.nodes {
            let name = terminal::one_line(&node.name);
            if self.states.insert(name.clone(), node.state) != Some(node.state) {
                lines.push(format!("{name} {}", state(node.state).1));
            }
        }
        // Newest first; what was there when somebody began to look is no news.
        let known = std::mem::replace(&mut self.takeovers, view.takeovers.len());
        if std::mem::replace(&mut self.is_begun, true) {
            let new = view.takeovers.iter().take(view.takeovers.len().saturating_sub(known));
            let line = |takeover: &outlive_protocol::http::TakeoverView| {
                let names = [&takeover.title, &takeover.from_name, &takeover.to_name];
                let [title, from, to] = names.map(|name| terminal::one_line(name));
                format!("{title} moved from {from} to {to} in {}", takeover::gap(takeover))
            };
            lines.extend(new.rev().map(line));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::takeover::tests::lost;

    fn node(name: &str, more: Value) -> ClusterNode {
        let mut node = json!({
            "node": uuid::Uuid::nil(), "boot": uuid::Uuid::nil(), "name": name, "url": format!("http://10.0.0.1:{name}"),
            "state": "alive", "since": 3_600_000_000_u64, "version": "0.1.0", "sessions": 12, "clock_skew_ms": 3,
            "is_me": false,
        });
        for (key, value) in more.as_object().expect("an object") {
            node[key] = value.clone();
        }
        serde_json::from_value(node).expect("a node")
    }

    fn view() -> ClusterView {
        ClusterView {
            nodes: vec![
                node("a", json!({"state": "dead", "clock_skew_ms": -7_200_000, "sessions": 0})),
                node("b", json!({"is_me": true, "clock_skew_ms": 0})),
                node("c", json!({"url": null})),
            ],
            guard: Some("two of two nodes are silent at once".to_owned()),
            takeovers: vec![lost()],
        }
    }

    #[test]
    fn nodes_and_takeovers_as_tables() {
        let expected = "  NAME  STATE  SESSIONS  URL                SKEW         SINCE  VERSION
  a     dead   0         http://10.0.0.1:a  -2 h 00 min  1h     0.1.0
* b     alive  12        http://10.0.0.1:b  -            1h     0.1.0
  c     alive  12        -                  +3 ms        1h     0.1.0

AGO  SESSION   TITLE        FROM  TO  WHY     GAP
1h   1a2b3c4d  train.ipynb  a     b   silent  1.5 s
";
        assert_eq!(text(&view(), 7_200_000_000, usize::MAX, Paint::OFF), expected);
        for width in [50, 60, 80, 100] {
            let text = text(&view(), 7_200_000_000, width, Paint::OFF);
            assert!(text.lines().all(|line| console::measure_text_width(line) <= width), "{width}: {text}");
        }
    }

    #[test]
    fn clocks_that_differ_and_guards_are_said() {
        let remarks = remarks(&view());
        assert_eq!(remarks.len(), 2, "{remarks:?}");
        assert!(remarks[0].contains("two of two nodes"), "{remarks:?}");
        assert!(remarks[1].contains("the clock of a is 2 h 00 min behind this node's"), "{remarks:?}");
    }

    #[test]
    fn a_change_is_said_once() {
        let mut said = Said::default();
        assert_eq!(said.changes(&view()), ["a dead", "b alive", "c alive"]);
        assert!(said.changes(&view()).is_empty());
        let mut later = view();
        later.nodes[2].state = NodeState::Suspected;
        later.takeovers.insert(0, lost());
        assert_eq!(said.changes(&later), ["c suspected", "train.ipynb moved from a to b in 1.5 s"]);
    }
}
