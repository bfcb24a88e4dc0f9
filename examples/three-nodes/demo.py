"""Three nodes on one NATS; the owner of a run is killed while people watch it at all three.

    python3 examples/three-nodes/demo.py

Needs what the project needs: Rust, and a Python that can make environments. It builds what is missing, puts everything
that runs into a temporary directory, and takes it away again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
NAMES = ("ada", "bob", "cyd")
STEPS = 400
#: When the owner is killed.
FATAL_STEP = 120
PATIENCE = 60.0
BEGAN = time.monotonic()


def say(text: str) -> None:
    print(f"{time.monotonic() - BEGAN:7.2f} s  {text}", flush=True)


def outlive() -> str:
    """The program; it is built if it is not there."""
    named = os.environ.get("OUTLIVE_PROGRAM")
    if named:
        return named
    say("building outlive (the first time takes some minutes)")
    subprocess.run(["cargo", "build", "--quiet", "--locked"], cwd=ROOT, check=True)
    return str(ROOT / "target/debug/outlive")


def nats_server() -> str:
    """The server's program; it is installed below target/ if it is not there."""
    named = os.environ.get("OUTLIVE_NATS_SERVER") or shutil.which("nats-server")
    if named:
        return named
    made = subprocess.run(["cargo", "xtask", "nats"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return made.stdout.split()[-1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Node:
    """One daemon with a home, a state and a socket of its own, as on a machine of its own."""

    def __init__(self, program: str, place: Path, name: str, nats: str) -> None:
        self.program, self.place, self.name, self.nats = program, place / name, name, nats
        for folder in ("state", "run", "cache", "home"):
            (self.place / folder).mkdir(parents=True)
        self.daemon: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.place / "home"),
            "LANG": "C.UTF-8",
            "PATH": os.environ["PATH"],
            "OUTLIVE_STATE_DIR": str(self.place / "state"),
            "OUTLIVE_RUNTIME_DIR": str(self.place / "run"),
            "OUTLIVE_CACHE_DIR": str(self.place / "cache"),
            "OUTLIVE_START_DAEMON": "false",
        }

    def start(self) -> None:
        serve = [self.program, "serve", "--cluster", self.nats, "--name", self.name, "--tcp", "127.0.0.1:0"]
        with (self.place / "daemon.log").open("wb") as log:
            # In a session of its own, so that all of it can be killed at once.
            self.daemon = subprocess.Popen(serve, env=self.environment, stderr=log, start_new_session=True)
        deadline = time.monotonic() + PATIENCE
        while not self.sees(1):
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"node {self.name} does not start:\n{(self.place / 'daemon.log').read_text()}")
            time.sleep(0.05)

    def sees(self, count: int) -> bool:
        said = self.run("nodes", "--json", check=False)
        if said.returncode != 0:
            return False
        nodes = json.loads(said.stdout)["nodes"]
        return sum(node["state"] == "alive" for node in nodes) >= count

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        said = subprocess.run([self.program, *words], env=self.environment, capture_output=True, text=True, cwd=HERE)
        if check and said.returncode != 0:
            sys.exit(f"`outlive {' '.join(words)}` at {self.name} failed:\n{said.stderr}{said.stdout}")
        return said

    def processes(self) -> list[int]:
        """All that runs on this node: what has its directory in its environment or its command line."""
        mark, found = str(self.place).encode(), []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes():
                        found.append(int(entry.name))
        return found

    def lose(self) -> None:
        """The machine is gone: everything on it ends in this moment."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.daemon:
            self.daemon.wait()


class Watcher:
    """Somebody who follows the task from one node, with the command line."""

    def __init__(self, at: Node, others: list[Node], task: str) -> None:
        self.name, self.lines = at.name, list[tuple[float, str]]()
        environment = at.environment | {"OUTLIVE_PATIENCE_S": "60"}
        command = [at.program, "task", "attach", "valley", task]
        self.process = subprocess.Popen(command, env=environment, cwd=HERE, stdout=subprocess.PIPE, text=True)
        self.others = others
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line.rstrip("\n")))

    def step(self) -> int:
        for _, line in reversed(self.lines):
            if found := re.match(r"step +(\d+) of", line):
                return int(found[1])
        return 0


@contextlib.contextmanager
def world() -> Iterator[tuple[list[Node], Path]]:
    """NATS and three nodes that know each other; all of it ends with the block."""
    program, server = outlive(), nats_server()
    place = Path(tempfile.mkdtemp(prefix="outlive-three-"))
    port = free_port()
    store = ["--jetstream", "--store_dir", str(place / "nats"), "--addr", "127.0.0.1", "--port", str(port)]
    with (place / "nats.log").open("wb") as log:
        nats = subprocess.Popen([server, *store], stderr=log, stdout=log)
    nodes = [Node(program, place, name, f"nats://127.0.0.1:{port}") for name in NAMES]
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if time.monotonic() > deadline:
                sys.exit(f"NATS does not start:\n{(place / 'nats.log').read_text()}")
            time.sleep(0.05)
        say(f"NATS listens at port {port}")
        for node in nodes:
            node.start()
        while not all(node.sees(len(nodes)) for node in nodes):
            time.sleep(0.05)
        say(f"three nodes see each other: {', '.join(NAMES)}")
        yield nodes, place
    finally:
        for node in nodes:
            node.lose()
        nats.kill()
        nats.wait()
        shutil.rmtree(place, ignore_errors=True)


def main() -> int:
    with world() as (nodes, _):
        owner = nodes[0]
        owner.run("up", "runners.toml")
        submitted = owner.run("task", "submit", "valley", "descend", "--idempotent", "--detach", "--json", f"steps={STEPS}")
        task = json.loads(submitted.stdout)["id"]
        say(f"task {task} runs on {owner.name}; people watch it at all three nodes")
        watchers = [Watcher(node, nodes, task) for node in nodes]

        shown = 0
        killed: float | None = None
        survivors = watchers[1:]
        while any(watcher.process.poll() is None for watcher in survivors):
            step = survivors[0].step()
            if step >= shown + 40:
                shown = step
                say("   ".join(f"{watcher.name}: step {watcher.step():3}" for watcher in watchers))
            if killed is None and step >= FATAL_STEP:
                killed = time.monotonic()
                say(f"--- {owner.name} is lost: everything on it is killed ---")
                owner.lose()
            time.sleep(0.02)
        for watcher in watchers:
            watcher.process.wait(PATIENCE)
            watcher.thread.join(PATIENCE)

        assert killed is not None
        for watcher in survivors:
            first = next((at for at, line in watcher.lines if at > killed and "attempt 2" in line), None)
            if first is None:
                sys.exit(f"{watcher.name} saw nothing of the second attempt")
            say(f"{watcher.name}: the first step on the new node came {first - killed:.2f} s after the kill")
        say("what was shown, with what was withdrawn taken out:")
        outputs = {watcher.name: folded(watcher) for watcher in watchers}
        for name, steps in outputs.items():
            verdict = "each of them once" if steps == list(range(1, STEPS + 1)) else f"WRONG: {steps}"
            say(f"  {name}: {len(steps)} steps, {verdict}")
        print()
        print(nodes[1].run("explain", "valley", check=False).stdout)
        print(nodes[1].run("nodes").stdout)
        return 0 if all(steps == list(range(1, STEPS + 1)) for steps in outputs.values()) else 1


def folded(watcher: Watcher) -> list[int]:
    """The steps that a reader ends with: one that comes again replaces what followed it."""
    steps: list[int] = []
    for _, line in watcher.lines:
        if found := re.match(r"step +(\d+) of", line):
            step = int(found[1])
            if steps and step <= steps[-1]:
                steps = [seen for seen in steps if seen < step]
            steps.append(step)
    return steps


if __name__ == "__main__":
    sys.exit(main())
