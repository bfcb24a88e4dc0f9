"""jupyter_server as it is installed, over its WebSocket."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid

import websocket
from driver import died_at, dying_code, now, print_code, serve, summary

PATIENCE = 300
TOKEN = uuid.uuid4().hex


class Server:
    """A server on a free port."""

    def __init__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.root = tempfile.mkdtemp()
        arguments = [f"--port={self.port}", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={self.root}"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--log-level=ERROR", *arguments],
            stdin=subprocess.DEVNULL,
            cwd=self.root,  # jupyter-collaboration puts its database there.
        )
        deadline = now() + 60
        while True:
            try:
                self.get("/api")
                return
            except OSError:
                if now() > deadline:
                    raise
                time.sleep(0.05)

    def ask(self, method, path, body=None):
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Authorization": f"token {TOKEN}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def get(self, path):
        return self.ask("GET", path)

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Kernel:
    """A kernel and a WebSocket to it."""

    def __init__(self, server):
        self.server = server
        self.id = server.ask("POST", "/api/kernels", {"name": "python3"})["id"]
        self.session = uuid.uuid4().hex
        url = f"ws://127.0.0.1:{server.port}/api/kernels/{self.id}/channels?session_id={self.session}&token={TOKEN}"
        nodelay = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)
        self.socket = websocket.create_connection(url, timeout=PATIENCE, sockopt=nodelay)
        self.execute("pass")

    def send(self, code):
        message = uuid.uuid4().hex
        header = {"msg_id": message, "msg_type": "execute_request", "username": "", "session": self.session,
                  "date": "2026-01-01T00:00:00.000000Z", "version": "5.3"}
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False,
                   "stop_on_error": True}
        self.socket.send(json.dumps({"channel": "shell", "header": header, "parent_header": {}, "metadata": {},
                                     "content": content, "buffers": []}))
        return message

    def receive(self):
        return json.loads(self.socket.recv())

    def execute(self, code):
        """Runs code; returns its text when the reply and the idle status are there."""
        request = self.send(code)
        text, replied, idle = [], False, False
        while not (replied and idle):
            message = self.receive()
            if message["parent_header"].get("msg_id") != request:
                continue
            kind = message["msg_type"]
            if kind == "stream":
                # The server's own remarks about what it dropped come as streams too.
                if message["content"]["name"] == "stdout":
                    text.append(message["content"]["text"])
            elif kind == "execute_reply":
                replied = True
            elif kind == "status":
                idle = message["content"]["execution_state"] == "idle"
        return "".join(text)

    def wait_for_status(self, wanted, seconds):
        """When the first of the wanted states was told, or None."""
        deadline = now() + seconds
        while (left := deadline - now()) > 0:
            self.socket.settimeout(left)
            try:
                message = self.receive()
            except websocket.WebSocketTimeoutException:
                return None
            if message["msg_type"] == "status" and message["content"]["execution_state"] in wanted:
                return now()
        return None

    def pid(self):
        """The kernel's pid, asked of the kernel."""
        return int(self.execute("import os; print(os.getpid())"))

    def close(self):
        self.socket.close()
        try:
            self.server.ask("DELETE", f"/api/kernels/{self.id}")
        except OSError:
            pass  # It answers 500 while it restarts the kernel; its own end takes care of that one.


server = None
kernel = None


def shared():
    """The kernel that the measures share."""
    global kernel
    kernel = kernel or Kernel(server)
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
    """Seconds from the kernel's last statement to the client being told that it restarts or is dead."""
    times = []
    for _ in range(n):
        dying = Kernel(server)
        stamp = tempfile.mktemp()
        dying.send(dying_code(stamp))
        told = dying.wait_for_status(("restarting", "dead"), 60)
        times.append(told - died_at(stamp))
        dying.close()
    return times


def hang(seconds):
    """Seconds from SIGSTOP to the client being told anything but busy and idle, or None."""
    hanging = Kernel(server)
    pid = hanging.pid()
    began = now()
    os.kill(pid, signal.SIGSTOP)
    told = hanging.wait_for_status(("restarting", "dead", "unresponsive"), seconds)
    os.kill(pid, signal.SIGCONT)
    hanging.socket.settimeout(PATIENCE)
    hanging.close()
    return None if told is None else told - began


def idle(kernels, seconds):
    """Memory (PSS), open files and processor time of the server with idle kernels."""
    own = Server()
    running = [Kernel(own) for _ in range(kernels)]
    pid = own.process.pid
    before = ticks(pid)
    time.sleep(seconds)
    used = (ticks(pid) - before) / os.sysconf("SC_CLK_TCK") / seconds
    with open(f"/proc/{pid}/smaps_rollup") as file:
        memory = next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
    files = len(os.listdir(f"/proc/{pid}/fd"))
    for one in running:
        one.socket.close()
    own.close()
    return {"memory_bytes": memory, "open_files": files, "cpu": used}


def ticks(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(") ", 1)[1].split()
    return int(fields[11]) + int(fields[12])


if __name__ == "__main__":
    server = Server()
    try:
        serve({"round_trip": round_trip, "print_lines": print_lines, "big_string": big_string, "death": death,
               "hang": hang, "idle": idle})
    finally:
        server.close()
