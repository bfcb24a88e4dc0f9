//! What is wrong is said clearly, and nothing is lost for it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use outlive_e2e::cluster::administrator::edit;
use outlive_e2e::cluster::{Cluster, Servers};
use outlive_e2e::{Daemon, Finished, Running, World, within};
use outlive_store_nats::testing::{Access, Authority, JetStream, NatsServer, Options};

use crate::{counts, exact, output};

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

/// A world whose daemon is told these settings of a cluster.
fn told(settings: &[(&str, &str)]) -> World {
    let mut world = World::new();
    for (name, value) in settings {
        world.set(&format!("OUTLIVE_CLUSTER_{name}"), *value);
    }
    world
}

// E11: no, and other, credentials than the server wants; no secret is shown, and nothing is kept from those that it wants.
#[test]
fn the_credentials_are_wrong() {
    let token = Access::Token("right".to_owned());
    let server = NatsServer::start(&Options { access: token, ..Options::default() });
    says(&refused(&told(&[]), &server.url(), &[]), &["refuses the credentials", "none are given"]);
    let folder = tempfile::tempdir().expect("room for a folder");
    let creds = folder.path().join("me.creds");
    let seed = "SUAIO3FHUX5PNV2LQIIP7TZ3N4L7TX3W53MQGEIVYFIGA635OZCKEYHFLM";
    let text = format!(
        "-----BEGIN NATS USER JWT-----\ne30.e30.e30\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    fs::write(&creds, text).expect("room for a file");
    let nkey = folder.path().join("me.nk");
    fs::write(&nkey, seed).expect("room for a file");
    let file = |path: &Path| path.display().to_string();
    for (settings, used) in [
        (vec![("TOKEN", "wrong-one")], "a token"),
        (vec![("USER", "me"), ("PASSWORD", "wrong-one")], "the user me"),
        (vec![("CREDENTIALS", &*file(&creds))], &*file(&creds)),
        (vec![("NKEY", &*file(&nkey))], &*file(&nkey)),
    ] {
        let said = refused(&told(&settings), &server.url(), &[]);
        says(&said, &["refuses the credentials", used, &server.url()]);
        assert_eq!(said.code(), Some(6), "{said}");
        assert!(
            !said.stderr.contains("wrong-one") && !said.stderr.contains(seed),
            "a secret is shown: {said}"
        );
    }
    let world = told(&[("TOKEN", "right"), ("SERVERS", &server.url())]);
    let daemon = Daemon::wait_ready(world.spawn(&["serve", "--tcp", "127.0.0.1:0"]), &world.api());
    drop(daemon);
}

// E11: what is wrong with a file is said of the file, before any server is asked.
#[test]
fn the_files_of_credentials_are_missing_or_garbled() {
    let folder = tempfile::tempdir().expect("room for a folder");
    let garbled = folder.path().join("garbled");
    fs::write(&garbled, "SUNONSENSE").expect("room for a file");
    let missing = folder.path().join("missing");
    for (setting, path, why) in [
        ("CREDENTIALS", &missing, "No such file"),
        ("CREDENTIALS", &garbled, "JWT"),
        ("CREDENTIALS", &folder.path().to_owned(), "directory"),
        ("NKEY", &missing, "No such file"),
        ("NKEY", &garbled, "no seed of an NKey"),
        ("TLS_CA", &missing, "No such file"),
        ("TLS_CA", &garbled, "no certificate"),
    ] {
        let path = path.display().to_string();
        let said = refused(&told(&[(setting, &path)]), "nats://127.0.0.1:1", &[]);
        says(&said, &[&path, why, "config show"]);
        assert_eq!(said.code(), Some(2), "{said}");
        assert!(!said.stderr.contains("NONSENSE"), "a secret is shown: {said}");
    }
}

// E11: a server is used whose certificate the named authority has signed, and no other one, also not without TLS.
#[test]
fn nats_wants_tls_or_is_wanted_to() {
    let authority = Authority::new("ours");
    let options = Options { tls: Some(authority.sign(&["127.0.0.1"])), ..Options::default() };
    let mut cluster = Cluster::over(Servers::One(NatsServer::start(&options)), 0);
    let ca = authority.file(&cluster.volume()).display().to_string();
    for n in 1..=2 {
        let mut member = cluster.member(&format!("n{n}"));
        member.world.set("OUTLIVE_CLUSTER_TLS_CA", &*ca);
        member.begin();
        cluster.members.push(member);
    }
    cluster.wait_whole(2);
    let group = cluster.runners(0, "g", 1);
    let task = counts(&group, 200);
    let path = output(&group, &task);
    let watchers = cluster.watch_everywhere(&path, 13);
    watchers[1].wait_said("1:50\n");
    cluster.members[0].lose();
    assert_eq!(exact(&cluster, watchers, &path, 200), 2);

    let Servers::One(server) = &cluster.servers else { unreachable!("one server") };
    let folder = tempfile::tempdir().expect("room for a folder");
    let theirs = Authority::new("theirs").file(folder.path()).display().to_string();
    let wrong = refused(&told(&[("TLS_CA", &theirs)]), &server.url(), &["--wait", "30s"]);
    says(&wrong, &["certificate is not trusted", "UnknownIssuer", "tls_ca"]);
    says(&refused(&told(&[]), &server.url(), &[]), &["TLS", "tls_ca"]);
    let plain = NatsServer::start(&Options::default());
    for (world, url) in
        [(told(&[("TLS_CA", &ca)]), plain.url()), (told(&[]), plain.url().replace("nats://", "tls://"))]
    {
        says(&refused(&world, &url, &[]), &[&url, "no TLS"]);
    }
}

// E11: a stream that somebody has changed is named with its setting, and what runs goes on.
#[test]
fn a_stream_is_misconfigured() {
    let cluster = Cluster::of(1);
    let group = cluster.runners(0, "g", 1);
    let Servers::One(server) = &cluster.servers else { unreachable!("one server") };
    edit(server, "OUTLIVE-SES-2", "max_age", 3_600_000_000_000_u64.into());
    let mut other = cluster.member("n2");
    let said = Running::start(&mut other.command()).finish(within(Duration::from_secs(60)));
    assert_eq!(said.code(), Some(6), "{said}");
    says(&said, &["OUTLIVE-SES-2", "max_age", "nats stream edit"]);
    assert_eq!(group.run("text('still here')").said(), "still here");
    edit(server, "OUTLIVE-SES-2", "max_age", 0.into());
    other.begin();
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
    let said = Running::start(&mut twin.command()).finish(within(Duration::from_secs(60)));
    assert!(said.code().is_some_and(|code| code != 0), "{said}");
    says(&said, &["n1", "name"]);
    assert_eq!(cluster.members[0].alive(), 1);
    twin.serve_with(&["--name", "n2"]);
    twin.begin();
    cluster.wait_whole(2);
}
