"""The floor: jupyter_client straight over ZeroMQ to one kernel, with nothing in between."""

import os
import tempfile
import threading

from driver import died_at, dying_code, now, print_code, serve, summary
from jupyter_client.manager import KernelManager

PATIENCE = 300


class Kernel:
    """A kernel and its client."""

    def __init__(self):
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel()
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def execute(self, code):
        """Runs code; returns its text when the reply and the idle status are there."""
        request = self.client.execute(code)
        text = []
        while True:
            message = self.client.get_iopub_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["msg_type"] == "stream":
                text.append(message["content"]["text"])
            elif message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
        while self.client.get_shell_msg(timeout=PATIENCE)["parent_header"].get("msg_id") != request:
            pass
        return "".join(text)

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


kernel = None


def shared():
    """The kernel that the measures share."""
    global kernel
    kernel = kernel or Kernel()
    return kernel


def round_trip(n):
    """Seconds from sending `1` to its reply and idle, n times."""
    shared()
    times = []
    for _ in range(n):
        began = now()
        shared().execute("1")
        times.append(now() - began)
    return times


def print_lines(lines, flush):
    shared()
    began = now()
    return summary(began, shared().execute(print_code(lines, flush)))


def big_string(size):
    shared()
    began = now()
    return summary(began, shared().execute(f"print('x' * {size})"))


def death(n):
    """Seconds from the kernel's last statement to its parent's wait(2) returning."""
    times = []
    for _ in range(n):
        dying = Kernel()
        stamp = tempfile.mktemp()
        process = dying.manager.provisioner.process
        seen = []
        waiter = threading.Thread(target=lambda: (os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT), seen.append(now())))
        waiter.start()
        dying.client.execute(dying_code(stamp))
        waiter.join(60)
        times.append(seen[0] - died_at(stamp))
        dying.close()
    return times


serve({"round_trip": round_trip, "print_lines": print_lines, "big_string": big_string, "death": death})
if kernel:
    kernel.close()
