//! NATS itself dies.

use std::time::Duration;

use outlive_e2e::Daemon;
use outlive_e2e::clock::{PATIENCE, eventually, within};
use outlive_e2e::cluster::{Cluster, Servers};
use outlive_e2e::command::Running;

use crate::{counts, exact, output};

// E5: NATS is killed and started again twice in mid-run: nobody is taken for dead, no record is lost or doubled, and
// after that an owner's death is still noticed.
#[test]
fn nats_is_killed_and_started_again() {
    let mut cluster = Cluster::of(3);
    let group = cluster.runners(0, "g", 1);
    let task = counts(&group, 1_000);
    let path = output(&group, &task);
    let watchers = cluster.watch_everywhere(&path, 8);
    for n in [100, 300] {
        watchers[1].wait_said(&format!("1:{n}\n"));
        let Servers::One(server) = &mut cluster.servers else { unreachable!("one server") };
        server.kill();
        std::thread::sleep(Duration::from_millis(500));
        server.restart();
        cluster.wait_whole(3);
    }
    watchers[1].wait_said("1:500\n");
    assert_eq!(cluster.owner(&group.session().id), 0, "nobody was taken for dead");
    cluster.members[0].lose();
    watchers[1].wait_said("\n2:");
    assert_eq!(exact(&cluster, watchers, &path, 1_000), 2);
}

// E5: the leader of three replicating servers is killed in mid-run: a pause, and nothing lost, doubled or deposed.
#[test]
fn the_leader_of_three_servers_is_killed() {
    let mut cluster = Cluster::replicated(3);
    let group = cluster.runners(0, "g", 1);
    let task = counts(&group, 600);
    let path = output(&group, &task);
    let watchers = cluster.watch_everywhere(&path, 9);
    watchers[1].wait_said("1:100\n");
    for n in 0..3 {
        let Servers::Three(servers) = &mut cluster.servers else { unreachable!("three servers") };
        // One after the other: one of them leads.
        servers.servers[n].kill();
        let said = watchers[1].so_far().transcript.chunks.len();
        eventually("it goes on without that server", within(PATIENCE), || {
            let seen = watchers[1].so_far().transcript;
            (seen.chunks.len() > said + 5 || seen.outcome.is_some()).then_some(())
        });
        servers.servers[n].restart();
        servers.wait_whole();
    }
    assert_eq!(exact(&cluster, watchers, &path, 600), 1, "one attempt: nobody was taken for dead");
    assert_eq!(cluster.owner(&group.session().id), 0);
}

// E11: without its store a node is alive and not ready, says why, and answers nothing with an empty success.
#[test]
fn the_store_is_away() {
    let mut cluster = Cluster::of(1);
    let group = cluster.runners(0, "g", 1);
    let Servers::One(server) = &mut cluster.servers else { unreachable!("one server") };
    server.kill();
    let api = cluster.members[0].world.api();
    eventually("it says that it is not ready", within(PATIENCE), || {
        let ready = api.request("GET", "/v1/ready", None);
        (ready.status == 503).then_some(())
    });
    assert_eq!(api.request("GET", "/v1/live", None).status, 200);
    for path in ["/v1/sessions?all=true", "/v1/sessions/00000000-0000-4000-8000-000000000001"] {
        let answer = api.request("GET", path, None);
        assert_eq!(answer.status, 503, "{path}: {}", answer.json());
        assert!(answer.json()["detail"].as_str().is_some_and(|why| !why.is_empty()), "{}", answer.json());
    }
    let Servers::One(server) = &mut cluster.servers else { unreachable!("one server") };
    server.restart();
    eventually("it is ready again", within(PATIENCE), || {
        (api.request("GET", "/v1/ready", None).status == 200).then_some(())
    });
    assert_eq!(group.run("text('here again')").said(), "here again");
}

// E11: a node that is started before its store waits if it is told to, is alive meanwhile, and says what it waits for.
#[test]
fn a_node_waits_for_its_store() {
    let mut cluster = Cluster::of(1);
    let Servers::One(server) = &mut cluster.servers else { unreachable!("one server") };
    server.kill();
    let mut early = cluster.member("early");
    early.serve_with(&["--wait", "60s"]);
    let api = early.world.api();
    let running = Running::start(&mut early.command());
    eventually("it is alive", within(PATIENCE), || {
        api.try_request("GET", "/v1/live", None).ok().filter(|answer| answer.status == 200)
    });
    let ready = api.request("GET", "/v1/ready", None);
    assert_eq!((ready.status, ready.json()["code"].as_str()), (503, Some("joining")), "{}", ready.json());
    let work = api.request("GET", "/v1/sessions", None);
    assert_eq!((work.status, work.json()["code"].as_str()), (503, Some("joining")));
    let Servers::One(server) = &mut cluster.servers else { unreachable!("one server") };
    server.restart();
    early.daemon = Some(Daemon::wait_ready(running, &api));
    assert_eq!(early.world.api().get("/v1/sessions"), serde_json::json!([]));
}
