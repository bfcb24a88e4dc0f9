//! The second half of `cargo xtask chaos`: nodes die, freeze, are cut off and replaced in the middle of tasks, while
//! people watch at every node, come late and wander. All that they have seen must be the same, and exact.
//!
//! Usage: `chaos_nodes ROUNDS SEED`. Each round makes every fault once; the same seed makes them at the same outputs.
#![expect(clippy::print_stdout, reason = "it tells what it does")]

use std::collections::BTreeMap;
use std::time::Duration;

use outlive_e2e::Cluster;
use outlive_e2e::clock::now;
use outlive_e2e::cluster::scene::{FAULTS, play};
use outlive_e2e::random::Random;

fn main() {
    let mut arguments =
        std::env::args().skip(1).map(|text| text.parse::<u64>().expect("usage: chaos_nodes ROUNDS SEED"));
    let rounds = arguments.next().unwrap_or(2);
    let seed = arguments.next().unwrap_or(1);
    let mut random = Random::new(seed);
    let mut cluster = Cluster::of(3);
    let (mut exact, mut stalls) = (0, BTreeMap::<String, [Vec<Duration>; 2]>::new());
    for round in 0..rounds {
        for fault in FAULTS {
            let began = now();
            let name = format!("{}-{round}", format!("{fault:?}").to_lowercase());
            let outcome = play(&mut cluster, fault, &name, &mut random);
            exact += outcome.exact;
            println!(
                "round {round}: {fault:?}: {} outputs exact; stalls elsewhere {:?}, there {:?}; {:.1} s",
                outcome.exact,
                outcome.elsewhere,
                outcome.there,
                began.elapsed().as_secs_f64()
            );
            let [elsewhere, there] = stalls.entry(format!("{fault:?}")).or_default();
            elsewhere.extend(outcome.elsewhere);
            there.extend(outcome.there);
        }
    }
    println!(
        "\n| fault | watchers elsewhere: median, worst (ms) | watchers of the struck node: median, worst (ms) |\n|---|---|---|"
    );
    for (fault, [elsewhere, there]) in &mut stalls {
        println!("| {fault} | {} | {} |", figures(elsewhere), figures(there));
    }
    for member in &mut cluster.members {
        drop(member.terminate());
        member.world.assert_nothing_left();
    }
    println!("{exact} outputs, all exact; {rounds} rounds passed, 0 failed");
}

fn figures(stalls: &mut [Duration]) -> String {
    stalls.sort();
    match (stalls.get(stalls.len() / 2), stalls.last()) {
        (Some(median), Some(worst)) => {
            format!("{}, {} (n {})", median.as_millis(), worst.as_millis(), stalls.len())
        }
        _ => "—".to_owned(),
    }
}
