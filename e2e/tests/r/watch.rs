//! Clients of a task come and go; its output does not depend on who watches.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use outlive_e2e::clock::{PATIENCE, eventually, within};
use outlive_e2e::{Transcript, World};

/// Numbers as `count` says them.
fn numbers(n: u32) -> String {
    (0..n).map(|i| format!("1:{i}\n")).collect()
}

// B4: nobody is attached for the whole task; whoever comes then has all of it, in order, once.
#[test]
fn nobody_attached_for_the_whole_task() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(1);
    let done = world.work().join("done");
    let task = group.submit(&format!("count(task, 5000); open({done:?}, 'w').close()"));
    eventually("the task is done", within(PATIENCE), || fs::metadata(&done).ok());
    for _ in 0..2 {
        let seen = task.outcome();
        assert_eq!((seen.ended(), seen.said()), ("succeeded", numbers(5000)));
    }
}

// B4: a client that leaves in mid-task comes back by its cursor, as itself or as somebody else.
#[test]
fn a_client_leaves_and_comes_back() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(1);
    let task = group.submit("count(task, 600, 0.002)");
    let mut seen = Transcript::default();
    let mut ended = false;
    for visit in 1..=4 {
        let mut events = task.attach(seen.cursor.as_deref());
        while !ended && seen.chunks.len() < visit * 100 {
            ended = seen.push(&events.next(within(PATIENCE)).expect("the task goes on"));
        }
    }
    if !ended {
        assert!(seen.follow(&mut task.attach(seen.cursor.as_deref()), within(PATIENCE)));
    }
    assert_eq!((seen.ended(), seen.said()), ("succeeded", numbers(600)));
    assert_eq!(task.outcome().said(), numbers(600), "and for a newcomer");
    // As a run of the group's session it is the same.
    assert_eq!(group.session().outcome(&task.id, within(PATIENCE)).said(), numbers(600));
}

/// A stream of the task as it comes over the socket, once it is there.
fn watch(world: &World, path: &str) -> UnixStream {
    let mut stream = UnixStream::connect(world.api().socket()).expect("the daemon listens");
    stream.set_read_timeout(Some(PATIENCE * 2)).expect("a socket has time limits");
    write!(stream, "GET {path}/attach?follow=true HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it is sent");
    let mut head = [0; 15];
    stream.read_exact(&mut head).expect("it is answered");
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    stream
}

/// Reads to the end of the stream; how many chunks came, and the last bytes.
fn read_all(stream: &mut UnixStream) -> (usize, String) {
    const LAST: usize = 1_000;
    let mark = br#""kind":"text""#;
    let (mut kept, mut count, mut piece) = (Vec::new(), 0, vec![0; 64 << 10]);
    loop {
        let length = stream.read(&mut piece).expect("the stream has an end");
        // A mark that was cut in two is whole now; one that was whole is not counted twice.
        let seen = kept.len().saturating_sub(mark.len() - 1);
        kept.extend_from_slice(&piece[..length]);
        count += kept[seen..].windows(mark.len()).filter(|window| window == mark).count();
        if length == 0 || kept.ends_with(b"0\r\n\r\n") {
            let last = kept.len().saturating_sub(LAST);
            return (count, String::from_utf8_lossy(&kept[last..]).into_owned());
        }
        kept.drain(..kept.len().saturating_sub(LAST));
    }
}

// B5: one that never reads is cut off, and told why when it reads at last; the task does not wait for it.
#[test]
fn a_watcher_that_never_reads() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = world.runners(1);
    // More than server and system keep for one who does not read.
    let task = group.submit("for i in range(6_000): text('x' * 1_000)");
    let mut sleeper = watch(&world, &group.path(&format!("/tasks/{}", task.id)));
    assert_eq!(task.outcome().said().len(), 6_000_000);
    // So long a reader may take nothing (30 s), and as long again it can learn why its stream has ended.
    assert_eq!(group.run("pause(40); text('a clock')").said(), "a clock");
    let (count, last) = read_all(&mut sleeper);
    assert!(count < 6_000, "nobody keeps as much for it");
    assert!(last.contains("event: problem") && last.contains("slow-reader"), "{last}");
}

/// Tests that overload the machine.
mod alone {
    use outlive_e2e::process;

    use super::*;

    /// Those that read, and those that never do.
    const WATCHERS: usize = 990;
    const SLEEPERS: usize = 10;
    /// What the task says.
    const CHUNKS: usize = 300;

    // B5: a thousand watch one task and ten of them never read: the others have all of it, and neither the task nor its
    // runner nor the daemon's memory notices.
    #[test]
    fn a_thousand_watchers_and_ten_that_never_read() {
        let world = World::new();
        let daemon = world.daemon();
        let group = world.runners(1);
        let gate = world.work().join("gate");
        let task = group.submit(&format!(
            "while not os.path.exists({gate:?}): time.sleep(0.01)\nfor i in range({CHUNKS}): text('x' * 1_000)"
        ));
        let path = group.path(&format!("/tasks/{}", task.id));
        let sleepers: Vec<_> = (0..SLEEPERS).map(|_| watch(&world, &path)).collect();
        let mut watchers: Vec<_> = (0..WATCHERS).map(|_| watch(&world, &path)).collect();
        fs::write(&gate, "").unwrap();
        std::thread::scope(|scope| {
            for watcher in &mut watchers {
                scope.spawn(move || {
                    let (count, last) = read_all(watcher);
                    assert_eq!(count, CHUNKS, "{last}");
                    assert!(last.contains("event: end"), "{last}");
                });
            }
        });
        assert_eq!(task.view()["state"]["outcome"]["kind"], "succeeded");
        assert_eq!(group.run("text('alive')").said(), "alive");
        let peak = process::peak_memory_bytes(daemon.pid()).expect("it lives");
        assert!(peak < 600 << 20, "the daemon grew to {peak} bytes");
        drop(sleepers);
    }
}
