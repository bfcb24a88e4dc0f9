//! What is measured (DESIGN §11), how often, and what is expected of it.

use serde_json::{Value, json};

use crate::cluster;

/// Outlive itself.
pub const OUTLIVE: &str = "outlive";
/// jupyter_client straight over ZeroMQ.
pub const RAW: &str = "jupyter_client";
/// jupyter_server over its WebSocket.
pub const SERVER: &str = "jupyter_server";

/// A daemon of its own for notebooks without kernels.
pub const OUTLIVE_NOTEBOOKS: &str = "outlive (notebooks)";
/// jupyter_server with the server side of jupyter-collaboration.
pub const COLLABORATION: &str = "jupyter_server + collaboration";

/// A daemon of its own with a group of one runner.
pub const OUTLIVE_RUNNERS: &str = "outlive (runners)";
/// Nodes on a NATS of their own.
pub const OUTLIVE_NODES: &str = "outlive (nodes)";
/// The engine on NATS, by itself.
pub const OUTLIVE_ENGINE: &str = "outlive (engine on NATS)";
/// A stream of JetStream's, without Outlive.
pub const NATS: &str = "NATS JetStream";
/// The same runner, spoken to over its pipes.
pub const PIPES: &str = "bare pipes";

/// One question to every contestant.
pub struct Row {
    /// What is measured.
    pub name: String,
    /// The question.
    pub request: Value,
    /// How often it is asked.
    pub rounds: usize,
    /// Who is asked.
    pub contestants: &'static [&'static str],
    /// The figures in an answer.
    pub figures: Vec<Figure>,
}

/// One figure of an answer.
pub struct Figure {
    /// Its name, when a row has several.
    pub name: &'static str,
    /// Where it is in the answer; empty when the answer itself is it. A number, or a list of them.
    pub field: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// What is expected of Outlive.
    pub target: Target,
    /// What another field of the answer must hold for the answer to be complete.
    pub complete: Option<(&'static str, u64)>,
}

/// A unit, for printing.
#[derive(Clone, Copy)]
pub enum Unit {
    /// Given in seconds, shown in milliseconds.
    Milliseconds,
    /// Bytes, shown in MiB.
    Mebibytes,
    /// Share of one core, shown in percent.
    Percent,
    /// A number.
    Count,
}

/// What is expected of Outlive.
#[derive(Clone, Copy)]
pub enum Target {
    /// The median and the 99th percentile stay below these (in the figure's own unit: seconds, bytes, …).
    Below {
        /// The median.
        median: f64,
        /// The 99th percentile; infinite when only the median counts.
        p99: f64,
    },
    /// The median stays below so many times a peer's.
    Ratio(f64, &'static str),
    /// Nothing is promised.
    None,
}

/// All rows; small ones when it is only to be seen that they work.
/// `minutes` is how long nodes are watched on a busy machine.
pub fn rows(quick: bool, minutes: u64) -> Vec<Row> {
    let pick = |full: usize, small: usize| if quick { small } else { full };
    let (lines, flushed, size) = (pick(100_000, 2_000), pick(10_000, 500), pick(50_000_000, 1_000_000));
    let kernels = pick(50, 3);
    let time =
        |target| vec![Figure { name: "", field: "", unit: Unit::Milliseconds, target, complete: None }];
    let printing = |target, field, expected: usize| {
        let complete = Some((field, expected as u64));
        vec![Figure { name: "", field: "seconds", unit: Unit::Milliseconds, target, complete }]
    };
    vec![
        Row {
            name: "a kernel exits → the client is told".to_owned(),
            request: json!({"measure": "death", "n": pick(5, 1)}),
            rounds: pick(6, 1),
            contestants: &[OUTLIVE, RAW, SERVER],
            figures: time(Target::Below { median: 0.005, p99: 0.020 }),
        },
        Row {
            name: "a kernel hangs → the client is told".to_owned(),
            request: json!({"measure": "hang", "seconds": pick(20, 10)}),
            rounds: pick(3, 1),
            contestants: &[OUTLIVE, SERVER],
            figures: time(Target::Below { median: 3.0, p99: 8.0 }),
        },
        Row {
            name: "execute `1` → reply and idle".to_owned(),
            request: json!({"measure": "round_trip", "n": pick(50, 5)}),
            rounds: pick(8, 2),
            contestants: &[OUTLIVE, RAW, SERVER],
            figures: time(Target::Ratio(1.1, RAW)),
        },
        Row {
            name: format!("print {lines} lines"),
            request: json!({"measure": "print_lines", "lines": lines, "flush": false}),
            rounds: pick(5, 1),
            contestants: &[OUTLIVE, RAW, SERVER],
            figures: printing(Target::Ratio(1.1, RAW), "lines", lines),
        },
        Row {
            name: format!("print {flushed} flushed lines"),
            request: json!({"measure": "print_lines", "lines": flushed, "flush": true}),
            rounds: pick(3, 1),
            contestants: &[OUTLIVE, RAW, SERVER],
            figures: printing(Target::Below { median: 2.5, p99: f64::INFINITY }, "lines", flushed),
        },
        Row {
            name: format!("print a string of {size} bytes"),
            request: json!({"measure": "big_string", "size": size}),
            rounds: pick(3, 1),
            contestants: &[OUTLIVE, RAW, SERVER],
            figures: printing(Target::None, "characters", size + 1),
        },
        Row {
            name: format!("{kernels} idle kernels"),
            request: json!({"measure": "idle", "kernels": kernels, "seconds": pick(20, 3)}),
            rounds: 1,
            contestants: &[OUTLIVE, SERVER],
            figures: idle_figures(),
        },
        Row {
            name: "daemon killed and started again → the client has the next output".to_owned(),
            request: json!({"measure": "reattach", "n": pick(10, 1)}),
            rounds: 1,
            contestants: &[OUTLIVE],
            figures: time(Target::Below { median: 0.3, p99: 1.0 }),
        },
    ]
    .into_iter()
    .chain(notebooks(quick))
    .chain(runners(quick))
    .chain(cluster::rows::rows(quick, minutes))
    .collect()
}

/// Notebooks that are opened, edited and saved (DESIGN §11).
fn notebooks(quick: bool) -> Vec<Row> {
    let pick = |full: usize, small: usize| if quick { small } else { full };
    let row = |name: String, request, rounds, contestants, median: Option<f64>, unit| Row {
        name,
        request,
        rounds,
        contestants,
        figures: vec![Figure {
            name: "",
            field: "",
            unit,
            target: median.map_or(Target::None, |median| Target::Below { median, p99: f64::INFINITY }),
            complete: None,
        }],
    };
    let both: &[&str] = &[OUTLIVE_NOTEBOOKS, COLLABORATION];
    let alone: &[&str] = &[OUTLIVE_NOTEBOOKS];
    let (ms, count) = (Unit::Milliseconds, Unit::Count);
    let edit = |cells: usize, median| {
        let request = json!({"measure": "edit", "cells": cells, "n": pick(100, 5)});
        row(format!("an edit → the other peer, {cells} cells"), request, pick(3, 1), both, median, ms)
    };
    let of_500 = |measure: &str, n| json!({"measure": measure, "cells": 500, "n": n});
    vec![
        row(
            "open 500 cells → all of them at a peer".into(),
            of_500("open", pick(5, 1)),
            pick(4, 1),
            both,
            Some(0.05),
            ms,
        ),
        edit(10, Some(0.002)),
        edit(500, Some(0.002)),
        edit(5_000, Some(0.002)),
        row("save 500 cells".into(), of_500("save", pick(10, 2)), pick(3, 1), both, Some(0.05), ms),
        row(
            "500 cells that left memory → a peer".into(),
            of_500("reopen", pick(10, 1)),
            1,
            alone,
            Some(0.05),
            ms,
        ),
        idle_sessions(pick(1_000, 20)),
        row(
            "torn files after 100 SIGKILLs in a save of 30 MB".into(),
            json!({"measure": "kill_save", "megabytes": pick(30, 2), "n": pick(100, 3)}),
            1,
            alone,
            Some(0.0),
            count,
        ),
        row(
            "torn files after 12 SIGKILLs in a save of 30 MB".into(),
            json!({"measure": "kill_save", "megabytes": pick(30, 2), "n": pick(12, 2)}),
            1,
            &[COLLABORATION],
            None,
            count,
        ),
    ]
}

/// Runners and their tasks.
fn runners(quick: bool) -> Vec<Row> {
    let pick = |full: usize, small: usize| if quick { small } else { full };
    let figure = |field, unit, median, complete| Figure {
        name: "",
        field,
        unit,
        target: Target::Below { median, p99: f64::INFINITY },
        complete,
    };
    let row = |name: String, request, rounds, contestants, figure| Row {
        name,
        request,
        rounds,
        contestants,
        figures: vec![figure],
    };
    let both: &[&str] = &[OUTLIVE_RUNNERS, PIPES];
    let alone: &[&str] = &[OUTLIVE_RUNNERS];
    let (chunks, ms) = (pick(100_000, 2_000), Unit::Milliseconds);
    vec![
        row(
            "a runner dies → the error chunk is at the client".to_owned(),
            json!({"measure": "die", "n": pick(20, 2)}),
            pick(5, 1),
            alone,
            figure("", ms, 0.005, None),
        ),
        row(
            "a task is submitted → its first chunk is at the client".to_owned(),
            json!({"measure": "once", "n": pick(60, 3)}),
            pick(5, 1),
            both,
            figure("", ms, 0.001, None),
        ),
        row(
            "a chunk is made → it is at the client".to_owned(),
            json!({"measure": "paced", "n": pick(500, 20), "period_us": 1_000}),
            pick(4, 1),
            both,
            Figure { target: Target::None, ..figure("", ms, 0.0, None) },
        ),
        row(
            format!("{chunks} chunks of one task to one client"),
            json!({"measure": "burst", "n": chunks}),
            pick(5, 1),
            both,
            figure("seconds", ms, 1.0, Some(("chunks", chunks as u64))),
        ),
        row(
            "memory of the shim of an idle runner (PSS)".to_owned(),
            json!({"measure": "idle"}),
            1,
            alone,
            figure("", Unit::Mebibytes, 4.0 * MIB, None),
        ),
    ]
}

/// Bytes.
const MIB: f64 = 1_048_576.0;

fn idle_figures() -> Vec<Figure> {
    let figure = |name, field, unit, median| Figure {
        name,
        field,
        unit,
        target: Target::Below { median, p99: f64::INFINITY },
        complete: None,
    };
    vec![
        figure("server memory (PSS)", "memory_bytes", Unit::Mebibytes, 30.0 * MIB),
        figure("memory of one shim (PSS)", "shim_memory_bytes", Unit::Mebibytes, 4.0 * MIB),
        figure("server's open files", "open_files", Unit::Count, f64::INFINITY),
        figure("open files of one shim", "shim_open_files", Unit::Count, f64::INFINITY),
        figure("processor, server and shims", "cpu", Unit::Percent, 0.02),
    ]
}

fn idle_sessions(sessions: usize) -> Row {
    Row {
        name: format!("{sessions} idle sessions without kernels"),
        request: json!({"measure": "idle_sessions", "sessions": sessions}),
        rounds: 1,
        contestants: &[OUTLIVE_NOTEBOOKS],
        figures: vec![
            Figure {
                name: "memory (PSS)",
                field: "memory_bytes",
                unit: Unit::Mebibytes,
                target: Target::Below { median: 100.0 * MIB, p99: f64::INFINITY },
                complete: None,
            },
            Figure {
                name: "open files",
                field: "open_files",
                unit: Unit::Count,
                target: Target::None,
                complete: None,
            },
        ],
    }
}
