//! The example of three nodes does what it promises, and leaves nothing behind.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use outlive_e2e::command::Running;
use outlive_e2e::process::Signal;
use outlive_e2e::{World, within};
use outlive_store_nats::testing;

/// It takes less; machines that run many tests are slow.
const ENOUGH: Duration = Duration::from_secs(90);

fn demo(world: &World) -> Command {
    let mut command = world.command("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/three-nodes/demo.py"));
    command.env("OUTLIVE_BIN", outlive_e2e::world::binary()).env("OUTLIVE_NATS_SERVER", testing::program());
    command
}

fn nothing_left(world: &World) {
    world.assert_nothing_left();
    let left: Vec<_> = std::fs::read_dir(world.root().join("tmp")).expect("a folder").collect();
    assert!(left.is_empty(), "{left:?}");
}

// E1
#[test]
fn three_nodes() {
    let world = World::new();
    let said = Running::start(&mut demo(&world)).finish(within(ENOUGH));
    said.assert_code(0);
    for line in
        ["3 of 3 watchers have the same story", "kill -9: ada is gone", "moved from ada to ", "noticed  by "]
    {
        assert!(said.stdout.contains(line), "no {line:?}: {said}");
    }
    assert_eq!(said.stderr, "", "{said}");
    nothing_left(&world);
}

#[test]
fn three_nodes_ended_early() {
    let world = World::new();
    for signal in [Signal::INT, Signal::TERM] {
        let mut running = Running::start(&mut demo(&world));
        running.wait_for("tells a story", within(ENOUGH));
        running.signal(signal);
        let said = running.finish(within(ENOUGH));
        said.assert_code(130);
        assert!(!said.stderr.contains("Traceback"), "{said}");
        nothing_left(&world);
    }
}
