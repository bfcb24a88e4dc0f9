//! Real processes: what is promised about launching, watching, containing and ending them.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use outlive_core::id::{Incarnation, ProcessKey, RuntimeId};
use outlive_core::runtime::ExitStatus;
use outlive_process::evidence::{KernelLog, MemoryWatch};
use outlive_process::stop::{kill_all, signal_group};
use outlive_process::{Launch, ProcStat, Reaped, SpawnError, Spawned, is_same_process, spawn, sweep};
use rustix::process::Signal;

/// Far above anything that a healthy run needs: only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

fn key() -> ProcessKey {
    ProcessKey { runtime: RuntimeId::from_uuid(uuid::Uuid::new_v4()), incarnation: Incarnation(1) }
}

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name).display().to_string()
}

struct Launcher {
    process: ProcessKey,
    cwd: PathBuf,
    env: BTreeMap<String, String>,
    memory_bytes_max: Option<u64>,
    has_channel: bool,
}

impl Launcher {
    fn new() -> Self {
        let env = BTreeMap::from([("PATH".to_owned(), std::env::var("PATH").unwrap())]);
        Self { process: key(), cwd: std::env::temp_dir(), env, memory_bytes_max: None, has_channel: false }
    }

    fn start(&self, argv: &[&str]) -> Result<Spawned, SpawnError> {
        let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
        spawn(&Launch {
            process: self.process,
            argv: &argv,
            cwd: &self.cwd,
            env: &self.env,
            memory_bytes_max: self.memory_bytes_max,
            has_channel: self.has_channel,
        })
    }
}

async fn ended(spawned: &Spawned) -> Reaped {
    tokio::time::timeout(PATIENCE, spawned.process.exited()).await.expect("it ends").unwrap();
    spawned.process.reap().unwrap().expect("the pidfd said that it has ended")
}

/// Reads standard output until it holds `wanted`.
async fn until(spawned: &Spawned, wanted: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(wanted) {
        let count = tokio::time::timeout(PATIENCE, spawned.stdout.read(&mut buffer))
            .await
            .expect("it speaks")
            .unwrap();
        assert!(count > 0, "stdout ended with {text:?}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    text
}

fn drained(pipe: &outlive_process::Pipe) -> String {
    let mut bytes = Vec::new();
    pipe.drain(|piece| bytes.extend_from_slice(piece)).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn clean(spawned: &Spawned) {
    assert!(spawned.container.members().is_empty());
    assert!(spawned.container.remove(), "the cgroup is empty, so it can go");
}

#[tokio::test]
async fn a_program_gets_what_it_was_given_and_nothing_else() {
    let mut launcher = Launcher::new();
    launcher.env.insert("GREETING".into(), "hello".into());
    // A descriptor that somebody left open, and a signal that this process ignores.
    let (leaked, _writer) = rustix::pipe::pipe().unwrap();
    outlive_process::signals::ignore_terminal_and_service();
    let script =
        "echo $GREETING; pwd; env | wc -l; ls /proc/self/fd | wc -l; grep SigIgn /proc/self/status; cat";
    let spawned = launcher.start(&["sh", "-c", script]).unwrap();
    assert_eq!(ended(&spawned).await.status, ExitStatus::Code { code: 0 });
    drop(leaked);
    let out = drained(&spawned.stdout);
    let lines: Vec<&str> = out.lines().map(str::trim).collect();
    assert_eq!(lines[0], "hello");
    assert_eq!(Path::new(lines[1]), launcher.cwd.canonicalize().unwrap());
    // GREETING, PATH, OUTLIVE_PROCESS, and what the shell itself sets: PWD, and in some shells SHLVL, OLDPWD and _.
    assert!(lines[2].parse::<u32>().unwrap() <= 7, "{out}");
    // stdin, stdout, stderr and the directory that ls reads.
    assert_eq!(lines[3], "4", "{out}");
    // Signals 32 and 33 belong to the C library, which lets nobody change them.
    let ignored = u64::from_str_radix(lines[4].rsplit(['\t', ' ', ':']).next().unwrap(), 16).unwrap();
    assert_eq!(ignored & 0x7fff_ffff, 0, "{out}");
    clean(&spawned);
}

#[tokio::test]
async fn exit_codes_and_signals_are_told_apart() {
    // A1, A2
    let launcher = Launcher::new();
    let spawned = launcher.start(&["sh", "-c", "exit 7"]).unwrap();
    assert_eq!(ended(&spawned).await.status, ExitStatus::Code { code: 7 });
    clean(&spawned);

    let spawned = launcher.start(&["sleep", "1000"]).unwrap();
    spawned.process.signal(Signal::KILL).unwrap();
    assert_eq!(ended(&spawned).await.status, ExitStatus::Signal { number: 9, core_dumped: false });
    clean(&spawned);
}

#[tokio::test]
async fn a_native_crash_leaves_its_text_and_its_signal() {
    // A2
    let log = KernelLog::at_end();
    let spawned = Launcher::new().start(&[&fixture("crashes.py")]).unwrap();
    let pid = spawned.process.pid();
    let reaped = ended(&spawned).await;
    assert!(matches!(reaped.status, ExitStatus::Signal { number: 11, .. }), "{reaped:?}");
    assert!(reaped.rss_bytes_peak > 1 << 20, "{reaped:?}");
    assert!(drained(&spawned.stderr).contains("Segmentation fault"));
    // Whether the kernel logs it is the machine's choice; what it logs about others must not show here.
    assert!(log.lines_about(pid).iter().all(|line| line.contains(&pid.to_string())));
    clean(&spawned);
}

#[tokio::test]
async fn a_memory_limit_kills_and_says_so() {
    // A3
    let mut launcher = Launcher::new();
    launcher.memory_bytes_max = Some(64 << 20);
    let spawned = launcher.start(&[&fixture("eats-memory.py")]).unwrap();
    let watch = MemoryWatch::begin(spawned.address_space_bytes_max);
    let reaped = ended(&spawned).await;
    let evidence = watch.end(Some(&spawned.container), Some(reaped.rss_bytes_peak));
    if spawned.address_space_bytes_max.is_some() {
        // Where no cgroup can be written the allocator is refused, and Python says so.
        assert!(drained(&spawned.stderr).contains("MemoryError"));
    } else {
        let cgroup = evidence.cgroup.clone().expect("the limit is a cgroup's");
        assert!(matches!(reaped.status, ExitStatus::Signal { number: 9, .. }), "{reaped:?}");
        assert!(cgroup.oom_kills >= 1, "{cgroup:?}");
        assert_eq!(cgroup.limit_bytes, Some(64 << 20));
        let peak = cgroup.peak_bytes.expect("a peak");
        assert!((32 << 20..=64 << 20).contains(&peak), "{cgroup:?}");
        assert!(evidence.host_oom_kills >= 1, "{evidence:?}");
    }
    clean(&spawned);
}

#[tokio::test]
async fn a_held_pipe_delays_nothing_and_no_grandchild_is_left() {
    // A8
    let spawned = Launcher::new().start(&[&fixture("leaves-children.sh"), "5"]).unwrap();
    assert_eq!(ended(&spawned).await.status, ExitStatus::Code { code: 5 });
    // All that was written is there at once, though the grandchild keeps the pipe from ending.
    let out = drained(&spawned.stdout);
    assert!(out.contains("last words"), "{out}");
    let grandchild: i32 = out.lines().next().unwrap().trim().parse().unwrap();
    let stat = ProcStat::read(grandchild).expect("it outlived its parent");
    assert_eq!(spawned.container.members().is_empty(), spawned.container.unified().is_none());

    let killed = kill_all(&spawned.container, Some(spawned.process.pid()), None).await;
    assert!(killed >= 1);
    assert!(!is_same_process(grandchild, stat.start));
    clean(&spawned);
}

#[tokio::test]
async fn what_ignores_term_is_killed_with_its_group() {
    // A9
    let spawned = Launcher::new().start(&[&fixture("ignores-term.sh")]).unwrap();
    until(&spawned, "ready").await;
    signal_group(spawned.process.pid(), Signal::TERM).unwrap();
    assert!(spawned.process.reap().unwrap().is_none(), "it ignores TERM");
    kill_all(&spawned.container, Some(spawned.process.pid()), Some(spawned.process.pid())).await;
    assert!(matches!(ended(&spawned).await.status, ExitStatus::Signal { number: 9, .. }));
    clean(&spawned);
}

#[tokio::test]
async fn the_marker_finds_what_no_cgroup_holds() {
    // A15: the sweep after a shim that was killed, on a machine where no cgroup can be written.
    let launcher = Launcher::new();
    let spawned = launcher.start(&[&fixture("leaves-children.sh")]).unwrap();
    let out = until(&spawned, "last words").await;
    let grandchild: i32 = out.lines().next().unwrap().trim().parse().unwrap();
    let stat = ProcStat::read(grandchild).unwrap();
    ended(&spawned).await;
    let bystander = Launcher::new().start(&["sleep", "1000"]).unwrap();

    let killed = sweep::<PathBuf>(launcher.process, &[]).await;
    assert!(killed >= 1);
    assert!(!is_same_process(grandchild, stat.start));
    assert!(
        is_same_process(bystander.process.pid(), bystander.process.start()),
        "another process is untouched"
    );

    kill_all(&bystander.container, Some(bystander.process.pid()), None).await;
    clean(&bystander);
    clean(&spawned);
}

#[tokio::test]
async fn our_own_binary_is_started_apart_with_the_descriptor_it_was_given() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    rustix::io::write(&write, b"given\n").unwrap();
    drop(write);
    let script = "cat <&3 >&2; pwd >&2; ls /proc/self/fd | wc -l >&2; ps -o sid= -p $$ >&2; echo $$ >&2";
    let process = outlive_process::detached::spawn(
        Path::new("/bin/sh"),
        &["-c", script],
        Some(read),
        outlive_process::detached::open_log(&log).unwrap(),
    )
    .unwrap();
    tokio::time::timeout(PATIENCE, process.exited()).await.unwrap().unwrap();
    assert_eq!(process.reap().unwrap().unwrap().status, ExitStatus::Code { code: 0 });
    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(lines[..3], ["given", "/", "5"], "{text}");
    assert_eq!(lines[3], lines[4], "it leads its own session");
}

/// Writes into two files: itself, and a child in a session and group of its own.
const TICKS: &str = "setsid sh -c 'while :; do echo t >> child; sleep 0.01; done' & \
                     while :; do echo t >> own; sleep 0.01; done";

#[tokio::test]
async fn a_frozen_process_and_what_it_started_stand_still_until_they_are_thawed() {
    // E4: with a cgroup, and where none can be made.
    for has_cgroup in [true, false] {
        let place = tempfile::tempdir().unwrap();
        let launcher = Launcher { cwd: place.path().to_owned(), ..Launcher::new() };
        let spawned = launcher.start(&["sh", "-c", TICKS]).unwrap();
        let pid = spawned.process.pid();
        let container = if has_cgroup {
            spawned.container.clone()
        } else {
            outlive_process::Container::from_paths::<&str>(launcher.process, &[])
        };
        let sizes =
            || ["own", "child"].map(|name| place.path().join(name).metadata().map_or(0, |file| file.len()));
        let moves = || async {
            let before = sizes();
            let mut looks = tokio::time::interval(Duration::from_millis(5));
            let moved = async {
                while sizes().into_iter().zip(before).any(|(now, before)| now <= before) {
                    looks.tick().await;
                }
            };
            tokio::time::timeout(PATIENCE, moved).await.expect("both write on");
        };
        let passes = |seconds: &str| {
            assert!(std::process::Command::new("sleep").arg(seconds).status().unwrap().success());
        };
        moves().await;
        outlive_process::freeze::freeze(&container, pid);
        passes("0.1");
        let before = sizes();
        passes("0.3");
        assert_eq!(sizes(), before, "cgroup: {has_cgroup}");
        outlive_process::freeze::thaw(&container, pid);
        moves().await;
        outlive_process::freeze::freeze(&container, pid);
        assert!(kill_all(&container, Some(pid), Some(pid)).await >= 2, "frozen as they are");
        assert_eq!(ended(&spawned).await.status, ExitStatus::Signal { number: 9, core_dumped: false });
        kill_all(&spawned.container, None, None).await;
        assert!(spawned.container.remove());
    }
}
