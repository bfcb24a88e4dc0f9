//! What nodes tell each other at once.

use bytes::Bytes;
use outlive_core::id::NodeId;
use outlive_store::{Connection, Heard, Topic, Transport};
use outlive_store_nats::NatsTransport;
use outlive_store_nats::testing::{Access, NatsServer, Options};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::time::timeout;
use uuid::Uuid;

use crate::proxy::Proxy;
use crate::world::{Node, PATIENCE};

async fn next(heard: &mut mpsc::Receiver<Heard>) -> Heard {
    timeout(PATIENCE, heard.recv()).await.unwrap().unwrap()
}

fn said(text: &'static str) -> Heard {
    Heard::Message(Bytes::from_static(text.as_bytes()))
}

/// Waits until it hears this; what was sent to find out whether somebody listens may come before.
async fn hears(heard: &mut mpsc::Receiver<Heard>, text: &'static str) {
    loop {
        match next(heard).await {
            probe if probe == said("there?") => {}
            other => return assert_eq!(other, said(text)),
        }
    }
}

/// Sends until it is heard: what is sent before the server knows the listener is lost, as it may be.
async fn reaches(from: &impl Transport, topic: Topic, to: &mut mpsc::Receiver<Heard>) {
    let say = async {
        loop {
            from.send(topic, Bytes::from_static(b"there?"));
            if let Ok(heard) = timeout(std::time::Duration::from_millis(50), to.recv()).await {
                assert_eq!(heard, Some(said("there?")));
                return;
            }
        }
    };
    timeout(PATIENCE, say).await.unwrap();
    while to.try_recv().is_ok() {}
}

#[tokio::test]
async fn everybody_hears_what_is_for_all_and_one_what_is_for_it() {
    let server = NatsServer::start(&Options::default());
    let (one, two) = (Node::on(&server.url()).await, Node::on(&server.url()).await);
    let (from, to) = (one.transport().await, two.transport().await);
    let id = NodeId::from_uuid(Uuid::new_v4());
    let (mut own, mut beats) = (from.listen(Topic::Beats), to.listen(Topic::Beats));
    let mut mine = to.listen(Topic::Node(id));
    reaches(&from, Topic::Beats, &mut own).await;
    reaches(&from, Topic::Beats, &mut beats).await;
    reaches(&from, Topic::Node(id), &mut mine).await;
    from.send(Topic::Beats, Bytes::from_static(b"beat"));
    from.send(Topic::Node(id), Bytes::from_static(b"you"));
    // A node hears itself too.
    hears(&mut own, "beat").await;
    hears(&mut beats, "beat").await;
    hears(&mut mine, "you").await;
}

#[tokio::test]
async fn after_a_cut_it_goes_on_and_says_that_something_is_missing() {
    let server = NatsServer::start(&Options::default());
    let proxy = Proxy::to(server.port()).await;
    let (cut, whole) = (Node::on(&proxy.url()).await, Node::on(&server.url()).await);
    let (from, to) = (whole.transport().await, cut.transport().await);
    let mut beats = to.listen(Topic::Beats);
    reaches(&from, Topic::Beats, &mut beats).await;
    for _ in 0..2 {
        proxy.cut();
        let mut connection = to.connection();
        let down = connection.wait_for(|state| matches!(state, Connection::Down { .. }));
        timeout(PATIENCE, down).await.unwrap().unwrap();
        // Neither is this kept until the connection is back.
        to.send(Topic::Beats, Bytes::from_static(b"stale"));
        from.send(Topic::Beats, Bytes::from_static(b"unheard"));
        proxy.heal();
        loop {
            match next(&mut beats).await {
                Heard::Gap => break,
                message => assert_eq!(message, said("there?"), "what was sent before the cut"),
            }
        }
        timeout(PATIENCE, connection.wait_for(|state| *state == Connection::Up)).await.unwrap().unwrap();
        reaches(&from, Topic::Beats, &mut beats).await;
    }
}

/// Where the system's account lets nodes hear it, a node's end is told by the server.
#[tokio::test]
async fn the_end_of_a_connection_is_told() {
    let server = NatsServer::start(&Options { access: Access::System, ..Options::default() });
    let node = Node::on(&server.url()).await;
    let way = node.transport().await;
    let mut ends = way.listen(Topic::Disconnects);
    let stays = Node::with(&server.url(), |settings| settings.name = "the other".into()).await;
    let other = stays.transport().await;
    reaches(&way, Topic::Beats, &mut way.listen(Topic::Beats)).await;
    drop(other);
    let Heard::Message(told) = next(&mut ends).await else { panic!("a message") };
    let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
    assert_eq!(told["client"]["name"], "the other", "{told}");
}

/// Nobody takes a busy node for a dead one.
#[tokio::test]
async fn it_goes_on_where_it_was_connected_while_everything_else_is_busy() {
    let server = NatsServer::start(&Options::default());
    let node = Node::on(&server.url()).await;
    let heart = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let settings = node.settings.clone();
    let way = heart.spawn(async move { NatsTransport::connect(&settings).await }).await.unwrap().unwrap();
    let mut beats = way.listen(Topic::Beats);
    reaches(&way, Topic::Beats, &mut beats).await;
    let (to, heard) = std::sync::mpsc::channel();
    let beat = heart.spawn(async move {
        for _ in 0..10 {
            way.send(Topic::Beats, Bytes::from_static(b"beat"));
            hears(&mut beats, "beat").await;
        }
        to.send(()).unwrap();
    });
    // Blocks the only thread that this test has.
    heard.recv_timeout(PATIENCE).unwrap();
    beat.await.unwrap();
    heart.shutdown_background();
}
