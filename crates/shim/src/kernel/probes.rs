//! What ipykernel is asked to do once, silently, when it is ready. Each is one expression, so that no name is left in
//! the user's namespace; a kernel that refuses one goes on without it.

/// Asks whether output waits now instead of being dropped.
pub(super) const NO_DROP: &str = "outlive-no-drop";

/// Makes ipykernel wait instead of dropping output when nobody reads (50,000 of 50,000 messages with a reader that
/// slept for 15 s, against 20,000).
const DO_NOT_DROP: &str = "(lambda t: t.schedule(lambda: t.socket.setsockopt(__import__('zmq').XPUB_NODROP, 1)))\
                           (get_ipython().kernel.iopub_thread)";

/// Lets the cell itself wait for its output. ipykernel buffers what a cell prints for 0.2 s and without bound, and
/// sends it as one message: a cell that prints quickly would make messages of hundreds of megabytes, and one that
/// prints faster than anybody reads would end out of memory. (`write` itself is replaced by IPython around each cell,
/// so what it calls is held back instead, and looks at the buffer at every 64th call: a print makes two.)
const DO_NOT_HOARD: &str = r#"exec("""
import sys
def bound(stream):
    schedule = stream._schedule_flush
    calls = 0
    def waiting():
        nonlocal calls
        schedule()
        calls += 1
        if calls % 64:
            return
        with stream._buffer_lock:
            held = sum(buffer.tell() for buffer in stream._buffers.values())
        if held > 1048576:
            stream.flush()
    stream._schedule_flush = waiting
bound(sys.stdout)
bound(sys.stderr)
""", {})"#;

/// Lets a native crash write its trace to the process's real standard error. ipykernel has put a pipe to itself in its
/// place, and what stands in that is lost with it; its stream's `fileno` is the real one.
const SHOW_FAULTS: &str = "__import__('faulthandler').enable(__import__('sys').stderr.fileno())";

/// Message ids and sources.
pub(super) const ALL: [(&str, &str); 3] =
    [(NO_DROP, DO_NOT_DROP), ("outlive-no-hoard", DO_NOT_HOARD), ("outlive-faults", SHOW_FAULTS)];
