"""What a program declares: its tasks, and what it needs before it can serve them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

from .. import __version__
from . import _hooks
from ._channel import Channel, open_channel
from ._handler import Handler, is_async
from ._loading import load
from ._serving import Serving
from ._task import Task
from .errors import NotStarted

F = TypeVar("F", bound=Callable[..., Any])

_SDK = f"outlive-python {__version__}"


@dataclass
class Outcome:
    """What a handler did that was called without Outlive."""

    value: Any = None
    """What it returned."""
    chunks: list[object] = field(default_factory=list)
    """What it yielded or emitted, in order."""
    reports: list[tuple[float | None, float | None, str | None]] = field(default_factory=list)
    """The progress that it reported: done, total, message."""
    saved: object = None
    """The state that it saved last."""

    @property
    def text(self) -> str:
        """Its text chunks, joined."""
        return "".join(chunk for chunk in self.chunks if isinstance(chunk, str))

    def chunk(self, _task: Task, chunk: object) -> None:
        """Keeps a piece of output."""
        self.chunks.append(chunk)

    def progress(self, _task: Task, done: float | None, total: float | None, message: str | None) -> None:
        """Keeps a report."""
        self.reports.append((done, total, message))

    def checkpoint(self, _task: Task, state: object) -> None:
        """Keeps a state."""
        self.saved = state


class Runner:
    """A program that serves tasks.

        runner = Runner()

        @runner.load
        def weights():
            for done, shard in enumerate(shards, 1):
                read(shard)
                yield done, len(shards)

        @runner.task
        def generate(prompt, max_tokens=100):
            for token in tokens(prompt, max_tokens):
                yield token
            return {"finish_reason": "stop"}

        runner.run()

    Args:
        concurrency: how many tasks it takes at a time. With one, sync handlers run in the main thread.
        capabilities: what it can serve beside its tasks: ``chat`` says that its task ``chat`` takes OpenAI's messages.
    """

    def __init__(self, *, concurrency: int = 1, capabilities: Iterable[str] = ()) -> None:
        if concurrency < 1:
            raise ValueError(f"a runner takes at least 1 task at a time, not {concurrency}")
        self.concurrency = concurrency
        self.capabilities = [capabilities] if isinstance(capabilities, str) else list(capabilities)
        self.handlers: dict[str, Handler] = {}
        """The tasks, by name."""
        self.loads: list[Callable[..., Any]] = []
        self.warm_ups: list[Callable[..., Any]] = []
        self._loaded_here = False
        self._serving: Serving | None = None
        # From here on an exception is told, wherever the program raises it. Without a channel, run() says why.
        with suppress(NotStarted):
            attach()

    @overload
    def task(self, function: F) -> F: ...
    @overload
    def task(self, *, name: str | None = None, exact: bool = False) -> Callable[[F], F]: ...
    def task(self, function: F | None = None, *, name: str | None = None, exact: bool = False) -> F | Callable[[F], F]:
        """Declares a handler, named as the function unless ``name`` says otherwise.

        It may be a function, a generator, or either one with ``async``. Each ``yield`` is a chunk of the output, the
        return value is the result. The fields of an input that is an object are its keyword arguments; any other input
        is its one argument. A parameter annotated :class:`Task`, or named ``task``, gets the task.

        An exception ends the task and not the runner, and so does :exc:`SystemExit`; see :meth:`exit`.

        ``exact`` says that the handler, begun anew with the same input and saved state, sends the same chunks again,
        cut in the same way: a model that samples with a fixed seed, a simulation. Then a task that was submitted as
        idempotent goes on elsewhere without anybody seeing a break: what it sends again is compared and dropped. If it
        is not the same, the task ends with an error.
        """

        def declare(function: F) -> F:
            called = str(name or getattr(function, "__name__", type(function).__name__))
            if called in self.handlers:
                raise ValueError(f"the task {called!r} is declared twice; give one of them another name")
            self.handlers[called] = Handler(called, function, exact=exact)
            return function

        return declare if function is None else declare(function)

    def load(self, function: F) -> F:
        """Declares what is done before the first task; several are done in order.

        It may take a parameter ``progress``, to call with ``(done, total, message)``, or be a generator that yields the
        same. Each is progress: a load that reports nothing for longer than its watchdog allows counts as stalled. An
        exception ends the runner, as last words.
        """
        self.loads.append(function)
        return function

    def warm_up(self, function: F) -> F:
        """Declares what is tried after loading and before the first task, such as a first pass of a model."""
        self.warm_ups.append(function)
        return function

    @property
    def awaits(self) -> bool:
        """Whether anything in it needs an event loop."""
        functions = [*self.loads, *self.warm_ups]
        return any(handler.awaits for handler in self.handlers.values()) or any(map(is_async, functions))

    @property
    def has_run(self) -> bool:
        """Whether :meth:`run` was called."""
        return self._serving is not None

    def run(self) -> None:
        """Loads, and serves tasks until the supervisor ends it. Call it in the main thread, as the last thing.

        Raises:
            NotStarted: this process was not started by Outlive.
            SystemExit: with 143 after SIGTERM, or what :meth:`exit` was given; it returns after an orderly shutdown.
            BaseException: what loading raised.
        """
        channel = attach()
        if "chat" in self.capabilities and "chat" not in self.handlers:
            raise ValueError("a runner that is capable of `chat` needs a task named `chat`")
        self._serving = Serving(self, channel, _SDK)
        code = self._serving.run()
        if code:
            raise SystemExit(code)

    def exit(self, code: int = 0) -> None:
        """Ends the runner from within a handler: it takes nothing new, what runs goes on to its end."""
        if self._serving is None:
            raise NotStarted("it does not serve")
        self._serving.exit(code)

    def call(self, name: str, /, *value: object, **fields: object) -> Outcome:
        """Calls a handler in this process, without Outlive: to try it, and in tests. Loads first, once.

        Args:
            name: the task.
            value: its input, if that is no object.
            fields: its input as an object.

        Raises:
            LookupError: there is no such task.
            BaseException: what the handler raised.
        """
        if name not in self.handlers:
            raise LookupError(f"there is no task {name!r}; there is {', '.join(sorted(self.handlers)) or 'none'}")
        if len(value) > 1 or (value and fields):
            raise TypeError("a task has one input: a value, or fields by name")
        given = value[0] if value else fields or None
        outcome = Outcome()
        key = str(uuid.uuid4())
        task = Task(id=key, attempt=1, name=name, input=given, key=key, _outlet=outcome)
        calling = self._call(self.handlers[name], task)
        if self.awaits:
            import asyncio  # noqa: PLC0415 - a runner without async handlers starts without it

            outcome.value = asyncio.run(calling)
            return outcome
        try:
            # Nothing in it awaits, so it is never suspended.
            calling.send(None)
        except StopIteration as done:
            outcome.value = done.value
        return outcome

    async def _call(self, handler: Handler, task: Task) -> Any:
        if not self._loaded_here:
            for function in [*self.loads, *self.warm_ups]:
                await load(function, lambda *_: None, nullcontext)
            self._loaded_here = True
        return await handler.run_async(task) if handler.awaits else handler.run(task)


def attach() -> Channel:
    """The channel of this process, with all that tells why the process ends.

    Raises:
        NotStarted: it has none.
    """
    channel, is_new = open_channel()
    if is_new:
        _hooks.install(channel)
    return channel
