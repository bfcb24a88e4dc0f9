//! A runner that does nothing itself, so that what is measured is the way to it and back
//! (docs/design/runner-protocol.md).
//!
//! | task | does |
//! |---|---|
//! | `once` | says the time |
//! | `burst {n}` | says n chunks as fast as it can |
//! | `paced {n, period_us}` | says the time n times |
//! | `count {n, period_us, every}` | says `ATTEMPT:STEP` n times, saves its state at every so many steps, goes on from there |
//! | `hold` | says nothing and never ends |
//! | `die` | says the time and dies |
//!
//! Usage: `bench-runner [CONCURRENCY]`.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// How much is written at once in a burst, in bytes: what a pipe holds.
const BATCH_BYTES: usize = 65_536;
/// Its handlers.
const TASKS: [&str; 6] = ["once", "burst", "paced", "count", "hold", "die"];

fn main() -> std::io::Result<()> {
    let concurrency = std::env::args().nth(1).and_then(|text| text.parse::<u32>().ok()).unwrap_or(1);
    // What a shell would call 3< and 4>.
    let frames = BufReader::new(File::open("/proc/self/fd/3")?);
    let out = File::options().write(true).open("/proc/self/fd/4")?;
    let mut runner = Runner { frames, out, end: None };
    runner.say(&json!({"type": "hello", "version": 1, "tasks": TASKS, "concurrency": concurrency}))?;
    runner.say(&json!({"type": "state", "state": "ready"}))?;
    while runner.end.is_none() {
        if let Some(task) = runner.hear()? {
            runner.task(&task)?;
        }
    }
    if matches!(runner.end, Some(End::Asked { .. })) {
        runner.say(&json!({"type": "end"}))?;
    }
    Ok(())
}

/// Why it ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// It was told to.
    Asked {
        /// Its node gives its work away.
        hand_over: bool,
    },
    /// Nobody is there any more.
    Alone,
}

struct Runner {
    frames: BufReader<File>,
    out: File,
    end: Option<End>,
}

impl Runner {
    fn say(&mut self, frame: &Value) -> std::io::Result<()> {
        writeln!(self.out, "{frame}")
    }

    /// Waits for a frame. Gives a task; everything else is dealt with here.
    fn hear(&mut self) -> std::io::Result<Option<Value>> {
        let mut line = String::new();
        if self.frames.read_line(&mut line)? == 0 {
            self.end = Some(End::Alone);
            return Ok(None);
        }
        let frame: Value = serde_json::from_str(&line)?;
        match frame["type"].as_str() {
            Some("ping") => self.say(&json!({"type": "pong", "n": frame["n"]}))?,
            Some("task") => return Ok(Some(frame)),
            Some("shutdown") => self.end = Some(End::Asked { hand_over: frame["hand_over"] == true }),
            _ => {}
        }
        Ok(None)
    }

    /// Lets so much time pass and hears what is said meanwhile.
    fn pause(&mut self, period: Duration) -> std::io::Result<()> {
        let due = nanoseconds() + i64::try_from(period.as_nanos()).unwrap_or(i64::MAX);
        while self.end.is_none() {
            let left = due - nanoseconds();
            if left <= 0 {
                return Ok(());
            }
            let timeout = Timespec { tv_sec: left / 1_000_000_000, tv_nsec: left % 1_000_000_000 };
            let said = !self.frames.buffer().is_empty()
                || poll(&mut [PollFd::new(self.frames.get_ref(), PollFlags::IN)], Some(&timeout))? > 0;
            if said {
                self.hear()?;
            }
        }
        Ok(())
    }

    fn task(&mut self, frame: &Value) -> std::io::Result<()> {
        let (id, attempt, input) = (&frame["id"], &frame["attempt"], &frame["input"]);
        let n = input["n"].as_u64().unwrap_or(1);
        let period = Duration::from_micros(input["period_us"].as_u64().unwrap_or(1_000));
        match frame["task"].as_str().unwrap_or_default() {
            "burst" => self.burst(id, attempt, n)?,
            "paced" => {
                for _ in 0..n {
                    // Chunks one by one are the measure.
                    std::thread::sleep(period);
                    self.chunk(id, attempt, &nanoseconds().to_string())?;
                }
            }
            "count" => return self.count(frame, n, period),
            "hold" => return Ok(()),
            "die" => {
                self.chunk(id, attempt, &nanoseconds().to_string())?;
                std::process::exit(3);
            }
            _ => self.chunk(id, attempt, &nanoseconds().to_string())?,
        }
        self.say(&json!({"type": "result", "id": id, "attempt": attempt, "value": n}))
    }

    fn chunk(&mut self, id: &Value, attempt: &Value, text: &str) -> std::io::Result<()> {
        self.say(&json!({"type": "chunk", "id": id, "attempt": attempt, "text": text}))
    }

    fn burst(&mut self, id: &Value, attempt: &Value, n: u64) -> std::io::Result<()> {
        // Text alone is made in the loop: the runner's own time is not what is asked.
        let (head, tail) =
            (format!(r#"{{"type":"chunk","id":{id},"attempt":{attempt},"text":"chunk "#), "\"}\n");
        let mut batch = String::with_capacity(BATCH_BYTES + 256);
        for i in 0..n {
            batch.push_str(&head);
            batch.push_str(&i.to_string());
            batch.push_str(tail);
            if batch.len() >= BATCH_BYTES {
                self.out.write_all(batch.as_bytes())?;
                batch.clear();
            }
        }
        self.out.write_all(batch.as_bytes())
    }

    fn count(&mut self, frame: &Value, n: u64, period: Duration) -> std::io::Result<()> {
        let (id, attempt) = (&frame["id"], &frame["attempt"]);
        let every = frame["input"]["every"].as_u64().unwrap_or(u64::MAX);
        let begin = match frame["checkpoint"]["file"].as_str() {
            Some(file) => serde_json::from_slice::<u64>(&std::fs::read(file)?)?,
            None => 0,
        };
        for i in begin..n {
            self.chunk(id, attempt, &format!("{attempt}:{i}\n"))?;
            if (i + 1) % every == 0 {
                self.say(&json!({"type": "checkpoint", "id": id, "attempt": attempt, "state": i + 1}))?;
                if self.end == Some(End::Asked { hand_over: true }) {
                    return self.say(&json!({"type": "stopped", "id": id, "attempt": attempt}));
                }
            }
            // Who has been told to hand over hurries to the next state that it saves.
            if self.end.is_none() {
                self.pause(period)?;
            }
            if matches!(self.end, Some(End::Alone | End::Asked { hand_over: false })) {
                return Ok(());
            }
        }
        self.say(&json!({"type": "result", "id": id, "attempt": attempt, "value": n}))
    }
}

/// The monotonic clock.
fn nanoseconds() -> i64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}
