//! The store is full while a task runs: whoever asks is told, nothing is lost, and it goes on when there is room.

use outlive_e2e::clock::{PATIENCE, eventually, within};
use outlive_e2e::cluster::administrator::bound_sessions;
use outlive_e2e::cluster::{Account, Cluster, Habit, Servers, Watcher};
use outlive_e2e::{Group, Running, Task};
use outlive_store_nats::testing::{JetStream, NatsServer, Options};
use serde_json::json;

use crate::output;

/// So much fits when the store is full in these tests, about, in bytes.
const ROOM: u64 = 3 << 20;
/// Each piece of output, in bytes, and how many there are: three times of what fits.
const PIECE: usize = 20_000;
const PIECES: usize = 450;

fn long(group: &Group) -> Task {
    let code =
        format!("for i in range({PIECES}):\n    text(f'{{i}} '.ljust({PIECE}, 'x'))\n    pause(0.002)");
    group.submit_with(&code, &json!({"idempotent": true}))
}

/// Somebody who follows the task on a command line.
fn attached(cluster: &Cluster, task: &Task) -> Running {
    cluster.members[0].world.spawn(&["task", "attach", "g", &task.id])
}

/// They were told that it waits, and that it goes on, and have all of it.
fn told_all(mut client: Running) {
    client.wait_for("it goes on", within(PATIENCE));
    let said = client.finish(within(PATIENCE));
    said.assert_code(0);
    assert_eq!(said.stdout.matches('x').count(), all_but_numbers(), "{}", said.stderr);
}

/// How many bytes of the output are no numbers or spaces.
fn all_but_numbers() -> usize {
    (0..PIECES).map(|n| PIECE - format!("{n} ").len()).sum()
}

/// Waits until `doctor` on a node says that the store is full, and whoever asks for more is told.
fn is_told(cluster: &Cluster, group: &Group) {
    let member = &cluster.members[0];
    let doctor = eventually("doctor says that the store takes nothing", within(PATIENCE), || {
        let said = member.world.run(&["doctor"]);
        let is_told = said.stdout.contains("daemon's store") && said.stdout.contains("raise its limits");
        (said.code() == Some(1) && is_told).then_some(said)
    });
    assert!(doctor.stdout.contains("nothing is lost"), "{doctor}");
    let body = json!({"task": "python", "input": {"code": "text('more')"}});
    let refused = member.world.api().request("POST", &group.path("/tasks"), Some(&body));
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("store-unavailable")));
    let problem = refused.json();
    assert!(problem["detail"].as_str().is_some_and(|why| why.contains("raise its limits")), "{problem}");
    // What is there can be read, on every node.
    for member in &cluster.members {
        assert_eq!(member.world.api().request("GET", "/v1/live", None).status, 200);
        let listed = member.world.run(&["ps"]);
        assert!(listed.stdout.contains('g'), "{listed}");
    }
}

/// All of it, each piece once, in one attempt.
fn whole(watchers: Vec<Watcher>) {
    for account in watchers.into_iter().map(Watcher::end) {
        let Account { transcript, .. } = account;
        assert_eq!(transcript.ended(), "succeeded", "{:?}", transcript.outcome);
        let numbers = transcript.of_kind("text").map(|chunk| {
            let text = chunk["text"].as_str().unwrap_or_default();
            text.split(' ').next().and_then(|number| number.parse().ok())
        });
        assert!(numbers.eq((0..PIECES).map(Some)), "{} pieces", transcript.chunks.len());
        assert_eq!(transcript.resets, 0);
    }
}

// E11: the streams reach the bound that somebody gave them.
#[test]
fn the_streams_are_full() {
    let cluster = Cluster::of(2);
    let group = cluster.runners(0, "g", 1);
    let Servers::One(server) = &cluster.servers else { unreachable!("one server") };
    bound_sessions(server, i64::try_from(ROOM).expect("small"));
    let task = long(&group);
    let watchers = cluster.watch_everywhere(&output(&group, &task), 11);
    let mut client = attached(&cluster, &task);
    client.wait_for("it waits, and nothing is lost", within(PATIENCE));
    is_told(&cluster, &group);
    let owner = cluster.owner(&group.session().id);
    bound_sessions(server, -1);
    told_all(client);
    whole(watchers);
    assert_eq!((owner, cluster.owner(&group.session().id)), (0, 0), "nobody was taken for dead");
    assert_eq!(group.run("text('more')").said(), "more");
    let doctor = cluster.members[0].world.run(&["doctor", "--json"]).json();
    let store =
        doctor["checks"].as_array().into_iter().flatten().find(|check| check["name"] == "daemon's store");
    assert_eq!(store.expect("it is checked")["level"], "ok", "{doctor}");
}

fn options(bytes: u64) -> Options {
    Options { jetstream: JetStream::Bounded(bytes), ..Options::default() }
}

// E11: forgetting what is not needed makes room, and what waited for it goes on.
#[test]
fn forgetting_makes_room() {
    let cluster = Cluster::over(Servers::One(NatsServer::start(&options(ROOM))), 1);
    let world = &cluster.members[0].world;
    let print = "for i in $(seq 200); do echo $i $(head -c 9000 /dev/zero | tr '\\0' x); done";
    world.run(&["run", "--", "sh", "-c", print]).assert_code(0);
    let mut client = world.spawn(&["run", "--", "sh", "-c", print]);
    client.wait_for("it waits, and nothing is lost", within(PATIENCE));
    let all = world.run(&["ps", "--all", "--json"]).json();
    let old = all.as_array().into_iter().flatten().find(|session| session["state"] == "succeeded");
    let old =
        old.and_then(|session| session["id"].as_str()).unwrap_or_else(|| panic!("nothing has ended: {all}"));
    world.run(&["forget", old]).assert_code(0);
    client.wait_for("it goes on", within(PATIENCE));
    let said = client.finish(within(PATIENCE));
    said.assert_code(0);
    let numbers =
        said.stdout.lines().map(|line| line.split(' ').next().and_then(|number| number.parse().ok()));
    assert!(numbers.eq((1..=200).map(Some)), "{} lines; {}", said.stdout.lines().count(), said.stderr);
}

// E11: the server has no room, and is given more.
#[test]
fn the_server_is_full() {
    let mut cluster = Cluster::over(Servers::One(NatsServer::start(&options(ROOM))), 2);
    let group = cluster.runners(0, "g", 1);
    let task = long(&group);
    let path = output(&group, &task);
    let watchers = cluster.watch_everywhere(&path, 11);
    is_told(&cluster, &group);
    // Nothing new begins without being told either.
    let made = cluster.members[1].world.api().request(
        "POST",
        "/v1/sessions/new",
        Some(&cluster.members[1].world.untitled_spec()),
    );
    assert_eq!(
        (made.status, made.json()["code"].as_str()),
        (503, Some("store-unavailable")),
        "{}",
        made.json()
    );
    let Servers::One(server) = &mut cluster.servers else { unreachable!("one server") };
    server.restart_with(&options(20 * ROOM));
    whole(watchers);
    let late = Watcher::begin("a newcomer", cluster.places(1), &path, Habit::Stays);
    whole(vec![late]);
}
