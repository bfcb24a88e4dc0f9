//! The members of groups in words and as a table.

use std::collections::BTreeMap;

use outlive_core::id::ReportId;
use outlive_core::runtime::runner::{Phase, Progress};
use outlive_protocol::http::{GroupView, MemberView, RuntimeState, SessionView};

use super::state;
use crate::table::{self, Cell, Shape};
use crate::terminal::{self, Ink, Paint};

const SHAPE: Shape<'static> = Shape {
    head: &["GROUP", "MEMBER", "STATE", "TASKS", "QUEUED", "RESTARTS", "PID", "SINCE", "LAST FAILURE"],
    main: (8, 12),
    spare: (2, 12),
    // Pid, since when, restarts, then what waits and what runs.
    give_way: &[6, 7, 5, 4, 3],
};

/// How far a member is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stand {
    /// It takes tasks.
    Ready,
    /// It is on its way there.
    Coming,
    /// It is on its way out.
    Going,
    /// It is not there, and nothing brings it there by itself.
    Down,
}

/// Where a member stands.
pub fn stand(member: &MemberView) -> Stand {
    match &member.runtime.state {
        RuntimeState::Idle | RuntimeState::Busy if member.phase == Phase::Ready => Stand::Ready,
        _ if member.comes => Stand::Coming,
        RuntimeState::Down | RuntimeState::Exited { .. } | RuntimeState::GaveUp { .. } => Stand::Down,
        RuntimeState::Launching
        | RuntimeState::Idle
        | RuntimeState::Busy
        | RuntimeState::Unresponsive { .. }
        | RuntimeState::Stopping { .. }
        | RuntimeState::Backoff { .. }
        | RuntimeState::Unknown => Stand::Going,
    }
}

/// `2/3 ready`.
pub fn summary(group: &GroupView) -> String {
    let ready = group.members.iter().filter(|member| stand(member) == Stand::Ready).count();
    format!("{ready}/{} ready", group.members.len())
}

/// What a member does, in a few words without numbers that change all the time.
pub fn word(member: &MemberView) -> (Ink, String) {
    match &member.runtime.state {
        RuntimeState::Launching | RuntimeState::Idle | RuntimeState::Busy => match member.phase {
            Phase::Connecting => (Ink::Cyan, "starting".to_owned()),
            Phase::Loading => (Ink::Cyan, "loading".to_owned()),
            Phase::WarmingUp => (Ink::Cyan, "warming up".to_owned()),
            Phase::Ready if member.running.is_empty() => (Ink::Green, "ready".to_owned()),
            Phase::Ready => (Ink::Green, "busy".to_owned()),
            Phase::ShuttingDown => (Ink::Dim, "shutting down".to_owned()),
        },
        RuntimeState::Unresponsive { detail } => {
            (Ink::Yellow, format!("unresponsive ({})", terminal::one_line(detail)))
        }
        RuntimeState::Backoff { after_ms: 0 } => (Ink::Yellow, "restarting".to_owned()),
        RuntimeState::Backoff { after_ms } => {
            (Ink::Yellow, format!("restarting in {}", terminal::span(after_ms * 1_000)))
        }
        RuntimeState::GaveUp { .. } => (Ink::Red, "gave up".to_owned()),
        // Not started yet, or between two processes.
        RuntimeState::Down if member.comes => (Ink::Dim, "waiting".to_owned()),
        state @ (RuntimeState::Down
        | RuntimeState::Stopping { .. }
        | RuntimeState::Exited { .. }
        | RuntimeState::Unknown) => (Ink::Dim, state::runtime(state)),
    }
}

/// The same with how much of it is done.
pub fn doing(member: &MemberView) -> (Ink, String) {
    let (ink, word) = word(member);
    let is_way = matches!(member.phase, Phase::Loading | Phase::WarmingUp) && stand(member) == Stand::Coming;
    let progress = if is_way { progress(&member.progress) } else { String::new() };
    if progress.is_empty() { (ink, word) } else { (ink, format!("{word} {progress}")) }
}

/// `12/30 (40 %) shards`, or as much of it as was said.
pub fn progress(progress: &Progress) -> String {
    let mut parts = Vec::new();
    match (progress.done, progress.total) {
        (Some(done), Some(total)) if total > 0.0 => {
            let percent = (done / total * 100.0).clamp(0.0, 100.0).floor();
            parts.push(format!("{}/{} ({percent} %)", number(done), number(total)));
        }
        (Some(done), _) => parts.push(number(done)),
        (None, _) => {}
    }
    parts.extend(progress.message.as_deref().map(terminal::one_line).filter(|text| !text.is_empty()));
    parts.join(" ")
}

/// A number with at most two places.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The table of some groups.
pub fn text(sessions: &[SessionView], now: u64, width: usize, paint: Paint) -> String {
    let mut rows = Vec::new();
    for session in sessions {
        let Some(group) = &session.group else { continue };
        for (place, member) in group.members.iter().enumerate() {
            // The queue is the group's: it stands there once.
            let queued = if place == 0 { session.runs.queued.to_string() } else { String::new() };
            rows.push(row(&group.name, member, queued, now));
        }
    }
    SHAPE.text(&rows, width, paint)
}

fn row(group: &str, member: &MemberView, queued: String, now: u64) -> Vec<Cell> {
    let (ink, doing) = doing(member);
    let tasks = match (stand(member), member.concurrency) {
        (Stand::Ready, most @ 1..) => format!("{}/{most}", member.running.len()),
        // It takes none.
        (Stand::Ready, 0) => "-".to_owned(),
        (_, _) => member.running.len().to_string(),
    };
    let failure = match (&member.runtime.state, &member.last_report) {
        (state, Some(report)) => {
            let ago = table::age(now.saturating_sub(report.at.0));
            let ink = if matches!(state, RuntimeState::GaveUp { .. }) { Ink::Red } else { Ink::Yellow };
            (Some(ink), format!("{ago} ago: {}", terminal::one_line(&report.summary)))
        }
        (RuntimeState::GaveUp { reason }, None) => (Some(Ink::Red), terminal::one_line(reason)),
        (_, None) => table::cell("-"),
    };
    vec![
        table::cell(terminal::one_line(group)),
        table::cell(terminal::one_line(&member.name)),
        (Some(ink), doing),
        table::cell(tasks),
        table::cell(queued),
        table::cell(member.runtime.incarnation.0.saturating_sub(1).to_string()),
        table::cell(member.runtime.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string())),
        table::cell(table::age(now.saturating_sub(member.runtime.since.0))),
        failure,
    ]
}

/// What was last said of each member, so that it is said once.
#[derive(Default, Debug)]
pub struct Said(BTreeMap<String, Last>);

/// The last word of a member, and its last failure.
#[derive(Default, Debug)]
struct Last {
    word: String,
    report: Option<ReportId>,
}

impl Said {
    /// A line for each member that does something else than before.
    pub fn changes(&mut self, group: &GroupView, only: Option<&str>, paint: Paint) -> Vec<String> {
        let asked = |member: &&MemberView| only.is_none_or(|name| name == member.name);
        group.members.iter().filter(asked).filter_map(|member| self.change(group, member, paint)).collect()
    }

    fn change(&mut self, group: &GroupView, member: &MemberView, paint: Paint) -> Option<String> {
        let name = terminal::one_line(&format!("{}/{}", group.name, member.name));
        let is_new = !self.0.contains_key(&name);
        let last = self.0.entry(name.clone()).or_default();
        let (ink, word) = word(member);
        // Which task it has is no news of the runner, nor that it has not been started yet.
        let word = if word == "busy" { "ready".to_owned() } else { word };
        let report = member.last_report.as_ref();
        // One that was there before anybody looked is an old one.
        let died = report.filter(|report| !is_new && last.report != Some(report.id));
        last.report = report.map(|report| report.id);
        if word == "waiting" || last.word == word && died.is_none() {
            return None;
        }
        let why = match (&member.runtime.state, died) {
            (_, Some(report)) => format!(": {}", terminal::one_line(&report.summary)),
            (RuntimeState::GaveUp { reason }, None) => format!(": {}", terminal::one_line(reason)),
            (_, None) => String::new(),
        };
        let line = format!("{name} {}{why}", paint.text(ink, &word));
        last.word = word;
        Some(line)
    }
}

#[cfg(test)]
pub mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A member as the API shows it.
    pub fn member(rank: u32, runtime: &Value, phase: &str, more: Value) -> Value {
        let mut member = json!({
            "name": format!("llm-{rank}"), "phase": phase, "comes": runtime["state"] != "gave_up", "tasks": ["chat"], "capabilities": [], "concurrency": 4,
            "running": [],
            "runtime": {"id": uuid::Uuid::nil(), "incarnation": 1, "name": "r", "state": runtime, "pid": 4711 + rank, "since": 0},
        });
        for (key, value) in more.as_object().expect("an object") {
            member[key] = value.clone();
        }
        member
    }

    /// A session of these members.
    pub fn session(generation: u64, members: &[Value]) -> SessionView {
        serde_json::from_value(json!({
            "id": "1a2b3c4d-0000-4000-8000-000000000000", "generation": generation, "position": generation,
            "title": "llm", "kind": "runners", "path": null, "created_at": 0, "closed_at": null, "state": "working",
            "runtime": members[0]["runtime"], "current": null, "question": null, "last_report": null,
            "runs": {"queued": 12, "running": 2, "succeeded": 3, "failed": 1, "cancelled": 0},
            "save_problem": null, "peers": 0,
            "group": {"name": "llm", "strategy": "one_for_one", "running": 2, "members": members},
        }))
        .expect("a session")
    }

    fn some() -> SessionView {
        let run = uuid::Uuid::nil();
        let report = json!({"id": run, "code": "out-of-memory", "at": 3_600_000_000_u64,
            "summary": "it used 8 GiB of memory, all that it may"});
        let gave_up = json!({"state": "gave_up", "reason": "4 restarts within 60 s"});
        session(
            1,
            &[
                member(0, &json!({"state": "busy"}), "ready", json!({"running": [run, run]})),
                member(
                    1,
                    &json!({"state": "launching"}),
                    "loading",
                    json!({
                "progress": {"done": 12.0, "total": 30.0, "message": "shards"}, "last_report": report}),
                ),
                member(2, &gave_up, "connecting", json!({})),
            ],
        )
    }

    #[test]
    fn a_table_of_members() {
        let expected = "\
GROUP  MEMBER  STATE                        TASKS  QUEUED  RESTARTS  PID   SINCE  LAST FAILURE
llm    llm-0   busy                         2/4    12      0         4711  2h     -
llm    llm-1   loading 12/30 (40 %) shards  0              0         4712  2h     1h ago: it used 8 GiB of memory, all that it may
llm    llm-2   gave up                      0              0         4713  2h     4 restarts within 60 s
";
        assert_eq!(text(&[some()], 7_200_000_000, usize::MAX, Paint::OFF), expected);
        let expected = "\
GROUP  MEMBER  STATE                        TASKS  QUEUED  LAST FAILURE
llm    llm-0   busy                         2/4    12      -
llm    llm-1   loading 12/30 (40 %) shards  0              1h ago: it used 8 Gi…
llm    llm-2   gave up                      0              4 restarts within 60…
";
        assert_eq!(text(&[some()], 7_200_000_000, 80, Paint::OFF), expected);
        for width in [50, 60, 100, 120] {
            let text = text(&[some()], 7_200_000_000, width, Paint::OFF);
            let widest = text.lines().map(console::measure_text_width).max();
            assert!(widest <= Some(width), "{width}: {text}");
        }
        assert_eq!(summary(some().group.as_ref().expect("a group")), "1/3 ready");
    }

    #[test]
    fn progress_as_it_was_said() {
        let said = |value: Value| progress(&serde_json::from_value(value).expect("progress"));
        assert_eq!(said(json!({"done": 1.5, "total": 3.0})), "1.5/3 (50 %)");
        assert_eq!(said(json!({"done": 7.0, "message": "files\n"})), "7 files\u{fffd}");
        assert_eq!(said(json!({"done": 9.0, "total": 0.0})), "9");
        assert_eq!(said(json!({})), "");
    }

    #[test]
    fn a_change_is_said_once_and_tasks_are_none() {
        let state = |runtime: Value, phase: &str| session(1, &[member(0, &runtime, phase, json!({}))]);
        let mut said = Said::default();
        let mut lines =
            |session: SessionView| said.changes(&session.group.expect("a group"), None, Paint::OFF);
        assert_eq!(lines(state(json!({"state": "launching"}), "loading")), ["llm/llm-0 loading"]);
        assert!(lines(state(json!({"state": "launching"}), "loading")).is_empty());
        assert_eq!(lines(state(json!({"state": "idle"}), "ready")), ["llm/llm-0 ready"]);
        let busy = member(0, &json!({"state": "busy"}), "ready", json!({"running": [uuid::Uuid::nil()]}));
        assert!(lines(session(1, &[busy])).is_empty());
        let report =
            json!({"id": uuid::Uuid::nil(), "code": "signal", "at": 1, "summary": "killed by SIGSEGV"});
        let exited = json!({"state": "exited", "status": {"kind": "unknown"}, "cause": "native-crash"});
        let died = member(0, &exited, "ready", json!({"last_report": report}));
        assert_eq!(lines(session(1, &[died])), ["llm/llm-0 native-crash: killed by SIGSEGV"]);
        let again = member(
            0,
            &json!({"state": "backoff", "after_ms": 200}),
            "connecting",
            json!({"last_report": report}),
        );
        assert_eq!(lines(session(1, &[again])), ["llm/llm-0 restarting in 0.2 s"]);
        let gave_up = json!({"state": "gave_up", "reason": "it dies at once"});
        assert_eq!(lines(state(gave_up, "connecting")), ["llm/llm-0 gave up: it dies at once"]);
    }
}
