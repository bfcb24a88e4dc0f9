//! Against real ipykernel, in the environment that Outlive makes.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

mod kernel;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use kernel::{AT, Kernel, Outcome, PATIENCE, Place, Process, into_queue, json};
use outlive_core::runtime::spec::Transport;
use outlive_jupyter::channels::{Channels, Incoming};
use outlive_jupyter::environment::managed;
use outlive_jupyter::heartbeat::BeatError;
use outlive_jupyter::message::Channel;
use outlive_jupyter::request::{Client, ExecuteMode};
use outlive_jupyter::surroundings::Surroundings;
use rustix::process::{Pid, Signal, WaitOptions, waitpid};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;

/// The real environment that Outlive would make for a user, kept between test runs.
fn managed_prefix() -> PathBuf {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
    let here = Surroundings::of_this_process().unwrap();
    let mut variables = here.variables().clone();
    variables.insert("OUTLIVE_CACHE_DIR".to_owned(), cache.to_str().unwrap().to_owned());
    let surroundings = Surroundings::new(variables, here.directory().to_owned());
    managed::find_or_make(&[], &surroundings, None, &mut |progress| eprintln!("{progress}")).unwrap()
}

/// ipykernel's command in that environment, but for `-f FILE`.
fn ipykernel() -> Command {
    let mut command = Command::new(managed_prefix().join("bin/python"));
    command.args(["-Xfrozen_modules=off", "-m", "ipykernel_launcher"]);
    // As the shim sets it; also keeps ipykernel from printing its banner.
    command.env("JPY_PARENT_PID", std::process::id().to_string());
    command
}

async fn speaks(transport: Transport) {
    let mut kernel = Kernel::start(ipykernel(), transport).await;

    let id = kernel.new_id();
    let ask = kernel.client.kernel_info(&id, AT);
    kernel.channels.shell.send(&ask).await.unwrap();
    let info = kernel.finish(&id).await;
    assert_eq!(json(&info.reply)["language_info"]["name"], "python");

    let code = "import sys\nprint('to stdout')\nprint('to stderr', file=sys.stderr)\n\
                from IPython.display import display, HTML\ndisplay(HTML('<b>shown</b>'))\n6 * 7";
    let outcome = kernel.execute(code).await;
    assert_eq!(outcome.status(), "ok");
    assert_eq!(outcome.text("stdout"), "to stdout\n");
    assert_eq!(outcome.text("stderr"), "to stderr\n");
    assert_eq!(outcome.of_type("display_data")[0]["data"]["text/html"], "<b>shown</b>");
    assert_eq!(outcome.of_type("execute_result")[0]["data"]["text/plain"], "42");

    let outcome = kernel.execute("1 / 0").await;
    assert_eq!(outcome.status(), "error");
    assert_eq!(outcome.of_type("error")[0]["ename"], "ZeroDivisionError");

    kernel.channels.heartbeat.beat(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn speaks_over_tcp() {
    speaks(Transport::Tcp).await;
}

#[tokio::test]
async fn speaks_over_unix_sockets() {
    speaks(Transport::Ipc).await;
}

#[tokio::test]
async fn asks_and_takes_the_answer() {
    let mut kernel = Kernel::start(ipykernel(), Transport::Tcp).await;
    let id = kernel.send_code("print('hello', input('who? '))").await;
    let question = loop {
        let (channel, message) = kernel.message().await;
        if channel == Channel::Stdin {
            break message;
        }
    };
    assert_eq!(question.header.msg_type, "input_request");
    assert_eq!(json(&question)["prompt"], "who? ");
    assert_eq!(question.parent_id(), Some(id.as_str()));
    let answer = kernel.client.input_reply(&question, "answer-1", "world", AT);
    kernel.channels.stdin.send(&answer).await.unwrap();
    assert_eq!(kernel.finish(&id).await.text("stdout"), "hello world\n");
}

/// Runs a cell that says when it has begun and then sleeps; interrupts it. Not flushed: the kernel's own thread sends
/// the line later, and the interrupt cannot hit the kernel's code for a flush, which may swallow it.
async fn interrupted(kernel: &mut Kernel, by_message: bool) -> Outcome {
    let id = kernel.send_code("import time\nprint('begun')\ntime.sleep(600)").await;
    loop {
        let (_, message) = kernel.message().await;
        if message.header.msg_type == "stream" {
            break;
        }
    }
    if by_message {
        let request = kernel.client.interrupt("interrupt-1", AT);
        kernel.channels.control.send(&request).await.unwrap();
    } else {
        kernel.process.signal(Signal::INT);
    }
    kernel.finish(&id).await
}

// A16
#[tokio::test]
async fn is_interrupted_by_signal_and_by_message() {
    let mut kernel = Kernel::start(ipykernel(), Transport::Tcp).await;
    for by_message in [false, true] {
        let outcome = interrupted(&mut kernel, by_message).await;
        assert_eq!(outcome.of_type("error")[0]["ename"], "KeyboardInterrupt", "by message: {by_message}");
    }
    assert_eq!(kernel.execute("print('still here')").await.text("stdout"), "still here\n");
}

// A16
#[tokio::test]
async fn an_interrupt_is_not_stuck_behind_pending_output() {
    let mut kernel = Kernel::start(ipykernel(), Transport::Tcp).await;
    let code = "block = 'x' * 999_999\nwhile True:\n    print(block, flush=True)";
    let id = kernel.send_code(code).await;
    // 100 MB are on their way, and none of it is taken from the queue but to count.
    let mut pending = 0;
    while pending < 100_000_000 {
        pending += kernel.message().await.1.size_bytes();
    }
    kernel.process.signal(Signal::INT);
    let outcome = kernel.finish(&id).await;
    assert_eq!(json(&outcome.reply)["ename"], "KeyboardInterrupt");
    assert_eq!(outcome.of_type("error").len(), 1);
}

#[tokio::test]
async fn a_reader_that_sleeps_loses_nothing() {
    const MESSAGES: usize = 50_000;
    let place = Place::new(Transport::Tcp);
    let mut command = ipykernel();
    let _process = Process(command.arg("-f").arg(place.file()).spawn().unwrap());
    let (queue, mut incoming) = unbounded_channel();
    let (replied, reply) = unbounded_channel();
    let mut push = into_queue(queue);
    let sink = move |item: Incoming| {
        if matches!(&item, Incoming::Message(Channel::Shell, message) if message.header.msg_type == "execute_reply")
        {
            replied.send(()).unwrap();
        }
        push(item);
    };
    let mut channels = Channels::connect(&place.info, "sleeper", PATIENCE, sink).await.unwrap();
    assert!(channels.subscribed(PATIENCE).await);
    let client = Client { session: "sleeper".to_owned(), username: "tester".to_owned() };
    let code = format!(
        "from IPython.display import display\nfor n in range({MESSAGES}):\n    display({{'text/plain': str(n)}}, raw=True)"
    );
    let mode = ExecuteMode::Unattended;
    channels.shell.send(&client.execute("flood", &code, mode, AT)).await.unwrap();
    // Nothing is taken from the queue until the kernel has finished.
    let mut reply = reply;
    timeout(3 * PATIENCE, reply.recv()).await.unwrap().unwrap();
    let mut numbers = Vec::new();
    loop {
        let Some(Incoming::Message(Channel::Iopub, message)) =
            timeout(PATIENCE, incoming.recv()).await.unwrap()
        else {
            continue;
        };
        let content = json(&message);
        match message.header.msg_type.as_str() {
            "display_data" => {
                numbers.push(content["data"]["text/plain"].as_str().unwrap().parse::<usize>().unwrap());
            }
            "status" if content["execution_state"] == "idle" && message.parent_id() == Some("flood") => break,
            _ => {}
        }
    }
    assert!(numbers.iter().copied().eq(0..MESSAGES), "{} of {MESSAGES}, in order", numbers.len());
}

#[tokio::test]
async fn holding_iopub_makes_a_kernel_wait_that_was_told_not_to_drop() {
    const MESSAGES: usize = 20_000;
    let mut kernel = Kernel::start(ipykernel(), Transport::Tcp).await;
    let no_drop = "import zmq\n_thread = get_ipython().kernel.iopub_thread\n\
                   _thread.schedule(lambda: _thread.socket.setsockopt(zmq.XPUB_NODROP, 1))";
    assert_eq!(kernel.execute(no_drop).await.status(), "ok");
    // Each is 1 KB: more than the sockets hold.
    let code = format!(
        "from IPython.display import display\nfor n in range({MESSAGES}):\n    display({{'text/plain': f'{{n:01000}}'}}, raw=True)"
    );
    kernel.channels.hold_iopub(true);
    let id = kernel.send_code(&code).await;
    // Beats cross meanwhile: only iopub is held.
    for _ in 0..2_000 {
        kernel.channels.heartbeat.beat(PATIENCE).await.unwrap();
    }
    kernel.channels.hold_iopub(false);
    let outcome = kernel.finish(&id).await;
    assert_eq!(outcome.of_type("display_data").len(), MESSAGES);
}

#[tokio::test]
async fn a_stopped_kernel_misses_beats_and_a_continued_one_does_not() {
    let mut kernel = Kernel::start(ipykernel(), Transport::Tcp).await;
    kernel.channels.heartbeat.beat(PATIENCE).await.unwrap();
    kernel.process.signal(Signal::STOP);
    let pid = Pid::from_child(&kernel.process.0);
    // Returns once all its threads have stopped.
    waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
    for _ in 0..3 {
        let missed = kernel.channels.heartbeat.beat(Duration::from_millis(100)).await;
        assert!(matches!(missed, Err(BeatError::Missed(_))), "{missed:?}");
    }
    kernel.process.signal(Signal::CONT);
    kernel.channels.heartbeat.beat(PATIENCE).await.unwrap();
    assert_eq!(kernel.execute("print(1)").await.text("stdout"), "1\n");
}

// A5
#[tokio::test]
async fn a_cell_that_holds_the_interpreter_lock_does_not_stop_the_heartbeat() {
    let mut kernel = Kernel::start(ipykernel(), Transport::Tcp).await;
    // PyDLL keeps the lock during the call.
    let id = kernel.send_code("import ctypes\nprint('in', flush=True)\nctypes.PyDLL(None).sleep(2)").await;
    while kernel.message().await.1.header.msg_type != "stream" {}
    for _ in 0..20 {
        kernel.channels.heartbeat.beat(Duration::from_secs(1)).await.unwrap();
    }
    assert_eq!(kernel.finish(&id).await.status(), "ok");
}

#[tokio::test]
async fn a_death_is_told_on_every_channel_once() {
    let mut kernel = Kernel::start(ipykernel(), Transport::Tcp).await;
    kernel.send_code("import time\nprint('begun', flush=True)\ntime.sleep(600)").await;
    while kernel.message().await.1.header.msg_type != "stream" {}
    kernel.process.signal(Signal::KILL);
    let mut disconnected = Vec::new();
    while disconnected.len() < 4 {
        match kernel.next().await {
            Incoming::Disconnected(channel) => disconnected.push(channel),
            Incoming::Message(channel, _) => {
                assert!(!disconnected.contains(&channel), "a message after the end of {channel}");
            }
            Incoming::Rejected(..) => panic!("a message of this kernel was rejected"),
        }
    }
    disconnected.sort();
    assert_eq!(disconnected, [Channel::Shell, Channel::Iopub, Channel::Stdin, Channel::Control]);
    let late = kernel.client.kernel_info("late", AT);
    assert!(kernel.channels.shell.send(&late).await.is_err(), "a request to a dead kernel is refused");
    assert!(kernel.channels.heartbeat.beat(Duration::from_secs(1)).await.is_err());
}

/// A shell that starts a kernel as its child, tells its pid and waits; `parent` is what the kernel is told.
async fn kernel_of_a_parent(
    parent: &str,
) -> (Process, Channels, Client, tokio::sync::mpsc::UnboundedReceiver<Incoming>, Place) {
    let place = Place::new(Transport::Ipc);
    let python = managed_prefix().join("bin/python");
    let script = format!(
        "JPY_PARENT_PID={parent} {} -m ipykernel_launcher -f {} >{} 2>&1 & read wait",
        python.display(),
        place.file().display(),
        place.directory.path().join("said").display(),
    );
    let mut command = Command::new("sh");
    let process = Process(command.args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap());
    let (queue, mut incoming) = unbounded_channel();
    let mut channels = Channels::connect(&place.info, "heir", PATIENCE, into_queue(queue)).await.unwrap();
    let client = Client { session: "heir".to_owned(), username: "tester".to_owned() };
    // Once it has answered, it also watches its parent.
    channels.shell.send(&client.kernel_info("ready", AT)).await.unwrap();
    while !matches!(
        timeout(PATIENCE, incoming.recv()).await.unwrap(),
        Some(Incoming::Message(Channel::Shell, _))
    ) {}
    (process, channels, client, incoming, place)
}

/// JPY_PARENT_PID = the parent: the kernel ends with it (ipykernel looks once a second) and prints no banner.
#[tokio::test]
async fn a_kernel_that_knows_its_parent_ends_with_it() {
    let (mut parent, _channels, _client, mut incoming, place) = kernel_of_a_parent("$$").await;
    parent.0.kill().unwrap();
    loop {
        match timeout(PATIENCE, incoming.recv()).await.unwrap().unwrap() {
            Incoming::Disconnected(_) => break,
            Incoming::Message(..) | Incoming::Rejected(..) => {}
        }
    }
    let said = std::fs::read_to_string(place.directory.path().join("said")).unwrap();
    assert!(!said.contains("To connect another client"), "{said}");
}

/// JPY_PARENT_PID = 1: the kernel outlives its parent, and prints no banner either.
#[tokio::test]
async fn a_kernel_that_is_told_of_pid_1_outlives_its_parent() {
    let (mut parent, mut channels, client, mut incoming, place) = kernel_of_a_parent("1").await;
    parent.0.kill().unwrap();
    parent.0.wait().unwrap();
    // Two of the poller's periods pass inside the cell.
    let mode = ExecuteMode::Unattended;
    let request = client.execute("late", "import time\ntime.sleep(2.5)", mode, AT);
    channels.shell.send(&request).await.unwrap();
    loop {
        match timeout(PATIENCE, incoming.recv()).await.unwrap().unwrap() {
            Incoming::Message(Channel::Shell, reply) => {
                assert_eq!(json(&reply)["status"], "ok");
                break;
            }
            Incoming::Message(..) => {}
            other => panic!("{other:?}"),
        }
    }
    let said = std::fs::read_to_string(place.directory.path().join("said")).unwrap();
    assert!(!said.contains("To connect another client"), "{said}");
    channels.control.send(&client.shutdown("end", false, AT)).await.unwrap();
    while !matches!(timeout(PATIENCE, incoming.recv()).await.unwrap().unwrap(), Incoming::Disconnected(_)) {}
}

#[tokio::test]
async fn kernels_started_at_once_do_not_take_each_others_ports() {
    let command = ipykernel();
    let again = || {
        let mut again = Command::new(command.get_program());
        again.args(command.get_args());
        again
    };
    let start = |_| Kernel::start(again(), Transport::Tcp);
    let kernels = futures_util::future::join_all((0..4).map(start)).await;
    for (number, mut kernel) in kernels.into_iter().enumerate() {
        let outcome = kernel.execute(&format!("print({number})")).await;
        assert_eq!(outcome.text("stdout"), format!("{number}\n"));
    }
}
