//! Starting the process, and what is held of it while it lives.

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use outlive_core::diagnosis::evidence::{Evidence, LaunchEvidence, LaunchStep};
use outlive_core::id::{RunId, SessionId, Src};
use outlive_core::runtime::runner::Speaks;
use outlive_core::runtime::{ExitReport, ExitStatus, LaunchSpec, Program, StopStep, StopWhy};
use outlive_core::time::{Now, Tick, WallTime};
use outlive_jupyter::request::ExecuteMode;
use outlive_process::evidence::{KernelLog, MemoryWatch};
use outlive_process::{Container, Launch, Process, SpawnError, spawn};
use outlive_protocol::shim::StateNotice;
use tokio::task::JoinSet;

use super::exit::Exit;
use super::output::{BlobWritten, PendingBlob, Piped, Pipes};
use super::tasks::Pace;
use super::work::Work;
use super::{Driver, Life};
use crate::clock::millis;
use crate::identity;
use crate::kernel::pulse::{News, Pulse};
use crate::kernel::runs::RunKey;
use crate::kernel::{Effect, Happened, Kernel, Prepared, prepare};
use crate::runner;

/// The variable that makes ipykernel end by itself when the process with this pid is not its parent any more. The
/// shim's pid: so a kernel outlives the daemon and not its shim (proved in tests/kernel.rs).
const PARENT_PID: &str = "JPY_PARENT_PID";

/// The session that a process works for.
const SESSION: &str = "OUTLIVE_SESSION_ID";
/// The run that a command is: the same when it is begun again, so it is the idempotency key of the whole of it.
const RUN: &str = "OUTLIVE_RUN_ID";
/// Which attempt at it, from 1.
const ATTEMPT: &str = "OUTLIVE_ATTEMPT";

/// Time between looks at a process whose address space is limited: its peak is not told after its end.
const SAMPLE_MS: u64 = 1_000;

/// What is started.
enum Start {
    Kernel(Prepared),
    /// As this run.
    Command(RunKey),
    Runner,
}

impl Start {
    const fn run(&self) -> Option<RunKey> {
        match self {
            Self::Command(run) => Some(*run),
            Self::Kernel(_) | Self::Runner => None,
        }
    }
}

/// What is held of a process.
pub(super) struct Supervised {
    pub(super) process: Process,
    pub(super) container: Container,
    pub(super) pipes: Pipes,
    pub(super) work: Work,
    pub(super) argv: Vec<String>,
    pub(super) started: Now,
    pub(super) is_ready: bool,
    /// When a kernel has taken too long. A runner's watchdog is driven by its progress.
    pub(super) ready_by: Option<Tick>,
    /// An interrupt is held until the run has begun, and no longer than to here.
    pub(super) interrupt_by: Option<Tick>,
    pub(super) pulse: Pulse,
    pub(super) memory: MemoryWatch,
    /// When memory is sampled next, if it is.
    pub(super) sample_at: Option<Tick>,
    pub(super) kernel_log: KernelLog,
    /// Why the launch failed, when it did so after the spawn.
    pub(super) failure: Option<LaunchEvidence>,
    pub(super) blob: Option<PendingBlob>,
    /// The last record before output that was lost and the run of the first that was, while it is.
    pub(super) lost: Option<(Src, Option<RunKey>)>,
    /// Kills what is left; joined before Drained.
    pub(super) killing: JoinSet<usize>,
    pub(super) exit: Exit,
}

/// One thing that may come, or nothing.
pub(super) struct Awaited<'a, T>(Option<Pin<Box<dyn Future<Output = T> + 'a>>>);

impl<T> Awaited<'_, T> {
    pub(super) async fn next(&mut self) -> T {
        match &mut self.0 {
            Some(future) => future.await,
            None => pending().await,
        }
    }
}

impl<T> Default for Awaited<'_, T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'a, T> Awaited<'a, T> {
    fn of(future: impl Future<Output = T> + 'a) -> Self {
        Self(Some(Box::pin(future)))
    }
}

/// Everything that may come from a process.
#[derive(Default)]
pub(super) struct Watched<'a> {
    pub(super) exit: Awaited<'a, ()>,
    pub(super) blob: Awaited<'a, BlobWritten>,
    pub(super) killing: Awaited<'a, usize>,
    pub(super) kernel: Awaited<'a, Happened>,
    pub(super) runner: Awaited<'a, runner::Happened>,
    pub(super) pipes: Awaited<'a, Piped>,
}

impl Driver {
    /// Starts a kernel or a runner; a command waits for its run.
    pub(super) fn start_at_once(&mut self, now: Now) {
        let (name, argv, resource_dir, transport) = match &self.launch.spec.program {
            Program::Kernel { name, argv, resource_dir, transport, .. } => {
                (name, argv, resource_dir, *transport)
            }
            Program::Runner { argv, .. } => return self.start(argv.clone(), Start::Runner, now),
            Program::Command { .. } | Program::OfNotebook { .. } => return,
        };
        match prepare(&self.directory, name, argv, resource_dir.as_deref(), transport) {
            Ok(prepared) => self.start(prepared.argv.clone(), Start::Kernel(prepared), now),
            Err(message) => {
                let path = Some(self.launch.directory.clone());
                let step = LaunchStep::Prepare;
                let failed = LaunchEvidence { step, errno: None, path, message, waited_ms: None };
                self.fail(failed, self.launch.spec.program.argv().to_vec(), now);
            }
        }
    }

    /// Starts the command, as this run.
    pub(super) fn start_command(&mut self, run: RunKey, now: Now) {
        let argv = self.launch.spec.program.argv().to_vec();
        self.start(argv, Start::Command(run), now);
    }

    fn start(&mut self, argv: Vec<String>, start: Start, now: Now) {
        let spec = &self.launch.spec;
        let kernel_log = KernelLog::at_end();
        let env = environment(spec, self.launch.session, start.run());
        let spawned = spawn(&Launch {
            process: self.launch.process,
            argv: &argv,
            cwd: Path::new(&spec.cwd),
            env: &env,
            memory_bytes_max: spec.memory_bytes_max,
            has_channel: has_channel(&spec.program),
        });
        let spawned = match spawned {
            Ok(spawned) => spawned,
            Err(error) => return self.fail(SpawnError::evidence(&error), argv, now),
        };
        let (pid, pid_start) = (spawned.process.pid(), spawned.process.start());
        identity::add_process(&mut self.identity, &spawned.process, &spawned.container);
        if let Err(error) = identity::write(&self.directory, &self.identity) {
            // The daemon still learns all of it from the Welcome.
            tracing::warn!(%error, "identity.json could not be written");
        }
        let timeout = Duration::from_millis(spec.ready_timeout_ms);
        let ready_by = matches!(start, Start::Kernel(_)).then(|| now.tick + timeout);
        let work = match (start, spawned.channel) {
            (Start::Kernel(prepared), _) => Work::Kernel(Box::new(Kernel::connect(prepared, timeout))),
            (Start::Command(run), _) => Work::Command(run),
            (Start::Runner, channel) => self.run_with(channel, now),
        };
        let is_ready_at_once = matches!(work, Work::Command(_) | Work::Mute);
        let is_limited = spawned.address_space_bytes_max.is_some();
        self.life = Life::Supervising(Box::new(Supervised {
            pipes: Pipes::new(spawned.stdout, spawned.stderr),
            work,
            argv,
            started: now,
            is_ready: false,
            ready_by,
            interrupt_by: None,
            pulse: Pulse::new(pid),
            memory: MemoryWatch::begin(spawned.address_space_bytes_max),
            sample_at: is_limited.then(|| now.tick + Duration::from_millis(SAMPLE_MS)),
            kernel_log,
            failure: None,
            blob: None,
            lost: None,
            killing: JoinSet::new(),
            exit: Exit::Alive,
            process: spawned.process,
            container: spawned.container,
        }));
        self.freeze_started();
        self.record(StateNotice::Spawned { pid, pid_start }, now);
        if is_ready_at_once {
            self.set_ready(serde_json::json!({}), now);
        }
        if let Some((run, attempt)) = self.command_run() {
            self.record(StateNotice::RunStarted { run, attempt }, now);
        }
    }

    pub(super) fn set_ready(&mut self, kernel_info: serde_json::Value, now: Now) {
        let Life::Supervising(supervised) = &mut self.life else { return };
        supervised.is_ready = true;
        supervised.memory.sample(supervised.process.pid());
        if supervised.work.answers_heartbeats() && self.stopping.is_none() {
            supervised.pulse.ready(now.tick);
        }
        self.record(StateNotice::Ready { kernel_info }, now);
    }

    /// The process was never spawned: its report says why.
    fn fail(&mut self, failed: LaunchEvidence, argv: Vec<String>, now: Now) {
        let evidence = Evidence { launch: Some(failed), ..self.bare_evidence(argv) };
        self.record_end(self.unspawned(evidence, now.wall), now);
    }

    /// The report of a process that never was.
    pub(super) fn unspawned(&self, evidence: Evidence, at: WallTime) -> ExitReport {
        ExitReport {
            process: self.launch.process,
            pid: None,
            started_at: at,
            exited_at: at,
            status: ExitStatus::Unknown,
            evidence,
        }
    }

    pub(super) fn on_supervised_deadline(&mut self, now: Now) {
        let Life::Supervising(supervised) = &mut self.life else { return };
        if !supervised.is_alive() {
            return;
        }
        if supervised.sample_at.is_some_and(|at| now.tick >= at) {
            supervised.memory.sample(supervised.process.pid());
            supervised.sample_at = Some(now.tick + Duration::from_millis(SAMPLE_MS));
        }
        if let Some(runner) = supervised.work.runner_mut() {
            runner.expire(now.tick);
            if runner.has_left() {
                supervised.pulse.stop();
            }
            // What it answers is not read for now, and so it is not accused.
            if runner.is_held() && supervised.pulse.silence(now.tick).is_none() {
                supervised.pulse.echo(now.tick);
            }
        }
        let effect = supervised.work.kernel_mut().and_then(|kernel| kernel.expire(now));
        let news = supervised.pulse.expire(now.tick);
        if news.is_some() {
            supervised.work.beat();
        }
        let is_late = !supervised.is_ready
            && supervised.ready_by.is_some_and(|by| now.tick >= by)
            && supervised.failure.is_none();
        let late = supervised
            .work
            .kernel()
            .filter(|_| is_late && effect.is_none())
            .map(|kernel| kernel.not_ready(millis(now.tick.since(supervised.started.tick))));
        if let Some(News::Unresponsive(hang)) = news {
            supervised.memory.sample(supervised.process.pid());
            self.record(StateNotice::Unresponsive { hang }, now);
        }
        if let Some(effect) = effect.or_else(|| late.map(Effect::Failed)) {
            self.on_effect(effect, now);
        }
        self.tell_said(Pace::AsRoom, now);
    }

    /// The launch failed after the spawn: the process is ended, and its report will say why.
    pub(super) fn on_launch_failure(&mut self, failed: LaunchEvidence, now: Now) {
        let Life::Supervising(supervised) = &mut self.life else { return };
        if supervised.is_alive() && supervised.failure.is_none() && self.stopping.is_none() {
            supervised.failure = Some(failed);
            self.stop(StopWhy::NeverReady, StopStep::Term, now);
        }
    }
}

impl Supervised {
    pub(super) const fn is_alive(&self) -> bool {
        matches!(self.exit, Exit::Alive)
    }

    /// Our child's pid while its status was not taken.
    pub(super) fn unreaped_pid(&self) -> Option<i32> {
        self.is_alive().then(|| self.process.pid())
    }

    pub(super) fn open_runs(&self) -> Vec<RunKey> {
        if !self.is_alive() {
            return Vec::new();
        }
        self.work.open_runs()
    }

    /// Whether a kernel or a runner is done with this run.
    pub(super) fn has_finished(&self, key: RunKey) -> bool {
        self.work.has_finished(key)
    }

    /// Gives a kernel a run. A command is one run only.
    pub(super) fn execute(
        &mut self,
        key: RunKey,
        code: &str,
        mode: ExecuteMode,
        now: Now,
    ) -> Option<StateNotice> {
        if !self.is_alive() {
            return None;
        }
        match &mut self.work {
            Work::Kernel(kernel) => kernel.execute(key, code, mode, now),
            Work::Command(run) if *run == key => None,
            Work::Command(_) | Work::Runner(_) | Work::Mute => {
                tracing::warn!(run = %key.0, "this process executes nothing more; the run is ignored");
                None
            }
        }
    }

    pub(super) fn input(&mut self, run: RunId, value: &str, now: Now) {
        if let Some(kernel) = self.work.kernel_mut() {
            kernel.input(run, value, now);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Tick> {
        match &self.exit {
            Exit::Alive => {
                let ready_by = self.ready_by.filter(|_| !self.is_ready && self.failure.is_none());
                let all = [
                    ready_by,
                    self.work.next_deadline(),
                    self.pulse.next_deadline(),
                    self.sample_at,
                    self.interrupt_by,
                ];
                all.into_iter().flatten().min()
            }
            Exit::Draining(draining) => draining.next_deadline(),
        }
    }

    /// What may come from it. Output is not read while the journal `is_full`, unless the process has ended or its
    /// kernel would drop it.
    pub(super) fn watched(&mut self, is_full: bool) -> Watched<'_> {
        let is_alive = self.is_alive();
        let Self { process, pipes, work, blob, killing, .. } = self;
        // Contents come after the blob before them.
        let is_reading = blob.is_none();
        let mut watched = Watched::default();
        if is_alive {
            watched.exit = Awaited::of(async {
                let _runtime_ends = process.exited().await;
            });
        }
        match work {
            Work::Kernel(kernel) => {
                let must_wait = is_full && is_alive && kernel.can_wait();
                watched.kernel = Awaited::of(kernel.next(is_reading && !must_wait));
            }
            Work::Runner(runner) => {
                // Everything was read at its end; what could not be told yet waits for a blob.
                if is_alive {
                    watched.runner = Awaited::of(runner.next(is_reading && !is_full));
                } else if is_reading && runner.has_more() {
                    watched.runner = Awaited::of(std::future::ready(runner::Happened::Waiting));
                }
            }
            Work::Command(_) | Work::Mute => {}
        }
        if let Some(blob) = blob {
            watched.blob = Awaited::of(blob.written());
        }
        if !killing.is_empty() {
            watched.killing = Awaited::of(async {
                let joined = killing.join_next().await;
                joined.and_then(Result::ok).unwrap_or(0)
            });
        }
        if !is_full && is_alive {
            watched.pipes = Awaited::of(pipes.next());
        }
        watched
    }
}

/// The environment of the process: the launch's, what it works for, who its parent is when it is a kernel, and who it is when
/// it is a runner. Whoever launches may be one of them itself.
fn environment(spec: &LaunchSpec, session: SessionId, run: Option<RunKey>) -> BTreeMap<String, String> {
    let mut env = spec.env.clone();
    for of_another in [PARENT_PID, runner::VERSION_VARIABLE, runner::NAME_VARIABLE, RUN, ATTEMPT] {
        env.remove(of_another);
    }
    env.insert(SESSION.to_owned(), session.to_string());
    if let Some((run, attempt)) = run {
        env.insert(RUN.to_owned(), run.to_string());
        env.insert(ATTEMPT.to_owned(), attempt.to_string());
    }
    match &spec.program {
        Program::Kernel { .. } => {
            env.insert(PARENT_PID.to_owned(), std::process::id().to_string());
        }
        Program::Runner { name, .. } => {
            env.insert(runner::NAME_VARIABLE.to_owned(), name.clone());
            if has_channel(&spec.program) {
                let version = outlive_protocol::runner::VERSION.to_string();
                env.insert(runner::VERSION_VARIABLE.to_owned(), version);
            }
        }
        Program::Command { .. } | Program::OfNotebook { .. } => {}
    }
    env
}

const fn has_channel(program: &Program) -> bool {
    matches!(program, Program::Runner { speaks: Speaks::Protocol, .. })
}
