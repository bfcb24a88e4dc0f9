//! What a kernel has said and nobody has looked at yet. The tasks that read its sockets never wait for room here; how
//! much there is tells the driver when to let the kernel wait instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use outlive_core::limits::KERNEL_QUEUE_BYTES_MAX;
use outlive_jupyter::channels::Incoming;
use tokio::sync::mpsc;

/// The taking side.
pub(super) struct Queue {
    incoming: mpsc::UnboundedReceiver<Incoming>,
    bytes: Arc<AtomicUsize>,
}

impl Queue {
    /// A queue, and what puts into it.
    pub(super) fn new() -> (Self, impl FnMut(Incoming) + Clone + Send + 'static) {
        let (sink, incoming) = mpsc::unbounded_channel();
        let bytes = Arc::new(AtomicUsize::new(0));
        let held = Arc::clone(&bytes);
        let push = move |said: Incoming| {
            held.fetch_add(size(&said), Ordering::Relaxed);
            let _dropped = sink.send(said);
        };
        (Self { incoming, bytes }, push)
    }

    /// The next, when there is one. Cancel-safe.
    pub(super) async fn recv(&mut self) -> Option<Incoming> {
        let said = self.incoming.recv().await;
        self.taken(said)
    }

    /// The next, if it is there already.
    pub(super) fn try_recv(&mut self) -> Option<Incoming> {
        let said = self.incoming.try_recv().ok();
        self.taken(said)
    }

    fn taken(&self, said: Option<Incoming>) -> Option<Incoming> {
        self.bytes.fetch_sub(said.as_ref().map_or(0, size), Ordering::Relaxed);
        said
    }

    pub(super) fn is_empty(&self) -> bool {
        self.incoming.is_empty()
    }

    /// More waits here than is good for the memory of a small process.
    pub(super) fn is_long(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > KERNEL_QUEUE_BYTES_MAX
    }
}

fn size(said: &Incoming) -> usize {
    match said {
        Incoming::Message(_, message) => message.size_bytes(),
        Incoming::Rejected(..) | Incoming::Disconnected(_) => 0,
    }
}
