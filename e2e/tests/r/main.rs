//! Runners: the rows A2 to A15, B1, B3 to B5, D1 and D3 with programs that serve tasks, groups of them, and their tasks.

mod abuse;
mod away;
mod chat;
mod death;
mod flood;
mod groups;
mod hang;
mod launch;
mod retry;
mod signatures;
mod stop;
mod stress;
mod tasks;
mod watch;
mod words;

use outlive_e2e::{Group, Transcript, report};
use serde_json::Value;

/// Checks that a task was told why its runner is gone, as every task must be: one error chunk, its last, that says
/// the same as the outcome and as the one report of that death. Gives the report.
#[track_caller]
fn explained(group: &Group, ended: &Transcript) -> Value {
    let outcome = ended.outcome.as_ref().expect("the task has ended");
    assert_eq!(ended.ended(), "failed", "{ended:#?}");
    let errors: Vec<&Value> = ended.of_kind("error").collect();
    assert_eq!(errors.len(), 1, "one error chunk: {ended:#?}");
    assert_eq!(ended.chunks.last(), Some(errors[0]), "and nothing behind it");
    let told = &errors[0]["content"];
    assert_eq!(told["report"], outcome["report"], "{told} {outcome}");
    assert_eq!(told["ename"], outcome["code"], "{told} {outcome}");
    assert!(told["evalue"].as_str().is_some_and(|text| !text.is_empty()), "{told}");
    let reports = group.reports();
    let mut named = reports.iter().filter(|report| report["id"] == outcome["report"]);
    let report = named.next().unwrap_or_else(|| panic!("no such report: {outcome} {reports:#?}"));
    assert_eq!(outcome["code"], report::code(report), "{report:#}");
    assert!(named.next().is_none(), "a death with two reports: {reports:#?}");
    report.clone()
}
