//! The servers that tests start: they begin, end and come back as promised.

use outlive_store_nats::testing::{NatsCluster, NatsServer, Options};

#[test]
fn a_server_comes_back_at_the_same_place() {
    let mut server = NatsServer::start(&Options::default());
    let (url, pid) = (server.url(), server.pid());
    server.restart();
    assert_eq!(server.url(), url);
    assert_ne!(server.pid(), pid);
    let home = server.home().to_owned();
    drop(server);
    assert!(!home.exists());
}

#[test]
fn three_servers_make_one_cluster() {
    let mut cluster = NatsCluster::start(&Options::default());
    assert_eq!(cluster.url().split(',').count(), 3);
    cluster.servers[1].kill();
    cluster.servers[1].restart();
    cluster.wait_whole();
}
