//! A program that floods its standard error costs neither memory nor time for others.

/// Tests that overload the machine.
mod alone {
    use std::time::Duration;

    use outlive_e2e::clock::{eventually, within};
    use outlive_e2e::{Session, World, process};

    /// More than a daemon and a shim together need for what they keep of a flood.
    const MEMORY_BYTES_MAX: u64 = 256 << 20;

    /// Runs a shell command to its end and checks that neither the daemon nor a shim grew with its output. Gives the
    /// report of its failure.
    #[track_caller]
    fn flood(script: &str) -> serde_json::Value {
        let world = World::new();
        let daemon = world.daemon();
        let session = Session::create(&world.api(), &world.command_spec(&["/bin/sh", "-c", script]));
        let shims = world.processes().into_iter().filter(|process| process.command.contains("shim"));
        let watched: Vec<i32> = shims.map(|shim| shim.pid).chain([daemon.pid()]).collect();
        // Not by its events: they carry the whole flood.
        let view = eventually("the command has ended", within(Duration::from_secs(120)), || {
            for pid in &watched {
                let peak = process::peak_memory_bytes(*pid).unwrap_or(0);
                assert!(peak < MEMORY_BYTES_MAX, "process {pid} grew to {peak} bytes");
            }
            let view = session.view();
            (view["runs"]["queued"] == 0 && view["runs"]["running"] == 0).then_some(view)
        });
        let peak = process::peak_memory_bytes(daemon.pid()).expect("the daemon lives");
        assert!(peak < MEMORY_BYTES_MAX, "the daemon grew to {peak} bytes");
        assert_eq!(view["runs"]["failed"], 1, "{view}");
        session.reports().first().cloned().expect("a failed command has a report")
    }

    // A13: a gigabyte on standard error: bounded memory, and the tail is kept.
    #[test]
    fn a_gigabyte_on_standard_error() {
        let report = flood(
            "yes 'a line of a flood that nobody reads' | head -c 1000000000 >&2; echo the-last-line >&2; exit 3",
        );
        assert!(report.to_string().contains("the-last-line"), "the tail is kept: {report:#}");
    }

    // A13: a hundred megabytes without a line end, and bytes that are no text.
    #[test]
    fn one_endless_line_and_bytes_that_are_no_text() {
        let report = flood(
            "head -c 100000000 /dev/zero | tr '\\0' x >&2; printf '\\n\\377\\376 no text\\n' >&2; echo the-last-line >&2; exit 3",
        );
        assert!(report.to_string().contains("the-last-line"), "the tail is kept: {report:#}");
    }
}
