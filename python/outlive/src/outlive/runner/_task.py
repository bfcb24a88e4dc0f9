"""What a handler knows about its task, and says while it works on it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ._frames import Buffer
from .errors import TaskCancelled

_RAW = b"\x00"
"""Begins a saved state that is bytes: no JSON begins so."""


@dataclass(frozen=True)
class Chunk:
    """A piece of output that is bytes of a certain kind."""

    data: bytes | bytearray | memoryview
    mime: str = "application/octet-stream"


class Outlet(Protocol):
    """Where a task's output goes to."""

    def chunk(self, task: Task, chunk: object) -> None:
        """A piece of output."""

    def progress(self, task: Task, done: float | None, total: float | None, message: str | None) -> None:
        """How far it is."""

    def checkpoint(self, task: Task, state: object) -> None:
        """From where it can go on."""


@dataclass(eq=False)
class Task:
    """One attempt at one task.

    A handler gets it by a parameter that is annotated with this class, or is named ``task``.
    """

    id: str
    """The run, a UUID: the same for each attempt."""
    attempt: int
    """From 1."""
    name: str
    """The handler's name."""
    input: Any
    """What the handler was given, as it came."""
    key: str
    """The idempotency key of the work: the same for each attempt."""
    _outlet: Outlet = field(repr=False)
    _saved: str | None = field(default=None, repr=False)
    _stop: str | None = field(default=None, repr=False)
    """Why it is to stop: ``cancel``, ``give up`` because the runner ends, or ``hand over`` because it has saved its
    state and goes on elsewhere."""
    _stop_raised: bool = field(default=False, repr=False)
    _hands_over: bool = field(default=False, repr=False)
    _awaits: bool = field(default=False, repr=False)
    """Whether its handler is async, and is told by `CancelledError`."""
    _text_head: bytes = field(default=b"", repr=False)
    """How each of its frames of text begins."""

    @property
    def cancelled(self) -> bool:
        """Whether it is to stop: somebody has cancelled it, or the runner is about to end."""
        return self._stop is not None

    @property
    def hands_over(self) -> bool:
        """Whether it is to go on elsewhere: with the next :meth:`save` it stops here."""
        return self._hands_over

    def check(self) -> None:
        """Raises if the task is to stop, for sync handlers that neither yield nor report anything.

        Raises:
            TaskCancelled: once; what a handler sends after that, while it cleans up, is taken.
        """
        if self._stop is not None and not self._stop_raised:
            self._stop_raised = True
            raise TaskCancelled(f"the task {self.name} was told to stop")

    def emit(self, chunk: object) -> None:
        """Sends a piece of output at once: ``str`` as text, ``bytes`` and :class:`Chunk` as bytes, all else as JSON.

        Raises:
            TaskCancelled: the task is to stop (sync handlers only).
            FrameTooLarge: it is over the limit. Nothing was sent, and the handler can go on.
            TypeError, ValueError: it cannot be said in JSON.
        """
        self._look()
        self._outlet.chunk(self, chunk)

    def progress(self, done: float | None = None, total: float | None = None, message: str | None = None) -> None:
        """Tells how far the task is, in any unit. It also tells that the task does not hang.

        Raises:
            TaskCancelled: the task is to stop (sync handlers only).
        """
        self._look()
        self._outlet.progress(self, done, total, message)

    def save(self, state: object) -> None:
        """Saves from where the next attempt can go on: bytes, or what JSON can say.

        All output before it is covered by it: the next attempt sends what comes after. When the node hands its work
        over, this is where the task stops, and nothing that it had done is done again.

        Raises:
            TaskCancelled: the task is to stop (sync handlers only), or goes on elsewhere from here.
            asyncio.CancelledError: it goes on elsewhere from here (async handlers).
            FrameTooLarge: it is over the limit. Write it to a file, and save the path.
        """
        self._look()
        self._outlet.checkpoint(self, state)

    @property
    def checkpoint(self) -> Any:
        """What an earlier attempt has saved; ``None`` at the first."""
        if self._saved is None:
            return None
        content = Path(self._saved).read_bytes()
        return content[len(_RAW) :] if content.startswith(_RAW) else json.loads(content)

    def step_key(self, step: object) -> str:
        """An idempotency key for an effect outside of the task: the same in each attempt, another for each step.

        Whoever has the effect done (a payment, a mail, a row) is given it, and does each key once. For what may be done
        once in each attempt, put :attr:`attempt` into the step.
        """
        return f"{self.key}:{step}"

    def _look(self) -> None:
        if not self._awaits:
            self.check()


def raw_state(state: Buffer) -> bytes:
    """A saved state that is bytes, so that it is known as such when it is read."""
    return _RAW + bytes(state)
