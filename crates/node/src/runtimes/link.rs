//! One connection after another to one shim, until the shim is gone.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use outlive_core::id::{ProcessKey, SessionId, Src};
use outlive_core::limits::HELLO_TIMEOUT_MS;
use outlive_core::runtime::ExitStatus;
use outlive_process::Process;
use outlive_protocol::frame::Decoder;
use outlive_protocol::shim::{FromShim, Notice, ShimIdentity, StateNotice, ToShim, VERSION, Welcome};
use outlive_protocol::shim_codec::{decode_from_shim, encode_to_shim};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::directory::Directory;
use super::{Ends, Inner, lost};
use crate::seams::FromLink;

/// How much is read from a shim at once, in bytes.
const READ_BYTES: usize = 65_536;
/// The wait before a broken connection to a living shim is made again.
const RECONNECT: Duration = Duration::from_millis(20);

/// How a connection ended.
enum Over {
    /// It broke; the shim may live.
    Broken(io::Error),
    /// The session's task has let go of the link.
    Released,
}

struct Talk {
    session: SessionId,
    process: ProcessKey,
    /// The last record that was passed on.
    passed: Src,
    /// The last record that the session's task has said is in the log. What is passed on may still wait in a channel,
    /// and would be lost with this daemon: a shim must not forget it for a new connection.
    stored: Src,
    /// The last word of the process was passed on: what is left is the shim's own end.
    complete: bool,
}

/// Serves a shim until it is gone. `shim` is its watcher, owned from its start on.
pub(super) async fn serve(
    inner: &Inner,
    session: SessionId,
    process: ProcessKey,
    directory: &Directory,
    shim: Option<Process>,
    acked: Src,
    mut ends: Ends,
) {
    let mut talk = Talk { session, process, passed: acked, stored: acked, complete: false };
    let mut waiting = VecDeque::new();
    let Some(shim) = shim else { return };
    loop {
        let over = tokio::select! {
            biased;
            over = connection(inner, directory, &mut talk, &mut ends, &mut waiting) => over,
            _ended = shim.exited() => break,
        };
        match over {
            Over::Broken(error) => tracing::debug!(%process, %error, "the connection to a shim ended"),
            Over::Released if talk.complete => {}
            Over::Released => return,
        }
        let again = inner.clock.now().tick + RECONNECT;
        tokio::select! {
            biased;
            _ended = shim.exited() => break,
            () = inner.clock.until(again) => {}
        }
    }
    let status = shim.reap().ok().flatten().map(|reaped| reaped.status);
    gone(inner, directory, &talk, status, ends).await;
}

/// What the shim had not said is made up for: its process is killed and reported.
async fn gone(inner: &Inner, directory: &Directory, talk: &Talk, status: Option<ExitStatus>, ends: Ends) {
    let report = match directory.identity() {
        _ if talk.complete => None,
        Some(identity) => Some(lost::shim_lost(inner, &identity, false, status).await),
        None => {
            let what = status.map_or_else(|| "it ended".to_owned(), |status| status.to_string());
            let message =
                format!("the shim ended before it could start anything ({what}); {}", directory.last_words());
            let evidence = super::directory::launch_evidence(message);
            Some(lost::never_started(inner, talk.process, inner.clock.now().wall, evidence))
        }
    };
    directory.remove();
    let _heard = ends.from.send(FromLink::Gone { report: report.map(Box::new) }).await;
}

async fn connection(
    inner: &Inner,
    directory: &Directory,
    talk: &mut Talk,
    ends: &mut Ends,
    waiting: &mut VecDeque<ToShim>,
) -> Over {
    let mut shim = match introduce(inner, directory, (talk.session, talk.process), talk.stored).await {
        Ok(shim) => shim,
        Err(error) => return Over::Broken(error),
    };
    let heard = ends.from.send(FromLink::Welcome(Box::new(shim.welcome))).await.is_ok();
    // After the last word of the process an order may be left though nobody listens any more: the goodbye.
    if !heard && !talk.complete {
        return Over::Released;
    }
    let Ends { to, from } = ends;
    let Talk { passed, stored, complete, .. } = talk;
    tokio::select! {
        biased;
        over = give(&mut shim.write, to, waiting, stored) => over,
        over = take(&mut shim.read, &mut shim.decoder, (passed, complete), from) => over,
    }
}

/// A shim that has said who it is.
struct Introduced {
    welcome: Welcome,
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    decoder: Decoder,
}

/// Connects, and says who is meant: a shim listens to nobody else. All up to `acked` is stored.
async fn introduce(
    inner: &Inner,
    directory: &Directory,
    (session, process): (SessionId, ProcessKey),
    acked: Src,
) -> io::Result<Introduced> {
    let (mut read, mut write) = UnixStream::connect(directory.socket()).await?.into_split();
    let mut decoder = Decoder::default();
    let hello = ToShim::Hello { version: VERSION, session, process, boot: inner.who.boot, acked };
    send(&mut write, &hello).await?;
    let deadline = inner.clock.now().tick + Duration::from_millis(HELLO_TIMEOUT_MS);
    let first = tokio::select! {
        biased;
        first = receive(&mut read, &mut decoder) => first?,
        () = inner.clock.until(deadline) => return Err(io::ErrorKind::TimedOut.into()),
    };
    match first {
        FromShim::Welcome(welcome) => Ok(Introduced { welcome, read, write, decoder }),
        FromShim::Wrong { reason } => Err(io::Error::other(reason)),
        FromShim::Record(_) => Err(io::Error::other("a record before the welcome")),
    }
}

/// Orders out. One that could not be sent waits for the next connection.
async fn give(
    write: &mut OwnedWriteHalf,
    orders: &mut tokio::sync::mpsc::Receiver<ToShim>,
    waiting: &mut VecDeque<ToShim>,
    stored: &mut Src,
) -> Over {
    loop {
        if waiting.is_empty() {
            let Some(order) = orders.recv().await else { return Over::Released };
            if let ToShim::Ack { through } = &order {
                *stored = (*stored).max(*through);
            }
            waiting.push_back(order);
        }
        while let Some(order) = waiting.front() {
            if let Err(error) = send(write, order).await {
                return Over::Broken(error);
            }
            waiting.pop_front();
        }
    }
}

/// Records in.
async fn take(
    read: &mut OwnedReadHalf,
    decoder: &mut Decoder,
    (passed, complete): (&mut Src, &mut bool),
    from: &tokio::sync::mpsc::Sender<FromLink>,
) -> Over {
    loop {
        let record = match receive(read, decoder).await {
            Ok(FromShim::Record(record)) => record,
            Ok(FromShim::Welcome(_) | FromShim::Wrong { .. }) => continue,
            Err(error) => return Over::Broken(error),
        };
        if record.src <= *passed {
            continue;
        }
        let last = matches!(record.notice, Notice::State(StateNotice::Drained { .. }));
        *passed = record.src;
        if from.send(FromLink::Record(record)).await.is_err() {
            return Over::Released;
        }
        *complete |= last;
    }
}

async fn send(write: &mut OwnedWriteHalf, message: &ToShim) -> io::Result<()> {
    let bytes = encode_to_shim(message).map_err(io::Error::other)?;
    write.write_all(&bytes).await
}

/// The next message that we know. Cancel-safe: what was read stays in the decoder.
async fn receive(read: &mut OwnedReadHalf, decoder: &mut Decoder) -> io::Result<FromShim> {
    loop {
        while let Some(frame) = decoder.next_frame().map_err(io::Error::other)? {
            if let Some(message) = decode_from_shim(&frame).map_err(io::Error::other)? {
                return Ok(message);
            }
        }
        let mut bytes = vec![0; READ_BYTES];
        let n = read.read(&mut bytes).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        decoder.feed(&bytes[..n]);
    }
}

/// Tells an unknown shim to stop its process and end.
pub(super) async fn refuse(
    inner: &Inner,
    directory: &Directory,
    who: &ShimIdentity,
    reason: &str,
) -> io::Result<()> {
    let mut shim = introduce(inner, directory, (who.session, who.process), Src(0)).await?;
    send(&mut shim.write, &ToShim::Refuse { reason: reason.to_owned() }).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use outlive_core::id::{BootId, Incarnation, NodeId, RuntimeId};
    use outlive_core::log::{Chunk, ChunkKind};
    use outlive_core::runtime::stop::StopLadder;
    use outlive_core::time::WallTime;
    use outlive_protocol::shim::Numbered;
    use outlive_protocol::shim_codec::{decode_to_shim, encode_from_shim};
    use tokio::net::UnixListener;
    use uuid::Uuid;

    use super::*;
    use crate::clock::SystemClock;
    use crate::runtimes::Inner;
    use crate::seams::Identity;

    const WAIT: Duration = Duration::from_secs(20);

    /// A shim with one record of output, which closes its connections as it likes.
    struct Shim {
        inner: Inner,
        directory: Directory,
        listener: UnixListener,
        identity: ShimIdentity,
        _place: tempfile::TempDir,
    }

    fn shim() -> Shim {
        let place = tempfile::tempdir().unwrap();
        let who = Identity {
            node: NodeId::from_uuid(Uuid::from_u128(1)),
            boot: BootId::from_uuid(Uuid::from_u128(2)),
        };
        let process =
            ProcessKey { runtime: RuntimeId::from_uuid(Uuid::from_u128(3)), incarnation: Incarnation(1) };
        let inner = Inner {
            processes: place.path().to_owned(),
            program: place.path().join("none"),
            who,
            clock: Arc::new(SystemClock::default()),
            ladder: StopLadder::default(),
        };
        let directory = Directory::make(&inner.processes, process).unwrap();
        let listener = directory.bind().unwrap();
        listener.set_nonblocking(true).unwrap();
        let identity = ShimIdentity {
            session: SessionId::from_uuid(Uuid::from_u128(4)),
            process,
            node: who.node,
            machine_boot: String::new(),
            shim_pid: 1,
            shim_start: 1,
            pid: None,
            pid_start: None,
            cgroups: Vec::new(),
        };
        Shim {
            inner,
            directory,
            listener: UnixListener::from_std(listener).unwrap(),
            identity,
            _place: place,
        }
    }

    impl Shim {
        fn talk(&self) -> Talk {
            let Self { identity: ShimIdentity { session, process, .. }, .. } = self;
            Talk { session: *session, process: *process, passed: Src(0), stored: Src(0), complete: false }
        }

        /// Serves one connection: hears until `last`, and says its record again after the Hello.
        async fn serve(&self, last: impl Fn(&ToShim) -> bool) -> Vec<ToShim> {
            let (mut stream, _) = self.listener.accept().await.unwrap();
            let (mut decoder, mut heard) = (Decoder::default(), Vec::new());
            loop {
                while let Some(frame) = decoder.next_frame().unwrap() {
                    let message = decode_to_shim(&frame).unwrap().unwrap();
                    if let ToShim::Hello { .. } = message {
                        let identity = self.identity.clone();
                        let welcome =
                            Welcome { version: VERSION, identity, open_runs: Vec::new(), last_src: Src(1) };
                        let chunk = Chunk::inline(ChunkKind::Stdout, WallTime(1), b"x".to_vec());
                        let notice = Notice::Output { run: None, chunks: vec![chunk] };
                        let record = Numbered { src: Src(1), at: WallTime(1), notice };
                        for message in [FromShim::Welcome(welcome), FromShim::Record(record)] {
                            stream.write_all(&encode_from_shim(&message).unwrap()).await.unwrap();
                        }
                    }
                    let is_last = last(&message);
                    heard.push(message);
                    if is_last {
                        return heard;
                    }
                }
                let mut bytes = vec![0; READ_BYTES];
                let n = stream.read(&mut bytes).await.unwrap();
                assert!(n > 0, "the daemon closed the connection after {heard:?}");
                decoder.feed(&bytes[..n]);
            }
        }
    }

    fn acked(heard: &[ToShim]) -> Src {
        match heard.first() {
            Some(ToShim::Hello { acked, .. }) => *acked,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_new_connection_acknowledges_what_is_in_the_log_and_not_what_is_on_its_way() {
        // D1: what is on its way is lost with the daemon, and then the shim must still have it.
        let shim = shim();
        let (link, mut ends) = super::super::link(shim.identity.process);
        let (mut talk, mut waiting) = (shim.talk(), VecDeque::new());
        let hello = |message: &ToShim| matches!(message, ToShim::Hello { .. });
        let ack = |message: &ToShim| matches!(message, ToShim::Ack { .. });
        let test = async {
            for _ in 0..2 {
                let (heard, over) = tokio::join!(
                    shim.serve(hello),
                    connection(&shim.inner, &shim.directory, &mut talk, &mut ends, &mut waiting)
                );
                assert!(matches!(over, Over::Broken(_)));
                assert_eq!((acked(&heard), talk.passed), (Src(0), Src(1)), "nothing was stored yet");
            }
            link.to.send(ToShim::Ack { through: Src(1) }).await.unwrap();
            for last in [&ack as &dyn Fn(&ToShim) -> bool, &hello] {
                let (heard, _) = tokio::join!(
                    shim.serve(last),
                    connection(&shim.inner, &shim.directory, &mut talk, &mut ends, &mut waiting)
                );
                assert_eq!(acked(&heard) == Src(1), heard.len() == 1, "{heard:?}");
            }
        };
        tokio::time::timeout(WAIT, test).await.expect("in time");
        let mut from = link.from;
        let mut records = 0;
        while let Ok(event) = from.try_recv() {
            records += u32::from(matches!(event, FromLink::Record(_)));
        }
        assert_eq!(records, 1, "what is sent again is passed on once");
    }

    #[tokio::test]
    async fn a_goodbye_reaches_a_shim_whose_connection_broke_when_its_session_had_let_go() {
        // P4: without it the shim would wait for ever, and its files with it.
        let shim = shim();
        let (link, mut ends) = super::super::link(shim.identity.process);
        let (mut talk, mut waiting) = (Talk { complete: true, ..shim.talk() }, VecDeque::new());
        link.to.send(ToShim::Goodbye).await.unwrap();
        drop(link);
        let test = async {
            let (heard, over) = tokio::join!(
                shim.serve(|message| matches!(message, ToShim::Goodbye)),
                connection(&shim.inner, &shim.directory, &mut talk, &mut ends, &mut waiting)
            );
            assert!(matches!(over, Over::Released), "{heard:?}");
        };
        tokio::time::timeout(WAIT, test).await.expect("in time");
    }

    #[tokio::test]
    async fn a_shim_that_cannot_be_refused_loses_its_directory_and_ends_by_that() {
        // P4: one that speaks another version of the protocol would hold its process for ever.
        let Shim { inner, directory, listener, identity, _place } = shim();
        let pid = i32::try_from(std::process::id()).unwrap();
        let shim_start = outlive_process::start_time(pid).unwrap();
        let identity = ShimIdentity { shim_pid: pid, shim_start, ..identity };
        let found = crate::seams::FoundShim { of_earlier_boot: false, identity };
        let test = async {
            let refusing = super::super::refuse(Arc::new(inner), found, "nobody knows it".to_owned());
            let answering = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let wrong = FromShim::Wrong { reason: "this shim speaks version 9".to_owned() };
                stream.write_all(&encode_from_shim(&wrong).unwrap()).await.unwrap();
                stream
            };
            let (_stream, ()) = tokio::join!(answering, refusing);
        };
        tokio::time::timeout(WAIT, test).await.expect("in time");
        assert!(!directory.path().exists());
    }
}
