//! The life of a task: submitted, given to somebody, cancelled, refused.

use std::time::Duration;

use outlive_e2e::clock::{PATIENCE, within};
use outlive_e2e::runners::{member, read_until};
use outlive_e2e::{Group, World, report};
use serde_json::{Value, json};

/// A group of one that takes one task at a time.
fn one_at_a_time(world: &World) -> Group {
    let start = "hello(concurrency=1); ready()";
    let group = Group::up(&world.api(), "g", &world.group_of(vec![world.raw_member("m-0", start)]));
    group.wait_ready();
    group
}

/// The state in a task's view.
fn state(view: &Value) -> &str {
    view["state"]["state"].as_str().unwrap_or_default()
}

// B4: every kind of output comes as what it is; the value is the last chunk.
#[test]
fn what_a_task_says() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(1);
    let ended = group.run(
        "text('grüße\\n')\ntask.send('chunk', json={'a': [1, None]})\ntask.send('chunk', b'\\x00\\xff')\n\
         task.send('chunk', b'abc', mime='image/png')\ntask.send('progress', done=1, total=2, message='half')\n\
         task.send('chunk', b'x' * 1_000_000)\nresult = {'done': True}",
    );
    assert_eq!(ended.ended(), "succeeded", "{:?}", ended.outcome);
    let kinds: Vec<&str> = ended.chunks.iter().filter_map(|chunk| chunk["kind"].as_str()).collect();
    assert_eq!(kinds, ["text", "json", "bytes", "display_data", "progress", "bytes", "result"]);
    let chunk = |place: usize| &ended.chunks[place];
    assert_eq!(chunk(0)["text"], "grüße\n");
    assert_eq!(chunk(1)["content"], json!({"a": [1, null]}));
    assert_eq!(chunk(2)["base64"], "AP8=");
    assert_eq!(chunk(3)["content"]["data"]["image/png"], "YWJj");
    assert_eq!(chunk(4)["content"]["total"].as_f64(), Some(2.0));
    let blob = &chunk(5)["blob"];
    assert_eq!(blob["size"], 1_000_000, "a large one stands beside the log");
    let path = group.session().path(&format!("/blobs/{}", blob["sha256"].as_str().unwrap_or_default()));
    assert_eq!(world.api().request("GET", &path, None).body, vec![b'x'; 1_000_000]);
    assert_eq!(chunk(6)["content"], json!({"done": true}));
}

// A task is given to the ready member that has least to do; one more than all can take waits its turn.
#[test]
fn least_loaded_first() {
    let world = World::new();
    let _daemon = world.daemon();
    let start = "hello(concurrency=2); ready()";
    let members = (0..3).map(|n| world.raw_member(&format!("m-{n}"), start)).collect();
    let group = Group::up(&world.api(), "g", &world.group_of(members));
    group.wait_ready();
    let code = "text(os.environ['OUTLIVE_RUNNER_NAME']); forever()";
    let tasks: Vec<_> = (0..6).map(|_| group.submit(code)).collect();
    let mut served: Vec<String> = tasks.iter().map(|task| task.wait_said("m-").0.said()).collect();
    assert_eq!(
        served[..3].iter().collect::<std::collections::BTreeSet<_>>().len(),
        3,
        "one each first: {served:?}"
    );
    served.sort();
    assert_eq!(served, ["m-0", "m-0", "m-1", "m-1", "m-2", "m-2"]);
    let seventh = group.submit("text(os.environ['OUTLIVE_RUNNER_NAME'])");
    assert_eq!(state(&seventh.view()), "queued");
    assert_eq!(group.view()["group"]["running"], 6);
    let fourth = tasks[3].view();
    tasks[3].cancel();
    let ended = seventh.outcome();
    assert_eq!(fourth["task"]["member"], ended.said(), "it takes the place that has become free");
}

// Cancelled while it waits, and while it runs: settled once; cancelling again, also after the end, changes nothing.
#[test]
fn cancelled() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = one_at_a_time(&world);
    let running = group.submit("text('running'); forever()");
    running.wait_said("running");
    let waiting = group.submit("text('never')");
    assert_eq!(waiting.cancel(), 200, "nobody has to be asked");
    let ended = waiting.outcome();
    assert_eq!((ended.ended(), ended.said().as_str()), ("cancelled", ""));
    assert_eq!(running.cancel(), 202);
    let ended = running.outcome();
    assert_eq!((ended.ended(), ended.said().as_str()), ("cancelled", "running"));
    assert_eq!(ended.outcome.as_ref().expect("it ended")["why"], "user");
    for task in [&waiting, &running] {
        assert_eq!(task.cancel(), 200, "an end is an end");
        assert_eq!(task.outcome().ended(), "cancelled");
    }
    let done = group.submit("text('done')");
    assert_eq!(done.outcome().ended(), "succeeded");
    assert_eq!(done.cancel(), 200);
    assert_eq!(done.outcome().ended(), "succeeded", "what has ended stays as it ended");
    assert!(group.reports().is_empty(), "{:#?}", group.reports());
    assert_eq!(group.member(0)["runtime"]["incarnation"], 1, "the same process");
}

// B1: a task that ignores its cancel is settled when the time is over; its runner is stopped as soon as nobody else
// needs it, and what is queued is served by the next one.
#[test]
fn a_cancel_that_is_ignored() {
    let world = World::new();
    let _daemon = world.daemon();
    let mut config = world.group_config(1);
    config["cancel_grace_ms"] = json!(500);
    let group = Group::up(&world.api(), "g", &config);
    let gate = world.work().join("gate");
    let beside = group
        .submit(&format!("text('beside')\nwhile not os.path.exists({gate:?}): pause(0.01)\ntext(' done')"));
    beside.wait_said("beside");
    let deaf = group.submit("text('deaf'); time.sleep(1000)");
    deaf.wait_said("deaf");
    deaf.cancel();
    let ended = deaf.outcome();
    assert_eq!(ended.ended(), "cancelled", "{:?}", ended.outcome);
    let queued = group.submit("text('served by the next')");
    assert_eq!(state(&beside.view()), "running", "who was not cancelled goes on");
    assert_eq!(group.member(0)["runtime"]["incarnation"], 1);
    std::fs::write(&gate, "").unwrap();
    let ended = beside.outcome();
    assert_eq!((ended.ended(), ended.said().as_str()), ("succeeded", "beside done"));
    assert_eq!(queued.outcome().said(), "served by the next");
    assert_eq!(group.member(0)["runtime"]["incarnation"], 2);
    let report = group.first_report();
    assert_eq!(report::code(&report), "ignored-cancel", "{report:#}");
}

// An attempt that takes too long is ended, and said to have taken too long.
#[test]
fn a_time_limit() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(1);
    let task = group.submit_with("text('slow'); forever()", &json!({"timeout_ms": 300}));
    let ended = task.outcome();
    assert_eq!((ended.ended(), ended.said().as_str()), ("timed_out", "slow"));
    assert_eq!(group.run("text('alive')").said(), "alive");
    assert_eq!(group.member(0)["runtime"]["incarnation"], 1);
}

// B4: a client that goes away takes nothing with it, unless it said so.
#[test]
fn a_client_goes_away() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(1);
    let (stays, goes) = (group.submit("text('a'); forever()"), group.submit("text('b'); forever()"));
    let (_, watching) = stays.wait_said("a");
    drop(watching);
    let mut seen = outlive_e2e::Transcript::default();
    let mut watching = goes.attach_and_cancel();
    read_until(&mut seen, &mut watching, "b");
    drop(watching);
    assert_eq!(goes.outcome().ended(), "cancelled");
    assert_eq!(state(&stays.view()), "running");
    stays.cancel();
    assert_eq!(stays.outcome().ended(), "cancelled");
    // One that ends first is not changed by who goes afterwards.
    let quick = group.submit("text('c')");
    let mut watching = quick.attach_and_cancel();
    assert!(outlive_e2e::Transcript::default().follow(&mut watching, within(PATIENCE)));
    drop(watching);
    assert_eq!(quick.outcome().ended(), "succeeded");
}

// The same id, and the same key, are the same task.
#[test]
fn submitted_twice() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(1);
    let id = "0192f0c1-2345-7890-abcd-0123456789ab";
    let fields = json!({"id": id});
    for _ in 0..2 {
        let task = group.submit_with("text(task.key)", &fields);
        assert_eq!(task.id, id);
        assert_eq!(task.outcome().said(), id, "without a key its id is the key");
    }
    let keyed = json!({"key": "invoice-7"});
    let first = group.submit_with("text(task.key)", &keyed);
    assert_eq!(first.outcome().said(), "invoice-7");
    assert_eq!(group.submit_with("text(task.key)", &keyed).id, first.id);
    assert_eq!(group.submit_refused("text('something else')", &keyed)["code"], "key-of-another-task");
    let listed = world.api().get(&group.path("/tasks"));
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");
}

// With nobody ready a task waits as long as it may, and then says why nobody took it; 0 is not at all.
#[test]
fn nobody_is_ready() {
    let world = World::new();
    let _daemon = world.daemon();
    let gate = world.work().join("gate");
    let start =
        format!("hello(); state('loading')\nwhile not os.path.exists({gate:?}): time.sleep(0.01)\nready()");
    let group = Group::up(&world.api(), "g", &world.group_of(vec![world.raw_member("m-0", &start)]));
    let patient = group.submit("text('served')");
    let refused = group.submit_refused("text('never')", &json!({"wait_ms": 0}));
    assert_eq!(refused["status"].as_u64().map(|status| status / 100), Some(5), "{refused}");
    let impatient = group.submit_with("text('never')", &json!({"wait_ms": 300}));
    let ended = impatient.outcome_by(within(Duration::from_secs(10)));
    assert_eq!(ended.ended(), "unserved", "{:?}", ended.outcome);
    let reason = ended.outcome.expect("it ended")["reason"].to_string();
    assert!(reason.contains("ready"), "{reason}");
    assert_eq!(state(&patient.view()), "queued");
    std::fs::write(&gate, "").unwrap();
    assert_eq!(patient.outcome().said(), "served");
}

// A task that nobody has a handler for is refused, with what there is.
#[test]
fn nobody_has_a_handler() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(2);
    let refused = group.submit_refused("", &json!({"task": "translate"}));
    let text = refused["detail"].to_string();
    assert!(text.contains("translate") && text.contains("python"), "{refused}");
    let nobody = world.api().refused("/v1/runners/nobody/tasks", &json!({"task": "python"}));
    assert_eq!(nobody["status"], 404, "{nobody}");
}

// Members that serve different tasks: each gets its own.
#[test]
fn members_that_differ() {
    let world = World::new();
    let _daemon = world.daemon();
    let members = ["python", "other"].map(|task| {
        world.raw_member(
            &format!("m-{task}"),
            &format!("hello(tasks=['{task}'], capabilities=['c-{task}']); ready()"),
        )
    });
    let group = Group::up(&world.api(), "g", &world.group_of(members.to_vec()));
    let view = group.wait_ready();
    assert_eq!(member(&view, 1)["tasks"], json!(["other"]), "{view}");
    assert_eq!(member(&view, 1)["capabilities"], json!(["c-other"]), "{view}");
    for _ in 0..4 {
        assert_eq!(group.run("text(os.environ['OUTLIVE_RUNNER_NAME'])").said(), "m-python");
    }
    let other = group.submit_with("text(os.environ['OUTLIVE_RUNNER_NAME'])", &json!({"task": "other"}));
    assert_eq!(other.outcome().said(), "m-other");
}

// A program that speaks nothing is supervised, and takes no tasks.
#[test]
fn a_program_that_speaks_nothing() {
    let world = World::new();
    let _daemon = world.daemon();
    let code = "test -e /proc/self/fd/4 && echo 'a channel!' >&2; sleep 1000";
    let mut member = world.member("m-0", &["sh", "-c", code]);
    member["launch"]["program"]["speaks"] = json!("nothing");
    let group = Group::up(&world.api(), "g", &world.group_of(vec![member]));
    group.wait_ready();
    let refused = group.submit_refused("", &json!({}));
    assert_ne!(refused["detail"], "", "{refused}");
    group.signal(0, outlive_e2e::Signal::KILL);
    let report = group.first_report();
    assert_eq!(report::code(&report), "signal", "{report:#}");
    group.wait_incarnation(0, 2);
}

// A group is what it was made as: asked for again it is the same, with another configuration it is refused; ended, its
// name is free.
#[test]
fn up_and_down() {
    let world = World::new();
    let _daemon = world.daemon();
    let config = world.group_config(1);
    let group = Group::up(&world.api(), "g", &config);
    group.wait_ready();
    let pid = group.process(0).pid;
    assert_eq!(Group::try_up(&world.api(), "g", &config).status, 200);
    assert_eq!(group.process(0).pid, pid);
    let other = Group::try_up(&world.api(), "g", &world.group_config(2));
    assert_eq!(other.status, 409, "{}", other.json());
    let listed = world.api().get("/v1/runners");
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    let task = group.submit("text('running'); forever()");
    task.wait_said("running");
    group.down();
    world.assert_nothing_supervised();
    assert_eq!(world.api().get("/v1/runners"), json!([]));
    let again = world.runners(2);
    assert_ne!(again.session().id, group.session().id);
    assert_eq!(again.run("text('new')").said(), "new");
    // What the first one did is still there, under its session.
    let ended = group.session().outcome(&task.id, within(PATIENCE));
    assert_eq!((ended.ended(), ended.said().as_str()), ("cancelled", "running"));
}
