"""A runner at work: from its first frame to its last.

One thread listens: it answers pings also while a handler computes, hands tasks over, and cancels them. Sync handlers
run in as many threads as the runner takes tasks at a time (for one at a time: in the main thread, where a program
expects to be); async handlers run on one event loop, in the main thread.

A task ends with exactly one terminal frame, unless the runner gives it up because it is told to end: then it has none,
and the end of the process settles it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from . import _words
from ._channel import Channel
from ._frames import BYTES_MAX, LINE_BYTES_MAX, Frame, FrameReader, Limits, encode, encode_text, to_json
from ._loading import load
from ._signals import Signals
from ._task import Chunk, Task, raw_state
from .errors import ChannelClosed, FrameTooLarge, ProtocolViolation, Stopped, TaskCancelled

if TYPE_CHECKING:
    from ._loop import Loop
    from ._runner import Runner

_READ_BYTES: Final = 1 << 16
_TERMINATED: Final = 128 + signal.SIGTERM
_TEXT_CHARACTERS: Final = 10_000
"""So many fit into a line, even where each takes the six bytes of an escape."""


class Serving:
    """One run of a runner inside Outlive."""

    def __init__(self, runner: Runner, channel: Channel, sdk: str) -> None:
        self._runner = runner
        self._channel = channel
        self._sdk = sdk
        self._tasks: dict[tuple[str, int], Task] = {}
        """Those that have no terminal yet."""
        self._orders: SimpleQueue[Task | None] = SimpleQueue()
        """For sync handlers; ``None`` is the end."""
        self._stopping = threading.Lock()
        """Held from the first of several reasons to stop on."""
        self._gives_up = False
        self._hands_over = False
        """The node gives its work away: tasks go on elsewhere."""
        self._exit_code = 0
        self._interrupts: type[BaseException] | None = None
        """What SIGTERM raises in the main thread: something only while that runs code of the program's."""
        self._in_main: Task | None = None
        """The task that the main thread works at."""
        self._signals = Signals(self._interrupt_main)
        self._loop: Loop | None = None

    def run(self) -> int:
        """Serves until the end. Gives the exit status.

        Raises:
            BaseException: what loading raised, after it was told as last words.
        """
        self._signals.catch()
        runner, channel = self._runner, self._channel
        exact = sorted(name for name, handler in runner.handlers.items() if handler.exact)
        channel.hello(sorted(runner.handlers), runner.capabilities, runner.concurrency, self._sdk, exact)
        threading.Thread(target=self._listen, name="outlive-listen", daemon=True).start()
        try:
            if runner.awaits:
                from ._loop import Loop  # noqa: PLC0415 - a runner without async handlers starts without asyncio

                self._loop = Loop(runner.handlers, self.settling)
                self._loop.run(self._prepare, self._serve_beside_loop)
            else:
                self._serve()
        except Stopped:
            self._stop()
        except BaseException as error:
            channel.last_words(error)
            raise
        finally:
            channel.end()
        return self._exit_code

    def exit(self, code: int) -> None:
        """Takes nothing new, lets what runs end, and exits."""
        self._exit_code = code
        self._stop()

    # The ways of serving

    def _serve(self) -> None:
        # Nothing in it awaits, so it is never suspended.
        with suppress(StopIteration):
            self._prepare().send(None)
        if self._runner.concurrency == 1:
            self._work_off(interrupts=TaskCancelled)
        else:
            for thread in self._threads():
                thread.join()

    def _serve_beside_loop(self) -> list[threading.Thread]:
        """The sync handlers of a runner that has async ones too."""
        return self._threads() if any(not handler.awaits for handler in self._runner.handlers.values()) else []

    async def _prepare(self) -> None:
        for phase, functions in (("loading", self._runner.loads), ("warming_up", self._runner.warm_ups)):
            if functions:
                self._enter(phase)
            for function in functions:
                await load(function, partial(self._enter, phase), self._main_is_outside)
        self._enter("ready")

    def _threads(self) -> list[threading.Thread]:
        count = self._runner.concurrency
        threads = [threading.Thread(target=self._work_off, name=f"task-{n}", daemon=True) for n in range(count)]
        for thread in threads:
            thread.start()
        return threads

    def _work_off(self, interrupts: type[BaseException] | None = None) -> None:
        """Works at one task after the other until the end."""
        while (task := self._orders.get()) is not None:
            with self.settling(task) as settle:
                task.check()
                if interrupts is not None:
                    self._in_main, self._interrupts = task, interrupts
                try:
                    value = self._runner.handlers[task.name].run(task)
                finally:
                    self._interrupts = None
                settle(value)
        self._orders.put(None)

    @contextmanager
    def _main_is_outside(self) -> Iterator[None]:
        """While the main thread loads."""
        self._interrupts = Stopped
        try:
            yield
        except BaseException as error:
            self._leave_if_child(error)
            raise
        finally:
            self._interrupts = None
        self._leave_if_child()

    # The end of a task

    @contextmanager
    def settling(self, task: Task) -> Iterator[Callable[[object], None]]:
        """Whatever happens within it ends the task; nothing of it ends the runner."""
        if self._hands_over and task._stop is None:
            # It has done nothing yet.
            task._stop = "hand over"
        try:
            yield lambda value: self._succeeded(task, value)
        except BaseException as error:  # also SystemExit and KeyboardInterrupt are a task's
            self._leave_if_child(error)
            with suppress(ChannelClosed):
                self._failed(task, error)

    def _succeeded(self, task: Task, value: object) -> None:
        self._leave_if_child()
        try:
            self._end(task, "result", {"value": value})
        except FrameTooLarge:
            self._end(task, "result", {}, to_json(value))

    def _failed(self, task: Task, error: BaseException) -> None:
        reason = task._stop or ("give up" if self._gives_up else None)
        if not isinstance(error, TaskCancelled) or reason is None:
            self._end(task, "error", {"exception": _words.words(error, self._channel.limits.line)})
        elif reason == "cancel":
            self._end(task, "cancelled", {})
        elif reason == "hand over":
            self._end(task, "stopped", {})

    def _end(self, task: Task, kind: str, fields: dict[str, Any], payload: Any = None) -> None:
        """Sends the terminal, unless the task has one."""
        frame = {"type": kind, "id": task.id, "attempt": task.attempt, **fields}
        buffers = encode(frame, self._channel.limits, payload)
        if self._tasks.pop((task.id, task.attempt), None) is not None:
            self._channel.write(buffers)

    def _leave_if_child(self, error: BaseException | None = None) -> None:
        """A child that the program has forked, and that came back here, ends as a program does."""
        if self._channel.mine:
            return
        code: object = 0
        if isinstance(error, SystemExit):
            code = error.code
        elif error is not None:
            traceback.print_exception(error)
            code = 1
        if isinstance(code, str):
            print(code, file=sys.stderr)
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))

    # What tasks say

    def chunk(self, task: Task, chunk: object) -> None:
        """Sends a piece of output, also one that does not fit into a line: text in pieces, JSON as bytes."""
        if isinstance(chunk, Chunk):
            self._send("chunk", task, {"mime": chunk.mime}, chunk.data)
        elif isinstance(chunk, bytes | bytearray | memoryview):
            self._send("chunk", task, {}, chunk)
        elif isinstance(chunk, str):
            self._text(task, chunk)
        else:
            try:
                self._send("chunk", task, {"json": chunk})
            except FrameTooLarge:
                self._send("chunk", task, {"mime": "application/json"}, to_json(chunk))

    def _text(self, task: Task, text: str) -> None:
        """Text is one text, in however many pieces it comes."""
        self._must_run(task)
        if not task._text_head:
            about = {"type": "chunk", "id": task.id, "attempt": task.attempt}
            task._text_head = to_json(about)[:-1] + b',"text":'
        for start in range(0, max(len(text), 1), _TEXT_CHARACTERS):
            piece = text[start : start + _TEXT_CHARACTERS]
            self._channel.write(encode_text(task._text_head, piece, self._channel.limits))

    def progress(self, task: Task, done: float | None, total: float | None, message: str | None) -> None:
        """Sends how far it is."""
        self._send("progress", task, _progress(done, total, message))

    def checkpoint(self, task: Task, state: object) -> None:
        """Sends from where it can go on."""
        if isinstance(state, bytes | bytearray | memoryview):
            self._send("checkpoint", task, {}, raw_state(state))
        else:
            try:
                self._send("checkpoint", task, {"state": state})
            except FrameTooLarge:
                self._send("checkpoint", task, {}, to_json(state))
        if self._hands_over and task._stop is None:
            self._leave_at_step(task)

    def _leave_at_step(self, task: Task) -> None:
        """Stops a task behind what it has just saved: it goes on elsewhere, and does nothing twice.

        Raises:
            TaskCancelled, asyncio.CancelledError: always.
        """
        task._stop, task._stop_raised = "hand over", True
        if not task._awaits:
            raise TaskCancelled(f"the task {task.name} goes on elsewhere")
        import asyncio  # noqa: PLC0415 - a runner without async handlers starts without it

        raise asyncio.CancelledError

    def _send(self, kind: str, task: Task, fields: dict[str, Any], payload: Any = None) -> None:
        self._must_run(task)
        self._channel.send({"type": kind, "id": task.id, "attempt": task.attempt, **fields}, payload)

    def _must_run(self, task: Task) -> None:
        if (task.id, task.attempt) not in self._tasks:
            raise RuntimeError(f"the task {task.name} has ended; nothing can be sent for it any more")

    def _enter(
        self, phase: str, done: float | None = None, total: float | None = None, message: str | None = None
    ) -> None:
        self._channel.enter(phase, _progress(done, total, message))

    # What the supervisor says

    def _listen(self) -> None:
        try:
            self._take_all()
        except ChannelClosed:
            pass
        except BaseException as error:  # it is told, and the runner ends by it
            self._channel.last_words(error)
            traceback.print_exc()
        # Nobody can give it work or hear it.
        if self._channel.phase != "shutting_down":
            self._exit_code = 1
            self._stop()
            self._give_up()

    def _take_all(self) -> None:
        """Takes what comes, until the supervisor closes the channel."""
        reader, poll, greeted = FrameReader(), select.poll(), False
        poll.register(self._channel.source, select.POLLIN)
        poll.register(self._signals.source, select.POLLIN)
        while True:
            readable = [descriptor for descriptor, _ in poll.poll()]
            if self._signals.source in readable and self._signals.is_term():
                self._terminated()
                self._stop()
                self._give_up()
            if self._channel.source not in readable:
                continue
            data = os.read(self._channel.source, _READ_BYTES)
            if not data:
                return
            for frame in reader.feed(data):
                if not greeted and frame.kind != "hello":
                    raise ProtocolViolation(f"the supervisor began with a {frame.kind!r} in the place of a hello")
                greeted = True
                self._take(frame)

    def _take(self, frame: Frame) -> None:
        if frame.kind == "ping":
            self._channel.send({"type": "pong", "n": _field(frame, "n", int)})
        elif frame.kind == "task":
            self._begin(frame)
        elif frame.kind == "cancel":
            task = self._tasks.get((_field(frame, "id", str), _field(frame, "attempt", int)))
            if task is not None:
                self._tell(task, "cancel")
        elif frame.kind == "shutdown":
            if frame.fields.get("hand_over") is True:
                self._hand_over()
            self._stop()
            # Half of the time to finish, the other half to give up in order.
            patience = threading.Timer(_field(frame, "grace_ms", int) / 2_000, self._give_up)
            patience.daemon = True
            patience.start()
        elif frame.kind == "hello":
            line, payload = _field(frame, "line_max", int), _field(frame, "bytes_max", int)
            self._channel.limits = Limits(min(line, LINE_BYTES_MAX), min(payload, BYTES_MAX))

    def _begin(self, frame: Frame) -> None:
        task = _task(frame, self)
        if self._channel.phase == "shutting_down":
            # It was on its way when the runner said that it takes nothing new: the end of the process settles it.
            if self._hands_over:
                self._tasks[task.id, task.attempt] = task
                self._end(task, "stopped", {})
            return
        if self._channel.phase != "ready":
            raise ProtocolViolation(f"the supervisor gave a task to a runner that is {self._channel.phase}")
        self._tasks[task.id, task.attempt] = task
        handler = self._runner.handlers.get(task.name)
        if handler is None:
            known = ", ".join(sorted(self._runner.handlers))
            self._failed(task, LookupError(f"this runner has no task {task.name!r}; it has {known}"))
        elif handler.awaits and self._loop is not None:
            self._loop.begin(task)
        else:
            self._orders.put(task)

    # Stopping

    def _tell(self, task: Task, reason: str) -> None:
        """Tells a task to stop, once. That somebody has cancelled it is never forgotten again."""
        is_first = task._stop is None
        if task._stop is None or reason == "cancel":
            task._stop = reason
        if is_first and self._loop is not None:
            self._loop.cancel(task)

    def _stop(self) -> None:
        """Takes nothing new. Once, whichever thread is the first."""
        if not self._stopping.acquire(blocking=False):
            return
        with suppress(ChannelClosed):
            self._enter("shutting_down")
        self._orders.put(None)
        if self._loop is not None:
            self._loop.end()

    def _hand_over(self) -> None:
        """From now on a task stops where it saves its state."""
        self._hands_over = True
        for task in list(self._tasks.values()):
            task._hands_over = True

    def _give_up(self) -> None:
        """Ends what still runs."""
        self._gives_up = True
        for task in list(self._tasks.values()):
            self._tell(task, "give up")
        if self._loop is not None:
            self._loop.give_up_loading()
        # A sync function in the main thread hears nothing else; nor may it have heard of a signal from outside.
        if self._interrupts is not None:
            self._signals.tell_main(lambda: self._interrupts is None)

    def _terminated(self) -> None:
        """SIGTERM has come: that is why it ends, unless it gives up already."""
        if not self._gives_up:
            self._gives_up = True
            self._exit_code = _TERMINATED

    def _interrupt_main(self) -> None:
        """Stops what runs in the main thread, in which this is called in the middle of anything."""
        self._terminated()
        if self._channel.shielded:
            self._channel.after_frame = self._interrupt_main
            return
        interrupts, self._interrupts = self._interrupts, None
        if interrupts is not None:
            if self._in_main is not None:
                # What it says while it cleans up is taken.
                self._in_main._stop_raised = True
            raise interrupts("the runner was told to end")


def _progress(done: float | None, total: float | None, message: str | None) -> dict[str, Any]:
    # Numbers of other libraries are numbers too.
    told: dict[str, Any] = {name: float(n) for name, n in (("done", done), ("total", total)) if n is not None}
    if message is not None:
        told["message"] = str(message)
    return told


def _task(frame: Frame, serving: Serving) -> Task:
    value = frame.fields.get("input")
    if frame.payload is not None:
        try:
            value = json.loads(frame.payload)
        except (ValueError, RecursionError) as error:
            raise ProtocolViolation("the supervisor sent the input of a task that is not JSON") from error
    checkpoint = frame.fields.get("checkpoint")
    return Task(
        id=_field(frame, "id", str),
        attempt=_field(frame, "attempt", int),
        name=_field(frame, "task", str),
        input=value,
        key=_field(frame, "key", str),
        _outlet=serving,
        _saved=checkpoint.get("file") if isinstance(checkpoint, dict) else None,
    )


def _field(frame: Frame, name: str, kind: type[Any]) -> Any:
    value = frame.fields.get(name)
    if not isinstance(value, kind):
        raise ProtocolViolation(f"the supervisor sent a {frame.kind!r} whose field {name!r} is {value!r}")
    return value
