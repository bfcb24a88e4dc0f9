//! Turns answers into tables: medians, 99th percentiles, ratios, and whether the target is met.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::Answers;
use crate::rows::{Figure, OUTLIVE, Row, Target, Unit};

fn is_ours(sample: &Sample) -> bool {
    sample.contestant.starts_with(OUTLIVE)
}

/// What came of one figure of one contestant.
struct Sample {
    contestant: &'static str,
    /// Sorted.
    values: Vec<f64>,
    /// Remarks: errors, what was lost, what was never told.
    remarks: Vec<String>,
}

/// The Markdown table, and the same as JSON.
pub fn tables(measured: &[(Row, Answers)]) -> (String, Value) {
    let mut markdown = String::from(
        "| work | who | n | median | p99 | against outlive | target | remarks |\n|---|---|---|---|---|---|---|---|\n",
    );
    let mut json = Vec::new();
    for (row, answers) in measured {
        for figure in &row.figures {
            let samples: Vec<Sample> =
                answers.iter().map(|(name, list)| sample(figure, name, list)).collect();
            // What only Outlive has (its shims) is no empty line for the others.
            for sample in
                samples.iter().filter(|sample| !sample.values.is_empty() || !sample.remarks.is_empty())
            {
                write_line(&mut markdown, row, figure, sample, &samples);
                json.push(json!({
                    "work": row.name, "figure": figure.name, "who": sample.contestant, "values": sample.values,
                    "median": percentile(&sample.values, 50), "p99": percentile(&sample.values, 99),
                    "remarks": sample.remarks,
                }));
            }
        }
    }
    (markdown, Value::Array(json))
}

fn write_line(markdown: &mut String, row: &Row, figure: &Figure, sample: &Sample, all: &[Sample]) {
    let separator = if figure.name.is_empty() { "" } else { ": " };
    let median = percentile(&sample.values, 50);
    let show = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| shown(value, figure.unit));
    let ours = all.iter().find(|one| is_ours(one)).and_then(|one| percentile(&one.values, 50));
    let ratio = match (median, ours) {
        (Some(theirs), Some(ours)) if !is_ours(sample) && ours > 0.0 => {
            format!("{:.2} ×", theirs / ours)
        }
        _ => String::new(),
    };
    let target = if is_ours(sample) { verdict(figure, sample, all) } else { String::new() };
    writeln!(
        markdown,
        "| {}{separator}{} | {} | {} | {} | {} | {ratio} | {target} | {} |",
        row.name,
        figure.name,
        sample.contestant,
        sample.values.len(),
        show(median),
        show(percentile(&sample.values, 99)),
        sample.remarks.join("; "),
    )
    .expect("writing to a string succeeds");
}

fn sample(figure: &Figure, contestant: &'static str, answers: &[Result<Value, String>]) -> Sample {
    let mut sample = Sample { contestant, values: Vec::new(), remarks: Vec::new() };
    for answer in answers {
        match answer {
            Err(error) => sample.remark(error.clone()),
            Ok(Value::Null) => sample.remark("never told".to_owned()),
            Ok(Value::Array(values)) => sample.values.extend(values.iter().filter_map(Value::as_f64)),
            Ok(Value::Object(fields)) => {
                match fields.get(figure.field) {
                    Some(Value::Array(values)) => {
                        sample.values.extend(values.iter().filter_map(Value::as_f64))
                    }
                    found => sample.values.extend(found.and_then(Value::as_f64)),
                }
                if let Some((field, expected)) = figure.complete {
                    let found = fields.get(field).and_then(Value::as_u64).unwrap_or(0);
                    if found != expected {
                        sample.remark(format!("{found} of {expected} {field}"));
                    }
                }
            }
            Ok(value) => sample.values.extend(value.as_f64()),
        }
    }
    sample.values.sort_by(f64::total_cmp);
    sample
}

impl Sample {
    fn remark(&mut self, text: String) {
        if !self.remarks.contains(&text) {
            self.remarks.push(text);
        }
    }
}

/// The nearest-rank percentile of sorted values.
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Milliseconds if value >= 1.0 => format!("{:.0} ms", value * 1e3),
        Unit::Milliseconds => format!("{:.2} ms", value * 1e3),
        Unit::Mebibytes => format!("{:.1} MiB", value / 1_048_576.0),
        Unit::Percent => format!("{:.2} %", value * 100.0),
        Unit::Count => format!("{value:.0}"),
    }
}

fn verdict(figure: &Figure, sample: &Sample, all: &[Sample]) -> String {
    let Some(median) = percentile(&sample.values, 50) else { return "**missed**".to_owned() };
    let p99 = percentile(&sample.values, 99).unwrap_or(median);
    let (text, met) = match figure.target {
        Target::None => return String::new(),
        Target::Below { median: limit, .. } if limit.is_infinite() => return String::new(),
        Target::Below { median: limit, p99: worst } => {
            let beyond = if worst.is_finite() {
                format!(", p99 {}", shown(worst, figure.unit))
            } else {
                String::new()
            };
            (format!("≤ {}{beyond}", shown(limit, figure.unit)), median <= limit && p99 <= worst)
        }
        Target::Ratio(limit, peer) => {
            let peers =
                all.iter().find(|one| one.contestant == peer).and_then(|one| percentile(&one.values, 50));
            let Some(peers) = peers else { return format!("≤ {limit} × {peer}: not measured") };
            (format!("≤ {limit} × {peer} ({:.2} ×)", median / peers), median <= limit * peers)
        }
    };
    let met = met && sample.remarks.is_empty();
    format!("{text}: {}", if met { "met" } else { "**missed**" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(target: Target) -> Figure {
        Figure { name: "", field: "seconds", unit: Unit::Milliseconds, target, complete: Some(("lines", 10)) }
    }

    #[test]
    fn what_was_lost_is_a_remark_and_misses_the_target() {
        let answers = [Ok(json!({"seconds": 0.5, "lines": 9})), Ok(json!({"seconds": 0.1, "lines": 10}))];
        let figure = figure(Target::Below { median: 1.0, p99: 1.0 });
        let sample = sample(&figure, OUTLIVE, &answers);
        assert_eq!(sample.values, [0.1, 0.5]);
        assert_eq!(sample.remarks, ["9 of 10 lines"]);
        assert!(verdict(&figure, &sample, &[]).contains("missed"));
    }

    #[test]
    fn a_ratio_is_taken_to_the_peer_of_the_same_run() {
        let figure = figure(Target::Ratio(1.1, "peer"));
        let one = |contestant, seconds| {
            sample(&figure, contestant, &[Ok(json!({"seconds": seconds, "lines": 10}))])
        };
        let all = [one(OUTLIVE, 1.0), one("peer", 1.0)];
        assert!(verdict(&figure, &all[0], &all).ends_with(": met"));
        let all = [one(OUTLIVE, 1.2), one("peer", 1.0)];
        assert!(verdict(&figure, &all[0], &all).contains("missed"));
    }

    #[test]
    fn a_figure_may_be_many_values() {
        let answers =
            [Ok(json!({"seconds": [0.3, 0.1], "lines": 10})), Ok(json!({"seconds": [], "lines": 10}))];
        assert_eq!(sample(&figure(Target::None), OUTLIVE, &answers).values, [0.1, 0.3]);
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=200_u32).map(f64::from).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 99)), (Some(100.0), Some(198.0)));
        assert_eq!((percentile(&[], 50), percentile(&[7.0], 99)), (None, Some(7.0)));
    }
}
