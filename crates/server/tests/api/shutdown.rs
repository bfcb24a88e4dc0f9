//! The end of a server.

use futures_util::{StreamExt as _, stream};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};

use crate::client::{Server, fill};
use crate::fake::output;

#[tokio::test]
async fn every_stream_gets_a_last_word_and_nothing_is_left() {
    let server = Server::start().await;
    *server.fake.events.lock().unwrap() =
        Box::new(|_| stream::iter([output(1, "so far")]).chain(stream::pending()).boxed());
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = server.unix().await;
        let mut reader = client.events(&fill("/v1/sessions/{id}/attach"), &[]).await;
        assert_eq!(reader.next().await.unwrap().name, "output");
        clients.push((client, reader));
    }
    let idle = server.unix().await;
    let (socket, address, fake) = (server.socket.clone(), server.address, server.fake.clone());
    server.begin_shutdown();
    for (_client, reader) in &mut clients {
        let last = reader.next().await.unwrap();
        assert_eq!((last.name.as_str(), &last.data["problem"]["code"]), ("problem", &"shutting-down".into()));
        assert_eq!(reader.next().await, None);
    }
    let _folder = server.ended().await;
    assert!(!socket.exists());
    assert!(UnixStream::connect(&socket).await.is_err());
    assert!(TcpStream::connect(address).await.is_err());
    assert_eq!(std::sync::Arc::strong_count(&fake), 1, "no task holds the node any more");
    drop(idle);
}

#[tokio::test]
async fn a_client_that_does_not_read_does_not_hold_the_shutdown() {
    let server = Server::start().await;
    *server.fake.events.lock().unwrap() =
        Box::new(|_| stream::repeat_with(|| output(1, &"x".repeat(1_000))).boxed());
    let mut socket = UnixStream::connect(&server.socket).await.unwrap();
    let head = format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", fill("/v1/sessions/{id}/attach"));
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.readable().await.unwrap();
    let half = UnixStream::connect(&server.socket).await.unwrap();
    half.try_write(b"GET /v1/no").unwrap();
    server.stop().await;
}
