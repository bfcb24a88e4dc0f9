//! One append through the engine on NATS, and one publish to a stream of JetStream's without it: the floor. Each on
//! servers of its own, one after the other, each waiting for its acknowledgement.

use anyhow::{Context, Result, bail};
use async_nats::jetstream::stream::{Config, StorageType};
use outlive_core::id::{BootId, Epoch, NodeId, Position, SessionId};
use outlive_core::log::record::ControlChange;
use outlive_core::log::{Control, Fenced, FencedBody, Lane, Record};
use outlive_e2e::clock::now;
use outlive_store::{Durability, Engine as _, Guard};
use outlive_store_nats::testing::{NatsCluster, NatsServer, Options};
use outlive_store_nats::{Nats, Settings};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Contestant;

/// Not measured: connections, streams and files that are new.
const WARM: u64 = 100;
/// What is appended, in bytes: some lines of output.
const BYTES: usize = 200;

/// Who appends.
pub enum Appends {
    /// Outlive's engine.
    Engine,
    /// A client of NATS.
    Plain,
}

enum Servers {
    One(NatsServer),
    Three(NatsCluster),
}

impl Contestant for Appends {
    fn ask(&mut self, request: &Value) -> Result<Value> {
        let n = request["n"].as_u64().context("how often")?;
        let (servers, replicas) = match request["replicas"].as_u64() {
            Some(1) => (Servers::One(NatsServer::start(&Options::default())), 1),
            Some(3) => (Servers::Three(NatsCluster::start(&Options::default())), 3),
            other => bail!("no {other:?} replicas"),
        };
        let url = match &servers {
            Servers::One(server) => server.url(),
            Servers::Three(cluster) => cluster.url(),
        };
        // As many threads as a daemon has on two cores.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let times = match self {
            Self::Engine => runtime.block_on(runtime.spawn(engine(url, replicas, n))),
            Self::Plain => runtime.block_on(runtime.spawn(plain(url, usize::from(replicas), n))),
        };
        Ok(json!(times??))
    }
}

async fn engine(url: String, replicas: u8, n: u64) -> Result<Vec<f64>> {
    let spool = tempfile::tempdir()?;
    let settings = Settings { replicas, ..Settings::new(url.split(','), spool.path()) };
    let nats = Nats::connect(settings).await?;
    let session = SessionId::from_uuid(Uuid::now_v7());
    let (node, boot) = (NodeId::from_uuid(Uuid::now_v7()), BootId::from_uuid(Uuid::now_v7()));
    let change = ControlChange::Claim { epoch: Epoch(1), node, boot };
    let control = Record::Control(Control { prev: Position(0), change });
    let first = Guard::Previous(Position(0));
    let claim = nats.append(session, Lane::Control, first, &control, Durability::Written).await?;
    let body = FencedBody::Document(vec![b'x'; BYTES]);
    let record = Record::Fenced(Fenced { claim, source: None, body });
    let mut times = Vec::new();
    for turn in 0..WARM + n {
        let began = now();
        nats.append(session, Lane::Document, Guard::Claim(claim), &record, Durability::Written).await?;
        times.extend((turn >= WARM).then(|| began.elapsed().as_secs_f64()));
    }
    Ok(times)
}

async fn plain(url: String, replicas: usize, n: u64) -> Result<Vec<f64>> {
    let servers: Vec<&str> = url.split(',').collect();
    let jetstream = async_nats::jetstream::new(async_nats::connect(servers).await?);
    let config = Config {
        name: "BENCH".to_owned(),
        subjects: vec!["bench.>".to_owned()],
        storage: StorageType::File,
        num_replicas: replicas,
        ..Config::default()
    };
    jetstream.create_stream(config).await?;
    let mut times = Vec::new();
    for turn in 0..WARM + n {
        let began = now();
        jetstream.publish("bench.a", vec![b'x'; BYTES].into()).await?.await?;
        times.extend((turn >= WARM).then(|| began.elapsed().as_secs_f64()));
    }
    Ok(times)
}
