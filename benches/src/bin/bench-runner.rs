//! A runner that does nothing itself, so that what is measured is the way to it and back
//! (docs/design/runner-protocol.md). Its tasks: `once`, `burst {n}`, `paced {n, period_us}`, `die`.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// How much is written at once in a burst, in bytes: what a pipe holds.
const BATCH_BYTES: usize = 65_536;

fn main() -> std::io::Result<()> {
    // What a shell would call 3< and 4>.
    let mut frames = BufReader::new(File::open("/proc/self/fd/3")?);
    let mut out = File::options().write(true).open("/proc/self/fd/4")?;
    let hello = json!({
        "type": "hello", "version": 1, "tasks": ["once", "burst", "paced", "die"], "concurrency": 1,
    });
    writeln!(out, "{hello}")?;
    writeln!(out, "{}", json!({"type": "state", "state": "ready"}))?;
    let mut line = String::new();
    while frames.read_line(&mut line)? > 0 {
        let frame: Value = serde_json::from_str(&line)?;
        match frame["type"].as_str() {
            Some("ping") => writeln!(out, "{}", json!({"type": "pong", "n": frame["n"]}))?,
            Some("task") => task(&frame, &mut out)?,
            Some("shutdown") => {
                writeln!(out, "{}", json!({"type": "end"}))?;
                return Ok(());
            }
            _ => {}
        }
        line.clear();
    }
    Ok(())
}

fn task(frame: &Value, out: &mut File) -> std::io::Result<()> {
    let (id, attempt, input) = (&frame["id"], &frame["attempt"], &frame["input"]);
    let n = input["n"].as_u64().unwrap_or(1);
    let chunk =
        |text: String| format!("{}\n", json!({"type": "chunk", "id": id, "attempt": attempt, "text": text}));
    match frame["task"].as_str().unwrap_or_default() {
        "burst" => {
            // Text alone is made in the loop: the runner's own time is not what is asked.
            let (head, tail) =
                (format!(r#"{{"type":"chunk","id":{id},"attempt":{attempt},"text":"chunk "#), "\"}\n");
            let mut batch = String::with_capacity(BATCH_BYTES + 256);
            for i in 0..n {
                batch.push_str(&head);
                batch.push_str(&i.to_string());
                batch.push_str(tail);
                if batch.len() >= BATCH_BYTES {
                    out.write_all(batch.as_bytes())?;
                    batch.clear();
                }
            }
            out.write_all(batch.as_bytes())?;
        }
        "paced" => {
            let period = Duration::from_micros(input["period_us"].as_u64().unwrap_or(1_000));
            for _ in 0..n {
                // Chunks one by one are the measure.
                std::thread::sleep(period);
                out.write_all(chunk(stamp()).as_bytes())?;
            }
        }
        "die" => {
            out.write_all(chunk(stamp()).as_bytes())?;
            std::process::exit(3);
        }
        _ => out.write_all(chunk(stamp()).as_bytes())?,
    }
    writeln!(out, "{}", json!({"type": "result", "id": id, "attempt": attempt, "value": n}))
}

/// The monotonic clock, in nanoseconds.
fn stamp() -> String {
    let time = clock_gettime(ClockId::Monotonic);
    (time.tv_sec * 1_000_000_000 + time.tv_nsec).to_string()
}
