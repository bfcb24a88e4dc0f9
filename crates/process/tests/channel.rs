//! The private channel of a program. Alone in its file, because it moves the descriptors of the whole test process.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by where it stops")]

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use outlive_core::id::{Incarnation, ProcessKey, RuntimeId};
use outlive_process::stop::kill_all;
use outlive_process::{Launch, Pipe, Spawned, spawn};

/// Far above anything that a healthy run needs: only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(script: &str) -> Spawned {
    let argv = ["sh", "-c", script].map(str::to_owned);
    let env = BTreeMap::from([("PATH".to_owned(), std::env::var("PATH").unwrap())]);
    let process =
        ProcessKey { runtime: RuntimeId::from_uuid(uuid::Uuid::new_v4()), incarnation: Incarnation(1) };
    let cwd = Path::new("/");
    spawn(&Launch { process, argv: &argv, cwd, env: &env, memory_bytes_max: None, has_channel: true })
        .unwrap()
}

async fn to_its_end(pipe: &Pipe) -> String {
    let mut said = Vec::new();
    let mut buffer = [0; 64];
    loop {
        let count = tokio::time::timeout(PATIENCE, pipe.read(&mut buffer)).await.expect("it speaks").unwrap();
        if count == 0 {
            return String::from_utf8(said).unwrap();
        }
        said.extend_from_slice(&buffer[..count]);
    }
}

#[test]
fn a_channel_is_at_three_and_four_whatever_this_process_holds() {
    // B1
    for freed in [&[][..], &[3], &[4], &[3, 4], &[3, 4, 5], &[4, 5, 6], &[3, 5, 6, 7]] {
        // Every low number is taken before the runtime takes some; then these are free.
        let mut held: Vec<File> = Vec::new();
        while held.last().is_none_or(|file| file.as_raw_fd() < 20) {
            held.push(File::open("/dev/null").unwrap());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        held.retain(|file| !freed.contains(&file.as_raw_fd()));
        runtime.block_on(async {
            let before = std::fs::read_dir("/proc/self/fd").unwrap().count();
            let spawned =
                start("echo $(ls /proc/self/fd); read -r line <&3 && echo \"$line to you\" >&4; exit 3");
            let channel = spawned.channel.as_ref().unwrap();
            assert_eq!(channel.to.write(b"hello\n").await.unwrap(), 6);
            assert_eq!(to_its_end(&channel.from).await, "hello to you\n", "with {freed:?} free");
            // 5 is the directory that `ls` reads.
            assert_eq!(to_its_end(&spawned.stdout).await, "0 1 2 3 4 5\n", "with {freed:?} free");
            tokio::time::timeout(PATIENCE, spawned.process.exited()).await.expect("it ends").unwrap();
            assert!(spawned.process.reap().unwrap().is_some());
            assert!(spawned.container.remove());
            drop(spawned);
            assert_eq!(std::fs::read_dir("/proc/self/fd").unwrap().count(), before, "nothing is left");
        });
    }
}

#[test]
fn a_child_that_holds_the_channel_delays_no_death() {
    // A8
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let spawned = start("sleep 1000 & echo last words >&4; kill -9 $$");
        let channel = spawned.channel.as_ref().unwrap();
        tokio::time::timeout(PATIENCE, spawned.process.exited()).await.expect("it ends").unwrap();
        let mut said = Vec::new();
        channel.from.drain(|bytes| said.extend_from_slice(bytes)).unwrap();
        assert_eq!(said, b"last words\n", "although the channel is not at its end");
        assert!(spawned.process.reap().unwrap().is_some());
        kill_all(&spawned.container, Some(spawned.process.pid()), None).await;
        // Now nobody is left who could read.
        let error = channel.to.write(b"x").await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
        assert!(spawned.container.remove());
    });
}
