//! Very much output, on the channel and beside it: complete or kept in part, and nobody else notices.

use outlive_e2e::World;

// B3: a hundred thousand chunks arrive, each once.
#[test]
fn a_hundred_thousand_chunks() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(1);
    let task = group.submit("count(task, 100_000)");
    let ended = task.outcome_by(outlive_e2e::clock::within(std::time::Duration::from_secs(120)));
    assert_eq!(ended.ended(), "succeeded");
    let expected: String = (0..100_000).map(|i| format!("1:{i}\n")).collect();
    assert!(ended.said() == expected, "{} bytes of {}", ended.said().len(), expected.len());
}

/// Tests that overload the machine.
mod alone {
    use std::time::Duration;

    use outlive_e2e::clock::{PATIENCE, eventually, within};
    use outlive_e2e::{Group, process, report};
    use serde_json::Value;

    use super::*;
    use crate::explained;

    /// More than a daemon and a shim together need for what they keep of a flood.
    const MEMORY_BYTES_MAX: u64 = 256 << 20;

    /// Checks what the daemon and a member's shim have grown to.
    #[track_caller]
    fn bounded(daemon: i32, shim: i32) {
        for (who, pid) in [("daemon", daemon), ("shim", shim)] {
            let peak = process::peak_memory_bytes(pid).expect("it lives");
            assert!(peak < MEMORY_BYTES_MAX, "the {who} grew to {peak} bytes");
        }
    }

    /// Floods standard error from within a task, while the other member works; then the runner fails. Gives the report.
    #[track_caller]
    fn flood(code: &str) -> Value {
        let world = World::new();
        let daemon = world.daemon();
        let group = world.runners(2);
        let shims = [group.process(0).parent, group.process(1).parent];
        let gate = world.work().join("gate");
        let task = group.submit(&format!(
            "text('begins')\n{code}\ntext('ends')\nwhile not os.path.exists({gate:?}): pause(0.01)\n\
             os.write(2, b'the-last-line\\n'); os._exit(3)"
        ));
        task.wait_said("begins");
        let mut answered = 0;
        let deadline = within(Duration::from_secs(120));
        eventually("the flood is over", deadline, || {
            assert_eq!(group.run("text('not affected')").said(), "not affected");
            answered += 1;
            let head = task.view()["head"].as_u64().unwrap_or_default();
            (head >= 2).then_some(())
        });
        assert!(answered > 0);
        bounded(daemon.pid(), shims[0]);
        bounded(daemon.pid(), shims[1]);
        std::fs::write(&gate, "").expect("the world's files can be written");
        let ended = task.outcome_by(within(PATIENCE * 2));
        assert_eq!(ended.said(), "beginsends");
        explained(&group, &ended)
    }

    // A13: two hundred megabytes on standard error: bounded memory, nothing waits for it for ever, the tail is kept.
    #[test]
    fn a_flood_on_standard_error() {
        let report = flood(
            "line = b'a line of a flood that nobody reads\\n' * 1000\nfor _ in range(5500): os.write(2, line)",
        );
        assert_eq!(report::code(&report), "exit-code", "{report:#}");
        assert!(report.to_string().contains("the-last-line"), "the tail is kept: {report:#}");
    }

    // A13: a hundred megabytes without a line end, and bytes that are no text.
    #[test]
    fn one_endless_line_and_bytes_that_are_no_text() {
        let report = flood(
            "for _ in range(100): os.write(2, b'x' * 1_000_000)\nos.write(2, b'\\n\\xff\\xfe no text\\n')",
        );
        assert!(report.to_string().contains("the-last-line"), "the tail is kept: {report:#}");
        assert!(report.to_string().contains("no text"), "{report:#}");
    }

    // B3: three hundred megabytes from one task, in chunks of every size: all of it, in bounded memory, while the other
    // member works.
    #[test]
    fn very_much_output_of_one_task() {
        const ROUNDS: usize = 150;
        let world = World::new();
        let daemon = world.daemon();
        let group: Group = world.runners(2);
        let shims = [group.process(0).parent, group.process(1).parent];
        let task = group.submit(&format!(
            "for i in range({ROUNDS}):\n    task.send('chunk', b'x' * 1_000_000)\n    \
             for _ in range(20): text('y' * 50_000)\n    text(f'{{i}}.')"
        ));
        let mut answered = 0;
        eventually("the task is done", within(Duration::from_secs(180)), || {
            assert_eq!(group.run("text('not affected')").said(), "not affected");
            answered += 1;
            (task.view()["state"]["state"] == "ended").then_some(())
        });
        assert!(answered > 3, "the other member was asked {answered} times meanwhile");
        for shim in shims {
            bounded(daemon.pid(), shim);
        }
        let ended = task.outcome_by(within(PATIENCE * 2));
        assert_eq!(ended.ended(), "succeeded", "{:?}", ended.outcome);
        let said: String = ended.said().chars().filter(|letter| *letter != 'y').collect();
        assert_eq!(said, (0..ROUNDS).map(|i| format!("{i}.")).collect::<String>());
        assert_eq!(ended.said().len() - said.len(), ROUNDS * 20 * 50_000);
        let bytes = ended.of_kind("bytes").map(|chunk| chunk["blob"]["size"].as_u64().unwrap_or_default());
        assert_eq!(bytes.sum::<u64>(), ROUNDS as u64 * 1_000_000);
    }
}
