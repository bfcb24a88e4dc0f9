"""The two descriptors to the supervisor.

A frame is written at once, under a lock, with nothing kept back: what was sent before the process aborts has arrived.
Only the process that was started speaks; in its children the channel is closed and inert.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from . import _words
from ._frames import VERSION, Buffer, Limits, encode
from .errors import ChannelClosed, NotStarted

_SOURCE, _SINK = 3, 4
_ATOMIC_BYTES = 4_096
"""A pipe takes so many bytes whole or not at all (PIPE_BUF)."""


class Channel:
    """The way to the supervisor."""

    def __init__(self, source: int, sink: int, version: int, name: str) -> None:
        self.version = version
        self.name = name
        """The member's name, for instance ``llm-0``."""
        self.limits = Limits()
        self.shielded = 0
        """Above zero while the main thread writes: a signal handler must not raise then."""
        self.after_frame: Callable[[], None] | None = None
        """What a signal handler puts off until the main thread has written its frame. It may raise."""
        self.phase = "connecting"
        self.pid = os.getpid()
        self._main = threading.main_thread().ident
        self._lock = threading.Lock()
        self.source = source
        """The descriptor that frames come from."""
        self._sink: int | None = sink
        self._greeted = False
        self._told: BaseException | None = None
        for descriptor in (source, sink):
            os.set_inheritable(descriptor, False)
            os.set_blocking(descriptor, True)
        os.register_at_fork(after_in_child=self._leave)

    @property
    def mine(self) -> bool:
        """Whether this is the process that was started, and no child of it."""
        return os.getpid() == self.pid

    def hello(
        self, tasks: list[str], capabilities: list[str], concurrency: int, sdk: str, exact: list[str] | None = None
    ) -> None:
        """The first frame."""
        self._greeted = True
        self.send(
            {
                "type": "hello",
                "version": self.version,
                "tasks": tasks,
                "capabilities": capabilities,
                "concurrency": concurrency,
                **({"exact": exact} if exact else {}),
                "sdk": sdk,
            }
        )

    def last_words(self, error: BaseException, task: str | None = None, thread: str | None = None) -> None:
        """Tells what the process ends by, or with ``thread`` what ended one thread.

        Each exception once. It never raises.
        """
        if self._told is error or not self.mine:
            return
        self._told = error
        frame: dict[str, Any] = {"type": "last_words", "exception": _words.words(error, self.limits.line)}
        if task is not None:
            frame["id"] = task
        if thread is not None:
            frame["thread"] = thread
        try:
            if not self._greeted:
                self.hello([], [], 1, "outlive-python")
            self.send(frame)
        except ChannelClosed:
            pass

    def end(self) -> None:
        """Says that nothing follows, and closes the sending side. Never raises; a second time does nothing."""
        if not self.mine:
            return
        with self._lock:
            if self._greeted and self._sink is not None:
                with suppress(ChannelClosed):
                    self._write_all(self._sink, encode({"type": "end"}, self.limits))
            self._close()

    def send(self, fields: dict[str, Any], payload: Buffer | None = None) -> None:
        """Sends a frame.

        Raises:
            FrameTooLarge: it is over the limit; nothing was sent.
            TypeError, ValueError: it cannot be said in JSON; nothing was sent.
            ChannelClosed: nobody takes it any more.
        """
        self.write(encode(fields, self.limits, payload))

    def enter(self, phase: str, fields: dict[str, Any]) -> None:
        """Tells the phase that the runner is in. Nothing comes after ``shutting_down``.

        Raises:
            ChannelClosed: nobody takes it any more.
        """
        self.write(encode({"type": "state", "state": phase, **fields}, self.limits), phase)

    def write(self, buffers: list[Buffer], phase: str | None = None) -> None:
        """Sends the buffers of a frame."""
        if not self.mine:
            raise ChannelClosed(
                "a child process of a runner cannot speak for it; give the value back to the process that has the task"
            )
        shield = threading.get_ident() == self._main
        self.shielded += shield
        try:
            with self._lock:
                if phase is not None and self.phase == "shutting_down":
                    return
                self.phase = phase or self.phase
                if self._sink is None:
                    raise ChannelClosed("the runner has said its end, or its supervisor is gone; nothing can be sent")
                self._write_all(self._sink, buffers)
        finally:
            self.shielded -= shield
            if shield and self.after_frame is not None:
                put_off, self.after_frame = self.after_frame, None
                put_off()

    def _write_all(self, sink: int, buffers: list[Buffer]) -> None:
        left: list[Buffer] = buffers
        try:
            while left:
                written = os.writev(sink, left)
                left = _behind(left, written)
        except OSError as error:
            self._close()
            raise ChannelClosed(f"the supervisor does not take anything any more: {error.strerror}") from error
        except BaseException:
            # A signal handler of the program's has raised. How much of a long frame is written is not known then.
            if sum(memoryview(buffer).nbytes for buffer in buffers) > _ATOMIC_BYTES:
                self._close()
            raise

    def _close(self) -> None:
        if self._sink is not None:
            os.close(self._sink)
            self._sink = None

    def _leave(self) -> None:
        """A child has been forked: its copies of the descriptors are closed, and nobody holds the lock."""
        self._lock = threading.Lock()
        if self.source >= 0:
            os.close(self.source)
            self.source = -1
        self._close()


def _behind(buffers: list[Buffer], written: int) -> list[Buffer]:
    """What is left of the buffers behind so many bytes."""
    sizes = [memoryview(buffer).nbytes for buffer in buffers]
    if written == sum(sizes):
        return []
    left: list[Buffer] = []
    for buffer, size in zip(buffers, sizes, strict=True):
        if written < size:
            left.append(memoryview(buffer)[written:])
        written = max(0, written - size)
    return left


_opened: Channel | None = None


def open_channel() -> tuple[Channel, bool]:
    """The channel of this process, and whether it was opened just now.

    Raises:
        NotStarted: it has none.
    """
    global _opened  # noqa: PLW0603 - the descriptors are the process's, and there is one pair
    if _opened is not None and _opened.mine:
        return _opened, False
    spoken = os.environ.get("OUTLIVE_RUNNER")
    if spoken is None:
        raise NotStarted("OUTLIVE_RUNNER is not set")
    if not spoken.isdecimal() or int(spoken) < VERSION:
        raise NotStarted(f"its supervisor speaks version {spoken!r} of the protocol, and this package {VERSION}")
    for descriptor in (_SOURCE, _SINK):
        try:
            mode = os.fstat(descriptor).st_mode
        except OSError as error:
            raise NotStarted(f"descriptor {descriptor} is not open; did a wrapper close it?") from error
        if not stat.S_ISFIFO(mode) and not stat.S_ISSOCK(mode):
            raise NotStarted(f"descriptor {descriptor} is no pipe; did a wrapper use it for something else?")
    # Its children have no channel, and must not take descriptors of their own for one.
    del os.environ["OUTLIVE_RUNNER"]
    _opened = Channel(_SOURCE, _SINK, VERSION, os.environ.get("OUTLIVE_RUNNER_NAME", "runner"))
    return _opened, True
