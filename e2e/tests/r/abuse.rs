//! What a runner writes to its channel may be anything.

use outlive_e2e::clock::{PATIENCE, eventually, within};
use outlive_e2e::runners::{is_ready, member};
use outlive_e2e::{Group, Process, Task, World, process, report};
use serde_json::{Value, json};

use crate::explained;

/// More than a shim needs beside the largest frame that it may hold (16 MiB), far less than what lies ask for.
const MEMORY_BYTES_MAX: u64 = 64 << 20;

/// Two runners; the second has a task that goes on all the time, so that every other task goes to the first.
struct Neighbours {
    group: Group,
    other: Task,
    process: Process,
}

impl Neighbours {
    fn up(world: &World) -> Self {
        let mut config = world.group_config(2);
        config["restart"]["restarts_max"] = json!(50);
        config["restart"]["backoff_ms"] = json!(1);
        let group = Group::up(&world.api(), "g", &config);
        group.wait_ready();
        // Both go to the one that has none.
        let first = group.submit("text(os.environ['OUTLIVE_RUNNER_NAME']); forever()");
        let second = group.submit("text(os.environ['OUTLIVE_RUNNER_NAME']); forever()");
        let (seen, _) = first.wait_said("m-");
        let (first, second) = if seen.said() == "m-1" { (first, second) } else { (second, first) };
        second.wait_said("m-0");
        first.wait_said("m-1");
        second.cancel();
        assert_eq!(second.outcome().ended(), "cancelled");
        let process = group.process(1);
        Self { group, other: first, process }
    }

    /// Waits until the first runner takes tasks again.
    fn wait_both(&self) {
        self.group.wait_until("both are ready", within(PATIENCE), |view| {
            (0..2).all(|place| is_ready(member(view, place)))
        });
    }

    /// Checks that nothing has happened to the second runner and its task.
    #[track_caller]
    fn untouched(&self) {
        assert_eq!(self.group.process(1).pid, self.process.pid, "the other runner is left alone");
        assert_eq!(self.other.view()["state"]["state"], "running", "and so is its task");
    }
}

/// What breaks the stream for good: what the task does, and what the cause says of it.
const FATAL: [(&str, &str); 10] = [
    ("write(b'all the world is a stage\\n')", "all the world"),
    ("write(b'[1, 2]\\n')", "not a frame"),
    ("write(b'{\"type\": 7}\\n')", "not a frame"),
    ("write(b'{\"type\": \"chunk\", \"id\": \"x\", \"attempt\": 1, \"text\": \"a\"}\\n')", "not a frame"),
    ("write(b'{\"type\": \"\\xff\\xfe\"}\\n')", "UTF-8"),
    ("task.send('chunk', text='x' * 70_000)", "65536"),
    ("write(b'x' * 100_000_000)", "65536"),
    ("task.send('chunk', bytes=99_999_999_999)", "99999999999"),
    ("task.send('chunk', bytes=-1)", "-1"),
    (
        "write(json.dumps({'type': 'chunk', 'id': task.id, 'attempt': 1, 'bytes': 3}).encode() + b'\\nabcdef\\n')",
        "newline",
    ),
];

// B1: what cannot be a frame ends the runner, its tasks are told what it wrote, in bounded memory, and nobody else
// notices.
#[test]
fn what_breaks_the_stream() {
    let world = World::new();
    let _daemon = world.daemon();
    let neighbours = Neighbours::up(&world);
    let group = &neighbours.group;
    for (code, words) in FATAL {
        let shim = group.process(0).parent;
        let bystander = group.submit("text('beside'); forever()");
        bystander.wait_said("beside");
        let task = group.submit(&format!("text('before')\n{code}\nforever()"));
        let mut peak = 0;
        eventually("its end", within(PATIENCE), || {
            peak = peak.max(process::peak_memory_bytes(shim).unwrap_or(0));
            (task.view()["state"]["state"] == "ended").then_some(())
        });
        assert!(peak < MEMORY_BYTES_MAX, "{code}: the shim grew to {peak} bytes");
        let ended = task.outcome();
        assert_eq!(ended.said(), "before", "{code}");
        let report = explained(group, &ended);
        assert_eq!(report::code(&report), "protocol-violation", "{code}: {report:#}");
        let said = report["evidence"]["violation"].to_string();
        assert!(said.contains(words), "{code}: {words:?} is told: {said}");
        assert_eq!(explained(group, &bystander.outcome())["id"], report["id"], "{code}: one death");
        neighbours.untouched();
        neighbours.wait_both();
    }
}

// B1: a runner that does not begin with a hello, and one of a version that nobody speaks.
#[test]
fn what_is_no_greeting() {
    let world = World::new();
    let _daemon = world.daemon();
    for (start, words) in [("ready()", "hello"), ("hello(version=250)", "250"), ("hello(version=0)", "0")] {
        let mut config = world.group_of(vec![world.raw_member("m-0", start)]);
        config["restart"]["restart"] = json!("temporary");
        let group = Group::up(&world.api(), "g", &config);
        let report = group.first_report();
        assert_eq!(report::code(&report), "protocol-violation", "{start}: {report:#}");
        assert!(report["evidence"]["violation"].to_string().contains(words), "{start}: {report:#}");
        group.down();
        world.assert_nothing_supervised();
    }
}

// B1: frames about nothing are dropped and reported; the runner and its tasks go on.
#[test]
fn frames_about_nothing() {
    let world = World::new();
    let _daemon = world.daemon();
    let neighbours = Neighbours::up(&world);
    let group = &neighbours.group;
    let first = group.process(0).pid;
    let strays = [
        "send('chunk', id='00000000-0000-4000-8000-000000000000', attempt=1, text='stray')",
        "send('result', id='00000000-0000-4000-8000-000000000000', attempt=1, value=1)",
        "send('chunk', id=task.id, attempt=7, text='of another attempt')",
    ];
    for (nth, code) in strays.iter().enumerate() {
        let mut events = group.session().events();
        let ended = group.run(&format!("text('a')\n{code}\ntext('b')"));
        assert_eq!((ended.ended(), ended.said().as_str()), ("succeeded", "ab"), "{code}");
        let told = events.wait_for("a report", within(PATIENCE), |event| event.name == "report").data;
        assert_eq!(report::code(&told["report"]), "protocol-violation", "{code}: {told:#}");
        assert_eq!(group.reports().len(), nth + 1, "{code}");
    }

    // Two terminals: the first one counts.
    let mut events = group.session().events();
    let ended =
        group.run("task.send('result', value='first'); task.send('error', exception={'type': 'Second'})");
    assert_eq!(ended.ended(), "succeeded");
    assert_eq!(ended.of_kind("result").map(|chunk| chunk["content"].clone()).collect::<Vec<_>>(), ["first"]);
    let told = events.wait_for("a report", within(PATIENCE), |event| event.name == "report").data;
    assert_eq!(report::code(&told["report"]), "protocol-violation", "{told:#}");

    // Output after the terminal is dropped.
    let ended = group.run("text('a'); task.send('result', value=None); text('late')");
    assert_eq!((ended.ended(), ended.said().as_str()), ("succeeded", "a"));

    // Frames of another time are skipped, with their bytes.
    let ended = group.run(
        "text('a'); send('telepathy', strength=9); send('telepathy', b'{\"type\": \"end\"}\\n' * 3); text('b')",
    );
    assert_eq!((ended.ended(), ended.said().as_str()), ("succeeded", "ab"));
    assert_eq!(group.process(0).pid, first, "it lived through all of this");
    neighbours.untouched();
}

// B1: it closes its channel and lives on: nobody can hear it any more, so it is stopped, and its tasks are told.
#[test]
fn it_closes_its_channel_and_lives_on() {
    let world = World::new();
    let _daemon = world.daemon();
    let neighbours = Neighbours::up(&world);
    let group = &neighbours.group;
    // A pong would tell it that the channel is gone.
    let ended = group.run("hears.clear(); text('before'); os.close(4); time.sleep(1000)");
    assert_eq!(ended.said(), "before");
    let report = explained(group, &ended);
    assert_eq!(report::code(&report), "channel-closed", "{report:#}");
    neighbours.untouched();
    neighbours.wait_both();
    group.down();

    // Without a task, and both ends.
    let start = "hello(); ready(); os.close(4); os.close(3); time.sleep(1000)";
    let mut config = world.group_of(vec![world.raw_member("m-0", start)]);
    config["restart"]["restart"] = json!("temporary");
    let group = Group::up(&world.api(), "g", &config);
    let report = group.first_report();
    assert_eq!(report::code(&report), "channel-closed", "{report:#}");
    world.assert_nothing_supervised();
}

// B1: half a frame, then silence: it lives, and the watchdog sees to it.
#[test]
fn half_a_frame_then_silence() {
    let world = World::new();
    let _daemon = world.daemon();
    let mut config = world.group_config(1);
    config["members"][0]["launch"]["program"]["watch"] = json!({"between_chunks_ms": 1_000});
    let group = Group::up(&world.api(), "g", &config);
    for half in ["b'{\"type\": \"chunk\", \"te'", "b'{\"type\": \"chunk\", \"bytes\": 16000000}\\nabc'"] {
        // It holds the lock of its writer: no pong comes between.
        let ended = group.run(&format!("text('before'); write({half}); writing.acquire(); forever()"));
        assert_eq!(ended.said(), "before");
        let report = explained(&group, &ended);
        assert!(
            ["stalled", "protocol-violation", "hung"].contains(&report::code(&report)),
            "{half}: {report:#}"
        );
    }
    group.wait_ready();
}

// B1: what is too long to be sent is refused where it is sent: the SDK's sender gets an error of a type, and the channel
// lives; an input over the limit is refused by the API.
#[test]
fn too_long_to_be_sent() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(1);
    let large = "x".repeat(400_000);
    let ended = group
        .submit_with("", &json!({"input": {"code": "result = len(task.input['large'])", "large": large}}));
    let ended = ended.outcome();
    assert_eq!(ended.ended(), "succeeded", "an input that fits no line comes as bytes: {:?}", ended.outcome);
    assert_eq!(
        ended.of_kind("result").next().map(|chunk| chunk["content"].clone()),
        Some(Value::from(400_000))
    );
    let refused = group.submit_refused("", &json!({"input": {"large": "x".repeat(600_000)}}));
    let status = refused["status"].as_u64().unwrap_or_default();
    assert!([400, 413, 422].contains(&status), "{refused}");
    assert_eq!(group.run("text('alive')").said(), "alive");
}
