//! What is wrong is said clearly, and nothing is lost for it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use outlive_e2e::cluster::Cluster;
use outlive_e2e::{Finished, World};
use outlive_store_nats::testing::{Access, JetStream, NatsServer, Options};

/// Tries to start a daemon that must refuse; what it says.
#[track_caller]
fn refused(world: &World, url: &str, more: &[&str]) -> Finished {
    let arguments = [&["serve", "--tcp", "127.0.0.1:0", "--cluster", url][..], more].concat();
    let said = world.run_within(Duration::from_secs(60), &arguments);
    assert!(said.code().is_some_and(|code| code != 0), "{said}");
    said
}

#[track_caller]
fn says(said: &Finished, words: &[&str]) {
    for word in words {
        assert!(said.stderr.contains(word), "no {word:?} in {said}");
    }
}

#[test]
fn nats_cannot_be_reached() {
    let world = World::new();
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its number").port();
    let url = format!("nats://127.0.0.1:{port}");
    says(&refused(&world, &url, &[]), &[&format!("127.0.0.1:{port}"), "--wait"]);
}

#[test]
fn the_credentials_are_wrong() {
    let world = World::new();
    let options = Options { access: Access::Token("secret".to_owned()), ..Options::default() };
    let server = NatsServer::start(&options);
    says(&refused(&world, &server.url(), &[]), &["credentials"]);
}

#[test]
fn the_server_has_no_jetstream() {
    let world = World::new();
    let server = NatsServer::start(&Options { jetstream: JetStream::Off, ..Options::default() });
    says(&refused(&world, &server.url(), &[]), &["JetStream"]);
}

// A server that says that it is old is believed: it would drop settings silently and store what it should refuse.
#[test]
fn the_server_is_old() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("nats://{}", listener.local_addr().expect("its address"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let info = r#"INFO {"server_id":"OLD","server_name":"old","version":"2.9.10","proto":1,"headers":true,"jetstream":true,"max_payload":1048576,"host":"127.0.0.1","port":4222,"go":"go1.19"}"#;
                let mut piece = [0; 4096];
                drop(stream.write_all(format!("{info}\r\n").as_bytes()));
                while let Ok(length @ 1..) = stream.read(&mut piece) {
                    if piece[..length].windows(4).any(|word| word == b"PING") {
                        drop(stream.write_all(b"PONG\r\n"));
                    }
                }
            });
        }
    });
    says(&refused(&world, &url, &[]), &["2.9.10", "2.11"]);
}

// Two nodes with one name: the second is refused and the first goes on.
#[test]
fn two_nodes_with_one_name() {
    let cluster = Cluster::of(1);
    let mut twin = cluster.member("n1");
    let said =
        outlive_e2e::Running::start(&mut twin.command()).finish(outlive_e2e::within(Duration::from_secs(60)));
    assert!(said.code().is_some_and(|code| code != 0), "{said}");
    says(&said, &["n1", "name"]);
    assert_eq!(cluster.members[0].alive(), 1);
    twin.serve_with(&["--name", "n2"]);
    twin.begin();
    cluster.wait_whole(2);
}
