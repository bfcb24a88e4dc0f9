//! The owner's machine is lost.

use std::time::Duration;

use outlive_e2e::clock::{PATIENCE, now, within};
use outlive_e2e::cluster::{Cluster, Habit, Watcher, counted};
use outlive_e2e::random::Random;

use crate::{counts, exact, output};

// E1: SIGKILL of the owner and of all that runs there, in mid-run. Watchers from the start at each node, in flight, late
// (opened after the new attempt's first record) and reconnecting at random all end with the same output, each chunk once.
#[test]
fn the_owner_is_killed_in_mid_run() {
    let mut cluster = Cluster::of(3);
    let group = cluster.runners(0, "g", 1);
    let task = counts(&group, 400);
    let path = output(&group, &task);
    let mut watchers = cluster.watch_everywhere(&path, 1);
    watchers[1].wait_said("1:104\n");
    let killed = now();
    cluster.members[0].lose();
    watchers[1].wait_said("\n2:");
    for place in [1, 2] {
        watchers.push(Watcher::begin("who comes late", cluster.places(place), &path, Habit::Stays));
        let habit = Habit::Wanders(Random::new(7 + place as u64));
        watchers.push(Watcher::begin("who comes late and wanders", cluster.places(place), &path, habit));
    }
    let first = watchers[1].so_far().first_after(killed + Duration::from_millis(50));
    let took = first.expect("it went on").duration_since(killed);
    assert!(took < Duration::from_secs(10), "{took:?} until somebody saw that it goes on");
    assert_eq!(exact(&cluster, watchers, &path, 400), 2, "attempts");
    assert_ne!(cluster.owner(&group.session().id), 0);
}

// E1: whoever does not heed `reset` has steps twice, and the oracle says so: it would notice a server that forgot one.
#[test]
fn a_view_without_its_reset_is_wrong() {
    let mut cluster = Cluster::of(3);
    let group = cluster.runners(0, "g", 1);
    let task = counts(&group, 200);
    let path = output(&group, &task);
    let mut events = cluster.places(1)[0].events(&path, None);
    let (mut naive, mut resets, mut is_lost) = (String::new(), 0, false);
    loop {
        let event = events.next(within(PATIENCE)).expect("the stream goes on when the owner is lost");
        match event.name.as_str() {
            "output" => {
                let chunks = event.data["chunks"].as_array().into_iter().flatten();
                naive.extend(chunks.filter_map(|chunk| chunk["text"].as_str()));
            }
            "reset" => resets += 1,
            "end" => break,
            _ => {}
        }
        // Five steps beyond the last that was saved.
        if !is_lost && naive.contains("1:105\n") {
            is_lost = true;
            cluster.members[0].lose();
        }
    }
    assert!(resets >= 1, "the task had to be rewound");
    let verdict = std::panic::catch_unwind(|| counted(&naive, 200));
    assert!(verdict.is_err(), "steps that were withdrawn are not noticed");
}
