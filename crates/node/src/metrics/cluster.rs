//! What a node of several counts.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use outlive_core::failover::liveness::Guard;
use outlive_protocol::http::NodeState;

use super::Counter;
use super::render::Text;
use crate::cluster::Cluster;

/// Upper ends of the classes in which takeovers are counted, in milliseconds: from the notice of a loss to the first
/// append of the new owner. A kernel's grace lies between the last ones.
const TAKEOVER_MS: [u64; 10] = [5, 10, 25, 50, 100, 250, 500, 1_000, 5_000, 15_000];

/// The counters of a node of several.
#[derive(Default, Debug)]
pub struct ClusterMetrics {
    beats_sent: Counter,
    beats_heard: Counter,
    suspected: Counter,
    dead: Counter,
    left: Counter,
    guards: [Counter; 4],
    rearmed: Counter,
    isolated: Counter,
    takeovers_begun: Counter,
    takeovers_done: Mutex<Takeovers>,
    fenced: Counter,
}

#[derive(Default, Debug)]
struct Takeovers {
    /// How many were in each class, and how many took longer than all of them.
    classes: [u64; TAKEOVER_MS.len() + 1],
    all: Duration,
}

impl ClusterMetrics {
    /// A heartbeat was sent.
    pub fn beat_sent(&self) {
        self.beats_sent.add();
    }

    /// A heartbeat of another node was heard.
    pub fn beat_heard(&self) {
        self.beats_heard.add();
    }

    /// A node is silent and was asked whether it is there.
    pub fn suspected(&self) {
        self.suspected.add();
    }

    /// A node is dead.
    pub fn dead(&self) {
        self.dead.add();
    }

    /// A node said goodbye.
    pub fn left(&self) {
        self.left.add();
    }

    /// Nobody is suspected because of this.
    pub fn guard_held(&self, guard: Guard) {
        self.guards[guard as usize].add();
    }

    /// This node was cut off for a moment and is back.
    pub fn rearmed(&self) {
        self.rearmed.add();
    }

    /// This node was cut off for so long that it closed its watchers.
    pub fn isolated(&self) {
        self.isolated.add();
    }

    /// A takeover of a session has begun here.
    pub fn takeover_begun(&self) {
        self.takeovers_begun.add();
    }

    /// A takeover is done; so long after the loss was noticed.
    pub fn takeover_done(&self, took: Duration) {
        let class = TAKEOVER_MS.iter().position(|end| took <= Duration::from_millis(*end));
        let mut done = self.takeovers_done.lock().expect("nothing panics while it holds the takeovers");
        done.classes[class.unwrap_or(TAKEOVER_MS.len())] += 1;
        done.all += took;
    }

    /// An append was refused because somebody else owns the session.
    pub fn fenced(&self) {
        self.fenced.add();
    }

    pub(super) fn render(&self, cluster: &Cluster, text: &mut Text) {
        let members = cluster.members.borrow().clone();
        let mut family = text
            .gauge("outlive_cluster_members", "Nodes of the cluster, by how they stand as this one sees it.");
        for (state, name) in STATES {
            let number = members.seen.values().filter(|seen| seen.state == state).count();
            family = family.value(&format!("state=\"{name}\""), number as u64);
        }
        let here = members.seen.values().filter(|seen| !seen.is_gone());
        let skew_ms = here.map(|seen| seen.clock_skew_ms.unsigned_abs()).max().unwrap_or_default();
        text.gauge(
            "outlive_cluster_clock_skew_seconds",
            "How far the clock of a node that is there is off this one's, the largest.",
        )
        .value("", skew_ms / 1_000);
        let mut total = |name: &str, help: &str, counter: &Counter| {
            text.counter(name, help).value("", counter.get());
        };
        total("outlive_cluster_beats_sent_total", "Heartbeats sent.", &self.beats_sent);
        total("outlive_cluster_beats_heard_total", "Heartbeats of other nodes heard.", &self.beats_heard);
        total(
            "outlive_cluster_suspected_total",
            "Nodes that were silent and were asked whether they are there.",
            &self.suspected,
        );
        total("outlive_cluster_dead_total", "Nodes that died, as this one concluded.", &self.dead);
        total("outlive_cluster_left_total", "Nodes that said goodbye.", &self.left);
        total(
            "outlive_cluster_rearmed_total",
            "Times this node was cut off for a moment, and all silence was counted anew.",
            &self.rearmed,
        );
        total(
            "outlive_cluster_isolated_total",
            "Times this node was cut off for so long that it closed its watchers.",
            &self.isolated,
        );
        total(
            "outlive_cluster_takeovers_begun_total",
            "Sessions of lost nodes that this node has begun to take over.",
            &self.takeovers_begun,
        );
        total(
            "outlive_cluster_fenced_total",
            "Appends that were refused because another node owned the session.",
            &self.fenced,
        );
        let mut family = text.counter(
            "outlive_cluster_guard_held_total",
            "Times nobody was suspected although somebody was silent, by the reason.",
        );
        for (guard, name) in GUARDS {
            family = family.value(&format!("guard=\"{name}\""), self.guards[guard as usize].get());
        }
        self.render_takeovers(text);
    }

    fn render_takeovers(&self, text: &mut Text) {
        let done = self.takeovers_done.lock().expect("nothing panics while it holds the takeovers");
        let number: u64 = done.classes.iter().sum();
        text.counter("outlive_cluster_takeovers_done_total", "Takeovers that came to their end here.")
            .value("", number);
        let name = "outlive_cluster_takeover_seconds";
        let help = "From the notice of a node's loss to the first append of the new owner.";
        let mut sum = 0;
        let mut lines = format!("# HELP {name} {help}\n# TYPE {name} histogram\n");
        for (end, number) in TAKEOVER_MS.iter().zip(done.classes) {
            sum += number;
            let end = Duration::from_millis(*end).as_secs_f64();
            writeln!(lines, "{name}_bucket{{le=\"{end}\"}} {sum}").expect("a string takes all");
        }
        let all = done.all.as_secs_f64();
        writeln!(lines, "{name}_bucket{{le=\"+Inf\"}} {number}\n{name}_sum {all}\n{name}_count {number}")
            .expect("a string takes all");
        text.0.push_str(&lines);
    }
}

const STATES: [(NodeState, &str); 7] = [
    (NodeState::Joining, "joining"),
    (NodeState::Alive, "alive"),
    (NodeState::Suspected, "suspected"),
    (NodeState::Isolated, "isolated"),
    (NodeState::Draining, "draining"),
    (NodeState::Dead, "dead"),
    (NodeState::Left, "left"),
];

const GUARDS: [(Guard, &str); 4] = [
    (Guard::Loop, "loop"),
    (Guard::Connection, "connection"),
    (Guard::OwnBeats, "own_beats"),
    (Guard::Majority, "majority"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takeovers_are_counted_in_the_class_that_they_fit() {
        let metrics = ClusterMetrics::default();
        for ms in [4, 5, 6, 700, 60_000] {
            metrics.takeover_done(Duration::from_millis(ms));
        }
        let mut text = Text(String::new());
        metrics.render_takeovers(&mut text);
        for line in [
            "outlive_cluster_takeover_seconds_bucket{le=\"0.005\"} 2",
            "outlive_cluster_takeover_seconds_bucket{le=\"0.01\"} 3",
            "outlive_cluster_takeover_seconds_bucket{le=\"0.5\"} 3",
            "outlive_cluster_takeover_seconds_bucket{le=\"1\"} 4",
            "outlive_cluster_takeover_seconds_bucket{le=\"+Inf\"} 5",
            "outlive_cluster_takeover_seconds_sum 60.715",
            "outlive_cluster_takeovers_done_total 5",
        ] {
            assert!(text.0.lines().any(|found| found == line), "{line} is not in\n{}", text.0);
        }
    }
}
