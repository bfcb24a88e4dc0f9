//! `cargo xtask bench`: Outlive beside its peers, measured in the same run and interleaved.
//!
//! A row asks each contestant the same question, round after round, so that a slow moment of the machine hits all of
//! them. The peers are Python programs below `benches/peers`; Outlive is asked through its API by `outlive`.
#![expect(clippy::print_stdout, reason = "the table is what it is for")]

mod cluster;
mod notebooks;
mod outlive;
mod peer;
mod report;
mod rows;
mod runners;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use serde_json::Value;

use crate::cluster::Nodes;
use crate::cluster::append::Appends;
use crate::notebooks::Notebooks;
use crate::outlive::Outlive;
use crate::peer::Peer;
use crate::rows::{Row, rows};
use crate::runners::{Pipes, Runners};

/// Measures Outlive beside its peers.
#[derive(Parser)]
struct Arguments {
    /// Few and small rounds: shows that everything works, not how fast it is.
    #[arg(long)]
    quick: bool,
    /// Only rows whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// For how long nodes must not take each other for dead while every core is kept busy.
    #[arg(long, default_value_t = 1, value_name = "N")]
    minutes: u64,
    /// Only these contestants.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    contestants: Vec<String>,
    /// The Python environment of the peers.
    #[arg(long, value_name = "FOLDER")]
    python: PathBuf,
    /// Where the tables go.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

/// Who can be asked.
trait Contestant {
    /// Answers one request (see `benches/peers/driver.py` for their shape).
    fn ask(&mut self, request: &Value) -> Result<Value>;
}

/// What one contestant answered to one row, round by round; an error is an answer too.
type Answers = BTreeMap<&'static str, Vec<Result<Value, String>>>;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let asked = |row: &Row| arguments.only.as_ref().is_none_or(|text| row.name.contains(text.as_str()));
    let rows: Vec<Row> = rows(arguments.quick, arguments.minutes).into_iter().filter(asked).collect();
    let mut contestants = contestants(&arguments, &rows)?;
    let mut measured = Vec::new();
    for row in rows {
        eprintln!("bench: {}", row.name);
        let answers = measure(&row, &mut contestants);
        measured.push((row, answers));
    }
    drop(contestants);
    std::fs::create_dir_all(&arguments.out)
        .with_context(|| format!("cannot make {}", arguments.out.display()))?;
    let (markdown, json) = report::tables(&measured);
    write(&arguments.out.join("bench.md"), &markdown)?;
    write(&arguments.out.join("bench.json"), &format!("{json:#}\n"))?;
    println!("{markdown}");
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// All that were asked for and that one of these rows asks, started.
fn contestants(arguments: &Arguments, rows: &[Row]) -> Result<Vec<(&'static str, Box<dyn Contestant>)>> {
    let wanted = |name: &str| {
        let asked = arguments.contestants.is_empty() || arguments.contestants.iter().any(|one| one == name);
        asked && rows.iter().any(|row| row.contestants.contains(&name))
    };
    let mut contestants: Vec<(&'static str, Box<dyn Contestant>)> = Vec::new();
    if wanted(rows::OUTLIVE) {
        contestants.push((rows::OUTLIVE, Box::new(Outlive::start())));
    }
    if wanted(rows::OUTLIVE_NOTEBOOKS) {
        contestants.push((rows::OUTLIVE_NOTEBOOKS, Box::new(Notebooks::start())));
    }
    if wanted(rows::OUTLIVE_RUNNERS) {
        contestants.push((rows::OUTLIVE_RUNNERS, Box::new(Runners::start()?)));
    }
    if wanted(rows::PIPES) {
        contestants.push((rows::PIPES, Box::new(Pipes::start()?)));
    }
    let stateless: [(_, Box<dyn Contestant>); 3] = [
        (rows::OUTLIVE_NODES, Box::new(Nodes)),
        (rows::OUTLIVE_ENGINE, Box::new(Appends::Engine)),
        (rows::NATS, Box::new(Appends::Plain)),
    ];
    contestants.extend(stateless.into_iter().filter(|(name, _)| wanted(name)));
    let peers = [
        (rows::RAW, "raw_client.py"),
        (rows::SERVER, "jupyter_server_client.py"),
        (rows::COLLABORATION, "notebooks_client.py"),
    ];
    for (name, script) in peers {
        if wanted(name) {
            contestants.push((name, Box::new(Peer::start(&arguments.python, script)?)));
        }
    }
    Ok(contestants)
}

fn measure(row: &Row, contestants: &mut [(&'static str, Box<dyn Contestant>)]) -> Answers {
    let mut answers = Answers::new();
    for _ in 0..row.rounds {
        for (name, contestant) in contestants.iter_mut().filter(|(name, _)| row.contestants.contains(name)) {
            let answer = contestant.ask(&row.request).map_err(|error| format!("{error:#}"));
            if let Err(error) = &answer {
                eprintln!("bench: {}: {name}: {error}", row.name);
            }
            answers.entry(*name).or_default().push(answer);
        }
    }
    answers
}
