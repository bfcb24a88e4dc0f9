"""The event loop of a runner that has something to await. It runs in the main thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, suppress

from ._handler import Handler
from ._task import Task
from .errors import Stopped, TaskCancelled

Settling = Callable[[Task], AbstractContextManager[Callable[[object], None]]]


class Loop:
    """Async handlers at work. But for :meth:`run`, every method may be called from any thread at any time."""

    def __init__(self, handlers: Mapping[str, Handler], settling: Settling) -> None:
        self._handlers = handlers
        self._settling = settling
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None
        self._is_ended = False
        self._loading: asyncio.Task[None] | None = None
        self._loading_given_up = False
        self._running: dict[Task, asyncio.Task[None]] = {}

    def run(self, prepare: Callable[[], Awaitable[None]], beside: Callable[[], list[threading.Thread]]) -> None:
        """Loads, then works until the end is said and all that was begun has ended.

        Raises:
            Stopped: loading was given up.
        """
        asyncio.run(self._run(prepare, beside))

    async def _run(self, prepare: Callable[[], Awaitable[None]], beside: Callable[[], list[threading.Thread]]) -> None:
        over = self._over = asyncio.Event()
        self._loading = asyncio.current_task()
        # From here on other threads reach it; what they said before stands in the flags.
        self._loop = asyncio.get_running_loop()
        if self._is_ended:
            over.set()
        try:
            if self._loading_given_up:
                raise asyncio.CancelledError
            await prepare()
        except asyncio.CancelledError as error:
            if not self._loading_given_up:
                raise
            raise Stopped("the runner was told to end while it loaded") from error
        finally:
            self._loading = None
        threads = beside()
        await over.wait()
        await asyncio.gather(*self._running.values())
        for thread in threads:
            thread.join()

    def begin(self, task: Task) -> None:
        """Begins a task."""
        task._awaits = True
        self._soon(self._begin, task)

    def cancel(self, task: Task) -> None:
        """Raises `CancelledError` in a task where it awaits; nothing if it is none of the loop's, or has ended."""
        self._soon(self._cancel, task)

    def end(self) -> None:
        """Begins no more tasks."""
        self._is_ended = True
        if self._over is not None:
            self._soon(self._over.set)

    def give_up_loading(self) -> None:
        """Cancels loading, if that still goes on."""
        self._loading_given_up = True
        self._soon(lambda: self._loading and self._loading.cancel())

    def _begin(self, task: Task) -> None:
        self._running[task] = asyncio.ensure_future(self._work(task))

    def _cancel(self, task: Task) -> None:
        running = self._running.get(task)
        if running is not None:
            # Behind its first step: what has not begun could not catch it.
            asyncio.get_running_loop().call_soon(running.cancel)

    async def _work(self, task: Task) -> None:
        with self._settling(task) as settle:
            task.check()
            try:
                value = await self._handlers[task.name].run_async(task)
            except asyncio.CancelledError as error:
                if not task.cancelled:
                    raise
                raise TaskCancelled(f"the task {task.name} was told to stop") from error
            settle(value)
        del self._running[task]

    def _soon(self, callback: Callable[..., object], *arguments: object) -> None:
        # A loop that is closed, or has not begun, has nothing to stop.
        if self._loop is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(callback, *arguments)
