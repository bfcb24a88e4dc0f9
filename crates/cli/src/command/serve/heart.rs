//! The thread that heartbeats have for themselves: however busy the daemon is, it is not late to say that it is there, nor
//! to hear that others are.

use std::io;
use std::thread;

use outlive_store_nats::{ConnectError, NatsTransport, Settings};
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The thread. It ends when this is dropped.
pub(super) struct Heart {
    runtime: Handle,
    _until: DropGuard,
}

impl Heart {
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, ended) = (runtime.handle().clone(), CancellationToken::new());
        let until = ended.clone();
        thread::Builder::new().name("heart".to_owned()).spawn(move || runtime.block_on(until.cancelled()))?;
        Ok(Self { runtime: handle, _until: ended.drop_guard() })
    }

    pub(super) const fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// The way to the other nodes, worked at by this thread.
    pub(super) async fn connect(&self, settings: Settings) -> Result<NatsTransport, ConnectError> {
        let connected = self.runtime.spawn(async move { NatsTransport::connect(&settings).await });
        connected.await.expect("the thread lives as long as this, and connecting does not panic")
    }
}
