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
    let mut talk = Talk { session, process, passed: acked, complete: false };
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
    let mut shim = match introduce(inner, directory, (talk.session, talk.process), talk.passed).await {
        Ok(shim) => shim,
        Err(error) => return Over::Broken(error),
    };
    if ends.from.send(FromLink::Welcome(Box::new(shim.welcome))).await.is_err() {
        return Over::Released;
    }
    let Ends { to, from } = ends;
    tokio::select! {
        biased;
        over = give(&mut shim.write, to, waiting) => over,
        over = take(&mut shim.read, &mut shim.decoder, talk, from) => over,
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
) -> Over {
    loop {
        if waiting.is_empty() {
            match orders.recv().await {
                Some(order) => waiting.push_back(order),
                None => return Over::Released,
            }
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
    talk: &mut Talk,
    from: &tokio::sync::mpsc::Sender<FromLink>,
) -> Over {
    loop {
        let record = match receive(read, decoder).await {
            Ok(FromShim::Record(record)) => record,
            Ok(FromShim::Welcome(_) | FromShim::Wrong { .. }) => continue,
            Err(error) => return Over::Broken(error),
        };
        if record.src <= talk.passed {
            continue;
        }
        let last = matches!(record.notice, Notice::State(StateNotice::Drained { .. }));
        talk.passed = record.src;
        if from.send(FromLink::Record(record)).await.is_err() {
            return Over::Released;
        }
        talk.complete |= last;
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
