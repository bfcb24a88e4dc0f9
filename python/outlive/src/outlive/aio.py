"""The session for programs that use asyncio."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, TypeVar

from . import _calls, _where
from ._answer import answer, is_unknown, lost
from ._calls import Call
from ._follow import Attended, Cursor, collect, fill, large, unless_answered
from ._where import Ways, Where
from ._wire import EventReader, Request, ResponseReader
from .errors import DaemonGone, NotFound, Problem, RunFailed, tell
from .models import Cell, Event, Notebook, Question, Run, SavedPath, State
from .session import AGAIN_SECONDS, ANSWER_SECONDS, CONNECT_SECONDS, LIVE, SIGN_SECONDS, leave, run_id

T = TypeVar("T")
_Ask = Callable[[Question], str | Awaitable[str]]
_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_READ_BYTES = 1 << 16


class _Daemon:
    """The way to one daemon, or to the nodes of a cluster."""

    def __init__(self, ways: Ways) -> None:
        self.ways = ways

    @property
    def where(self) -> Where:
        """Who is asked now."""
        return self.ways.where

    async def call(self, call: Call[T]) -> T:
        """Carries a call out."""
        try:
            request = next(call)
            while True:
                request = call.send(await self._exchange(request))
        except StopIteration as done:
            result: T = done.value
            return result

    async def _exchange(self, request: Request) -> Any:
        deadline = time.monotonic() + self.ways.patience
        while True:
            where, source, sink = await self.connect(deadline)
            try:
                sink.write(request.encode(where.host_header, where.token))
                reader, body = ResponseReader(), bytearray()
                while not reader.complete:
                    data = await self._receive(where, source)
                    body += reader.feed(data)
                    if not data and not reader.complete:
                        raise ConnectionResetError("the connection broke off")
                return answer(request, reader.status, bytes(body))
            except Problem as problem:
                if not (problem.passing or is_unknown(request, problem)) or time.monotonic() > deadline:
                    raise
                self.ways.turn_to(problem.elsewhere)
            except OSError as error:
                self.ways.turn()
                if not request.repeatable or time.monotonic() > deadline:
                    raise lost(request, error) from error
            finally:
                await _close(sink)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _receive(self, where: Where, source: asyncio.StreamReader) -> bytes:
        """What comes next. One of several nodes is waited for while it gives signs of life."""
        until = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                return await _within(SIGN_SECONDS if self.ways.several else ANSWER_SECONDS, source.read(_READ_BYTES))
            except TimeoutError:
                if not self.ways.several or time.monotonic() > until or not await self._lives(where):
                    raise

    async def _lives(self, where: Where) -> bool:
        try:
            source, sink = await self._connected(where)
            try:
                sink.write(LIVE.encode(where.host_header, where.token))
                return bool(await _within(SIGN_SECONDS, source.read(1)))
            finally:
                await _close(sink)
        except OSError:
            return False

    async def connect(self, deadline: float) -> tuple[Where, asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection and its other end: the daemon, else another node, else a daemon that is started or waited for.

        Whoever shares these ways may turn to another place meanwhile, whose name and token are not for this one.
        """
        started = False
        while True:
            self.ways.look()
            failure = OSError("nobody is known")
            for _ in self.ways.places[:]:
                where = self.where
                try:
                    return (where, *await self._connected(where))
                except OSError as error:
                    failure = error
                    self.ways.turn()
            local = next((place for place in self.ways.places if place.start), None)
            if local is not None and not started:
                await asyncio.to_thread(_where.start, local)
                started = True
            elif time.monotonic() > deadline:
                raise DaemonGone(f"no daemon listens on {self.where.name}: {failure}") from failure
            else:
                await asyncio.sleep(AGAIN_SECONDS)

    async def _connected(self, where: Where) -> _Connection:
        if where.socket is not None:
            return await asyncio.open_unix_connection(where.socket)
        return await _within(CONNECT_SECONDS, asyncio.open_connection(where.host, where.port))

    async def stream(self, request: Request) -> AsyncGenerator[Event, None]:
        """The events of a stream to its end, through restarts of the daemon and from node to node."""
        cursor = Cursor(request)
        deadline = time.monotonic() + self.ways.patience
        while not cursor.over:
            async for event in self._stream_once(cursor, deadline):
                deadline = time.monotonic() + self.ways.patience
                yield event
            if not cursor.over:
                if time.monotonic() > deadline:
                    raise DaemonGone(f"the stream of {self.where.name} broke off and does not come back")
                await asyncio.sleep(AGAIN_SECONDS)

    async def _stream_once(self, cursor: Cursor, deadline: float) -> AsyncIterator[Event]:
        request = cursor.next_request()
        where, source, sink = await self.connect(deadline)
        try:
            sink.write(request.encode(where.host_header, where.token))
            reader, events, refusal = ResponseReader(), EventReader(), bytearray()
            while not reader.complete:
                if reader.status is None:
                    data = await self._receive(where, source)
                else:
                    data = await _within(self.ways.silence, source.read(_READ_BYTES))
                body = reader.feed(data)
                if reader.status not in (None, 200):
                    refusal += body
                else:
                    for raw in events.feed(body):
                        yield cursor.take(raw)
                if not data:
                    break
            if refusal:
                answer(request, reader.status, bytes(refusal))
            leave(self.ways, cursor, None)
        except Problem as problem:
            if cursor.over or not problem.passing:
                raise
            cursor.sent_away, cursor.elsewhere = True, problem.elsewhere
            leave(self.ways, cursor, problem)
        except OSError as error:
            # The daemon has gone or hangs: it is looked for again.
            leave(self.ways, cursor, error)
        finally:
            await _close(sink)


async def _within(seconds: float, work: Awaitable[T]) -> T:
    """The result, in time. asyncio's own TimeoutError is no OSError before Python 3.11."""
    try:
        return await asyncio.wait_for(work, seconds)
    except asyncio.TimeoutError as error:
        raise TimeoutError(f"nothing came for {seconds} s") from error


async def _close(sink: asyncio.StreamWriter) -> None:
    sink.close()
    with suppress(OSError):
        await sink.wait_closed()


class AsyncSession:
    """A notebook's session; :class:`~outlive.Session` with `await`. Made by :meth:`open` or :meth:`new`."""

    def __init__(self, daemon: _Daemon, state: State) -> None:
        self._daemon = daemon
        self._state = state

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        id: str | None = None,  # noqa: A002
        kernel: str | None = None,
        start: str | None = None,
        trust: bool = False,
        address: str | None = None,
        token: str | None = None,
    ) -> AsyncSession:
        """As :meth:`outlive.Session.open`."""
        daemon = _Daemon(_where.find(address, token))
        state, notice = await daemon.call(_calls.open_(path, id, kernel, start, trust))
        tell(notice)
        return cls(daemon, state)

    @classmethod
    async def new(
        cls,
        *,
        id: str | None = None,  # noqa: A002
        kernel: str | None = None,
        cwd: str | os.PathLike[str] | None = None,
        start: str | None = None,
        address: str | None = None,
        token: str | None = None,
    ) -> AsyncSession:
        """As :meth:`outlive.Session.new`."""
        daemon = _Daemon(_where.find(address, token))
        return cls(daemon, await daemon.call(_calls.new(id, kernel, cwd, start)))

    async def __aenter__(self) -> AsyncSession:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the session as it is: what runs goes on."""

    def __repr__(self) -> str:
        return f"<AsyncSession {self.id} {self._state.path or 'untitled'}>"

    @property
    def id(self) -> str:
        """The session's id, for life."""
        return self._state.id

    @property
    def path(self) -> str | None:
        """The file at the last look (:meth:`state` looks); `None` while it is untitled."""
        return self._state.path

    async def _do(self, call: Call[T]) -> T:
        result = await self._daemon.call(call)
        if isinstance(result, State):
            self._state = result
        return result

    async def state(self) -> State:
        """The session as it is now."""
        return await self._do(_calls.state(self.id))

    async def notebook(self, *, outputs: bool = False) -> Notebook:
        """The notebook as it is now."""
        return await self._do(_calls.notebook(self.id, outputs))

    async def cells(self, *, outputs: bool = False) -> list[Cell]:
        """Its cells as they are now."""
        return (await self.notebook(outputs=outputs)).cells

    async def edit(self, *edits: dict[str, Any]) -> list[str]:
        """Edits as the API has them (`CellEdit`), all or nothing; gives the cell of each."""
        return await self._do(_calls.edit(self.id, edits))

    async def insert(
        self,
        source: str,
        *,
        kind: str = "code",
        after: str | None = None,
        index: int | None = None,
        cell: str | None = None,
    ) -> str:
        """Puts a new cell (at the end without `after` or `index`); gives its id."""
        return (await self.edit(_calls.insert(source, kind, after, index, cell)))[0]

    async def set_source(self, cell: str, source: str, *, expected: str | None = None) -> None:
        """As :meth:`outlive.Session.set_source`."""
        await self.edit(_calls.given(edit="set_source", cell=cell, source=source, expected=expected))

    async def delete(self, cell: str) -> None:
        """Removes a cell."""
        await self.edit({"edit": "delete", "cell": cell})

    async def submit(
        self,
        *cells: str,
        code: str | None = None,
        required: str | None = None,
        expected: Mapping[str, str] | None = None,
    ) -> list[Run]:
        """As :meth:`outlive.Session.submit`."""
        return await self._do(_calls.submit(self.id, code, cells or None, required, expected))

    async def run(
        self,
        cell: str | None = None,
        *,
        code: str | None = None,
        expected: str | None = None,
        check: bool = True,
        on_question: _Ask | None = None,
    ) -> Run:
        """As :meth:`outlive.Session.run`; `on_question` may give an awaitable. Cancelling this does not cancel the
        run."""
        runs = await self._queued(_calls.run(self.id, cell, code, expected), on_question)
        run = await self.wait(runs[0])
        if check and not run.succeeded:
            raise RunFailed(run)
        return run

    async def run_all(
        self, *, seen: Notebook | None = None, check: bool = True, on_question: _Ask | None = None
    ) -> list[Run]:
        """As :meth:`outlive.Session.run_all`; `on_question` may give an awaitable."""
        runs = [await self.wait(run) for run in await self._queued(_calls.run_all(self.id, seen), on_question)]
        for run in runs if check else []:
            if not run.succeeded:
                raise RunFailed(run)
        return runs

    async def _queued(self, call: Call[list[Run]], ask: _Ask | None) -> list[Run]:
        """Queues work. Where somebody can be asked, until it has ended."""
        if ask is None:
            return await self._do(call)
        request = _calls.events(self.id, "head", outputs=False, interactive=True)
        attended: Attended | None = None
        question: Question | None = None
        value = ""
        while True:
            answered, question = question, None
            # Somebody has to be there before a run begins, and before an answer lets it go on to the next question. Who
            # thinks about an answer need not be: the daemon may be restarted meanwhile.
            async with aclosing(self._daemon.stream(request)) as events:
                async for event in events:
                    attended = attended or Attended(await self._do(call))
                    if answered is None:
                        question = attended.take(event)
                    else:
                        with unless_answered():
                            await self.answer(answered.run, value)
                        attended.end(await self.runs())
                        answered = None
                        question = attended.asked(await self.state())
                    if question is not None or attended.over:
                        break
            if question is None:
                return attended.runs if attended else await self._do(call)
            reply = ask(question)
            value = reply if isinstance(reply, str) else await reply

    async def wait(self, run: Run) -> Run:
        """Follows a run to its end; its `chunks` hold its output."""
        run.chunks.clear()
        async for event in self._daemon.stream(_calls.run_events(self.id, run.id)):
            collect(run, event)
        for chunk in large(run):
            # It may have been trimmed since.
            with suppress(NotFound):
                fill(chunk, await self.blob(chunk["blob"]["sha256"]))
        return run

    async def cancel(self, run: Run | str) -> Run:
        """Takes back a run that waits, or interrupts it where it runs."""
        return await self._do(_calls.cancel(self.id, run_id(run)))

    async def answer(self, run: Run | str, value: str) -> None:
        """As :meth:`outlive.Session.answer`."""
        await self._do(_calls.answer(self.id, run_id(run), value))

    async def runs(self) -> list[Run]:
        """All its runs, in the order in which they were queued."""
        return await self._do(_calls.runs(self.id))

    async def outputs(self, cell: str) -> list[dict[str, Any]]:
        """A cell's outputs in nbformat's form."""
        return await self._do(_calls.outputs(self.id, cell))

    async def blob(self, sha256: str) -> bytes:
        """The content of a large output, as its `blob` names it."""
        return await self._do(_calls.blob(self.id, sha256))

    async def reports(self) -> list[dict[str, Any]]:
        """Its failures, oldest first, with their causes."""
        return await self._do(_calls.reports(self.id))

    async def events(
        self, *, after: int | None = None, outputs: bool = True, interactive: bool = False
    ) -> AsyncIterator[Event]:
        """As :meth:`outlive.Session.events`."""
        begin = "head" if after is None else str(after)
        async for event in self._daemon.stream(_calls.events(self.id, begin, outputs, interactive)):
            yield event

    async def save(self, path: str | os.PathLike[str] | None = None, *, overwrite: bool = False) -> SavedPath:
        """Saves; an untitled notebook needs a path, once. Gives the file."""
        saved = await self._saved("save", path, overwrite)
        tell(_calls.stayed(saved))
        return saved

    async def save_as(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> SavedPath:
        """As :meth:`outlive.Session.save_as`."""
        saved = await self._saved("save_as", path, overwrite)
        tell(_calls.stayed(saved))
        return saved

    async def save_copy(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> SavedPath:
        """Writes a copy and gives its file; the session stays where it is."""
        return await self._saved("copy", path, overwrite)

    async def _saved(self, how: str, path: str | os.PathLike[str] | None, overwrite: bool) -> SavedPath:
        self._state, saved = await self._do(_calls.save(self.id, path, how, overwrite))
        return saved

    async def interrupt(self) -> State:
        """Interrupts what runs; what is queued behind it is cancelled."""
        return await self._do(_calls.wish(self.id, "interrupt"))

    async def restart(self) -> State:
        """Starts the kernel anew; what runs and waits is cancelled."""
        return await self._do(_calls.wish(self.id, "restart", {}))

    async def rest(self) -> State:
        """Stops the kernel and keeps the session; the next run starts it again."""
        return await self._do(_calls.wish(self.id, "rest", {}))

    async def trust(self, trusted: bool = True) -> State:
        """Vouches for the notebook, or takes that back."""
        return await self._do(_calls.wish(self.id, "trust", {"trust": "trusted" if trusted else "untrusted"}))

    async def close(self, *, discard: bool = False) -> State:
        """As :meth:`outlive.Session.close`."""
        return await self._do(_calls.wish(self.id, "close", {"discard": discard}))
