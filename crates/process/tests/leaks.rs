//! A launch that fails leaves nothing. Alone in its file, because it counts what the whole test process holds.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::collections::BTreeMap;
use std::path::Path;

use outlive_core::diagnosis::evidence::{LaunchEvidence, LaunchStep};
use outlive_core::id::{Incarnation, ProcessKey, RuntimeId};
use outlive_process::{Container, Launch, spawn};

fn fails(process: ProcessKey, cwd: &str, argv: &[&str]) -> LaunchEvidence {
    let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
    let env = BTreeMap::from([("PATH".to_owned(), std::env::var("PATH").unwrap())]);
    let launch = Launch {
        process,
        argv: &argv,
        cwd: Path::new(cwd),
        env: &env,
        memory_bytes_max: Some(64 << 20),
        has_channel: true,
    };
    spawn(&launch).expect_err("it cannot start").evidence()
}

#[tokio::test]
async fn a_launch_that_fails_says_where_and_leaves_nothing() {
    // A7, P4
    let process =
        ProcessKey { runtime: RuntimeId::from_uuid(uuid::Uuid::new_v4()), incarnation: Incarnation(1) };
    // Once before counting: the runtime and the C library open things on first use.
    let _first = fails(process, "/", &["no-such-program-here"]);

    let before = footprint(process);
    for _ in 0..20 {
        assert_eq!(fails(process, "/", &["no-such-program-here"]).step, LaunchStep::Exec);
        assert_eq!(fails(process, "/", &[]).step, LaunchStep::Exec);
        assert_eq!(fails(process, "/no/such/directory", &["true"]).step, LaunchStep::Prepare);
        // Passes every check and fails in exec itself: E2BIG, with the cgroup made and the child forked.
        let failed = fails(process, "/", &["true", &"x".repeat(3 << 20)]);
        assert_eq!((failed.step, failed.errno), (LaunchStep::Exec, Some(7)), "{failed:?}");
        assert!(failed.path.unwrap().ends_with("true"));
    }
    assert_eq!(footprint(process), before);
}

/// Open descriptors, children and cgroups of this process.
fn footprint(process: ProcessKey) -> (usize, String, Vec<String>) {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    let (container, _) = Container::make(process, Some(1 << 30));
    // Making it anew would fail if one of the same name were left with somebody in it.
    let paths = container.paths().iter().map(|path| path.display().to_string()).collect();
    assert!(container.remove());
    (descriptors, children, paths)
}
