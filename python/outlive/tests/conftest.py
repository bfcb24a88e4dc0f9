"""A daemon of its own for each test: the real binary, named by ``OUTLIVE_PROGRAM``."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from supervisor import Supervisor


class World:
    """Directories of a daemon, and the daemon in them."""

    def __init__(self, place: Path) -> None:
        self.files = place / "files"
        self.files.mkdir()
        self.program = os.environ["OUTLIVE_PROGRAM"]

    def outlive(self, *arguments: str) -> str:
        """Runs the command line."""
        done = subprocess.run([self.program, *arguments], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def pid(self) -> int:
        """The daemon's."""
        status = json.loads(self.outlive("daemon", "status", "--json"))
        return int(status["pid"])

    def kill(self) -> None:
        """SIGKILL to the daemon, and its end waited for; its kernels live on."""
        pid = self.pid()
        watched = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGKILL)
            select.select([watched], [], [], 60)
        finally:
            os.close(watched)

    def notebook(self, name: str, *sources: str) -> Path:
        """A notebook file."""
        cells: list[dict[str, object]] = [
            {
                "cell_type": "code",
                "execution_count": None,
                "id": f"cell-{number}",
                "metadata": {},
                "outputs": [],
                "source": source,
            }
            for number, source in enumerate(sources)
        ]
        path = self.files / name
        path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
        return path


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Where the environment leads to is this test's alone."""
    # Short: the path of a socket has a limit.
    with tempfile.TemporaryDirectory(prefix="olp-") as name:
        place = Path(name)
        monkeypatch.setenv("OUTLIVE_STATE_DIR", str(place / "state"))
        monkeypatch.setenv("OUTLIVE_RUNTIME_DIR", str(place / "run"))
        venv = os.environ.get("OUTLIVE_TEST_VENV")
        if venv:
            monkeypatch.setenv("VIRTUAL_ENV", venv)
        made = World(place)
        monkeypatch.chdir(made.files)
        try:
            yield made
        finally:
            made.outlive("daemon", "stop")


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Callable[..., Supervisor]]:
    """Starts runners of a text: by ``python program.py``, or with `target` by ``python -m outlive.runner``."""
    started: list[Supervisor] = []

    def start(program: str, target: str | None = None, **more: Any) -> Supervisor:
        path = tmp_path / f"program{len(started)}.py"
        path.write_text(textwrap.dedent(program))
        arguments = [str(path)] if target is None else ["-m", "outlive.runner", target.format(path)]
        place = tmp_path / str(len(started))
        place.mkdir()
        started.append(Supervisor(place, arguments, **more))
        return started[-1]

    yield start
    for supervisor in started:
        supervisor.close()
