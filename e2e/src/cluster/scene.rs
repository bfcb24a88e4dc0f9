//! Scenes of a campaign: each makes one fault in the middle of a task, while people watch everywhere, and checks what all
//! of them have seen. Used by `cargo xtask chaos` and by the benches.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::clock::{PATIENCE, eventually, now, within};
use crate::cluster::{Account, Cluster, Cut, Habit, Servers, Watcher, agree, counted};
use crate::random::Random;
use crate::runners::{Group, Task};

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// E1: the owner's machine dies.
    Lost,
    /// E10c: the owner's daemon dies alone and comes back.
    DaemonKilled,
    /// E2: the owner is asked to end.
    Drained,
    /// E3: the owner stands still, and goes on when it is too late.
    Frozen,
    /// E4: the owner's connections to NATS are closed and refused.
    Refused,
    /// E4: the owner's cable to NATS is pulled.
    Unplugged,
    /// E5: NATS is killed and started again.
    StoreKilled,
    /// E6: the owner dies, and whoever takes over dies too.
    TakerLost,
    /// E7: the owner dies and its next life is there at once.
    Reborn,
    /// E8: the task is cancelled while nobody owns it.
    Cancelled,
    /// E8: the owner dies around the last chunk.
    AtTheEnd,
    /// E9: every node is replaced, one after the other.
    Rolling,
    /// E10: the owner of a task that cannot resume dies.
    Rewound,
}

/// All of them, in the order in which a round makes them.
pub const FAULTS: [Fault; 13] = [
    Fault::Lost,
    Fault::DaemonKilled,
    Fault::Drained,
    Fault::Frozen,
    Fault::Refused,
    Fault::Unplugged,
    Fault::StoreKilled,
    Fault::TakerLost,
    Fault::Reborn,
    Fault::Cancelled,
    Fault::AtTheEnd,
    Fault::Rolling,
    Fault::Rewound,
];

/// What a scene has come to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How many watchers have seen exactly what they should; a scene with one that has not panics.
    pub exact: usize,
    /// From the fault to the first new output, at those who watched at other nodes than the struck one.
    pub elsewhere: Vec<Duration>,
    /// The same at those who watched at the struck node.
    pub there: Vec<Duration>,
}

/// Plays one scene in a cluster of three nodes or more that are all well; leaves them so.
///
/// # Panics
/// When anything is not as it should be.
#[must_use]
pub fn play(cluster: &mut Cluster, fault: Fault, name: &str, random: &mut Random) -> Outcome {
    let count = cluster.members.len() as u64;
    let struck = place(random.below(count));
    let group = cluster.runners(struck, name, 1);
    let (steps, code) = work(fault);
    let task = group.submit_with(&code, &json!({"idempotent": true}));
    let path = format!("/v1/sessions/{}/runs/{}/attach?follow=true", group.session().id, task.id);
    let mut watchers = cluster.watch_everywhere(&path, random.below(1 << 30));
    let after = match fault {
        Fault::AtTheEnd => steps - 1 - random.below(3),
        _ => 20 + random.below(steps / 4),
    };
    for watcher in &watchers {
        watcher.wait_said(&format!(":{after}\n"));
    }
    let began = now();
    strike(cluster, fault, struck, &group, &task);
    let other = (struck + 1) % cluster.members.len();
    if matches!(fault, Fault::Lost | Fault::Frozen | Fault::Refused | Fault::Unplugged) {
        watchers[other].wait_said("\n2:");
    }
    let places = cluster.places(other);
    watchers.push(Watcher::begin("who comes late", places, &path, Habit::Stays));
    let seen: Vec<Account> = watchers.into_iter().map(Watcher::end).collect();
    let late = Watcher::begin("a newcomer", cluster.places(other), &path, Habit::Stays).end();
    let said = agree(&seen, &late.transcript);
    if fault == Fault::Cancelled {
        assert_eq!(late.transcript.ended(), "cancelled", "{:?}", late.transcript.outcome);
    } else {
        assert_eq!(late.transcript.ended(), "succeeded", "{:?}", late.transcript.outcome);
        counted(&said, steps);
    }
    mend(cluster, fault, struck);
    cluster.group_at(struck, name).down();
    let mut outcome = Outcome { exact: seen.len() + 1, ..Outcome::default() };
    for (n, account) in seen.iter().take(cluster.members.len()).enumerate() {
        let Some(stall) = stall(account, began) else { continue };
        if n == struck { outcome.there.push(stall) } else { outcome.elsewhere.push(stall) }
    }
    outcome
}

fn place(n: u64) -> usize {
    usize::try_from(n).expect("a small number")
}

/// How many steps the task of a scene has, and what it does.
fn work(fault: Fault) -> (u64, String) {
    let (steps, every) = match fault {
        Fault::Drained | Fault::Rolling => (1_000, 1),
        Fault::Rewound => (120, 1_000_000),
        Fault::AtTheEnd => (40, 10),
        _ => (300, 10),
    };
    (steps, format!("count(task, {steps}, 0.01, every={every})"))
}

/// The longest time without output that began before the fault or in the second after it and ended behind it: what
/// a watcher felt of it.
#[must_use]
pub fn stall(account: &Account, began: Instant) -> Option<Duration> {
    let mut last = began;
    let mut longest: Option<Duration> = None;
    for (at, _) in account.arrivals.iter().filter(|(at, _)| *at > began) {
        let gap = at.duration_since(last);
        if last.duration_since(began) < Duration::from_secs(1) {
            longest = longest.max(Some(gap));
        }
        last = *at;
    }
    longest
}

fn strike(cluster: &mut Cluster, fault: Fault, struck: usize, group: &Group, task: &Task) {
    match fault {
        Fault::Lost | Fault::AtTheEnd | Fault::Rewound => cluster.members[struck].lose(),
        Fault::DaemonKilled => {
            drop(cluster.members[struck].kill());
            cluster.members[struck].begin();
        }
        Fault::Drained => drop(cluster.members[struck].terminate()),
        Fault::Frozen => cluster.members[struck].freeze(),
        Fault::Refused => cluster.members[struck].cut(Cut::Closed),
        Fault::Unplugged => cluster.members[struck].cut(Cut::Silent),
        Fault::StoreKilled => match &mut cluster.servers {
            Servers::One(server) => {
                server.kill();
                server.restart();
            }
            Servers::Three(servers) => {
                servers.servers[0].kill();
                servers.servers[0].restart();
            }
        },
        Fault::TakerLost => {
            cluster.members[struck].lose();
            let taker = cluster.moved_from(&group.session().id, struck);
            cluster.members[taker].lose();
        }
        Fault::Reborn => {
            cluster.members[struck].lose();
            cluster.members[struck].begin();
        }
        Fault::Cancelled => {
            cluster.members[struck].lose();
            let cancel = format!("/v1/sessions/{}/runs/{}", group.session().id, task.id);
            let api = cluster.members[(struck + 1) % cluster.members.len()].world.api();
            eventually("somebody takes the cancel", within(PATIENCE), || {
                [200, 202].contains(&api.request("DELETE", &cancel, None).status).then_some(())
            });
        }
        Fault::Rolling => {
            for n in 0..cluster.members.len() {
                drop(cluster.members[n].terminate());
                cluster.members[n].begin();
                cluster.wait_whole(cluster.members.len());
            }
        }
    }
}

/// Makes all nodes well again.
fn mend(cluster: &mut Cluster, fault: Fault, struck: usize) {
    match fault {
        Fault::Frozen => cluster.members[struck].thaw(),
        Fault::Refused | Fault::Unplugged => cluster.members[struck].mend(),
        _ => {}
    }
    for member in &mut cluster.members {
        if member.daemon.is_none() {
            member.begin();
        }
    }
    cluster.wait_whole(cluster.members.len());
}
