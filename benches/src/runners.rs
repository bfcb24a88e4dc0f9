//! Runners: what the way through shim, log and server costs, beside the bare pipes that a runner speaks through.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use outlive_e2e::clock::within;
use outlive_e2e::http::Api;
use outlive_e2e::process;
use outlive_e2e::{Daemon, Event, World};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::Contestant;
use crate::cluster::idle;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// The group's name.
const GROUP: &str = "bench";

/// A group of one runner behind a daemon of its own.
pub struct Runners {
    world: World,
    _daemon: Daemon,
}

impl Runners {
    /// Starts both.
    ///
    /// # Errors
    /// The runner's program is not there.
    pub fn start() -> Result<Self> {
        let world = World::new();
        let daemon = world.daemon();
        let program = program()?;
        let launch = json!({
            "program": {"kind": "runner", "name": "bench-0", "argv": [program]},
            "cwd": world.work(), "env": {}, "ready_timeout_ms": 10_000,
        });
        let restart = json!({
            "restart": "permanent", "restarts_max": 100_000, "period_ms": 1, "backoff_ms": 1, "backoff_ms_max": 1,
        });
        let config = json!({"members": [{"name": "bench-0", "launch": launch}], "restart": restart});
        world.api().request("PUT", &format!("/v1/runners/{GROUP}"), Some(&config));
        let runners = Self { world, _daemon: daemon };
        // The group is ready when a task has been served.
        runners.once()?;
        Ok(runners)
    }

    /// Submits a task and follows it to its end. Gives the monotonic time of the submission in nanoseconds, and its events.
    fn follow(&self, task: &str, input: &Value, each: impl FnMut(&Event)) -> Result<u64> {
        let api = self.world.api();
        let began = nanoseconds();
        let mut connection = api.connect()?;
        let body = json!({"task": task, "input": input});
        let answer = connection.request("POST", &format!("/v1/runners/{GROUP}/tasks"), Some(&body))?.json();
        let run = answer["id"].as_str().with_context(|| format!("no task: {answer}"))?.to_owned();
        watch(&api, &format!("/v1/runners/{GROUP}/tasks/{run}/attach?follow=true"), each)?;
        Ok(began)
    }

    /// From submitting to the first chunk as it was made, and as it arrived, in seconds.
    fn once(&self) -> Result<f64> {
        let mut arrived = None;
        let began = self.follow("once", &json!({}), |event| {
            if arrived.is_none() && stamps(event).next().is_some() {
                arrived = Some(monotonic(event));
            }
        })?;
        Ok(seconds(began, arrived.context("no chunk came")?))
    }

    /// Times from a chunk's making to its arrival, in seconds.
    fn paced(&self, n: u64, period_us: u64) -> Result<Value> {
        let mut times = Vec::new();
        self.follow("paced", &json!({"n": n, "period_us": period_us}), |event| {
            times.extend(stamps(event).map(|made| seconds(made, monotonic(event))));
        })?;
        ensure!(times.len() as u64 == n, "{} of {n} chunks came", times.len());
        Ok(json!(times))
    }

    fn burst(&self, n: u64) -> Result<Value> {
        let (mut chunks, mut last) = (0, 0);
        let began = self.follow("burst", &json!({"n": n}), |event| {
            chunks += texts(event).count() as u64;
            last = monotonic(event);
        })?;
        Ok(json!({"seconds": seconds(began, last), "chunks": chunks}))
    }

    /// Times from a runner's last statement to the error chunk with its cause, in seconds.
    fn die(&self, n: u64) -> Result<Value> {
        let mut times = Vec::new();
        for _ in 0..n {
            let (mut died, mut told) = (None, None);
            self.follow("die", &json!({}), |event| {
                died = died.or_else(|| stamps(event).next());
                if kinds(event).any(|kind| kind == "error") {
                    told = Some(monotonic(event));
                }
            })?;
            times.push(seconds(died.context("no chunk")?, told.context("no error chunk")?));
        }
        Ok(json!(times))
    }

    fn idle(&self) -> Value {
        let shims = self.world.processes().into_iter().filter(|process| process.command.contains("shim"));
        json!(shims.filter_map(|shim| process::memory_bytes(shim.pid)).max())
    }
}

impl Contestant for Runners {
    fn ask(&mut self, request: &Value) -> Result<Value> {
        let n = request["n"].as_u64().unwrap_or(1);
        match request["measure"].as_str().unwrap_or_default() {
            "once" => Ok(json!((0..n).map(|_| self.once()).collect::<Result<Vec<_>>>()?)),
            "paced" => self.paced(n, request["period_us"].as_u64().unwrap_or(1_000)),
            "burst" => self.burst(n),
            "die" => self.die(n),
            "idle" => Ok(self.idle()),
            "idle_runs" => idle::alone(n),
            other => bail!("no measure {other:?}"),
        }
    }
}

/// Follows a task's stream to its end.
///
/// # Errors
/// It does not end, or ends early.
pub fn watch(api: &Api, path: &str, mut each: impl FnMut(&Event)) -> Result<()> {
    let mut events = api.events(path, None);
    loop {
        let event = events.next(within(PATIENCE)).ok().context("the task does not end")?;
        each(&event);
        match event.name.as_str() {
            "end" => return Ok(()),
            "problem" => bail!("{}", event.data),
            _ => {}
        }
    }
}

/// The runner alone, spoken to over its pipes: the floor.
pub struct Pipes {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Pipes {
    /// Starts it.
    ///
    /// # Errors
    /// The runner's program is not there.
    pub fn start() -> Result<Self> {
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" 3<&0 4>&1"])
            .arg(program()?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the runner")?;
        let to = child.stdin.take().expect("it was asked for");
        let from = BufReader::new(child.stdout.take().expect("it was asked for"));
        let mut pipes = Self { child, to, from };
        while pipes.frame()?["state"] != "ready" {}
        Ok(pipes)
    }

    fn frame(&mut self) -> Result<Value> {
        let mut line = String::new();
        ensure!(self.from.read_line(&mut line)? > 0, "the runner has ended");
        Ok(serde_json::from_str(&line)?)
    }

    fn follow(&mut self, task: &str, input: Value, mut each: impl FnMut(&Value, u64)) -> Result<u64> {
        let began = nanoseconds();
        let id = "00000000-0000-7000-8000-000000000001";
        writeln!(
            self.to,
            "{}",
            json!({"type": "task", "id": id, "attempt": 1, "task": task, "input": input})
        )?;
        loop {
            let frame = self.frame()?;
            each(&frame, nanoseconds());
            if frame["type"] == "result" {
                return Ok(began);
            }
        }
    }
}

impl Contestant for Pipes {
    fn ask(&mut self, request: &Value) -> Result<Value> {
        let n = request["n"].as_u64().unwrap_or(1);
        match request["measure"].as_str().unwrap_or_default() {
            "once" => {
                let mut times = Vec::new();
                for _ in 0..n {
                    let mut first = None;
                    let began = self.follow("once", json!({}), |_, at| first = first.or(Some(at)))?;
                    times.push(seconds(began, first.context("no chunk came")?));
                }
                Ok(json!(times))
            }
            "paced" => {
                let mut times = Vec::new();
                let input = json!({"n": n, "period_us": request["period_us"]});
                self.follow("paced", input, |frame, at| {
                    times.extend(stamp(frame).map(|made| seconds(made, at)))
                })?;
                Ok(json!(times))
            }
            "burst" => {
                let (mut chunks, mut last) = (0_u64, 0);
                let began = self.follow("burst", json!({"n": n}), |frame, at| {
                    chunks += u64::from(frame["type"] == "chunk");
                    last = at;
                })?;
                Ok(json!({"seconds": seconds(began, last), "chunks": chunks}))
            }
            "boot" => {
                let mut times = Vec::new();
                for _ in 0..n {
                    let began = nanoseconds();
                    drop(Self::start()?);
                    times.push(seconds(began, nanoseconds()));
                }
                Ok(json!(times))
            }
            other => bail!("no measure {other:?}"),
        }
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        // Nothing is left to do when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The runner, which is built beside this program.
///
/// # Errors
/// It is not there.
pub fn program() -> Result<PathBuf> {
    let here = std::env::current_exe().context("this program has no path")?;
    let program = here.with_file_name("bench-runner");
    ensure!(program.exists(), "{} is missing; `cargo xtask bench` builds it", program.display());
    Ok(program)
}

fn chunks(event: &Event) -> impl Iterator<Item = &Value> {
    let output = (event.name == "output").then(|| event.data["chunks"].as_array()).flatten();
    output.into_iter().flatten()
}

fn kinds(event: &Event) -> impl Iterator<Item = &str> {
    chunks(event).filter_map(|chunk| chunk["kind"].as_str())
}

/// The texts of an event, as chunks.
pub fn texts(event: &Event) -> impl Iterator<Item = &Value> {
    chunks(event).filter(|chunk| chunk["kind"] == "text")
}

/// When the chunks of an event were made, in nanoseconds of the monotonic clock.
fn stamps(event: &Event) -> impl Iterator<Item = u64> {
    texts(event).filter_map(stamp)
}

fn stamp(chunk: &Value) -> Option<u64> {
    chunk["text"].as_str()?.parse().ok()
}

/// When an event was read, in nanoseconds of the monotonic clock, which is what `Instant` is on Linux.
pub fn monotonic(event: &Event) -> u64 {
    nanoseconds().saturating_sub(u64::try_from(event.at.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// The monotonic clock.
pub fn nanoseconds() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap_or_default()
}

/// From one moment of the monotonic clock to another.
pub fn seconds(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 / 1e9
}
