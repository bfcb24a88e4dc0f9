//! Very much output: complete, in bounded memory, and nobody else notices.

use std::fs;
use std::path::Path;
use std::time::Duration;

use outlive_e2e::clock::{PATIENCE, eventually, within};
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

    /// Below what passes through. A window holds up to 1,024 records, each of up to 256 KiB.
    const MEMORY_BYTES_MAX: u64 = 600 << 20;

    /// The size of everything below a folder, in bytes.
    fn size(folder: &Path) -> u64 {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let one = |entry: fs::DirEntry| match entry.metadata() {
            Ok(data) if data.is_dir() => size(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        };
        entries.map(one).sum()
    }

    // B3: a gigabyte from one cell: all of it, in bounded memory, while another session works.
    #[test]
    fn a_gigabyte_from_one_cell() {
        let world = World::new();
        let daemon = world.daemon();
        let (session, other) = (world.kernel(), world.kernel());
        let shim = process::find(session.pid()).expect("it is ready").parent;
        // Flushed: ipykernel would hold all of it in memory and send it as one message.
        let run =
            session.submit("line = 'x' * 999_994\nfor i in range(1000): print(f'{i:04}', line, flush=True)");
        let mut answered = 0;
        let ended = eventually("the cell is done", within(Duration::from_secs(150)), || {
            if size(&world.state()) >> 28 > answered {
                answered += 1;
                assert_eq!(other.run("print('not affected')").stdout(), "not affected\n");
            }
            let view = session.run_view(&run);
            (view["state"]["state"] == "ended").then_some(view)
        });
        assert_eq!(ended["state"]["outcome"]["kind"], "succeeded", "{ended}");
        assert!(answered >= 3, "the other session was asked {answered} times meanwhile");
        assert!(size(&world.state()) > 1_000_000_000, "a gigabyte is kept");
        // The end of it, by a cursor; B4 and D1 look at every chunk of less.
        let head = ended["head"].as_u64().expect("a number");
        let mut events = session.attach(&run, Some(&format!("1.{}", head - 8)));
        let mut text = String::new();
        loop {
            let event = events.next(within(PATIENCE)).expect("the stream has an end");
            let chunks = event.data["chunks"].as_array().into_iter().flatten();
            text.extend(chunks.filter_map(|chunk| chunk["text"].as_str()));
            if event.name == "end" {
                break;
            }
        }
        let last = text.trim_end().lines().last().unwrap_or_default();
        assert!(last.starts_with("0999 xxx") && last.len() == 999_999, "{} bytes: {:.20}", last.len(), last);
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
