//! Event streams: complete, prompt, resumable, bounded, and always with a last word.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use outlive_node::api::Delivered;
use outlive_server::Bounds;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use crate::client::{Server, fill, in_time};
use crate::fake::{end, output};

const RUN_STREAM: &str = "/v1/sessions/{id}/runs/{run}/attach";

pub fn channel_stream(server: &Server) -> mpsc::UnboundedSender<Delivered> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let slot = std::sync::Mutex::new(Some(receiver));
    *server.fake.events.lock().unwrap() = Box::new(move |_| {
        let receiver = slot.lock().unwrap().take().expect("one reader");
        stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) }).boxed()
    });
    sender
}

/// `count` outputs after the reader's cursor, then the end.
pub fn numbered(server: &Server, count: u64) {
    *server.fake.events.lock().unwrap() = Box::new(move |cursor| {
        let rest = (cursor.seq.0 + 1)..=count;
        stream::iter(rest)
            .map(|seq| output(seq, &format!("line {seq}\n")))
            .chain(stream::iter([end()]))
            .boxed()
    });
}

#[tokio::test]
async fn an_event_arrives_at_once_and_as_it_is() {
    let server = Server::start().await;
    let events = channel_stream(&server);
    let mut client = server.tcp().await;
    let token = format!("Bearer {}", crate::client::TOKEN);
    let mut reader = client.events(&fill(RUN_STREAM), &[("authorization", &token)]).await;
    let tricky = "two\nlines\r\n\u{2028}é😀\0\"";
    events.send(output(1, tricky)).unwrap();
    let event = reader.next().await.unwrap();
    assert_eq!((event.id.as_deref(), event.name.as_str()), (Some("1.1"), "output"));
    assert_eq!(event.data["chunks"][0]["text"], tricky);
    assert_eq!(event.data["event"], "output");
    events.send(end()).unwrap();
    let last = reader.next().await.unwrap();
    assert_eq!((last.id, last.name.as_str()), (None, "end"));
    assert_eq!(reader.next().await, None);
    server.stop().await;
}

/// How many comments come on a stream that is quiet for a second, in which there is time for four.
async fn comments_of_a_quiet_second(server: &Server) -> u32 {
    let events = channel_stream(server);
    let mut client = server.unix().await;
    let mut reader = client.events(&fill("/v1/sessions/{id}/attach"), &[]).await;
    let ending = async {
        // The silence that is tested.
        let _ = tokio::time::timeout(Duration::from_millis(1_000), std::future::pending::<()>()).await;
        events.send(end()).unwrap();
    };
    let (all, ()) = tokio::join!(reader.rest(), ending);
    assert_eq!(all.len(), 1);
    reader.comments
}

#[tokio::test]
async fn a_quiet_stream_is_not_a_dead_one() {
    let server = Server::start().await;
    let comments = comments_of_a_quiet_second(&server).await;
    assert!((2..=4).contains(&comments), "a comment each 250 ms: {comments}");
    server.stop().await;
}

// E4: its watchers go where more is known.
#[tokio::test]
async fn a_node_that_is_cut_off_keeps_silent() {
    let server = Server::start().await;
    server.fake.cluster.out_of_touch.store(true, Ordering::SeqCst);
    assert_eq!(comments_of_a_quiet_second(&server).await, 0);
    server.stop().await;
}

// B4
#[tokio::test]
async fn a_reader_comes_back_with_its_cursor() {
    let server = Server::start().await;
    numbered(&server, 10);
    let mut client = server.unix().await;
    let path = fill(RUN_STREAM);
    let seqs = |events: Vec<crate::client::Event>| -> Vec<String> {
        events.into_iter().filter_map(|event| event.id).collect()
    };
    let by_query = seqs(client.events(&format!("{path}?cursor=1.8"), &[]).await.rest().await);
    assert_eq!(by_query, ["1.9", "1.10"]);
    // A browser sends both: the address of its first request, and where it is now.
    let both = client.events(&format!("{path}?cursor=1.2"), &[("last-event-id", "1.9")]).await.rest().await;
    assert_eq!(seqs(both), ["1.10"]);
    assert_eq!(seqs(client.events(&path, &[]).await.rest().await).len(), 10);
    let session = fill("/v1/sessions/{id}/attach?after=4&interactive=true&follow=false");
    assert_eq!(seqs(client.events(&session, &[]).await.rest().await).len(), 6);
    let calls = server.fake.calls();
    assert_eq!(calls[0], "attach_run cursor=1.8 follow=true");
    assert_eq!(calls[1], "attach_run cursor=1.9 follow=true");
    assert_eq!(calls[3], "attach after=4 interactive=true follow=false outputs=true");
    server.stop().await;
}

// B3
#[tokio::test]
async fn a_flood_arrives_complete_and_in_order() {
    const EVENTS: u64 = 100_000;
    let server = Server::start().await;
    numbered(&server, EVENTS);
    let mut client = server.unix().await;
    let mut reader = client.events(&fill(RUN_STREAM), &[]).await;
    for seq in 1..=EVENTS {
        assert_eq!(reader.next().await.unwrap().id.unwrap(), format!("1.{seq}"));
    }
    assert_eq!(reader.next().await.unwrap().name, "end");
    assert_eq!(reader.next().await, None);
    server.stop().await;
}

#[tokio::test]
async fn a_stream_that_breaks_off_says_so() {
    let server = Server::start().await;
    drop(channel_stream(&server));
    let mut client = server.unix().await;
    let events = client.events(&fill(RUN_STREAM), &[]).await.rest().await;
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].name.as_str(), &events[0].data["problem"]["code"]), ("problem", &"bug".into()));
    *server.fake.events.lock().unwrap() =
        Box::new(|_| stream::repeat_with(|| panic!("a bug in the node")).boxed());
    let events = client.events(&fill(RUN_STREAM), &[]).await.rest().await;
    assert_eq!(events[0].data["problem"]["code"], "bug", "a panic does not end in silence either");
    server.stop().await;
}

/// Tells when it is dropped.
struct Detached(Option<oneshot::Sender<()>>);

impl Drop for Detached {
    fn drop(&mut self) {
        let _ = self.0.take().unwrap().send(());
    }
}

/// An endless stream that counts what was taken of it, and tells when it is dropped.
pub fn endless(server: &Server, taken: &Arc<AtomicU64>) -> oneshot::Receiver<()> {
    let (sender, detached) = oneshot::channel();
    let slot = std::sync::Mutex::new(Some(Detached(Some(sender))));
    let taken = Arc::clone(taken);
    *server.fake.events.lock().unwrap() = Box::new(move |_| {
        let (taken, detached) = (Arc::clone(&taken), slot.lock().unwrap().take());
        let text = "x".repeat(1_000);
        stream::repeat_with(move || {
            let _ = &detached;
            output(taken.fetch_add(1, Ordering::SeqCst) + 1, &text)
        })
        .boxed()
    });
    detached
}

#[tokio::test]
async fn a_client_that_leaves_detaches() {
    let server = Server::start().await;
    let detached = endless(&server, &Arc::default());
    let mut client = server.unix().await;
    let mut reader = client.events(&fill(RUN_STREAM), &[]).await;
    assert!(reader.next().await.is_some());
    drop(reader);
    drop(client);
    in_time(detached).await.unwrap();
    server.stop().await;
}

async fn attach_raw(server: &Server) -> UnixStream {
    let mut socket = UnixStream::connect(&server.socket).await.unwrap();
    let head = format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", fill(RUN_STREAM));
    socket.write_all(head.as_bytes()).await.unwrap();
    socket
}

// B5
#[tokio::test]
async fn a_reader_that_does_not_read_is_bounded_then_cut_and_told() {
    let bounds = Bounds { stream_stall: Duration::from_millis(300), ..Bounds::default() };
    let server = Server::start_with(bounds).await;
    let taken = Arc::default();
    let detached = endless(&server, &taken);
    let mut socket = attach_raw(&server).await;
    in_time(detached).await.unwrap();
    let taken = taken.load(Ordering::SeqCst);
    assert!(
        taken < 3_000,
        "back-pressure: {taken} events of a kilobyte were taken for a reader that takes none"
    );
    let mut told = Vec::new();
    let mut piece = vec![0; 65_536];
    while !told.ends_with(b"0\r\n\r\n") {
        let read = in_time(socket.read(&mut piece)).await.unwrap();
        assert!(read > 0, "the stream ends as HTTP says");
        told.extend_from_slice(&piece[..read]);
    }
    let told = String::from_utf8(told).unwrap();
    assert!(told.contains("event: problem") && told.contains("\"code\":\"slow-reader\""));
    assert!(told.contains("id: 1.1\n"), "what it was sent before is whole");
    server.stop().await;
}

// B5
#[tokio::test]
async fn a_client_that_never_reads_loses_its_connection() {
    let bounds = Bounds {
        stream_stall: Duration::from_millis(100),
        write_stall: Duration::from_millis(300),
        ..Bounds::default()
    };
    let server = Server::start_with(bounds).await;
    let detached = endless(&server, &Arc::default());
    let mut socket = attach_raw(&server).await;
    in_time(detached).await.unwrap();
    // A peer that has closed: our own writes fail, though we have read nothing.
    let gone = async {
        loop {
            socket.writable().await.unwrap();
            if socket.write_all(b" ").await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    in_time(gone).await;
    server.stop().await;
}
