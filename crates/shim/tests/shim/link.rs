//! Whoever speaks on a shim's socket, and however: only the newest daemon that proved itself is served.

use crate::support::{Daemon, Setup, Shim, new_run};
use outlive_core::id::{Incarnation, Src};
use outlive_core::limits::FRAME_BYTES_MAX;
use outlive_core::log::ChunkKind;
use outlive_protocol::frame;
use outlive_protocol::shim::{FromShim, ToShim, VERSION};
use outlive_protocol::shim_codec::encode_to_shim;

/// A command that says a line for each line it is told through a pipe, for as long as the test lives.
async fn talker() -> (Shim, Daemon) {
    let shim = Setup::command(&["sh", "-c", "echo hello; exec sleep 1000"]).start();
    let mut daemon = shim.connect(Src(0)).await;
    daemon.execute(new_run(), "").await;
    daemon.until_text("hello").await;
    (shim, daemon)
}

#[tokio::test]
async fn garbage_closes_its_connection_and_nothing_else() {
    // B1
    let (shim, mut daemon) = talker().await;
    let mut lying = encode_to_shim(&shim.hello(Src(0))).unwrap();
    lying[0..4].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut flipped = encode_to_shim(&shim.hello(Src(0))).unwrap();
    *flipped.last_mut().unwrap() ^= 1;
    let no_hello = encode_to_shim(&ToShim::Interrupt).unwrap();
    let unknown_then_nothing = frame::encode(0xee, 0, &[b"from the future"]).unwrap();
    for bytes in [vec![b'x'; 4_096], lying, flipped, no_hello] {
        let mut stranger = Daemon::open(&shim.socket).await;
        stranger.write(&bytes).await;
        assert_eq!(stranger.hear().await, None, "closed");
    }
    // Half a Hello and then silence, and a kind that nobody knows: both time out, without holding up anybody.
    let mut slow = Daemon::open(&shim.socket).await;
    slow.write(&encode_to_shim(&shim.hello(Src(0))).unwrap()[..9]).await;
    let mut newer = Daemon::open(&shim.socket).await;
    newer.write(&unknown_then_nothing).await;
    let again = shim.connect(daemon.last).await;
    assert!(again.welcome.is_some(), "served while the slow ones are waited for");
    assert_eq!(slow.hear().await, None);
    assert_eq!(newer.hear().await, None);
    // The older daemon was superseded by the newer.
    assert_eq!(daemon.hear().await, None);
}

#[tokio::test]
async fn a_frame_over_the_limit_is_an_error_where_it_is_made() {
    // B1, P5
    let (shim, daemon) = talker().await;
    let code = "x".repeat(FRAME_BYTES_MAX);
    let execute = ToShim::Execute {
        run: new_run(),
        attempt: outlive_core::id::Attempt(1),
        code,
        allow_stdin: false,
        silent: false,
    };
    assert!(encode_to_shim(&execute).is_err());
    let again = shim.connect(daemon.last).await;
    assert!(again.welcome.is_some());
}

#[tokio::test]
async fn whoever_means_somebody_else_is_told_so() {
    // D5
    let (shim, daemon) = talker().await;
    let change = |change: fn(&mut ToShim)| {
        let mut hello = shim.hello(Src(0));
        change(&mut hello);
        hello
    };
    let other_incarnation = change(|hello| {
        let ToShim::Hello { process, .. } = hello else { unreachable!() };
        process.incarnation = Incarnation(2);
    });
    let other_version = change(|hello| {
        let ToShim::Hello { version, .. } = hello else { unreachable!() };
        *version = 99;
    });
    let from_the_future = change(|hello| {
        let ToShim::Hello { acked, .. } = hello else { unreachable!() };
        *acked = Src(1_000_000);
    });
    for hello in [other_incarnation, other_version, from_the_future] {
        let mut stranger = Daemon::open(&shim.socket).await;
        stranger.say(&hello).await;
        assert!(matches!(stranger.hear().await, Some(FromShim::Wrong { .. })), "{hello:?}");
        assert_eq!(stranger.hear().await, None);
    }
    assert!(shim.connect(daemon.last).await.welcome.is_some());
}

#[tokio::test]
async fn daemons_of_the_version_before_and_the_next_are_served() {
    // D2: whichever of the two was upgraded.
    let (shim, daemon) = talker().await;
    for (theirs, spoken) in [(VERSION - 1, VERSION - 1), (VERSION, VERSION), (VERSION + 1, VERSION)] {
        let mut hello = shim.hello(daemon.last);
        let ToShim::Hello { version, .. } = &mut hello else { unreachable!() };
        *version = theirs;
        let mut other = Daemon::open(&shim.socket).await;
        other.say(&hello).await;
        match other.hear().await {
            Some(FromShim::Welcome(welcome)) => {
                assert_eq!(welcome.version, spoken, "to a daemon of {theirs}")
            }
            answer => panic!("to a daemon of version {theirs}: {answer:?}"),
        }
    }
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_to_the_next_daemon() {
    // D1
    let shim = Setup::command(&["sh", "-c", "echo hello; exec sleep 1000"]).start();
    let mut first = shim.connect(Src(0)).await;
    first.acknowledges = false;
    first.execute(new_run(), "").await;
    first.until_text("hello").await;
    let mut second = shim.connect(Src(0)).await;
    while second.last < first.last {
        second.record().await;
    }
    assert_eq!(first.records, second.records);
    assert_eq!(second.text(ChunkKind::Stdout), "hello\n");
}
