//! What is asked of several nodes, and what is expected of them.

use serde_json::json;

use crate::rows::{Figure, NATS, OUTLIVE_ENGINE, OUTLIVE_NODES, OUTLIVE_RUNNERS, PIPES, Row, Target, Unit};

/// All of them. `minutes` is how long nodes must not take each other for dead on a busy machine.
pub fn rows(quick: bool, minutes: u64) -> Vec<Row> {
    let pick = |full: usize, small: usize| if quick { small } else { full };
    let mut rows = faults(pick(12, 1));
    rows.push(Row {
        name: "a runner of those rows is started → it is ready".to_owned(),
        request: json!({"measure": "boot", "n": pick(50, 3)}),
        rounds: 1,
        contestants: &[PIPES],
        figures: vec![figure("", "", Unit::Milliseconds, Target::None)],
    });
    for (replicas, target) in [(1, below(0.0005, f64::INFINITY)), (3, Target::None)] {
        rows.push(Row {
            name: format!("an append, kept by {replicas}"),
            request: json!({"measure": "append", "n": pick(1_000, 50), "replicas": replicas}),
            rounds: pick(3, 1),
            contestants: &[OUTLIVE_ENGINE, NATS],
            figures: vec![figure("", "", Unit::Milliseconds, target)],
        });
    }
    let chunks = pick(100_000, 2_000);
    for (at, who) in [(0, "a client there"), (1, "a client of another node")] {
        let complete = Some(("chunks", chunks as u64));
        rows.push(Row {
            name: format!("{chunks} chunks of one task through a node of three, to {who}"),
            request: json!({"measure": "burst", "n": chunks, "at": at}),
            rounds: pick(5, 1),
            contestants: &[OUTLIVE_NODES, PIPES],
            figures: vec![Figure {
                complete,
                ..figure("", "seconds", Unit::Milliseconds, below(chunks as f64 / 50_000.0, f64::INFINITY))
            }],
        });
    }
    rows.push(heartbeats(pick(30, 3)));
    rows.push(busy(if quick { 1 } else { minutes }));
    rows.extend([pick(1_000, 20), pick(10_000, 40)].map(idle_runs));
    rows
}

fn figure(name: &'static str, field: &'static str, unit: Unit, target: Target) -> Figure {
    Figure { name, field, unit, target, complete: None }
}

const fn below(median: f64, p99: f64) -> Target {
    Target::Below { median, p99 }
}

/// With three nodes and a task that says something each 10 ms; both figures are times without output. Of so few the
/// 99th percentile is the worst.
fn faults(rounds: usize) -> Vec<Row> {
    let row = |name: &str, fault: &str, figures| Row {
        name: format!("a task's owner is {name} → output again"),
        request: json!({"measure": "fault", "fault": fault, "n": rounds}),
        rounds: 1,
        contestants: &[OUTLIVE_NODES],
        figures,
    };
    let at = |name, field, target| figure(name, field, Unit::Milliseconds, target);
    let elsewhere = || at("at other nodes", "elsewhere", below(0.5, 2.0));
    let moved = |target| at("at clients of it, who go elsewhere", "there", target);
    let stayed = || at("at clients of it, from when it is back", "behind", below(1.5, 3.0));
    let again = || figure("tasks moved more than once", "again", Unit::Count, below(0.0, f64::INFINITY));
    let late = below(1.5, 3.0);
    let drained = below(0.3, f64::INFINITY);
    vec![
        row("killed (SIGKILL)", "killed", vec![elsewhere(), moved(Target::None), again()]),
        row("frozen (SIGSTOP)", "frozen", vec![elsewhere(), moved(late), stayed(), again()]),
        row("cut off in silence", "silent", vec![elsewhere(), moved(late), stayed(), again()]),
        row("cut off and told so", "closed", vec![elsewhere(), moved(late), stayed(), again()]),
        row(
            "drained (SIGTERM)",
            "drained",
            vec![at("at other nodes", "elsewhere", drained), moved(drained), again()],
        ),
    ]
}

fn heartbeats(seconds: usize) -> Row {
    Row {
        name: "three idle nodes".to_owned(),
        request: json!({"measure": "heartbeats", "seconds": seconds}),
        rounds: 1,
        contestants: &[OUTLIVE_NODES],
        figures: vec![
            figure("processor, all daemons", "cpu", Unit::Percent, below(0.01, f64::INFINITY)),
            figure("processor, NATS", "server_cpu", Unit::Percent, Target::None),
            figure("memory of one daemon (PSS)", "memory_bytes", Unit::Mebibytes, Target::None),
        ],
    }
}

fn busy(minutes: u64) -> Row {
    let count = |name, field, target| figure(name, field, Unit::Count, target);
    let none = below(0.0, f64::INFINITY);
    Row {
        name: format!("three nodes, {minutes} min with every core kept busy by others"),
        request: json!({"measure": "busy", "minutes": minutes}),
        rounds: 1,
        contestants: &[OUTLIVE_NODES],
        figures: vec![
            count("nodes taken for dead", "dead", none),
            count("sessions taken over", "takeovers", none),
            count("nodes suspected", "suspected", Target::None),
            count("suspicions held back", "held", Target::None),
            count("nodes that froze", "isolated", none),
            figure(
                "longest silence at a client of another node",
                "silence",
                Unit::Milliseconds,
                Target::None,
            ),
        ],
    }
}

fn idle_runs(n: usize) -> Row {
    let time = |name, field| figure(name, field, Unit::Milliseconds, Target::None);
    let memory = |name, field| figure(name, field, Unit::Mebibytes, Target::None);
    Row {
        name: format!("{n} idle runs"),
        request: json!({"measure": "idle_runs", "n": n}),
        rounds: 1,
        contestants: &[OUTLIVE_NODES, OUTLIVE_RUNNERS],
        figures: vec![
            memory("memory of the daemon without them (PSS)", "empty_bytes"),
            memory("memory of the daemon (PSS)", "memory_bytes"),
            memory("the same after a restart", "again_bytes"),
            time("killed and started again → ready", "ready"),
            time("killed and started again → all are known", "known"),
        ],
    }
}
