//! Kernels that misbehave, each in its own way.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

mod kernel;

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use kernel::{AT, Kernel, PATIENCE, Place, Process, into_queue, json};
use outlive_core::runtime::spec::Transport;
use outlive_jupyter::channels::{Channels, ConnectError, Incoming};
use outlive_jupyter::heartbeat::BeatError;
use outlive_jupyter::message::{Channel, DecodeError};
use rustix::process::Signal;
use tokio::sync::mpsc::unbounded_channel;

/// The fake kernel's command, but for `-f FILE`.
fn fake(mode: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fake-kernel"));
    command.args(["--mode", mode]);
    command
}

/// For what must not come: long enough for a fake kernel to do it, and followed by a positive sign.
const A_MOMENT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_good_kernel_speaks_on_both_transports() {
    for transport in [Transport::Tcp, Transport::Ipc] {
        let mut kernel = Kernel::start(fake("normal"), transport).await;
        let outcome = kernel.execute("print hello\nwarn careful\nshow text/html <b>x</b>").await;
        assert_eq!(outcome.status(), "ok");
        assert_eq!((outcome.text("stdout"), outcome.text("stderr")), ("hello\n".into(), "careful\n".into()));
        assert_eq!(outcome.of_type("display_data")[0]["data"]["text/html"], "<b>x</b>");
        let outcome = kernel.execute("raise ValueError no good").await;
        assert_eq!(outcome.of_type("error")[0]["evalue"], "no good");
    }
}

// A7
#[tokio::test]
async fn a_kernel_that_exits_before_it_listens_leaves_no_connection_attempt() {
    let before = open_files();
    let place = Place::new(Transport::Tcp);
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_fake-kernel"));
    command.args(["--mode", "exits-before-ready", "-f"]).arg(place.file()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let (queue, _incoming) = unbounded_channel();
    let connect = Channels::connect(&place.info, "early", PATIENCE, into_queue(queue));
    // As the shim does: the death cancels the attempt.
    let output = tokio::select! {
        output = child.wait_with_output() => output.unwrap(),
        _ = connect => panic!("connected to a kernel that never listened"),
    };
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("told to fail before it is ready"));
    drop(place);
    assert!(open_files_settled(before).await <= before, "something is left open");
}

// A7
#[tokio::test]
async fn a_kernel_that_never_listens_is_told_by_socket_and_time() {
    let started = Kernel::try_start(fake("never-listens"), Transport::Tcp, A_MOMENT).await;
    let error = started.err().expect("nobody listens");
    assert!(matches!(error, ConnectError::NotListening { what: "shell", .. }), "{error}");
    assert!(error.to_string().contains("does not listen on tcp://127.0.0.1:"), "{error}");
}

// A7
#[tokio::test]
async fn a_kernel_that_never_answers_still_has_a_heartbeat() {
    let mut kernel = Kernel::try_start(fake("never-answers"), Transport::Tcp, PATIENCE).await.unwrap();
    let request = kernel.client.kernel_info("unheard", AT);
    kernel.channels.shell.send(&request).await.unwrap();
    assert!(!kernel.channels.subscribed(A_MOMENT).await);
    kernel.channels.heartbeat.beat(PATIENCE).await.unwrap();
    assert!(kernel.incoming.try_recv().is_err(), "it says nothing");
}

// A7
#[tokio::test]
async fn a_kernel_with_another_key_is_rejected_by_name() {
    let mut kernel = Kernel::try_start(fake("wrong-hmac"), Transport::Tcp, PATIENCE).await.unwrap();
    let request = kernel.client.kernel_info("unheard", AT);
    kernel.channels.shell.send(&request).await.unwrap();
    let rejected = kernel.next().await;
    assert!(
        matches!(rejected, Incoming::Rejected(Channel::Iopub, DecodeError::WrongSignature)),
        "{rejected:?}"
    );
}

// A7
#[tokio::test]
async fn an_error_for_kernel_info_arrives_as_such() {
    let mut kernel = Kernel::start(fake("info-error"), Transport::Tcp).await;
    let request = kernel.client.kernel_info("info", AT);
    kernel.channels.shell.send(&request).await.unwrap();
    let outcome = kernel.finish("info").await;
    assert_eq!(outcome.status(), "error");
    assert_eq!(json(&outcome.reply)["ename"], "FakeError");
}

#[tokio::test]
async fn a_plain_pub_kernel_is_subscribed_once_it_says_anything() {
    let mut kernel = Kernel::try_start(fake("no-welcome"), Transport::Tcp, PATIENCE).await.unwrap();
    assert!(!kernel.channels.subscribed(A_MOMENT).await);
    let request = kernel.client.kernel_info("info", AT);
    kernel.channels.shell.send(&request).await.unwrap();
    assert!(kernel.channels.subscribed(PATIENCE).await);
}

#[tokio::test]
async fn a_kernel_that_dies_in_mid_output_has_its_output_delivered() {
    // welcome, busy, eight lines; then the end
    let mut kernel = Kernel::start(fake("dies-after:10"), Transport::Tcp).await;
    kernel.send_code("flood 1000").await;
    let (mut lines, mut ends) = (0, 0);
    while ends < 4 {
        match kernel.next().await {
            Incoming::Message(_, message) => lines += u32::from(message.header.msg_type == "stream"),
            Incoming::Disconnected(_) => ends += 1,
            Incoming::Rejected(_, error) => panic!("{error}"),
        }
    }
    assert_eq!(lines, 8);
    assert_eq!(kernel.process.0.wait().unwrap().code(), Some(70));
}

#[tokio::test]
async fn drop_and_flood_do_what_they_say() {
    let mut kernel = Kernel::start(fake("drops-outputs"), Transport::Tcp).await;
    assert_eq!(kernel.execute("flood 10").await.text("stdout"), "0\n2\n4\n6\n8\n");

    let mut kernel = Kernel::start(fake("floods"), Transport::Tcp).await;
    kernel.send_code("").await;
    for _ in 0..5_000 {
        kernel.message().await;
    }
}

#[tokio::test]
async fn a_kernel_without_an_echo_misses_every_beat_but_answers() {
    let mut kernel = Kernel::start(fake("no-echo"), Transport::Tcp).await;
    let missed = kernel.channels.heartbeat.beat(A_MOMENT).await;
    assert!(matches!(missed, Err(BeatError::Missed(_))), "{missed:?}");
    assert_eq!(kernel.execute("print alive").await.text("stdout"), "alive\n");
}

#[tokio::test]
async fn shutdown_and_term_are_obeyed_or_not_as_told() {
    for (mode, obeys_request, obeys_term) in
        [("normal", true, true), ("ignores-shutdown", false, true), ("ignores-stop", false, false)]
    {
        let mut kernel = Kernel::start(fake(mode), Transport::Tcp).await;
        let request = kernel.client.shutdown("stop", false, AT);
        kernel.channels.control.send(&request).await.unwrap();
        let answered = async {
            loop {
                if let Incoming::Message(Channel::Control, reply) = kernel.next().await {
                    return reply.header.msg_type;
                }
            }
        };
        assert_eq!(answered.await, "shutdown_reply");
        if obeys_request {
            assert_eq!(kernel.process.0.wait().unwrap().code(), Some(0));
            continue;
        }
        assert_eq!(kernel.execute("print still here").await.text("stdout"), "still here\n", "{mode}");
        kernel.process.signal(Signal::TERM);
        if obeys_term {
            assert_eq!(kernel.process.0.wait().unwrap().code(), Some(143), "{mode}");
            continue;
        }
        assert_eq!(kernel.execute("print still here").await.text("stdout"), "still here\n", "{mode}");
        kernel.process.signal(Signal::KILL);
        assert_eq!(kernel.process.0.wait().unwrap().signal(), Some(9));
    }
}

#[tokio::test]
async fn a_hanging_cell_is_interrupted_both_ways_and_asks_are_answered() {
    let mut kernel = Kernel::start(fake("normal"), Transport::Tcp).await;
    for by_message in [false, true] {
        let id = kernel.send_code("print begun\nhang").await;
        while kernel.message().await.1.header.msg_type != "stream" {}
        if by_message {
            let request = kernel.client.interrupt("interrupt", AT);
            kernel.channels.control.send(&request).await.unwrap();
        } else {
            kernel.process.signal(Signal::INT);
        }
        assert_eq!(kernel.finish(&id).await.status(), "error");
    }
    let id = kernel.send_code("ask who?").await;
    let question = loop {
        let (channel, message) = kernel.message().await;
        if channel == Channel::Stdin {
            break message;
        }
    };
    let answer = kernel.client.input_reply(&question, "answer", "me", AT);
    kernel.channels.stdin.send(&answer).await.unwrap();
    assert_eq!(kernel.finish(&id).await.text("stdout"), "me\n");
}

// A7
#[tokio::test]
async fn a_port_that_another_program_has_is_told() {
    let place = Place::new(Transport::Tcp);
    let stranger = TcpListener::bind(("127.0.0.1", place.info.shell_port)).unwrap();
    let answering = std::thread::spawn(move || {
        // The probe, then ZeroMQ's own connection.
        for _ in 0..2 {
            let (mut stream, _) = stranger.accept().unwrap();
            let _ = stream
                .write_all(b"SSH-2.0-OpenSSH_9.2 and quite some text that is no ZeroMQ greeting at all\r\n");
        }
    });
    let (queue, _incoming) = unbounded_channel();
    let connected = Channels::connect(&place.info, "lost", PATIENCE, into_queue(queue)).await;
    let error = connected.err().expect("a stranger is no kernel");
    assert!(matches!(error, ConnectError::Handshake { what: "shell", .. }), "{error:?}");
    answering.join().unwrap();
}

// A7
#[tokio::test]
async fn connections_leave_no_file_open() {
    let mut command = fake("normal");
    let place = Place::new(Transport::Tcp);
    let _process = Process(command.arg("-f").arg(place.file()).spawn().unwrap());
    let connect = async |number: u32| {
        let (queue, _incoming) = unbounded_channel();
        let session = format!("client-{number}");
        let mut channels =
            Channels::connect(&place.info, &session, PATIENCE, into_queue(queue)).await.unwrap();
        channels.heartbeat.beat(PATIENCE).await.unwrap();
    };
    connect(0).await;
    let before = open_files_settled(0).await;
    for number in 1..=20 {
        connect(number).await;
    }
    assert!(open_files_settled(before).await <= before, "something is left open");
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The number of open files once the runtime has run what a drop left to it, at most a second later.
async fn open_files_settled(expected: usize) -> usize {
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    for _ in 0..100 {
        ticks.tick().await;
        if open_files() <= expected {
            break;
        }
    }
    open_files()
}
