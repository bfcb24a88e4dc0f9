//! Outlive, asked the same questions through its API.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use outlive_e2e::clock::{now, within};
use outlive_e2e::events::Silence;
use outlive_e2e::process::{self, Signal};
use outlive_e2e::session::runtime_state;
use outlive_e2e::{Daemon, Deadline, Event, Events, Process, Session, Transcript, World};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::Contestant;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// A clock tick, in seconds: USER_HZ is 100 on Linux.
const TICK: f64 = 0.01;

/// A daemon and a kernel that the measures share.
pub struct Outlive {
    world: World,
    daemon: Option<Daemon>,
    session: Session,
}

impl Outlive {
    /// Starts both.
    pub fn start() -> Self {
        let world = World::new();
        let daemon = Some(world.daemon());
        let session = world.kernel();
        Self { world, daemon, session }
    }

    /// Times from sending `1` to the news that its run has ended, in seconds.
    fn round_trip(&self, n: u64) -> Result<Value> {
        let path = self.session.path("/runs");
        let mut times = Vec::new();
        // New ones: a server does not keep those for long that are silent, as these were while others were asked.
        let (mut events, mut connection) = (self.session.events(), self.world.api().connect()?);
        for _ in 0..n {
            let began = now();
            let answer = connection.request("POST", &path, Some(&json!({"kind": "code", "code": "1"})))?;
            let run = answer.json()[0]["id"].clone();
            let ended = |event: &Event| {
                event.data["run"]["id"] == run && event.data["run"]["state"]["state"] == "ended"
            };
            let event = events.wait_for("the run's end", within(PATIENCE), ended);
            times.push((event.at - began).as_secs_f64());
        }
        Ok(json!(times))
    }

    /// Runs code and gives what came of it.
    fn print(&self, code: &str) -> Value {
        let began = now();
        let text = self.session.outcome(&self.session.submit(code), within(PATIENCE)).stdout();
        let lines = text.bytes().filter(|byte| *byte == b'\n').count();
        json!({"seconds": began.elapsed().as_secs_f64(), "lines": lines, "characters": text.len()})
    }

    /// Times from a kernel's last statement to the report with its cause, in seconds.
    fn death(&self, n: u64) -> Result<Value> {
        let mut times = Vec::new();
        for _ in 0..n {
            let session = self.world.kernel();
            let mut events = session.events();
            let stamp = self.world.work().join("stamp");
            session.submit(&dying_code(&stamp));
            let told = events.wait_for("the report", within(PATIENCE), |event| event.name == "report");
            times.push(monotonic(told.at) - died_at(&stamp)?);
            forget(&session);
        }
        Ok(json!(times))
    }

    /// Seconds from SIGSTOP to the news that the kernel does not answer, or null.
    fn hang(&self, seconds: u64) -> Result<Value> {
        let session = self.world.kernel();
        let (pid, mut events) = (session.pid(), session.events());
        let began = now();
        process::signal(pid, Signal::STOP);
        let told = wait(&mut events, within(Duration::from_secs(seconds)), |event| {
            runtime_state(&event.data["session"]) == "unresponsive"
        })?;
        process::signal(pid, Signal::CONT);
        forget(&session);
        Ok(told.map_or(Value::Null, |event| json!((event.at - began).as_secs_f64())))
    }

    /// What a daemon of its own and its shims need with idle kernels.
    fn idle(kernels: u64, seconds: u64) -> Value {
        let world = World::new();
        let daemon = world.daemon();
        let _sessions: Vec<Session> = (0..kernels).map(|_| world.kernel()).collect();
        let shims = shims(&world);
        let used = || {
            let pids = shims.iter().map(|shim| shim.pid).chain([daemon.pid()]);
            pids.filter_map(process::find).map(|one| one.cpu_ticks).sum::<u64>()
        };
        let before = used();
        // The one wait without an event: idleness is measured over time.
        std::thread::sleep(Duration::from_secs(seconds));
        let cpu = (used() - before) as f64 * TICK / seconds as f64;
        let average = |sum: u64| sum / shims.len().max(1) as u64;
        json!({
            "memory_bytes": process::memory_bytes(daemon.pid()),
            "open_files": process::open_files(daemon.pid()),
            "cpu": cpu,
            "shim_memory_bytes": average(shims.iter().filter_map(|shim| process::memory_bytes(shim.pid)).sum()),
            "shim_open_files": average(shims.iter().map(|shim| process::open_files(shim.pid) as u64).sum()),
        })
    }

    /// Times from starting a new daemon after SIGKILL of the old one to the next output at a client that comes back,
    /// in seconds.
    fn reattach(&mut self, n: u64) -> Result<Value> {
        let mut times = Vec::new();
        for _ in 0..n {
            let code = "import time\nfor i in range(100_000):\n    print(i, flush=True); time.sleep(0.005)";
            let run = self.session.submit(code);
            let mut seen = Transcript::default();
            let mut events = self.session.attach(&run, None);
            while seen.chunks.len() < 10 {
                seen.push(&events.next(within(PATIENCE)).ok().context("the run prints nothing")?);
            }
            self.daemon.take().context("there is a daemon")?.kill();
            let began = now();
            self.daemon = Some(self.world.daemon());
            let mut events = self.session.attach(&run, seen.cursor.as_deref());
            let next = wait(&mut events, within(PATIENCE), |event| event.name == "output")?;
            times.push((next.context("no output after the restart")?.at - began).as_secs_f64());
            self.session.post("/interrupt", &json!({}));
            self.session.outcome(&run, within(PATIENCE));
        }
        Ok(json!(times))
    }
}

impl Contestant for Outlive {
    fn ask(&mut self, request: &Value) -> Result<Value> {
        let number = |name: &str| request[name].as_u64().with_context(|| format!("{name} in {request}"));
        match request["measure"].as_str().unwrap_or_default() {
            "round_trip" => self.round_trip(number("n")?),
            "print_lines" => {
                let flush = if request["flush"] == true { "True" } else { "False" };
                let lines = number("lines")?;
                Ok(self.print(&format!("for i in range({lines}): print('line', i, flush={flush})")))
            }
            "big_string" => Ok(self.print(&format!("print('x' * {})", number("size")?))),
            "death" => self.death(number("n")?),
            "hang" => self.hang(number("seconds")?),
            "idle" => Ok(Self::idle(number("kernels")?, number("seconds")?)),
            "reattach" => self.reattach(number("n")?),
            other => bail!("no measure {other:?}"),
        }
    }
}

/// The first event that fits; `None` when none came in time.
fn wait(events: &mut Events, deadline: Deadline, fits: impl Fn(&Event) -> bool) -> Result<Option<Event>> {
    loop {
        match events.next(deadline) {
            Ok(event) if fits(&event) => return Ok(Some(event)),
            Ok(_) => {}
            Err(Silence::TimeOver) => return Ok(None),
            Err(Silence::Ended) => bail!("the stream ended"),
        }
    }
}

/// Ends a session that is not needed any more.
fn forget(session: &Session) {
    session.post("/stop", &json!({"force": true}));
    session.wait_until("closed", within(PATIENCE), |view| !view["closed_at"].is_null());
}

fn shims(world: &World) -> Vec<Process> {
    let all = world.processes();
    all.into_iter().filter(|process| process.command.contains("shim")).collect()
}

/// As in `benches/peers/driver.py`: writes the moment of its death to a file, and dies.
fn dying_code(stamp: &Path) -> String {
    format!(
        "import os, time\nf = open({stamp:?}, 'w')\n\
         f.write(repr(time.clock_gettime(time.CLOCK_MONOTONIC))); f.close()\nos._exit(1)"
    )
}

fn died_at(stamp: &PathBuf) -> Result<f64> {
    let text = fs::read_to_string(stamp).context("the kernel left no stamp")?;
    fs::remove_file(stamp).context("cannot remove the stamp")?;
    text.parse().with_context(|| format!("the kernel's stamp is {text:?}"))
}

/// A moment on the clock that all processes of a machine share, in seconds.
fn monotonic(moment: Instant) -> f64 {
    let time = clock_gettime(ClockId::Monotonic);
    let since = moment.elapsed().as_secs_f64();
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9 - since
}
