//! The one suite that every engine passes, on one server and on three.

use std::sync::atomic::{AtomicU32, Ordering};

use outlive_store::conformance;
use outlive_store_nats::testing::{NatsCluster, NatsServer, Options};
use outlive_store_nats::{Nats, Settings};
use tempfile::TempDir;

/// Each engine has streams and a spool of its own on the same servers.
async fn check(servers: &str, replicas: u8) {
    let count = AtomicU32::new(0);
    let spool = TempDir::new().expect("room for a folder");
    conformance::run_all(async || {
        let n = count.fetch_add(1, Ordering::Relaxed);
        let settings = Settings {
            prefix: format!("t{n}"),
            replicas,
            shards: 2,
            ..Settings::new(servers.split(','), spool.path().join(n.to_string()))
        };
        Nats::connect(settings).await.expect("the server takes work")
    })
    .await;
}

#[tokio::test]
async fn one_server_keeps_the_contract() {
    let server = NatsServer::start(&Options::default());
    check(&server.url(), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_keep_the_contract() {
    let cluster = NatsCluster::start(&Options::default());
    check(&cluster.url(), 3).await;
}
