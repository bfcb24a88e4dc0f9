//! Very much output: complete, in bounded memory, and nobody else notices.

use std::time::Duration;

use outlive_e2e::clock::within;
use outlive_e2e::{World, process};

// B3: a hundred thousand lines arrive, each once.
#[test]
fn a_hundred_thousand_lines() {
    let world = World::new();
    let _daemon = world.daemon();
    let session = world.kernel();
    let run = session.submit("for i in range(100_000): print('line', i)");
    let ended = session.outcome(&run, within(Duration::from_secs(120)));
    assert_eq!(ended.ended(), "succeeded");
    let expected: String = (0..100_000).map(|i| format!("line {i}\n")).collect();
    assert!(ended.stdout() == expected, "{} bytes of {}", ended.stdout().len(), expected.len());
}

/// Tests that overload the machine.
mod alone {
    use super::*;

    /// Far below what passes through.
    const MEMORY_BYTES_MAX: u64 = 300 << 20;

    // B3: a gigabyte from one cell: all of it, in bounded memory, while another session works.
    #[test]
    fn a_gigabyte_from_one_cell() {
        let world = World::new();
        let daemon = world.daemon();
        let (session, other) = (world.kernel(), world.kernel());
        let shim = process::find(session.pid()).expect("it is ready").parent;
        let run = session.submit("line = 'x' * 99_999\nfor i in range(10_000): print(line)");
        let mut events = session.attach(&run, None);
        let (mut bytes, mut head) = (0_usize, 0_u64);
        let deadline = within(Duration::from_secs(200));
        let mut answered = 0;
        loop {
            let event =
                events.next(deadline).unwrap_or_else(|silence| panic!("{silence:?} after {bytes} bytes"));
            if event.name == "end" {
                assert_eq!(event.data["outcome"]["kind"], "succeeded");
                break;
            }
            assert_eq!(event.name, "output", "{:.300}", event.data.to_string());
            // Folded by hand: the transcript would hold all of it.
            assert_eq!(event.data["first"].as_u64(), Some(head + 1), "nothing missing, nothing twice");
            for chunk in event.data["chunks"].as_array().into_iter().flatten() {
                head += 1;
                bytes += chunk["text"].as_str().map_or(0, str::len);
            }
            if bytes >> 28 > answered {
                answered += 1;
                assert_eq!(other.run("print('not affected')").stdout(), "not affected\n");
            }
        }
        assert_eq!(bytes, 1_000_000_000);
        for (who, pid) in [("daemon", daemon.pid()), ("shim", shim)] {
            let peak = process::peak_memory_bytes(pid).expect("it lives");
            assert!(peak < MEMORY_BYTES_MAX, "the {who} grew to {peak} bytes");
        }
    }

    // B3: an image of two hundred megabytes.
    #[test]
    fn an_image_of_two_hundred_megabytes() {
        let world = World::new();
        let daemon = world.daemon();
        let session = world.kernel();
        let code = "from IPython.display import display\ndisplay({'image/png': 'A' * 200_000_000}, raw=True)";
        let ended = session.outcome(&session.submit(code), within(Duration::from_secs(120)));
        assert_eq!(ended.ended(), "succeeded");
        let chunk = ended.of_kind("display_data").next().expect("the image is there").clone();
        let size = chunk["blob"]["size"].as_u64().unwrap_or_default();
        assert!(size > 200_000_000, "complete, or said to be cut: {:.300}", chunk.to_string());
        let peak = process::peak_memory_bytes(daemon.pid()).expect("it lives");
        assert!(peak < MEMORY_BYTES_MAX, "the daemon grew to {peak} bytes");
        assert_eq!(session.run("print('alive')").stdout(), "alive\n");
    }
}
