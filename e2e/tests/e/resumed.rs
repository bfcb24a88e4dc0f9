//! What becomes of work when its node is lost: continued, rewound, begun again, or failed with the reason.

use outlive_e2e::clock::{PATIENCE, within};
use outlive_e2e::cluster::{Cluster, Habit, Watcher};
use serde_json::json;

use crate::{exact, output};

// E10: a runner that repeats itself exactly goes on where it was: watchers see no reset.
#[test]
fn a_runner_that_repeats_itself_exactly() {
    let mut cluster = Cluster::of(3);
    let mut config = cluster.group_config(0, 1);
    let start = "hello(exact=['python']); ready()";
    config["members"][0] = {
        let mut member = cluster.members[0].world.raw_member("m-0", start);
        member["launch"]["cwd"] = config["members"][0]["launch"]["cwd"].clone();
        member["launch"]["env"] = config["members"][0]["launch"]["env"].clone();
        member
    };
    let group = outlive_e2e::Group::up(&cluster.members[0].world.api(), "g", &config);
    group.wait_ready();
    // Says the same in each attempt.
    let code = "for i in range(200):\n    text(f'1:{i}\\n'); pause(0.01)";
    let task = group.submit_with(code, &json!({"idempotent": true}));
    let path = output(&group, &task);
    let watchers = cluster.watch_everywhere(&path, 12);
    watchers[1].wait_said("1:80\n");
    cluster.members[0].lose();
    let at = cluster.members.iter().position(|member| member.daemon.is_some()).expect("two live");
    let late = Watcher::begin("a newcomer", cluster.places(at), &path, Habit::Stays);
    let seen = watchers[1].so_far();
    assert_eq!(seen.transcript.resets, 0);
    assert_eq!(late.end().transcript.resets, 0);
    assert_eq!(exact(&cluster, watchers, &path, 200), 1, "one attempt, as far as anybody can see");
    assert_eq!(cluster.group_at(at, "g").task(&task.id).view()["attempt"], 2);
}

// E10: one that cannot resume begins again, and everybody is told to forget what it had said.
#[test]
fn a_runner_that_cannot_resume() {
    let mut cluster = Cluster::of(3);
    let group = cluster.runners(0, "g", 1);
    let task = group.submit_with("count(task, 150, 0.01)", &json!({"idempotent": true}));
    let path = output(&group, &task);
    let watchers = cluster.watch_everywhere(&path, 13);
    watchers[1].wait_said("1:80\n");
    cluster.members[0].lose();
    watchers[1].wait_said("2:0\n");
    assert!(watchers[1].so_far().transcript.resets >= 1);
    assert_eq!(exact(&cluster, watchers, &path, 150), 1, "all of it is of the second attempt");
}

// E10: a task that may not be begun again fails, and says that its node was lost.
#[test]
fn a_task_that_may_not_be_begun_again() {
    let mut cluster = Cluster::of(3);
    let group = cluster.runners(0, "g", 1);
    let task = group.submit("text('once'); forever()");
    let path = output(&group, &task);
    let watcher = Watcher::begin("who stays", cluster.places(1), &path, Habit::Stays);
    watcher.wait_said("once");
    cluster.members[0].lose();
    let seen = watcher.end().transcript;
    assert_eq!((seen.ended(), seen.cause()), ("failed", "node-lost"), "{:?}", seen.outcome);
    // The group itself goes on.
    let owner = cluster.moved_from(&group.session().id, 0);
    let group = cluster.group_at(owner, "g");
    group.wait_ready();
    assert_eq!(group.run("text('on another node')").said(), "on another node");
}

// E10: a command by its restart policy.
#[test]
fn a_command_by_its_restart_policy() {
    let mut cluster = Cluster::of(2);
    let world = &cluster.members[0].world;
    let say = "echo from $OUTLIVE_ATTEMPT; if [ $OUTLIVE_ATTEMPT = 1 ]; then sleep 1000; fi";
    let start = |restart: &str| {
        let mut spec = world.command_spec(&["sh", "-c", say]);
        spec["restart"]["restart"] = json!(restart);
        spec["launch"]["cwd"] = json!(cluster.volume());
        spec["launch"]["env"] = json!({"PATH": "/usr/bin:/bin"});
        let session = outlive_e2e::Session::create(&world.api(), &spec);
        let run = session.runs().remove(0);
        session
            .attach(&run, None)
            .wait_for("it says something", within(PATIENCE), |event| event.name == "output");
        (session.id.clone(), run)
    };
    let (again, run_again) = start("transient");
    let (once, run_once) = start("temporary");
    cluster.members[0].lose();
    let moved = cluster.session_at(cluster.moved_from(&again, 0), &again);
    let seen = moved.outcome(&run_again, within(PATIENCE));
    assert_eq!((seen.ended(), seen.stdout().as_str()), ("succeeded", "from 1\nfrom 2\n"));
    let moved = cluster.session_at(cluster.moved_from(&once, 0), &once);
    let seen = moved.outcome(&run_once, within(PATIENCE));
    assert_eq!((seen.ended(), seen.cause(), seen.stdout().as_str()), ("failed", "node-lost", "from 1\n"));
}
