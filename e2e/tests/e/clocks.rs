//! Clocks that are hours apart: said, and nothing depends on them.

use std::path::Path;

use outlive_e2e::clock::{PATIENCE, eventually, within};
use outlive_e2e::cluster::{Cluster, Servers};
use outlive_e2e::command::Running;
use outlive_store_nats::testing::{NatsServer, Options};

use crate::{counts, exact, output};

/// How far each node's clock is ahead, in seconds: n1 is three hours behind, n3 is five hours ahead, and a moment more.
const AHEAD_S: [i64; 3] = [-3 * 3_600 - 30, 0, 5 * 3_600 + 30];

/// Three nodes whose machines do not agree on the time.
fn at_odds() -> Cluster {
    let mut cluster = Cluster::over(Servers::One(NatsServer::start(&Options::default())), 0);
    let library = cluster.volume().join("clock.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/clock.c");
    for (n, ahead) in AHEAD_S.iter().enumerate() {
        let mut member = cluster.member(&format!("n{}", n + 1));
        if n == 0 {
            let mut compile = member.world.command("cc");
            compile.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
            Running::start(&mut compile).finish(within(PATIENCE)).assert_code(0);
        }
        member.world.set("LD_PRELOAD", library.display().to_string());
        member.world.set("CLOCK_AHEAD_S", ahead.to_string());
        member.begin();
        cluster.members.push(member);
    }
    cluster.wait_whole(3);
    cluster
}

/// The number of a gauge of a node's metrics; nothing while it does not have it.
fn gauge(cluster: &Cluster, place: usize, name: &str) -> Option<f64> {
    let answer = cluster.members[place].world.api().request("GET", "/metrics", None);
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

// E6: clocks are hours apart while the owner is lost and the next one is drained: nobody is taken for dead for it, no
// record is lost or doubled, and each node says whose clock is off.
#[test]
fn clocks_are_hours_apart() {
    let mut cluster = at_odds();
    let group = cluster.runners(0, "g", 1);
    let task = counts(&group, 400);
    let path = output(&group, &task);
    let watchers = cluster.watch_everywhere(&path, 12);
    watchers[1].wait_said("1:50\n");

    let nodes = cluster.members[1].world.run(&["nodes"]);
    nodes.assert_code(0);
    for said in ["-3 h", "+5 h", "the clock of n1 is 3 h", "the clock of n3 is"] {
        assert!(format!("{}{}", nodes.stdout, nodes.stderr).contains(said), "no {said:?}: {nodes}");
    }
    let doctor = cluster.members[1].world.run(&["doctor"]);
    assert!(doctor.stdout.contains("the clock of n1 is") && doctor.stdout.contains("NTP"), "{doctor}");
    let skew = eventually("the metrics have it", within(PATIENCE), || {
        gauge(&cluster, 1, "outlive_cluster_clock_skew_seconds ").filter(|skew| *skew > 0.0)
    });
    assert!((skew - 18_030.0).abs() < 60.0, "{skew}");

    // From three hours ago to now, and from there to whom five hours ahead or behind belong.
    cluster.members[0].lose();
    let second = cluster.moved_from(&group.session().id, 0);
    watchers[second].wait_said("\n2:");
    let ended = cluster.members[second].terminate();
    ended.assert_code(0);
    assert!(ended.stderr.contains("its clock differs from ours"), "it is logged: {ended}");
    let attempts = exact(&cluster, watchers, &path, 400);
    assert!((2..=3).contains(&attempts), "{attempts}");
    let last = cluster.owner(&group.session().id);
    let view = cluster.members[last].world.api().get(&format!("/v1/runners/{}", group.name));
    assert_eq!(view["reports"].as_array().map_or(0, Vec::len), 0, "{view}");
}
