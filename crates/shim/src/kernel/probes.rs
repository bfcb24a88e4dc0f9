//! What ipykernel is asked to do once, silently, when it is ready. Each is one expression, so that no name is left in
//! the user's namespace; a kernel that refuses one goes on without it.

/// Asks whether output waits now instead of being dropped.
pub(super) const NO_DROP: &str = "outlive-no-drop";

/// Makes ipykernel wait instead of dropping output when nobody reads (50,000 of 50,000 messages with a reader that
/// slept for 15 s, against 20,000).
const DO_NOT_DROP: &str = "(lambda t: t.schedule(lambda: t.socket.setsockopt(__import__('zmq').XPUB_NODROP, 1)))\
                           (get_ipython().kernel.iopub_thread)";

/// Lets the cell itself wait for its output. What it prints is buffered without bound by ipykernel while the thread
/// that sends it waits: a cell that prints faster than anybody reads would end out of memory.
const DO_NOT_HOARD: &str = r#"exec("""
import sys
def bound(stream):
    write = stream.write
    def waiting(text):
        written = write(text)
        waiting.held += len(text)
        if waiting.held > 4194304:
            waiting.held = 0
            stream.flush()
        return written
    waiting.held = 0
    stream.write = waiting
bound(sys.stdout)
bound(sys.stderr)
""", {})"#;

/// Lets a native crash write its trace to the process's real standard error. ipykernel has put a pipe to itself in its
/// place, and what stands in that is lost with it; its stream's `fileno` is the real one.
const SHOW_FAULTS: &str = "__import__('faulthandler').enable(__import__('sys').stderr.fileno())";

/// Message ids and sources.
pub(super) const ALL: [(&str, &str); 3] =
    [(NO_DROP, DO_NOT_DROP), ("outlive-no-hoard", DO_NOT_HOARD), ("outlive-faults", SHOW_FAULTS)];
