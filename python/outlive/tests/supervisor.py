"""A supervisor that believes nothing: it starts a runner over real pipes and checks each frame against the protocol."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LINE_MAX = 65_536
BYTES_MAX = 16 << 20
PATIENCE = 60.0
"""Seconds: far more than anything here takes, also on a machine that is busy with something else."""
STATES = ["connecting", "loading", "warming_up", "ready", "shutting_down"]
TERMINALS = ("result", "error", "cancelled", "stopped")


class Supervisor:
    """One runner process, and what was said."""

    def __init__(
        self,
        place: Path,
        arguments: Sequence[str],
        hello: bool = True,
        spoken: str | None = "1",
        program: str | None = None,
    ) -> None:
        self.place = place
        self.state = "connecting"
        self.said: list[dict[str, Any]] = []
        """All its frames."""
        self.code: int | None = None
        self._given: set[tuple[str, int]] = set()
        self._ended: set[tuple[str, int]] = set()
        self._pings: list[int] = []
        self._buffer = b""
        their_source, self.sink = _pipe()
        self.source, their_sink = _pipe()
        environment = {**os.environ, "OUTLIVE_RUNNER_NAME": "test-0", "PYTHONUNBUFFERED": "1"}
        environment.pop("OUTLIVE_RUNNER", None)
        if spoken is not None:
            environment["OUTLIVE_RUNNER"] = spoken
        writes = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        self.pid = os.posix_spawn(
            program or sys.executable,
            [program or sys.executable, *arguments],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(place / "stdout"), writes, 0o600),
                (os.POSIX_SPAWN_OPEN, 2, str(place / "stderr"), writes, 0o600),
                (os.POSIX_SPAWN_DUP2, their_source, 3),
                (os.POSIX_SPAWN_DUP2, their_sink, 4),
            ],
        )
        os.close(their_source)
        os.close(their_sink)
        if hello:
            self.send("hello", version=1, runner="test-0", incarnation=1, line_max=LINE_MAX, bytes_max=BYTES_MAX)

    # What it says

    def send(self, kind: str, payload: bytes | None = None, **fields: Any) -> None:
        """Sends a frame."""
        if payload is not None:
            fields["bytes"] = len(payload)
        line = json.dumps({"type": kind, **fields}, separators=(",", ":")).encode() + b"\n"
        self.raw(line if payload is None else line + payload + b"\n")

    def raw(self, data: bytes) -> None:
        """Sends bytes."""
        while data:
            data = data[os.write(self.sink, data) :]

    def give(self, task: str, input: Any = None, id: str = "a", attempt: int = 1, **more: Any) -> None:  # noqa: A002
        """Gives a task."""
        self._given.add((id, attempt))
        self.send("task", id=id, attempt=attempt, task=task, key=f"key-{id}", input=input, **more)

    def cancel(self, id: str = "a", attempt: int = 1) -> None:  # noqa: A002
        """Cancels a task."""
        self.send("cancel", id=id, attempt=attempt)

    def hang_up(self) -> None:
        """Closes its side of the channel."""
        os.close(self.sink)
        self.sink = -1

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        os.kill(self.pid, number)

    # What it hears

    def hear(self) -> dict[str, Any] | None:
        """The next frame; ``None`` when the channel is closed."""
        line = self._take_line()
        if line is None:
            assert not self._buffer, f"half a frame at the end: {self._buffer[:80]!r}"
            return None
        assert len(line) <= LINE_MAX
        frame: dict[str, Any] = json.loads(line.decode("utf-8", "strict"), parse_constant=_no_constant)
        if "bytes" in frame:
            assert 0 <= frame["bytes"] <= BYTES_MAX
            while len(self._buffer) < frame["bytes"] + 1:
                assert self._more(), "the channel ended in the middle of raw bytes"
            frame["payload"] = self._buffer[: frame["bytes"]]
            assert self._buffer[frame["bytes"] : frame["bytes"] + 1] == b"\n"
            self._buffer = self._buffer[frame["bytes"] + 1 :]
        self._check(frame)
        self.said.append(frame)
        return frame

    def until(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Listens until this was said."""
        while (frame := self.hear()) is not None:
            if frame["type"] == kind and fields.items() <= frame.items():
                return frame
        raise AssertionError(f"it ended without {kind} {fields}: {self.said}; {self.stderr}")

    def ready(self) -> Supervisor:
        """Listens until it is ready."""
        self.until("state", state="ready")
        return self

    def outcome(self, id: str = "a") -> dict[str, Any]:  # noqa: A002
        """Listens until a task has its terminal."""
        while (frame := self.hear()) is not None:
            if frame["type"] in TERMINALS and frame["id"] == id:
                return frame
        raise AssertionError(f"it ended without a terminal of {id}: {self.said}; {self.stderr}")

    def answers_ping(self, n: int) -> None:
        """Pings, and listens until it has answered."""
        self._pings.append(n)
        self.send("ping", n=n)
        self.until("pong", n=n)

    def kinds(self, *kinds: str, id: str | None = None) -> list[dict[str, Any]]:  # noqa: A002
        """What it has said of these kinds."""
        return [frame for frame in self.said if frame["type"] in kinds and id in (None, frame.get("id"))]

    def text(self, id: str = "a") -> str:  # noqa: A002
        """The text of a task."""
        return "".join(frame.get("text", "") for frame in self.kinds("chunk", id=id))

    def end(self) -> int:
        """Listens to the end of channel and process. Gives its exit status, negative for a signal."""
        while self.hear() is not None:
            pass
        return self.wait()

    def shut_down(self) -> int:
        """Ends it in order."""
        self.send("shutdown", grace_ms=60_000)
        return self.end()

    def wait(self) -> int:
        """Waits for the end of the process."""
        if self.code is None:
            watched = os.pidfd_open(self.pid)
            try:
                assert select.select([watched], [], [], PATIENCE)[0], f"it does not end: {self.stderr}"
            finally:
                os.close(watched)
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code

    def close(self) -> None:
        """Leaves nothing behind."""
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        os.close(self.source)
        if self.sink >= 0:
            os.close(self.sink)

    @property
    def stdout(self) -> str:
        """What it has printed."""
        return (self.place / "stdout").read_text()

    @property
    def stderr(self) -> str:
        """What it has printed as errors."""
        return (self.place / "stderr").read_text()

    def _take_line(self) -> bytes | None:
        while b"\n" not in self._buffer:
            assert len(self._buffer) <= LINE_MAX, "a line over the limit"
            if not self._more():
                return None
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line + b"\n"

    def _more(self) -> bool:
        assert select.select([self.source], [], [], PATIENCE)[0], f"it says nothing: {self.said[-5:]}; {self.stderr}"
        data = os.read(self.source, 1 << 20)
        self._buffer += data
        return bool(data)

    def _check(self, frame: dict[str, Any]) -> None:
        """What the protocol says about the order of frames and about their fields."""
        kind = frame["type"]
        assert not self.said or self.said[-1]["type"] != "end", f"{frame} behind the end"
        assert (kind == "hello") == (not self.said), "the first frame, and only that, is a hello"
        if kind == "hello":
            assert frame["version"] == 1
            assert all(isinstance(name, str) for name in frame["tasks"] + frame.get("capabilities", []))
            assert frame.get("concurrency", 1) >= 1
        elif kind == "state":
            assert STATES.index(frame["state"]) >= STATES.index(self.state), f"{frame} after {self.state}"
            self.state = frame["state"]
        elif kind == "pong":
            self._pings.remove(frame["n"])
        elif kind in ("chunk", "progress", "checkpoint", *TERMINALS):
            about = (frame["id"], frame["attempt"])
            assert about in self._given, f"{frame} is about no task"
            assert about not in self._ended, f"{frame} after its terminal"
            if kind in TERMINALS:
                self._ended.add(about)
            if kind == "chunk":
                assert len({"text", "json", "bytes"} & frame.keys()) == 1, frame
            if kind == "checkpoint":
                assert len({"state", "bytes"} & frame.keys()) == 1, frame
            if kind == "result":
                assert len({"value", "bytes"} & frame.keys()) <= 1, frame
        else:
            assert kind in ("last_words", "end"), frame
        if kind in ("error", "last_words"):
            _check_exception(frame["exception"])


def _check_exception(exception: dict[str, Any]) -> None:
    deep = 0
    following: dict[str, Any] | None = exception
    while following is not None:
        assert all(isinstance(following[name], str) for name in ("type", "message"))
        following, deep = following.get("cause"), deep + 1
    assert deep <= 9, "at most eight causes"


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def _pipe() -> tuple[int, int]:
    """A pipe whose descriptors are in nobody's way."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]
