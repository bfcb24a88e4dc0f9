//! The engine itself: what all its parts share.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use outlive_core::limits::NATS_READS_MAX;
use outlive_store::Connection;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connect::{self, ConnectError};
use crate::feed::Feed;
use crate::layout::Layout;
use crate::session::Sessions;
use crate::settings::Settings;
use crate::wire::Wire;

/// The engine on NATS JetStream. Clones share it; it ends with the last of them.
///
/// **Durability.** What is acknowledged is in the file of one server, or in those of most replicas, and survives the death
/// of any process. When it is flushed to the disk is the server's `sync_interval` (two minutes by default): a single
/// server that loses its power can lose that much, whatever [`outlive_store::Durability`] was asked for. Run three, or
/// `sync_interval: always`, where that matters.
#[derive(Clone, Debug)]
pub struct Nats {
    pub(crate) inner: Arc<Inner>,
}

/// What the parts of the engine share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) wire: Wire,
    pub(crate) layout: Layout,
    pub(crate) replicas: u8,
    pub(crate) spool: PathBuf,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) feed: Feed,
    pub(crate) reads: Semaphore,
    /// Rises when notices may have been missed.
    pub(crate) missed: watch::Sender<u64>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    /// Names of appends: who, and how many before.
    name: String,
    names: AtomicU64,
}

impl Nats {
    /// Connects, and makes or checks the cluster's streams.
    ///
    /// # Errors
    /// [`ConnectError`]; each says what to do. With [`Settings::wait`] what may pass is waited for.
    pub async fn connect(settings: Settings) -> Result<Self, ConnectError> {
        connect::connect(settings).await
    }

    /// Whether NATS can be reached, live.
    #[must_use]
    pub fn connection(&self) -> watch::Receiver<Connection> {
        self.inner.wire.connection()
    }

    pub(crate) fn new(
        wire: Wire,
        layout: Layout,
        settings: &Settings,
        missed: watch::Sender<u64>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let name = uuid::Uuid::new_v4().simple().to_string();
        let inner = Inner {
            wire,
            layout,
            replicas: settings.replicas,
            spool: settings.spool.clone(),
            sessions: Arc::default(),
            feed: Feed::default(),
            reads: Semaphore::new(NATS_READS_MAX),
            missed,
            tasks,
            stop,
            name,
            names: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl Inner {
    /// What the next append is called.
    pub(crate) fn next_name(&self) -> String {
        format!("{}.{}", self.name, self.names.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
        self.sessions.clear();
        self.tasks.close();
    }
}

/// What blocks, where blocking is allowed.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, outlive_store::Unavailable> {
    let failed = |error| outlive_store::Unavailable::new(what, io::Error::other(error));
    tokio::task::spawn_blocking(work).await.map_err(failed)
}
