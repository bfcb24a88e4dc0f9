//! `cargo xtask sim`: tells the stories of many seeds, or of one step by step.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks to its terminal")]

use std::process::ExitCode;

use clap::Parser;
use outlive_sim::campaign::{Campaign, Says};
use outlive_sim::story::{Cast, Story, Trouble};
use outlive_sim::trace::Telling;

/// Several nodes over a made-up world in which everything fails that can.
#[expect(clippy::struct_excessive_bools, reason = "independent wishes")]
#[derive(Parser)]
#[command(name = "cargo xtask sim")]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// This seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// With one node instead of several.
    #[arg(long)]
    alone: bool,
    /// With one node, at whose notebooks people come and go.
    #[arg(long, conflicts_with = "alone")]
    visitors: bool,
    /// Only this goes wrong; may be given several times.
    #[arg(long)]
    only: Vec<String>,
    /// Prints what happens, step by step.
    #[arg(long)]
    trace: bool,
    /// How many seeds are told at a time.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let only: Option<Vec<Trouble>> = arguments
        .only
        .iter()
        .map(|name| Trouble::ALL.into_iter().find(|trouble| trouble.name() == *name))
        .collect();
    let Some(only) = only else {
        let names: Vec<String> = Trouble::ALL.into_iter().map(Trouble::name).collect();
        eprintln!("no trouble is called so; there are: {}", names.join(", "));
        return ExitCode::FAILURE;
    };
    let cast = match (arguments.visitors, arguments.alone) {
        (true, _) => Cast::Visitors,
        (false, true) => Cast::Alone,
        (false, false) => Cast::Cluster,
    };
    let campaign = Campaign { cast, only };
    if let Some(seed) = arguments.seed {
        let telling = if arguments.trace { Telling::Aloud } else { Telling::Silent };
        return one(&campaign.story(seed), telling);
    }
    let seeds = arguments.from..arguments.from + arguments.seeds;
    let found = campaign.run(seeds, arguments.threads, |says| match says {
        Says::Done(done) => eprintln!("{done} seeds"),
        Says::Found(seed, wrong) => {
            println!("seed {seed}:");
            for wrong in wrong.iter().take(5) {
                println!("  {wrong}");
            }
        }
    });
    println!("{} of {} seeds went wrong", found.len(), arguments.seeds);
    if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(story: &Story, telling: Telling) -> ExitCode {
    println!("{story:?}");
    if telling == Telling::Aloud {
        outlive_sim::logs::print();
    }
    let told = story.tell(telling);
    for wrong in &told.wrong {
        println!("wrong: {wrong}");
    }
    println!("{} s, number {:016x}", told.lasted.as_secs(), told.number);
    if told.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
