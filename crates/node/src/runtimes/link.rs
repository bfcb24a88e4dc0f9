//! One connection after another to one shim, until the shim is gone.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use outlive_core::id::{ProcessKey, SessionId, Src};
use outlive_core::limits::HELLO_TIMEOUT_MS;
use outlive_core::runtime::ExitStatus;
use outlive_process::Process;
use outlive_protocol::frame::{Decoder, FrameError};
use outlive_protocol::shim::{FromShim, Notice, ShimIdentity, StateNotice, ToShim, VERSION, Welcome};
use outlive_protocol::shim_codec::{ShimCodecError, decode_from_shim, encode_to_shim};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::directory::Directory;
use super::hold::Told;
use super::{Ends, Inner, lost};
use crate::seams::FromLink;

/// How much is read from a shim at once, in bytes.
const READ_BYTES: usize = 65_536;
/// The wait before a broken connection to a living shim is made again; it doubles while no connection succeeds.
const RECONNECT: Duration = Duration::from_millis(20);
/// The longest such wait: a shim that is suspended or swapped out is not asked fifty times a second.
const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// How a connection ended.
enum Over {
    /// It broke; the shim may live.
    Broken(io::Error),
    /// The shim lives and says what no shim of ours says: another connection would change nothing.
    Unusable(String),
    /// The session's task has let go of the link.
    Released,
}

impl From<TalkError> for Over {
    fn from(error: TalkError) -> Self {
        match error {
            TalkError::Io(error) => Self::Broken(error),
            wrong @ (TalkError::Frame(_) | TalkError::Message(_) | TalkError::Wrong(_)) => {
                Self::Unusable(wrong.to_string())
            }
        }
    }
}

/// Why a shim is not understood.
#[derive(Debug, thiserror::Error)]
pub(super) enum TalkError {
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Bytes that are no frame.
    #[error("it says what is no message: {0}")]
    Frame(#[from] FrameError),
    /// A frame that is no message.
    #[error("it says what cannot be read: {0}")]
    Message(#[from] ShimCodecError),
    /// It is not who is meant, or speaks another version.
    #[error("{0}")]
    Wrong(String),
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
    /// How often the shim has proved itself.
    connections: u32,
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
    let mut talk = Talk { session, process, passed: acked, stored: acked, complete: false, connections: 0 };
    let mut told = Told::nothing(inner.holds.watch(session, process));
    let mut waiting = VecDeque::new();
    let Some(shim) = shim else { return };
    let mut wait = RECONNECT;
    loop {
        let before = talk.connections;
        let over = tokio::select! {
            biased;
            over = connection(inner, directory, &mut talk, &mut ends, &mut waiting, &mut told) => over,
            _ended = shim.exited() => break,
        };
        match over {
            Over::Broken(error) => tracing::debug!(%process, %error, "the connection to a shim ended"),
            Over::Unusable(reason) => return unusable(inner, directory, &talk, &shim, reason, ends).await,
            Over::Released if talk.complete => {}
            Over::Released => return,
        }
        wait = if talk.connections > before { RECONNECT } else { (wait * 2).min(RECONNECT_MAX) };
        let again = inner.clock.now().tick + wait;
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
        Some(identity) => Some(lost::shim_lost(inner, &identity, false, status, None).await),
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

/// Nobody can use this shim any more: it goes, and what it holds with it.
async fn unusable(
    inner: &Inner,
    directory: &Directory,
    talk: &Talk,
    shim: &Process,
    reason: String,
    ends: Ends,
) {
    tracing::warn!(process = %talk.process, reason, "a shim that cannot be used is ended with its process");
    if let Err(error) = shim.signal(Signal::KILL) {
        tracing::debug!(process = %talk.process, %error, "it has ended by itself");
    }
    let _ended = shim.exited().await;
    let status = shim.reap().ok().flatten().map(|reaped| reaped.status);
    let report = match directory.identity() {
        _ if talk.complete => None,
        Some(identity) => Some(lost::shim_lost(inner, &identity, false, status, Some(reason)).await),
        None => {
            let evidence = super::directory::launch_evidence(format!("its shim cannot be used: {reason}"));
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
    told: &mut Told,
) -> Over {
    let mut shim = match introduce(inner, directory, (talk.session, talk.process), talk.stored).await {
        Ok(shim) => shim,
        Err(error) => return error.into(),
    };
    talk.connections += 1;
    if talk.connections > 1 {
        // An answer of this daemon may still wait for this very connection.
        shim.welcome.asks = None;
    }
    told.anew();
    let Ends { to, from } = ends;
    let Talk { passed, stored, complete, .. } = talk;
    let hear = async {
        // A session that does not take it keeps nobody from being told what is wanted past it.
        let heard = from.send(FromLink::Welcome(Box::new(shim.welcome))).await.is_ok();
        // After the last word of the process an order may be left though nobody listens any more: the goodbye.
        if !heard && !*complete {
            return Over::Released;
        }
        take(&mut shim.read, &mut shim.decoder, (passed, complete), from).await
    };
    tokio::select! {
        biased;
        over = give(&mut shim.write, to, waiting, stored, told) => over,
        over = hear => over,
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
) -> Result<Introduced, TalkError> {
    let (mut read, mut write) = UnixStream::connect(directory.socket()).await?.into_split();
    let mut decoder = Decoder::default();
    let hello = ToShim::Hello { version: VERSION, session, process, boot: inner.who.boot, acked };
    send(&mut write, &hello).await?;
    let deadline = inner.clock.now().tick + Duration::from_millis(HELLO_TIMEOUT_MS);
    let first = tokio::select! {
        biased;
        first = receive(&mut read, &mut decoder) => first?,
        () = inner.clock.until(deadline) => return Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    };
    match first {
        FromShim::Welcome(welcome) => {
            check(&welcome, (session, process)).map_err(TalkError::Wrong)?;
            Ok(Introduced { welcome, read, write, decoder })
        }
        FromShim::Wrong { reason } => Err(TalkError::Wrong(reason)),
        FromShim::Record(_) => Err(TalkError::Wrong("it sent a record before its welcome".to_owned())),
    }
}

/// Whether it is the shim that is meant, and speaks our version or the one before.
fn check(welcome: &Welcome, (session, process): (SessionId, ProcessKey)) -> Result<(), String> {
    let Welcome { version, identity, .. } = welcome;
    if *version > VERSION || *version + 1 < VERSION {
        return Err(format!(
            "it speaks version {version} of the protocol, this daemon {VERSION} and the one before"
        ));
    }
    if (identity.session, identity.process) != (session, process) {
        return Err(format!("it holds process {} of session {}", identity.process, identity.session));
    }
    Ok(())
}

/// Orders out, and before them what is wanted past the session. One that could not be sent waits for the next connection.
async fn give(
    write: &mut OwnedWriteHalf,
    orders: &mut tokio::sync::mpsc::Receiver<ToShim>,
    waiting: &mut VecDeque<ToShim>,
    stored: &mut Src,
    told: &mut Told,
) -> Over {
    loop {
        let order = tokio::select! {
            biased;
            wanted = told.next() => {
                if let Err(error) = send(write, &wanted).await {
                    return Over::Broken(error);
                }
                told.said(&wanted);
                continue;
            }
            order = next_order(orders, waiting) => order,
        };
        let Some(order) = order else { return Over::Released };
        if let ToShim::Ack { through } = &order {
            *stored = (*stored).max(*through);
        }
        if told.forbids(&order) {
            continue;
        }
        waiting.push_front(order);
        if let Err(error) = send(write, &waiting[0]).await {
            return Over::Broken(error);
        }
        waiting.pop_front();
    }
}

/// Cancel-safe: both ways of taking one are.
async fn next_order(
    orders: &mut tokio::sync::mpsc::Receiver<ToShim>,
    waiting: &mut VecDeque<ToShim>,
) -> Option<ToShim> {
    match waiting.pop_front() {
        Some(order) => Some(order),
        None => orders.recv().await,
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
            Err(error) => return error.into(),
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
async fn receive(read: &mut OwnedReadHalf, decoder: &mut Decoder) -> Result<FromShim, TalkError> {
    loop {
        while let Some(frame) = decoder.next_frame()? {
            if let Some(message) = decode_from_shim(&frame)? {
                return Ok(message);
            }
        }
        let mut bytes = vec![0; READ_BYTES];
        let n = read.read(&mut bytes).await?;
        if n == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
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
) -> Result<(), TalkError> {
    let mut shim = introduce(inner, directory, (who.session, who.process), Src(0)).await?;
    Ok(send(&mut shim.write, &ToShim::Refuse { reason: reason.to_owned() }).await?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use outlive_core::id::{BootId, Incarnation, NodeId, RuntimeId};
    use outlive_core::log::{Chunk, ChunkKind};
    use outlive_core::runtime::stop::StopLadder;
    use outlive_core::time::WallTime;
    use outlive_process::detached;
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
            cache: std::path::PathBuf::new(),
            processes: place.path().to_owned(),
            program: place.path().join("none"),
            who,
            clock: Arc::new(SystemClock::default()),
            ladder: StopLadder::default(),
            keep: crate::budget::Keep::default(),
            kernel_guard: None,
            holds: crate::runtimes::hold::Holds::default(),
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
        fn told(&self) -> Told {
            Told::nothing(self.inner.holds.watch(self.identity.session, self.identity.process))
        }

        fn talk(&self) -> Talk {
            let Self { identity: ShimIdentity { session, process, .. }, .. } = self;
            Talk {
                session: *session,
                process: *process,
                passed: Src(0),
                stored: Src(0),
                complete: false,
                connections: 0,
            }
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
                        let welcome = Welcome {
                            version: VERSION,
                            identity,
                            open_runs: Vec::new(),
                            last_src: Src(1),
                            asks: None,
                            frozen: false,
                        };
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
                let mut told = shim.told();
                let (heard, over) = tokio::join!(
                    shim.serve(hello),
                    connection(&shim.inner, &shim.directory, &mut talk, &mut ends, &mut waiting, &mut told)
                );
                assert!(matches!(over, Over::Broken(_)));
                assert_eq!((acked(&heard), talk.passed), (Src(0), Src(1)), "nothing was stored yet");
            }
            link.to.send(ToShim::Ack { through: Src(1) }).await.unwrap();
            for last in [&ack as &dyn Fn(&ToShim) -> bool, &hello] {
                let mut told = shim.told();
                let (heard, _) = tokio::join!(
                    shim.serve(last),
                    connection(&shim.inner, &shim.directory, &mut talk, &mut ends, &mut waiting, &mut told)
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
            let mut told = shim.told();
            let (heard, over) = tokio::join!(
                shim.serve(|message| matches!(message, ToShim::Goodbye)),
                connection(&shim.inner, &shim.directory, &mut talk, &mut ends, &mut waiting, &mut told)
            );
            assert!(matches!(over, Over::Released), "{heard:?}");
        };
        tokio::time::timeout(WAIT, test).await.expect("in time");
    }

    /// Answers one connection's Hello with these bytes and keeps it open.
    async fn answer(listener: &UnixListener, bytes: &[u8]) -> UnixStream {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    fn welcome(version: u16, identity: &ShimIdentity) -> Vec<u8> {
        let identity = identity.clone();
        let (open_runs, last_src) = (Vec::new(), Src(0));
        let welcome = Welcome { version, identity, open_runs, last_src, asks: None, frozen: false };
        encode_from_shim(&FromShim::Welcome(welcome)).unwrap()
    }

    #[tokio::test]
    async fn a_shim_of_the_version_before_is_adopted() {
        // D2: the daemon was upgraded, the shim was not.
        let shim = shim();
        let (mut link, mut ends) = super::super::link(shim.identity.process);
        let (mut talk, mut waiting) = (shim.talk(), VecDeque::new());
        let test = async {
            let serving = async {
                drop(answer(&shim.listener, &welcome(VERSION - 1, &shim.identity)).await);
                link.from.recv().await
            };
            let mut told = shim.told();
            let serve =
                connection(&shim.inner, &shim.directory, &mut talk, &mut ends, &mut waiting, &mut told);
            let (heard, over) = tokio::join!(serving, serve);
            assert!(matches!(over, Over::Broken(_)), "and talked to until it goes");
            let Some(FromLink::Welcome(welcome)) = heard else { panic!("{heard:?}") };
            assert_eq!(welcome.version, VERSION - 1);
        };
        tokio::time::timeout(WAIT, test).await.expect("in time");
        assert_eq!(talk.connections, 1);
    }

    #[tokio::test]
    async fn a_shim_that_cannot_be_used_is_ended_and_reported_instead_of_asked_for_ever() {
        // D2, D5
        let other = ProcessKey { incarnation: Incarnation(9), ..shim().identity.process };
        let wrong = FromShim::Wrong { reason: "this shim speaks version 9 of the protocol".to_owned() };
        let chunk = Chunk::inline(ChunkKind::Stdout, WallTime(1), b"x".to_vec());
        let notice = Notice::Output { run: None, chunks: vec![chunk] };
        let record = FromShim::Record(Numbered { src: Src(1), at: WallTime(1), notice });
        let identity = shim().identity;
        let answers = [
            (encode_from_shim(&wrong).unwrap(), "version 9"),
            (welcome(VERSION + 1, &identity), "speaks version"),
            (welcome(VERSION, &ShimIdentity { process: other, ..identity }), "it holds process"),
            (encode_from_shim(&record).unwrap(), "before its welcome"),
            (vec![b'x'; 100], "no message"),
        ];
        for (bytes, reason) in answers {
            let Shim { inner, directory, listener, mut identity, _place } = shim();
            // A process that holds another, as a shim does.
            let log = directory.open_log().unwrap();
            let sleeper = detached::spawn(Path::new("/bin/sleep"), &["1000"], None, log).unwrap();
            identity.shim_pid = sleeper.pid();
            identity.shim_start = sleeper.start();
            let place = directory.path().to_owned();
            std::fs::write(place.join("identity.json"), serde_json::to_vec(&identity).unwrap()).unwrap();
            let (mut link, ends) = super::super::link(identity.process);
            let test = async {
                let serving = serve(
                    &inner,
                    identity.session,
                    identity.process,
                    &directory,
                    Some(sleeper),
                    Src(0),
                    ends,
                );
                let (_stream, ()) = tokio::join!(answer(&listener, &bytes), serving);
                link.from.recv().await
            };
            let said = tokio::time::timeout(WAIT, test).await.expect("in time");
            let Some(FromLink::Gone { report: Some(report) }) = said else { panic!("{reason}: {said:?}") };
            let refused = report.evidence.shim_lost.unwrap().refused.unwrap();
            assert!(refused.contains(reason), "{refused}");
            assert!(!outlive_process::is_same_process(identity.shim_pid, identity.shim_start), "it is gone");
            assert!(!place.exists());
        }
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
